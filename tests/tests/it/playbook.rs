//! `docs/operations.md` as a script. A test opens one of its sections and takes the steps of the section's console
//! blocks, one after the other, exactly as they stand there: the command is run by a shell, and what it prints is held
//! against the lines below it. In between the test makes the trouble, and asks the service what an operator would see.
//!
//! In the document `…` stands for any text, a line of it alone for any number of lines, and 127.0.0.1:8080 for wherever the
//! service of the test listens. How wide a column is makes no difference. A section that was opened must be played to its end, so no console of it can rot.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::service::{PATIENCE, Service, binary};
use crate::workspace;

/// Where the service listens in the document.
const ADDRESS_OF_THE_DOCUMENT: &str = "127.0.0.1:8080";
/// Between two looks at something that should happen by itself.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// One command of a console block, with what it should print.
#[derive(Debug, Clone)]
struct Step {
    command: String,
    output: Vec<String>,
}

/// One section of the document, being played.
pub(crate) struct Playbook {
    heading: &'static str,
    steps: std::vec::IntoIter<Step>,
    place: tempfile::TempDir,
    address: Option<String>,
    variables: BTreeMap<String, String>,
}

/// The document's text.
fn document() -> String {
    std::fs::read_to_string(workspace::root().join("docs/operations.md"))
        .expect("the document is in the repository")
}

/// The headings whose text has consoles right below them, with their steps, in the document's order.
fn sections() -> Vec<(String, Vec<Step>)> {
    let mut sections: Vec<(String, Vec<Step>)> = Vec::new();
    let mut heading = String::new();
    let mut fence: Option<String> = None;
    for line in document().lines() {
        if let Some(language) = line.strip_prefix("```") {
            fence = match fence {
                None => Some(language.to_owned()),
                Some(_) => None,
            };
            continue;
        }
        match fence.as_deref() {
            None if line.starts_with('#') => {
                heading = line.trim_start_matches('#').trim().to_owned();
            }
            Some("console") => {
                if sections.last().is_none_or(|(last, _)| *last != heading) {
                    sections.push((heading.clone(), Vec::new()));
                }
                let (_, steps) = sections.last_mut().expect("one was pushed");
                take_line(steps, line);
            }
            _ => {}
        }
    }
    assert_eq!(fence, None, "a block of the document does not end");
    sections
}

fn take_line(steps: &mut Vec<Step>, line: &str) {
    if let Some(command) = line.strip_prefix("$ ") {
        steps.push(Step {
            command: command.to_owned(),
            output: Vec::new(),
        });
        return;
    }
    let step = steps.last_mut().expect("a console begins with a command");
    match step.command.strip_suffix('\\') {
        Some(begun) => step.command = format!("{begun}{}", line.trim_start()),
        None => step.output.push(line.to_owned()),
    }
}

/// The headings that have consoles.
pub(crate) fn headings() -> Vec<String> {
    sections().into_iter().map(|(heading, _)| heading).collect()
}

/// How a command ended.
struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Playbook {
    /// Opens the section below `heading` in a directory of its own; `None` where a program it calls is not installed.
    pub(crate) fn open(heading: &'static str) -> Option<Self> {
        let (_, steps) = sections()
            .into_iter()
            .find(|(found, _)| found == heading)
            .unwrap_or_else(|| panic!("the document has no consoles below `{heading}`"));
        for program in ["curl", "sqlite3"] {
            let called = steps.iter().any(|step| step.command.contains(program));
            if called && Command::new(program).arg("--version").output().is_err() {
                eprintln!("LEFT OUT: `{program}` is not installed, so `{heading}` was not played");
                return None;
            }
        }
        let place = tempfile::tempdir().expect("a temporary directory");
        let programs = place.path().join("bin");
        std::fs::create_dir(&programs).expect("the directory is ours");
        std::os::unix::fs::symlink(binary(), programs.join("order-service"))
            .expect("the directory takes a link");
        Some(Self {
            heading,
            steps: steps.into_iter(),
            place,
            address: None,
            variables: BTreeMap::new(),
        })
    }

    /// The data directory of the section: `data`, where commands look by themselves.
    pub(crate) fn data(&self) -> PathBuf {
        self.place.path().join("data")
    }

    /// Where the commands are run.
    pub(crate) fn place(&self) -> &Path {
        self.place.path()
    }

    /// Says what a variable of the document stands for.
    pub(crate) fn set(&mut self, name: &str, value: impl Into<String>) {
        self.variables.insert(name.to_owned(), value.into());
    }

    /// Starts the service with `arguments`, on `data`; from now on commands that name an address reach it.
    pub(crate) fn start(&mut self, command: Command, arguments: &[&str]) -> Service {
        let service = Service::start_as(command, &self.data(), arguments);
        self.address = Some(service.address().to_string());
        service
    }

    /// The next step, a start of the service, as it stands there.
    pub(crate) fn serve(&mut self, command: &str) -> Service {
        let step = self.take(command);
        let arguments: Vec<String> = step
            .command
            .split_whitespace()
            .skip_while(|word| *word != "serve")
            .skip(1)
            .map(str::to_owned)
            .collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.start(Command::new(binary()), &arguments)
    }

    /// The next step, which must succeed and print what stands there; returns what it printed.
    pub(crate) fn run(&mut self, command: &str) -> String {
        let step = self.take(command);
        let ran = self.shell(&step);
        assert_eq!(ran.code, Some(0), "{}", self.told(&step, &ran));
        assert!(
            as_written(&step.output, &ran.stdout),
            "{}",
            self.told(&step, &ran)
        );
        ran.stdout
    }

    /// The next step, which must end with `code` and say what stands there.
    pub(crate) fn fail(&mut self, command: &str, code: i32) -> String {
        let step = self.take(command);
        let ran = self.shell(&step);
        assert_eq!(ran.code, Some(code), "{}", self.told(&step, &ran));
        let said = format!("{}{}", ran.stdout, ran.stderr);
        assert!(
            as_written(&step.output, &said),
            "{}",
            self.told(&step, &ran)
        );
        said
    }

    /// The next step, asked again and again until it prints what stands there.
    pub(crate) fn eventually(&mut self, command: &str) -> String {
        let step = self.take(command);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ran = self.shell(&step);
            if ran.code == Some(0) && as_written(&step.output, &ran.stdout) {
                return ran.stdout;
            }
            assert!(
                Instant::now() < deadline,
                "in vain: {}",
                self.told(&step, &ran)
            );
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// The section has come to its end.
    pub(crate) fn end(&mut self) {
        let left: Vec<String> = self.steps.by_ref().map(|step| step.command).collect();
        assert!(
            left.is_empty(),
            "`{}` was not played: {left:#?}",
            self.heading
        );
    }

    fn take(&mut self, command: &str) -> Step {
        let step = self.steps.next();
        let step = step.unwrap_or_else(|| panic!("`{}` has no more steps", self.heading));
        assert!(
            step.command.starts_with(command),
            "the next step of `{}` is `{}`, not `{command}`",
            self.heading,
            step.command
        );
        step
    }

    fn shell(&self, step: &Step) -> Ran {
        let mut path = self.place.path().join("bin").into_os_string();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        let command = match &self.address {
            Some(address) => step.command.replace(ADDRESS_OF_THE_DOCUMENT, address),
            None => step.command.clone(),
        };
        let output = Command::new("sh")
            .args(["-c", &command])
            .current_dir(self.place.path())
            .env("PATH", path)
            .envs(&self.variables)
            .output()
            .expect("there is a shell");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).replace('\r', "");
        Ran {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    fn told(&self, step: &Step, ran: &Ran) -> String {
        format!(
            "`{}`: {}\nshould print\n{}\nprints, and ends with {:?}\n{}{}",
            self.heading,
            step.command,
            step.output.join("\n"),
            ran.code,
            ran.stdout,
            ran.stderr
        )
    }
}

/// Whether `text` is what the lines of the document say.
fn as_written(expected: &[String], text: &str) -> bool {
    let narrow = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let found: Vec<String> = text.trim_end().lines().map(narrow).collect();
    let expected: Vec<String> = expected.iter().map(|line| narrow(line)).collect();
    lines_match(&expected, &found)
}

fn lines_match(expected: &[String], found: &[String]) -> bool {
    match (expected, found) {
        ([], []) => true,
        ([any, rest @ ..], _) if any == "…" => {
            (0..=found.len()).any(|skip| lines_match(rest, &found[skip..]))
        }
        ([line, rest @ ..], [first, others @ ..]) => {
            line_matches(line, first) && lines_match(rest, others)
        }
        _ => false,
    }
}

/// Whether `line` is what `pattern` says, where `…` is any text.
fn line_matches(pattern: &str, line: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('…') else {
        return pattern == line;
    };
    let Some(line) = line.strip_prefix(first) else {
        return false;
    };
    line.char_indices()
        .map(|(at, _)| at)
        .chain([line.len()])
        .any(|at| line_matches(rest, &line[at..]))
}

#[test]
fn what_a_console_prints_is_held_against_the_document_line_by_line() {
    let expected = ["one …", "…", "last 2"].map(str::to_owned);
    for text in ["one\u{20}thing\nlast 2\n", "one x\nand\nmore\nlast 2"] {
        assert!(as_written(&expected, text), "{text}");
    }
    for text in [
        "",
        "one x",
        "one x\nlast 2\nand more",
        "two x\nlast 2",
        "one x\nlast 22",
    ] {
        assert!(!as_written(&expected, text), "{text}");
    }
    assert!(line_matches("a…b…c", "a1b2b3c"));
    assert!(!line_matches("a…b…c", "a1c"));
}
