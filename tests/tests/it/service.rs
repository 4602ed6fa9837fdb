//! The service as a process: built once, started on a free port in a data directory of its own, ended by its process id.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use crate::workspace;

/// Longest wait for anything that should happen by itself. Only a failing test ever waits this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// Names another binary than the one these tests build: a release build for a soak.
const BINARY_VARIABLE: &str = "ORDER_TESTS_BINARY";

/// The binary under test.
pub(crate) fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os(BINARY_VARIABLE) {
        Some(path) => PathBuf::from(path),
        None => build(),
    })
}

/// Builds the binary in the profile of the tests, and asks Cargo where it is.
fn build() -> PathBuf {
    let mut command = workspace::cargo();
    command.args([
        "build",
        "--locked",
        "--package",
        "order-cli",
        "--message-format",
        "json",
    ]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "order-cli does not build");
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == "order-service")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .expect("cargo names the executable it built")
}

/// A run of a short command of the binary, to its end.
pub(crate) fn run<I, S>(arguments: I) -> Output
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    Command::new(binary())
        .args(arguments)
        .output()
        .expect("the binary runs")
}

/// Standard output of a command that must succeed.
pub(crate) fn stdout_of<I, S>(arguments: I) -> String
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let output = run(arguments);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("output is UTF-8")
}

/// A running service.
pub(crate) struct Service {
    child: Child,
    address: SocketAddr,
    messages: Arc<Mutex<Vec<String>>>,
}

/// A service that ended instead of listening.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: ExitStatus,
    pub(crate) message: String,
}

impl Service {
    /// Starts `serve` with `arguments` on a free port.
    pub(crate) fn start(data: &Path, arguments: &[&str]) -> Self {
        Self::try_start(data, arguments)
            .unwrap_or_else(|refusal| panic!("the service did not start: {refusal:?}"))
    }

    /// Starts `serve` and kills it, wherever it is then.
    pub(crate) fn kill_while_starting(data: &Path, arguments: &[&str], after: Duration) {
        let mut child = spawn(
            Command::new(binary()),
            "serve",
            data,
            arguments,
            Stdio::null(),
        );
        std::thread::sleep(after);
        child.kill().expect("the service can be killed");
        child.wait().expect("the service ended");
    }

    /// Starts `serve`, or returns what it said when it ended.
    pub(crate) fn try_start(data: &Path, arguments: &[&str]) -> Result<Self, Refusal> {
        Self::try_start_as(Command::new(binary()), data, arguments)
    }

    /// Starts another long-lived command than `serve`: `api` or `projector`.
    pub(crate) fn start_part(part: &str, data: &Path, arguments: &[&str]) -> Self {
        Self::try_start_part(part, data, arguments)
            .unwrap_or_else(|refusal| panic!("the {part} did not start: {refusal:?}"))
    }

    /// Starts another long-lived command than `serve`, or returns what it said when it ended.
    pub(crate) fn try_start_part(
        part: &str,
        data: &Path,
        arguments: &[&str],
    ) -> Result<Self, Refusal> {
        Self::listen(spawn(
            Command::new(binary()),
            part,
            data,
            arguments,
            Stdio::piped(),
        ))
    }

    /// Starts `serve` by a command that runs the binary as its own process: `strace -D` does.
    pub(crate) fn start_as(command: Command, data: &Path, arguments: &[&str]) -> Self {
        Self::try_start_as(command, data, arguments)
            .unwrap_or_else(|refusal| panic!("the service did not start: {refusal:?}"))
    }

    /// Starts `serve` by a command that runs the binary, or returns what it said when it ended.
    pub(crate) fn try_start_as(
        command: Command,
        data: &Path,
        arguments: &[&str],
    ) -> Result<Self, Refusal> {
        Self::listen(spawn(command, "serve", data, arguments, Stdio::piped()))
    }

    fn listen(mut child: Child) -> Result<Self, Refusal> {
        let messages = Arc::new(Mutex::new(Vec::new()));
        let listening = follow(&mut child, Arc::clone(&messages));
        match listening.recv_timeout(PATIENCE) {
            Ok(address) => Ok(Self {
                child,
                address,
                messages,
            }),
            Err(RecvTimeoutError::Disconnected) => {
                let status = child.wait().expect("the service ended");
                let message = messages.lock().expect("nobody panics with it").join("\n");
                Err(Refusal { status, message })
            }
            Err(RecvTimeoutError::Timeout) => {
                child.kill().expect("the service can be killed");
                panic!("the service neither listened nor ended: {messages:?}");
            }
        }
    }

    /// The URL of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The address it listens on.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address where it serves operators apart, if it was told to.
    pub(crate) fn admin_address(&self) -> SocketAddr {
        const WORDS: &str = "operators' endpoints on http";
        self.wait_for_message(WORDS);
        let messages = self.messages();
        let mut lines = messages.lines();
        lines
            .find_map(|line| address_behind(line, WORDS))
            .expect("the message has an address")
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it said so far.
    pub(crate) fn messages(&self) -> String {
        self.messages
            .lock()
            .expect("nobody panics with it")
            .join("\n")
    }

    /// SIGKILL: no handler runs, nothing is flushed.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("the service runs");
        self.child.wait().expect("the service ended");
    }

    /// Sends a signal by the name `kill` knows.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args(["-s", name, &self.pid().to_string()])
            .status()
            .expect("kill runs");
        assert!(status.success(), "kill -s {name}: {status}");
    }

    /// SIGTERM, and the status it ends with.
    pub(crate) fn terminate(mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait()
    }

    /// Waits until it has said `text`.
    pub(crate) fn wait_for_message(&self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.messages().contains(text) {
            assert!(
                Instant::now() < deadline,
                "`{text}` was not said:\n{}",
                self.messages()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until the process ends.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("the service is our child") {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "the service does not end:\n{}",
                self.messages()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn spawn(
    mut command: Command,
    part: &str,
    data: &Path,
    arguments: &[&str],
    stderr: Stdio,
) -> Child {
    command
        .args([part, "--log-format", "json", "--data-dir"])
        .arg(data)
        .args(arguments);
    if !arguments.contains(&"--listen") {
        command.args(["--listen", "127.0.0.1:0"]);
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr)
        .spawn()
        .expect("the binary starts")
}

impl Drop for Service {
    fn drop(&mut self) {
        let ended = matches!(self.child.try_wait(), Ok(Some(_)));
        if !ended && self.child.kill().is_ok() {
            let status = self.child.wait();
            assert!(
                status.is_ok() || std::thread::panicking(),
                "the service does not end"
            );
        }
        if std::thread::panicking() {
            eprintln!("--- what the service said\n{}\n---", self.messages());
        }
    }
}

/// Collects the messages of `child`; the receiver gets the address it listens on, and closes when the messages end.
fn follow(child: &mut Child, messages: Arc<Mutex<Vec<String>>>) -> Receiver<SocketAddr> {
    let stderr = child.stderr.take().expect("standard error is piped");
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut sender = Some(sender);
        for line in BufReader::new(stderr).lines() {
            let Ok(line) = line else { break };
            if let (Some(found), Some(waiting)) = (address_in(&line), &sender) {
                // Whoever started the service may have given up on it.
                if waiting.send(found).is_ok() {
                    sender = None;
                }
            }
            messages.lock().expect("nobody panics with it").push(line);
        }
    });
    receiver
}

fn address_in(line: &str) -> Option<SocketAddr> {
    address_behind(line, "listening on http")
}

/// The address behind `words`, which end in `http`.
fn address_behind(line: &str, words: &str) -> Option<SocketAddr> {
    let rest = line.split_once(words)?.1;
    let rest = rest.strip_prefix('s').unwrap_or(rest).strip_prefix("://")?;
    let end = rest.find(|letter: char| !(letter.is_ascii_digit() || ".:".contains(letter)))?;
    rest[..end].parse().ok()
}
