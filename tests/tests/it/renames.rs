//! Commands that are killed as they rename or remove, or whose calls fail: each rename is a moment at which what is on disk
//! changes its meaning.

use std::path::Path;
use std::process::{Command, Output};

use crate::service::binary;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Run {
    Killed,
    /// It made fewer renames.
    Done,
}

/// System calls that rename.
pub(crate) const RENAMES: &str = "/^rename";
/// System calls that remove names.
pub(crate) const REMOVALS: &str = "/^(unlink|rmdir)";

/// As [`run_killed_at`], for renames.
pub(crate) fn run_killed_at_rename(arguments: &[&str], last: &Path, when: usize) -> Option<Run> {
    run_killed_at(RENAMES, when, arguments, last)
}

/// Runs the binary with `arguments` and `last`, and kills it as it begins the call number `when`, from 1, of `calls`.
/// `None` where nothing can be traced.
pub(crate) fn run_killed_at(
    calls: &str,
    when: usize,
    arguments: &[&str],
    last: &Path,
) -> Option<Run> {
    let fault = format!("signal=KILL:when={when}");
    let output = run_with_fault(calls, &fault, arguments, last)?;
    if output.status.success() {
        return Some(Run::Done);
    }
    assert_eq!(
        output.status.code(),
        None,
        "it failed instead of being killed: {output:?}"
    );
    Some(Run::Killed)
}

/// Runs the binary with `arguments` and `last`, and `fault` injected into `calls`, as `strace` writes both. `None` where
/// nothing can be traced.
pub(crate) fn run_with_fault(
    calls: &str,
    fault: &str,
    arguments: &[&str],
    last: &Path,
) -> Option<Output> {
    let attempt = Command::new("strace")
        .args(["-f", "-o", "/dev/null", "true"])
        .status();
    if !attempt.is_ok_and(|status| status.success()) {
        eprintln!("LEFT OUT: `strace` is missing or may not trace here, so nothing failed");
        return None;
    }
    let output = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e"])
        .arg(format!("trace={calls}"))
        .arg("-e")
        .arg(format!("inject={calls}:{fault}"))
        .arg(binary())
        .args(arguments)
        .arg(last)
        .output();
    Some(output.expect("strace runs"))
}
