//! The binary under `strace`, which makes a system call of it fail, wait, or be its last.
//!
//! Where `strace` is missing or may not trace, whoever asked is told, and says loudly what is left out.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::service::binary;

/// Whether programs can be traced here; if not, it is said once a test.
pub(crate) fn can_trace(left_out: &str) -> bool {
    static CAN: OnceLock<bool> = OnceLock::new();
    let can = *CAN.get_or_init(|| {
        let attempt = Command::new("strace")
            .args(["-D", "-f", "-o", "/dev/null", "true"])
            .stderr(Stdio::null())
            .status();
        attempt.is_ok_and(|status| status.success())
    });
    if !can {
        eprintln!("LEFT OUT: `strace` is missing or may not trace here, so {left_out}");
    }
    can
}

/// A command that runs the binary with each `injection` (`fdatasync:error=EIO:when=3`, counted by thread) done to its
/// system calls: to those on `path` alone, if there is one. The binary is the command's own process; the tracer is in the background, and ends
/// with it.
pub(crate) fn with(injections: &[String], path: Option<&Path>) -> Command {
    let mut command = Command::new("strace");
    command.args(["-D", "-f", "-qq", "-o", "/dev/null"]);
    let calls: Vec<&str> = injections
        .iter()
        .filter_map(|injection| injection.split(':').next())
        .collect();
    command.arg("-e").arg(format!("trace={}", calls.join(",")));
    for injection in injections {
        command.arg("-e").arg(format!("inject={injection}"));
    }
    // Not `--seccomp-bpf`, which would spare the calls that nobody asked about: strace 6.1 then injects nothing into the
    // threads of a program.
    if let Some(path) = path {
        command.arg("-P").arg(path);
    }
    command.arg(binary());
    command
}
