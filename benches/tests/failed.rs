//! A comparison in which a contestant fails: what was measured is kept, the failure is told, and the program ends with 1.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use order_benches::compare::{CompareConfig, Generator, Plan, Question, compare};

/// In place of the service: it does not know how to serve, and ends at once.
const NO_SERVICE: &str = env!("CARGO_BIN_EXE_limits");

/// A question that fails costs its own figures and no others.
#[test]
fn what_was_measured_before_and_after_a_failure_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    let evidence = compare(&CompareConfig {
        command: vec!["whole".to_owned()],
        service: NO_SERVICE.into(),
        service_arguments: Vec::new(),
        bare: env!("CARGO_BIN_EXE_bare-http").into(),
        work_directory: directory.path().to_owned(),
        plan: Plan {
            questions: vec![Question::Ingest, Question::Partitions, Question::Lag],
            duration: Duration::from_millis(100),
            warm_up: Duration::from_millis(100),
            connections: vec![4],
            // The bare reference alone.
            layouts: Vec::new(),
            events: Vec::new(),
            ..Plan::quick()
        },
        generator: Generator::Own,
    })
    .unwrap();
    let asked: Vec<_> = evidence.experiments.iter().map(|it| it.key).collect();
    assert_eq!(asked, ["partitions"]);
    let [check] = evidence.checks.as_slice() else {
        panic!("{:#?}", evidence.checks);
    };
    assert_eq!(check.claim, "Every question was asked to its end");
    assert!(!check.holds && !evidence.holds());
    for part in [
        "not in 2 of 3: ingest, 4 connections: start ",
        "lag: start ",
    ] {
        assert!(check.detail.contains(part), "{check:?}");
    }
}

#[test]
fn a_comparison_that_fails_saves_its_report_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("report");
    let (reader, writer) = std::io::pipe().unwrap();
    let mut comparison = Command::new(env!("CARGO_BIN_EXE_compare"))
        .args(["--quick", "--only", "cold-start", "--events", "100"])
        .args(["--service", NO_SERVICE])
        .arg("--work-directory")
        .arg(directory.path().join("work"))
        .arg("--out")
        .arg(&out)
        .stdout(writer)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Whoever read along leaves after the first line.
    let mut lines = BufReader::new(reader);
    lines.read_line(&mut String::new()).unwrap();
    drop(lines);
    assert_eq!(comparison.wait().unwrap().code(), Some(1));
    let report = fs::read(out.join("report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    assert_eq!(report["checks"][0]["holds"], false, "{report}");
    assert!(out.join("report.md").is_file());
}
