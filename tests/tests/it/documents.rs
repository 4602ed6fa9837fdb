//! The documents tell the truth: links lead somewhere, and the README's session runs.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::service::{Service, run};
use crate::workspace;

#[test]
fn every_link_between_documents_leads_somewhere() {
    let root = workspace::root();
    let mut dead = Vec::new();
    for document in workspace::files(&root, &[".md"]) {
        let text = std::fs::read_to_string(&document).expect("the document reads");
        let folder = document.parent().expect("a file is in a folder");
        for target in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split([')', ' ']).next())
        {
            let path = target.split('#').next().unwrap_or_default();
            let is_outside = target.contains("://") || path.is_empty();
            if !is_outside && !folder.join(path).exists() {
                dead.push(format!("{}: {target}", document.display()));
            }
        }
    }
    assert!(dead.is_empty(), "dead links: {dead:#?}");
}

/// Names among the code spans of a document that are long and in snake case: of tests and metrics.
fn names_in(text: &str) -> impl Iterator<Item = &str> {
    let is_name = |span: &&str| {
        span.matches('_').count() >= 3
            && span
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    text.split('`').skip(1).step_by(2).filter(is_name)
}

#[test]
fn every_test_and_metric_that_a_document_names_exists() {
    let root = workspace::root();
    let sources: String = workspace::files(&root, &[".rs"])
        .iter()
        .map(|path| std::fs::read_to_string(path).expect("the source reads"))
        .collect();
    let mut missing = Vec::new();
    let mut named = 0;
    for document in workspace::files(&root.join("docs"), &[".md"]) {
        let text = std::fs::read_to_string(&document).expect("the document reads");
        for name in names_in(&text) {
            named += 1;
            if !sources.contains(name) {
                missing.push(format!("{}: {name}", document.display()));
            }
        }
    }
    assert!(
        named > 20,
        "only {named} names found: is the search broken?"
    );
    assert!(missing.is_empty(), "named and not there: {missing:#?}");
}

/// Every call of the binary that a document shows, in a block or within a line: the words behind the program's name.
fn calls_in(text: &str) -> Vec<Vec<String>> {
    let ends = |letter: char| "`|;&()>#".contains(letter);
    let joined = text.replace("\\\n", " ");
    let mut calls = Vec::new();
    for line in joined.lines() {
        for (at, name) in line.match_indices("order-service ") {
            let before = &line[..at];
            let word = before.split_whitespace().next_back().unwrap_or("$");
            let is_call =
                before.ends_with('`') || ["$", "|", "&&"].contains(&word) || word.contains('=');
            if is_call {
                let rest = line[at + name.len()..].split(ends).next();
                let words = rest.unwrap_or_default().split_whitespace();
                calls.push(words.map(str::to_owned).collect());
            }
        }
    }
    calls
}

#[test]
fn every_subcommand_and_flag_that_a_document_names_exists() {
    let root = workspace::root();
    let mut helps: std::collections::BTreeMap<Vec<String>, String> = Default::default();
    let mut help_of = |subcommand: &[String]| {
        helps
            .entry(subcommand.to_vec())
            .or_insert_with(|| {
                let mut words = subcommand.to_vec();
                words.push("--help".to_owned());
                let help = run(&words);
                if help.status.success() {
                    String::from_utf8_lossy(&help.stdout).into_owned()
                } else {
                    String::new()
                }
            })
            .clone()
    };
    let (mut wrong, mut flags) = (Vec::new(), 0);
    for document in workspace::files(&root, &[".md"]) {
        let text = std::fs::read_to_string(&document).expect("the document reads");
        for call in calls_in(&text) {
            let flag = |word: &&String| word.starts_with("--") && word.len() > 2;
            // `serve`, or `log verify`: as much of the call as the binary knows.
            let known = (1..=2.min(call.len()))
                .rev()
                .map(|words| &call[..words])
                .find(|words| {
                    let plain = |word: &String| {
                        word.bytes()
                            .all(|byte| byte.is_ascii_lowercase() || byte == b'-')
                            && !word.starts_with('-')
                    };
                    words.iter().all(plain) && help_of(words).contains("Usage:")
                })
                .map(<[String]>::to_vec);
            let Some(known) = known else {
                wrong.push(format!("{}: {call:?}", document.display()));
                continue;
            };
            let help = help_of(&known);
            for word in call.iter().filter(flag) {
                flags += 1;
                let name = word.split('=').next().unwrap_or_default();
                let name = name.trim_end_matches([',', '.', ':']);
                if !help.contains(name) {
                    wrong.push(format!("{}: {known:?} {name}", document.display()));
                }
            }
        }
    }
    assert!(
        flags > 30,
        "only {flags} flags found: is the search broken?"
    );
    assert!(wrong.is_empty(), "named and not there: {wrong:#?}");
}

/// The commands of the README's consoles that begin with `program`, each with the lines it goes on over.
fn commands_of_readme(program: &str) -> Vec<String> {
    let text = std::fs::read_to_string(workspace::root().join("README.md")).expect("a README");
    let mut commands: Vec<String> = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(command) = line.strip_prefix("$ ") else {
            continue;
        };
        let mut command = command.to_owned();
        // A quote that is open goes on in the next line.
        while command.matches('\'').count() % 2 == 1 {
            command.push_str(lines.next().expect("a quote ends"));
        }
        if command.starts_with(program) {
            commands.push(command);
        }
    }
    commands
}

fn shell(command: &str, id: &str, directory: &Path) -> String {
    let output = Command::new("sh")
        .args(["-c", &format!("id={id}; {command}")])
        .current_dir(directory)
        .output()
        .expect("there is a shell");
    assert!(output.status.success(), "{command}: {output:?}");
    String::from_utf8(output.stdout).expect("the output is UTF-8")
}

#[test]
fn the_readmes_session_runs_as_written() {
    if Command::new("curl").arg("--version").output().is_err() {
        eprintln!("LEFT OUT: `curl` is not installed, so the README's session was not run");
        return;
    }
    let data = tempfile::tempdir().expect("a temporary directory");
    let service = Service::start(data.path(), &[]);
    let address = service.address().to_string();
    let commands = commands_of_readme("curl");
    assert!(commands.len() >= 6, "{commands:?}");

    let mut id = String::new();
    let mut refused = 0;
    for (number, command) in commands.iter().enumerate() {
        let answer = shell(
            &command.replace("localhost:8080", &address),
            &id,
            data.path(),
        );
        if number == 0 {
            assert!(answer.starts_with("HTTP/1.1 201"), "{command}: {answer}");
            let body = answer.lines().last().unwrap_or_default();
            let order: Value = serde_json::from_str(body).expect("the body is JSON");
            assert_eq!(order["total"], 3998);
            id = order["id"].as_str().expect("an order has an id").to_owned();
        }
        if answer.contains("urn:order-service:problem:") {
            assert!(answer.contains("invalid-transition"), "{command}: {answer}");
            refused += 1;
        }
    }
    assert_eq!(refused, 1, "one step of the session is meant to be refused");
}
