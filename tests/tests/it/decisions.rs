//! The decision records: each is listed, says how it stands, and names things in its confirmation that are there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::workspace;

#[test]
fn every_decision_is_listed_and_names_what_keeps_it_true() {
    let root = workspace::root();
    let folder = root.join("docs/adr");
    let list = fs::read_to_string(folder.join("README.md")).expect("the list reads");
    let functions: BTreeSet<String> = workspace::files(&root, &[".rs"])
        .iter()
        .flat_map(|path| functions_of(&fs::read_to_string(path).expect("the file reads")))
        .collect();
    let mut wrong = Vec::new();
    let records: Vec<_> = workspace::files(&folder, &[".md"])
        .into_iter()
        .filter(|path| !path.ends_with("README.md"))
        .collect();
    assert!(records.len() > 10, "{records:?}");
    for path in &records {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let text = fs::read_to_string(path).expect("the record reads");
        let status = text
            .strip_prefix("---\nstatus: ")
            .and_then(|rest| rest.lines().next())
            .unwrap_or_default();
        let title = text.lines().find_map(|line| line.strip_prefix("# "));
        let row = format!(
            "({name}) | {} | {status} |",
            title.unwrap_or("a record without a title")
        );
        if !list.contains(&row) {
            wrong.push(format!("the list has no row `{row}`"));
        }
        let Some((_, confirmation)) = text.split_once("\n### Confirmation\n") else {
            wrong.push(format!("{name} has no confirmation"));
            continue;
        };
        let names: Vec<_> = confirmation
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|name| is_test(name) || is_file(name))
            .collect();
        if names.is_empty() {
            wrong.push(format!("{name} names nothing that confirms it"));
        }
        for named in names {
            if !is_there(named, &root, &functions) {
                wrong.push(format!("{name} names `{named}`, which is not there"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The names of all functions that are declared in a file, comments aside: tests and the suites of simulations are such.
fn functions_of(code: &str) -> Vec<String> {
    code.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .filter_map(|line| line.split_once("fn "))
        .filter_map(|(before, rest)| {
            let name = rest.split(['(', '<']).next()?;
            let is_word = before.is_empty() || before.ends_with([' ', '(']);
            (is_word && name.len() < rest.len()).then(|| name.to_owned())
        })
        .collect()
}

#[test]
fn a_name_in_a_comment_or_the_beginning_of_one_is_no_test() {
    let code = "/// As fn told_in_a_comment() does.\n\
                    // fn switched_off() {}\n\
                    async fn a_claim_that_goes_on_and_on() {}\n\
                    fn suite_of<T>(it: T) {}\n";
    let functions: BTreeSet<String> = functions_of(code).into_iter().collect();
    let root = workspace::root();
    for (name, there) in [
        ("told_in_a_comment", false),
        ("switched_off", false),
        ("a_claim_that_goes_on", false),
        ("a_claim_that_goes_on_and_on", true),
        ("suite_of", true),
    ] {
        assert_eq!(is_there(name, &root, &functions), there, "{name}");
    }
}

/// Names of tests and suites are sentences.
fn is_test(name: &str) -> bool {
    let letters =
        |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_';
    name.contains('_') && name.chars().all(letters)
}

fn is_file(name: &str) -> bool {
    name.contains('/')
        && (name.ends_with(".rs") || name.ends_with(".toml") || name.ends_with(".md"))
}

fn is_there(name: &str, root: &Path, functions: &BTreeSet<String>) -> bool {
    if is_file(name) {
        root.join(name).is_file()
    } else {
        functions.contains(name)
    }
}
