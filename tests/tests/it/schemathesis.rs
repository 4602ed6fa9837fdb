//! The service against its own document: schemathesis reads `/openapi.json` of a running service and tries every
//! operation, with the document's examples, at every edge of every shape, at random, and in chains of requests.
//!
//! Nothing may be a server error, nothing may be answered with what the document does not promise, nothing that it allows
//! may be refused, and nothing that it forbids accepted. What the tool cannot know is in `tests/rigs/schemathesis*`.
//!
//! Soak: `ORDER_TESTS_SCHEMATHESIS_EXAMPLES=200 ORDER_TESTS_SCHEMATHESIS_SEED=7 cargo test -p order-tests schemathesis`

use std::path::PathBuf;
use std::process::Command;

use crate::service::{Service, binary};
use crate::workspace;

/// Requests an operation is tried with at random.
const EXAMPLES: &str = "10";
/// The same requests in every run: a change fails because of itself.
const SEED: &str = "1";

#[test]
fn nothing_the_api_answers_contradicts_its_document() {
    let Some(program) = schemathesis() else {
        eprintln!(
            "LEFT OUT: schemathesis is not installed (`./test setup` does), so the document was not tried"
        );
        return;
    };
    let data = tempfile::tempdir().expect("a temporary directory");
    let elsewhere = tempfile::tempdir().expect("a temporary directory");
    let mut patient = Command::new(binary());
    patient.env("ORDER_SERVICE__API__READ_PATIENCE_MS", "20000");
    let service = Service::start_as(patient, data.path(), &["--partitions", "2"]);
    let rigs = workspace::root().join("tests/rigs");
    let output = Command::new(program)
        .current_dir(elsewhere.path())
        .env("PYTHONPATH", &rigs)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("SCHEMATHESIS_HOOKS", "schemathesis_hooks")
        .arg("--config-file")
        .arg(rigs.join("schemathesis.toml"))
        .args(["run", &service.url("/openapi.json")])
        .args(["--phases", "examples,coverage,fuzzing,stateful"])
        .args([
            "--max-examples",
            &setting("ORDER_TESTS_SCHEMATHESIS_EXAMPLES", EXAMPLES),
        ])
        .args(["--seed", &setting("ORDER_TESTS_SCHEMATHESIS_SEED", SEED)])
        // One worker: CPython 3.11 cannot parse its own sources in two threads at once.
        .args(["--workers", "1", "--request-timeout", "60"])
        .args(["--generation-database", "none"])
        .args(["--suppress-health-check", "all"])
        .args(["--continue-on-failure", "--no-color"])
        .output()
        .expect("schemathesis runs");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}\n{output:?}");

    // It tried what it was to try.
    for phase in ["Examples", "Coverage", "Fuzzing", "Stateful"] {
        let passed = told
            .lines()
            .any(|line| line.contains('✅') && line.contains(phase));
        assert!(passed, "{phase}: {told}");
    }
    let operations = told
        .lines()
        .find_map(|line| line.trim().strip_prefix("Operations:"))
        .unwrap_or_else(|| panic!("no count of operations: {told}"));
    let counts: Vec<&str> = operations
        .split_whitespace()
        .filter(|word| word.parse::<u32>().is_ok())
        .collect();
    assert!(
        matches!(counts[..], [selected, total] if selected == total),
        "not all operations were tried: {operations}"
    );
    assert!(service.terminate().success());
}

/// Where `./test setup` puts it, or one on the path.
fn schemathesis() -> Option<PathBuf> {
    let made = workspace::root().join("target/tools/schemathesis/bin/schemathesis");
    let found = [made, PathBuf::from("schemathesis")];
    found.into_iter().find(|program| {
        let asked = Command::new(program).arg("--version").output();
        asked.is_ok_and(|asked| asked.status.success())
    })
}

fn setting(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}
