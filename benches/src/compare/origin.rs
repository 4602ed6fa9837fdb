//! Where a report comes from: which command made it, when, of which program, and what it was told to do.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use order_domain::Timestamp;
use serde::Serialize;

use super::plan::Plan;

/// What it takes to make a report again.
#[derive(Debug, Clone, Serialize)]
pub struct Origin {
    /// The command line, program included.
    pub command: Vec<String>,
    /// When the run began, in UTC.
    pub begun_at: String,
    /// What the service says of its version; `None` if it says nothing.
    pub version: Option<String>,
    /// The commit that was checked out around the service's program when the run began, with `-dirty` behind it if files
    /// were changed; `None` if there is no repository, or no `git`. A program built before a checkout is older than it says.
    pub commit: Option<String>,
    /// What was measured, and for how long.
    pub plan: Plan,
}

impl Origin {
    /// Asks the service's program and the repository around it.
    pub(super) fn of(command: Vec<String>, service: &Path, plan: Plan) -> Self {
        let micros = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_micros());
        let now = Timestamp::from_micros(u64::try_from(micros).unwrap_or(u64::MAX));
        Self {
            command,
            begun_at: now.to_string(),
            version: said_by(Command::new(service).arg("--version")),
            commit: service.parent().and_then(commit_around),
            plan,
        }
    }

    /// The version without the program's name in front.
    fn version_number(&self) -> Option<String> {
        let version = self.version.as_deref()?;
        Some(version.rsplit(' ').next().unwrap_or(version).to_owned())
    }

    /// As rows of the report.
    pub(super) fn rows(&self) -> Vec<(String, String)> {
        let unknown = || "unknown".to_owned();
        let commit = self.commit.clone().unwrap_or_else(unknown);
        vec![
            (
                "command".to_owned(),
                format!("`{}`", self.command.join(" ")),
            ),
            ("begun".to_owned(), self.begun_at.clone()),
            (
                "version, and commit around the program".to_owned(),
                format!(
                    "{}, {commit}",
                    self.version_number().unwrap_or_else(unknown)
                ),
            ),
            ("plan".to_owned(), self.plan.words()),
        ]
    }
}

fn commit_around(directory: &Path) -> Option<String> {
    said_by(Command::new("git").arg("-C").arg(directory).args([
        "describe",
        "--always",
        "--abbrev=12",
        "--exclude=*",
        "--dirty",
    ]))
}

/// What a program prints, if it ends well.
pub(super) fn said_by(command: &mut Command) -> Option<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_names_its_command_and_when_it_began() {
        let command = vec!["compare".to_owned(), "--quick".to_owned()];
        let origin = Origin::of(command, Path::new("/nowhere/order-service"), Plan::quick());
        assert_eq!((&origin.version, &origin.commit), (&None, &None));
        assert!(origin.begun_at.starts_with("20") && origin.begun_at.ends_with('Z'));
        let rows = origin.rows();
        assert_eq!(rows[0].1, "`compare --quick`");
        assert!(rows[3].1.contains("100000 events"), "{rows:?}");
        let json = serde_json::to_value(&origin).unwrap();
        assert_eq!(json["plan"]["questions"][0], "ingest");
        assert_eq!(json["plan"]["duration"], 1.0);
    }

    #[test]
    fn a_report_names_the_commit_around_the_program_and_whether_it_was_changed() {
        if said_by(Command::new("git").arg("--version")).is_none() {
            eprintln!("LEFT OUT: git is not installed");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let git = |arguments: &[&str]| {
            let mut command = Command::new("git");
            command
                .arg("-C")
                .arg(directory.path())
                .args([
                    "-c",
                    "user.name=nobody",
                    "-c",
                    "user.email=nobody@localhost",
                ])
                .args(["-c", "commit.gpgsign=false"])
                .args(arguments);
            let output = command.output().unwrap();
            assert!(output.status.success(), "{command:?}: {output:?}");
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        let file = directory.path().join("file");
        std::fs::write(&file, "one").unwrap();
        git(&["init", "--quiet"]);
        git(&["add", "file"]);
        git(&["commit", "--quiet", "--message", "one"]);
        let head = git(&["rev-parse", "--short=12", "HEAD"]);
        let told = || {
            let service = directory.path().join("order-service");
            Origin::of(vec!["compare".to_owned()], &service, Plan::quick())
        };
        let origin = told();
        assert_eq!(origin.commit.as_deref(), Some(head.as_str()));
        assert_eq!(origin.rows()[2].1, format!("unknown, {head}"));
        std::fs::write(&file, "another").unwrap();
        assert_eq!(told().commit, Some(format!("{head}-dirty")));
    }
}
