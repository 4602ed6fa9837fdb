//! House rules a compiler does not check: see `CONTRIBUTING.md`.

use std::path::{Path, PathBuf};

use crate::workspace;

/// Longest source file that needs no reason for its length.
const LINES_MAX: usize = 500;

/// How the header of a longer file gives its reason.
const LONG_REASON: &str = "//! Long because ";

fn sources() -> Vec<(PathBuf, String)> {
    let found: Vec<_> = workspace::files(&workspace::root(), &[".rs"])
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(&path)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            (path, text)
        })
        .collect();
    assert!(
        found.len() > 20,
        "only {} source files found: is the walk broken?",
        found.len()
    );
    found
}

fn offenders(breaks_rule: impl Fn(&Path, &str) -> bool) -> Vec<PathBuf> {
    let root = workspace::root();
    sources()
        .into_iter()
        .filter(|(path, text)| breaks_rule(path, text))
        .map(|(path, _)| {
            path.strip_prefix(&root)
                .expect("found below the root")
                .to_owned()
        })
        .collect()
}

#[test]
fn every_file_opens_with_what_it_is_for() {
    let silent = offenders(|_, text| {
        let first = text.lines().find(|line| !line.starts_with("#!["));
        !first.is_some_and(|line| line.starts_with("//!"))
    });
    assert!(
        silent.is_empty(),
        "these do not open with `//!`: {silent:#?}"
    );
}

#[test]
fn a_long_file_says_why() {
    let unexplained = offenders(|_, text| {
        let explained = text
            .lines()
            .take_while(|line| line.starts_with("//!"))
            .any(|line| line.starts_with(LONG_REASON));
        text.lines().count() > LINES_MAX && !explained
    });
    assert!(
        unexplained.is_empty(),
        "over {LINES_MAX} lines without a `{LONG_REASON}…` in the header: {unexplained:#?}"
    );
}

#[test]
fn unsafe_code_is_forbidden_everywhere_but_in_the_log() {
    let permissive = offenders(|path, text| {
        let is_crate_root = path.ends_with("src/lib.rs") || path.ends_with("src/main.rs");
        let in_log = path.starts_with(workspace::root().join("log"));
        is_crate_root && !in_log && !text.contains("#![forbid(unsafe_code)]")
    });
    assert!(
        permissive.is_empty(),
        "these crates do not forbid unsafe code: {permissive:#?}"
    );
}

#[test]
fn no_test_is_switched_off_and_no_work_is_left_in_comments() {
    // Spelled in parts: this file is a source file too.
    let switched_off = concat!("#[", "ignore");
    let left = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("unimplemented", "!("),
    ];
    let unfinished = offenders(|_, text| {
        text.contains(switched_off) || left.iter().any(|word| text.contains(word))
    });
    assert!(unfinished.is_empty(), "unfinished: {unfinished:#?}");
}

#[test]
fn the_project_names_no_machine_of_its_makers() {
    let own_folders = ["/ho", "/ro", "/wo"].iter().zip(["me/", "ot/", "rk/"]);
    let own_folders: Vec<String> = own_folders
        .map(|(head, tail)| format!("{head}{tail}"))
        .collect();
    let mut found = Vec::new();
    let kinds = [".rs", ".md", ".toml", ".yml", ".yaml", ".json", ".sh"];
    for path in workspace::files(&workspace::root(), &kinds) {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        for (number, line) in text.lines().enumerate() {
            if own_folders
                .iter()
                .any(|folder| line.contains(folder.as_str()))
            {
                found.push(format!("{}:{}: {line}", path.display(), number + 1));
            }
        }
    }
    assert!(found.is_empty(), "paths of somebody's machine: {found:#?}");
}
