//! A contestant's process, or its two: started, waited for, ended; never left behind.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use hyper::StatusCode;
use rustix::process::{Pid, Signal, kill_process};
use tokio::runtime::Runtime;

use super::Contestant;
use super::contestant::{CommandLine, Programs};
use super::memory::MemoryWatch;
use crate::load::{Target, fetch};

/// How long a start may take: an empty service is ready within milliseconds, one that reads ten million lines is not.
const START_MAX: Duration = Duration::from_secs(300);
/// How long an end may take: the service drains and flushes.
const STOP_MAX: Duration = Duration::from_secs(60);
/// Time between two looks at a process that starts or ends: how exactly a start is timed.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Clock ticks a second in what `/proc` tells of a process (`USER_HZ`): 100 on every Linux, whatever its own clock.
const TICKS_PER_SECOND: f64 = 100.0;

/// A running contestant.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    /// The process beside it, if there is one.
    companion: Option<Child>,
    memory: Option<MemoryWatch>,
    pub(super) target: Target,
    /// Where the process beside it answers, if there is one.
    beside: Option<Target>,
    /// From its start to the first moment at which every process has said that it is ready.
    pub(super) ready_after: Duration,
    /// What it wrote to its standard streams.
    output: PathBuf,
}

impl Process {
    /// Starts `contestant` on a free port of this machine and waits until it is ready.
    pub(super) fn start(
        contestant: &Contestant,
        programs: &Programs,
        directory: &Path,
        runtime: &Runtime,
    ) -> anyhow::Result<Self> {
        let data = directory.join("data");
        fs::create_dir_all(&data).with_context(|| format!("make {}", data.display()))?;
        let [address, beside] = free_addresses()?;
        let output = directory.join("output.log");
        let streams =
            File::create(&output).with_context(|| format!("create {}", output.display()))?;
        let target = Target::parse(&format!("http://{address}"), false)?;
        let beside_target = Target::parse(&format!("http://{beside}"), false)?;
        let started = Instant::now();
        let mut companion = contestant
            .companion(programs, &data, beside)
            .map(|command_line| spawn(command_line, &streams))
            .transpose()?;
        let child = match spawn(contestant.command_line(programs, &data, address), &streams) {
            Ok(child) => child,
            Err(error) => {
                companion.iter_mut().for_each(end_at_once);
                return Err(error);
            }
        };
        let beside = companion.is_some().then_some(beside_target);
        let mut process = Self {
            child,
            companion,
            memory: None,
            target,
            beside,
            ready_after: Duration::ZERO,
            output,
        };
        process.memory = Some(MemoryWatch::start(process.ids().collect())?);
        process.wait_until_ready(runtime)?;
        process.ready_after = started.elapsed();
        Ok(process)
    }

    fn wait_until_ready(&mut self, runtime: &Runtime) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_MAX;
        loop {
            let beside = self.companion.as_mut().map(Child::try_wait).transpose()?;
            if let Some(status) = self.child.try_wait()?.or(beside.flatten()) {
                anyhow::bail!(
                    "it ended before it was ready, {status}:\n{}",
                    self.last_words()
                );
            }
            let is_ready = |target| {
                let ready = runtime.block_on(fetch(target, "/readyz"));
                matches!(ready, Ok((StatusCode::OK, _)))
            };
            // A projector says so when it follows the log: before that, rows would be late for its start's sake.
            if is_ready(&self.target) && self.beside.as_ref().is_none_or(is_ready) {
                return Ok(());
            }
            anyhow::ensure!(
                Instant::now() < deadline,
                "it was not ready after {START_MAX:?}:\n{}",
                self.last_words()
            );
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// The most anonymous memory it was seen with, in MiB.
    pub(super) fn peak_memory_mib(&self) -> Option<f64> {
        self.memory.as_ref()?.peak_mib()
    }

    /// Its anonymous memory, in MiB.
    pub(super) fn memory_mib(&self) -> Option<f64> {
        self.memory.as_ref()?.now_mib()
    }

    fn ids(&self) -> impl Iterator<Item = u32> {
        let all = [Some(&self.child), self.companion.as_ref()];
        all.into_iter().flatten().map(Child::id)
    }

    /// Processor time it has taken so far, its own and the kernel's for it, in seconds; good to 10 ms.
    pub(super) fn processor_seconds(&self) -> anyhow::Result<f64> {
        self.ids().map(processor_seconds).sum()
    }

    /// Kills it (SIGKILL) and waits until it is gone.
    pub(super) fn kill(mut self) -> anyhow::Result<()> {
        for id in self.ids() {
            send(Signal::KILL, id)?;
        }
        let all = [Some(&mut self.child), self.companion.as_mut()];
        for child in all.into_iter().flatten() {
            child.wait().context("wait for a killed process")?;
        }
        Ok(())
    }

    /// Asks it to end and waits for that. The status of two processes is that of the one that did not end well.
    pub(super) fn stop(mut self) -> anyhow::Result<ExitStatus> {
        for id in self.ids() {
            send(Signal::TERM, id)?;
        }
        let deadline = Instant::now() + STOP_MAX;
        loop {
            let own = self.child.try_wait()?;
            let beside = self.companion.as_mut().map(Child::try_wait).transpose()?;
            match (own, beside) {
                (Some(own), None) => return Ok(own),
                (Some(own), Some(Some(beside))) => {
                    return Ok(if own.success() { beside } else { own });
                }
                (None, _) | (Some(_), Some(None)) => {}
            }
            anyhow::ensure!(
                Instant::now() < deadline,
                "it did not end within {STOP_MAX:?} of SIGTERM:\n{}",
                self.last_words()
            );
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// The end of what it wrote.
    fn last_words(&self) -> String {
        let text = fs::read(&self.output).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let all = [Some(&mut self.child), self.companion.as_mut()];
        all.into_iter().flatten().for_each(end_at_once);
    }
}

/// Only after a failure: a stopped process was waited for, and its id may be another's by now.
pub(super) fn end_at_once(child: &mut Child) {
    if matches!(child.try_wait(), Ok(None))
        && let Err(error) = child.kill().and_then(|()| child.wait())
    {
        eprintln!("process {} may be left behind: {error}", child.id());
    }
}

fn spawn((program, arguments): CommandLine, streams: &File) -> anyhow::Result<Child> {
    Command::new(&program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(streams.try_clone()?)
        .stderr(streams.try_clone()?)
        .spawn()
        .with_context(|| format!("start {}", program.display()))
}

/// Sends a signal to a child that was not waited for yet.
pub(super) fn send(signal: Signal, id: u32) -> anyhow::Result<()> {
    let pid = i32::try_from(id).ok().and_then(Pid::from_raw);
    kill_process(pid.context("a process id is above 0")?, signal)
        .with_context(|| format!("send {signal:?}"))
}

/// Processor time of a process, good to 10 ms.
pub(super) fn processor_seconds(id: u32) -> anyhow::Result<f64> {
    let path = format!("/proc/{id}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    processor_ticks(&stat)
        .map(|ticks| ticks / TICKS_PER_SECOND)
        .with_context(|| format!("{path} does not tell processor time"))
}

/// `utime` and `stime`, fields 14 and 15 of proc(5); the name in parentheses may hold spaces.
fn processor_ticks(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Two ports nobody has: taken from the operating system and given back, for programs that must be told theirs.
pub(super) fn free_addresses() -> anyhow::Result<[SocketAddr; 2]> {
    let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port");
    let held = [bind()?, bind()?];
    let address = |listener: &TcpListener| listener.local_addr().context("find a free port");
    Ok([address(&held[0])?, address(&held[1])?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_that_of_the_process_and_of_the_kernel_for_it() {
        let stat = "7 (a ) b) S 1 1 1 0 -1 0 0 0 0 0 120 30 5 5 20 0";
        assert_eq!(processor_ticks(stat), Some(150.0));
        assert_eq!(processor_ticks("7 (a) S 1"), None);
    }
}
