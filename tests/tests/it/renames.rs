//! Commands that are killed as they rename: each rename is a moment at which what is on disk changes its meaning.

use std::path::Path;
use std::process::Command;

use crate::service::binary;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Run {
    Killed,
    /// It made fewer renames.
    Done,
}

/// Runs the binary with `arguments` and `last`, and kills it as it begins its rename number `when`, from 1. `None` where
/// nothing can be traced.
pub(crate) fn run_killed_at_rename(arguments: &[&str], last: &Path, when: usize) -> Option<Run> {
    const RENAMES: &str = "/^rename";
    let attempt = Command::new("strace")
        .args(["-f", "-o", "/dev/null", "true"])
        .status();
    if !attempt.is_ok_and(|status| status.success()) {
        eprintln!("LEFT OUT: `strace` is missing or may not trace here, so nothing was killed");
        return None;
    }
    let output = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e"])
        .arg(format!("trace={RENAMES}"))
        .arg("-e")
        .arg(format!("inject={RENAMES}:signal=KILL:when={when}"))
        .arg(binary())
        .args(arguments)
        .arg(last)
        .output()
        .expect("strace runs");
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
