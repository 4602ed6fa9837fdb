//! The rooms and who may enter which: the table of `ARCHITECTURE.md`, held against what Cargo sees.
//!
//! `deny.toml` holds the other half: which room may use which outside package.

use std::collections::{BTreeMap, BTreeSet};

use crate::workspace;

/// Each production room with the rooms it may use. `benches`, `fuzz` and `tests` may use anything; nothing uses them.
const MAY_USE: &[(&str, &[&str])] = &[
    (
        "cli",
        &[
            "api",
            "command-workers",
            "domain",
            "log",
            "outbox",
            "partitioner",
            "projector-workers",
        ],
    ),
    (
        "api",
        &["command-workers", "domain", "outbox", "projector-workers"],
    ),
    ("command-workers", &["domain", "log", "partitioner"]),
    ("projector-workers", &["domain", "log", "partitioner"]),
    ("outbox", &["domain", "log", "partitioner"]),
    ("partitioner", &[]),
    ("log", &[]),
    ("domain", &[]),
];

/// Rooms that use anything and are used by nobody.
const OUTSIDE: &[&str] = &["benches", "fuzz", "tests"];

/// Room name → rooms it depends on, development dependencies left out.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let room = |name: &str| name.strip_prefix("order-").map(str::to_owned);
    let metadata = workspace::metadata();
    let packages = metadata["packages"]
        .as_array()
        .expect("cargo metadata lists packages");
    packages
        .iter()
        .map(|package| {
            let name = package["name"].as_str().expect("a package has a name");
            let uses = package["dependencies"]
                .as_array()
                .expect("a package has a list of dependencies")
                .iter()
                .filter(|dependency| dependency["kind"] != "dev" && dependency["path"].is_string())
                .filter_map(|dependency| room(dependency["name"].as_str()?))
                .collect();
            (
                room(name).unwrap_or_else(|| panic!("{name} is not named order-<room>")),
                uses,
            )
        })
        .collect()
}

#[test]
fn every_package_is_a_room_in_a_folder_of_its_name() {
    let metadata = workspace::metadata();
    for package in metadata["packages"]
        .as_array()
        .expect("cargo metadata lists packages")
    {
        let name = package["name"].as_str().expect("a package has a name");
        let manifest = package["manifest_path"]
            .as_str()
            .expect("a package has a manifest");
        let room = name.strip_prefix("order-").unwrap_or(name);
        let expected = workspace::root().join(room).join("Cargo.toml");
        assert_eq!(
            std::path::Path::new(manifest),
            expected,
            "{name} lives in the wrong folder"
        );
    }
    let known: BTreeSet<_> = MAY_USE
        .iter()
        .map(|(room, _)| *room)
        .chain(OUTSIDE.iter().copied())
        .collect();
    let found = dependencies();
    assert_eq!(
        found.keys().map(String::as_str).collect::<BTreeSet<_>>(),
        known
    );
}

#[test]
fn a_room_uses_only_the_rooms_to_its_right() {
    let found = dependencies();
    for (room, allowed) in MAY_USE {
        let allowed: BTreeSet<_> = allowed.iter().map(|name| (*name).to_owned()).collect();
        let strangers: Vec<_> = found[*room].difference(&allowed).collect();
        assert!(
            strangers.is_empty(),
            "`{room}` uses {strangers:?}, it may use {allowed:?}"
        );
    }
}

#[test]
fn nothing_uses_the_benches_or_the_tests() {
    for (room, uses) in dependencies() {
        let outside: Vec<_> = uses
            .iter()
            .filter(|name| OUTSIDE.contains(&name.as_str()))
            .collect();
        assert!(outside.is_empty(), "`{room}` uses {outside:?}");
    }
}
