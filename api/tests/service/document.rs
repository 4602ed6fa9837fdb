//! `docs/api.md` tells the truth: its commands are run in one shell, in order, and say what is written there.

use std::path::Path;
use std::process::Command;

use crate::world::{World, config};

/// A block of commands with the output written behind it, if any.
#[derive(Debug, Default)]
struct Step {
    commands: String,
    output: Option<String>,
}

fn steps() -> Vec<Step> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .join("docs/api.md");
    let text = std::fs::read_to_string(path).unwrap();
    let mut steps: Vec<Step> = Vec::new();
    for block in text.split("\n```").skip(1).step_by(2) {
        let (language, content) = block.split_once('\n').unwrap();
        match language {
            "sh" => steps.push(Step {
                commands: content.to_owned(),
                output: None,
            }),
            "text" => steps.last_mut().unwrap().output = Some(content.to_owned()),
            other => panic!("a block of {other}"),
        }
    }
    steps
}

/// Whether `line` is what `pattern` says, where `…` is any text.
fn matches(pattern: &str, line: &str) -> bool {
    let mut parts = pattern.split('…');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else {
        return false;
    };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = &rest[at + part.len()..];
    }
    true
}

const SEPARATOR: &str = "=== end of the step ===";

#[tokio::test(flavor = "multi_thread")]
async fn the_walk_through_the_api_runs_as_written() {
    if Command::new("curl").arg("--version").output().is_err() {
        eprintln!("LEFT OUT: `curl` is not installed, so the walk through the API was not run");
        return;
    }
    let world = World::with(config());
    let served = world.serve().await;
    let steps = steps();
    assert!(steps.len() > 15, "{} steps", steps.len());
    let mut script = String::from("set -eu\n");
    for step in &steps {
        script.push_str(&step.commands);
        script.push_str(&format!("\necho; echo '{SEPARATOR}'\n"));
    }
    let script = script.replace("localhost:8080", &served.address.to_string());
    let directory = tempfile::tempdir().unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).current_dir(directory.path());
    let run = tokio::task::spawn_blocking(move || shell.output().unwrap())
        .await
        .unwrap();
    let said = String::from_utf8(run.stdout).unwrap().replace('\r', "");
    let said: Vec<&str> = said.split(SEPARATOR).collect();
    for (step, said) in steps.iter().zip(&said) {
        let Some(output) = &step.output else {
            continue;
        };
        let expected: Vec<_> = output.trim().lines().collect();
        let found: Vec<_> = said.trim().lines().collect();
        let as_written = expected.len() == found.len()
            && expected
                .iter()
                .zip(&found)
                .all(|(pattern, line)| matches(pattern, line));
        assert!(
            as_written,
            "\n{}\nshould say\n{output}\nsays\n{said}",
            step.commands
        );
    }
    assert!(
        run.status.success(),
        "{}",
        String::from_utf8_lossy(&run.stderr)
    );
    assert_eq!(said.len(), steps.len() + 1, "the walk ended early");
}
