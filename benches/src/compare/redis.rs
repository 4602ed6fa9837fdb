//! Redis streams as a yardstick for a durable append: `XADD` into an append-only file that is synced before the answer.
//!
//! It is a log append over a protocol of its own, sent by Redis's own load generator: no HTTP, no JSON that is parsed, no
//! decision, no rows. What it says is how near the whole way of an order comes to a bare append of somebody else.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::Signal;

use super::LoadResult;
use super::experiment::Values;
use super::ingest::{milliseconds, per_order, quotient};
use super::memory::MemoryWatch;
use super::origin::said_by;
use super::process::{end_at_once, free_addresses, processor_seconds, send};
use super::program::Comparison;
use crate::sample::ORDER_REQUEST;

const SERVER: &str = "redis-server";
const GENERATOR: &str = "redis-benchmark";

/// The stream that orders are appended to.
const STREAM: &str = "orders";

/// How long a start or an end may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long an answer to a question may take.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Time between two looks at a process that starts or ends.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What it is told: every answer durable, nothing but the append-only file written, and that never rewritten meanwhile.
const SETTINGS: [[&str; 2]; 5] = [
    ["--bind", "127.0.0.1"],
    ["--appendonly", "yes"],
    ["--appendfsync", "always"],
    ["--save", ""],
    ["--auto-aof-rewrite-percentage", "0"],
];

/// Orders that Redis is sent before it is measured, and the least that it is measured with.
const WARM_UP_ORDERS: u64 = 10_000;

/// An installed Redis.
#[derive(Debug, Clone)]
pub(super) struct Redis {
    version: String,
}

impl Redis {
    /// The server and its load generator, if both are on the path.
    pub(super) fn installed() -> Option<Self> {
        said_by(Command::new(GENERATOR).arg("--version"))?;
        let said = said_by(Command::new(SERVER).arg("--version"))?;
        Some(Self {
            version: version_in(&said)?.to_owned(),
        })
    }

    /// What it is called in the report.
    pub(super) fn name(&self) -> String {
        // Major and minor: the words beside a bar have room for no more, and the note has it all.
        let short: Vec<&str> = self.version.split('.').take(2).collect();
        format!("redis {} stream, appendfsync always", short.join("."))
    }

    /// What it was told, and by whom it was loaded.
    pub(super) fn words(&self) -> String {
        let settings = SETTINGS.map(|[name, value]| {
            let value = if value.is_empty() { "\"\"" } else { value };
            format!("{name} {value}")
        });
        format!(
            "{SERVER} {} {}; XADD of the same JSON to one stream by {GENERATOR}, no pipelining: no HTTP, no decision, no rows",
            self.version,
            settings.join(" ")
        )
    }
}

/// `Redis server v=7.0.15 sha=…`
fn version_in(said: &str) -> Option<&str> {
    said.split_whitespace()
        .find_map(|word| word.strip_prefix("v="))
}

/// A running server.
#[derive(Debug)]
struct Server {
    child: Child,
    port: u16,
    memory: Option<MemoryWatch>,
}

impl Server {
    /// Starts a server on a free port and the data in `directory`, and waits until it answers.
    fn start(directory: &Path) -> anyhow::Result<Self> {
        let [address, _] = free_addresses()?;
        let streams = File::create(directory.join("redis.log")).context("create redis.log")?;
        let child = Command::new(SERVER)
            .args(["--port", &address.port().to_string(), "--dir"])
            .arg(directory)
            .args(SETTINGS.as_flattened())
            .stdin(Stdio::null())
            .stdout(streams.try_clone()?)
            .stderr(streams)
            .spawn()
            .with_context(|| format!("start {SERVER}"))?;
        let mut server = Self {
            child,
            port: address.port(),
            memory: None,
        };
        server.memory = Some(MemoryWatch::start(vec![server.child.id()])?);
        let deadline = Instant::now() + PATIENCE;
        while server.ask("PING").ok().as_deref() != Some("+PONG") {
            if let Some(status) = server.child.try_wait()? {
                let log = fs::read_to_string(directory.join("redis.log")).unwrap_or_default();
                anyhow::bail!("{SERVER} ended before it answered, {status}:\n{log}");
            }
            anyhow::ensure!(Instant::now() < deadline, "{SERVER} does not answer");
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(server)
    }

    /// Appends the documented order so many times, from so many clients that each wait for their answer.
    fn append(&self, clients: usize, orders: u64) -> anyhow::Result<LoadResult> {
        let output = Command::new(GENERATOR)
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string()])
            .args(["-c", &clients.to_string(), "-n", &orders.to_string()])
            .args(["--csv", "--precision", "3"])
            .args(["XADD", STREAM, "*", "data", ORDER_REQUEST])
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("run {GENERATOR}"))?;
        let said = String::from_utf8_lossy(&output.stdout);
        let complaints = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(
            output.status.success(),
            "{GENERATOR} ended with {}:\n{said}{complaints}",
            output.status
        );
        let row = Row::in_csv(&said)
            .with_context(|| format!("{GENERATOR} gave no result:\n{said}{complaints}"))?;
        Ok(row.result(orders))
    }

    /// Entries of the stream.
    fn entries(&self) -> anyhow::Result<u64> {
        let answer = self.ask(&format!("XLEN {STREAM}"))?;
        answer
            .strip_prefix(':')
            .and_then(|count| count.parse().ok())
            .with_context(|| format!("{SERVER} answers `{answer}` to XLEN"))
    }

    /// A command of one line, and the first line of its answer.
    fn ask(&self, command: &str) -> anyhow::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        stream.write_all(format!("{command}\r\n").as_bytes())?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }

    fn processor_seconds(&self) -> anyhow::Result<f64> {
        processor_seconds(self.child.id())
    }

    fn peak_memory_mib(&self) -> Option<f64> {
        self.memory.as_ref()?.peak_mib()
    }

    /// Asks it to end and waits for that.
    fn stop(mut self) -> anyhow::Result<ExitStatus> {
        send(Signal::TERM, self.child.id())?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            anyhow::ensure!(Instant::now() < deadline, "{SERVER} does not end");
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        end_at_once(&mut self.child);
    }
}

impl Comparison<'_> {
    /// Redis, if it is installed; says so if it is not.
    pub(super) fn redis(&self) -> Option<Redis> {
        let redis = Redis::installed();
        let words = redis.as_ref().map_or_else(
            || {
                let words = "LEFT OUT: redis-server or redis-benchmark is not installed";
                eprintln!("{words}");
                words.to_owned()
            },
            Redis::words,
        );
        self.note("Redis", words);
        redis
    }

    /// A bare durable append of the same order by somebody else, in the same turn.
    pub(super) fn append_to_redis(&self, clients: usize) -> anyhow::Result<Values> {
        let plan = &self.config.plan;
        let directory = self.directory()?;
        let server = Server::start(directory.path())?;
        let processor_before = server.processor_seconds()?;
        // Its generator sends a count: that of the warm-up tells how many are as long as a closed loop.
        let warm_up = server.append(clients, WARM_UP_ORDERS)?;
        let orders = warm_up.in_time(plan.duration);
        let load = server.append(clients, orders.max(WARM_UP_ORDERS))?;
        let all = warm_up.and(&load);
        let processor_us = per_order(server.processor_seconds()? - processor_before, &all);
        let memory_mib = server.peak_memory_mib();
        let exit = server.stop()?;
        let bytes = log_bytes(directory.path())?;
        let restarted = Server::start(directory.path())?;
        let entries = restarted.entries()?;
        let exit_again = restarted.stop()?;
        self.claim(
            "Redis: as many entries after a restart as were acknowledged, and SIGTERM ends it with 0",
            entries == all.succeeded && exit.success() && exit_again.success(),
            format!("{} acknowledged, {entries} entries, {exit}", all.succeeded),
        );
        Ok(vec![
            Some(load.sample().per_second),
            None,
            Some(milliseconds(load.p50_us)),
            Some(milliseconds(load.p99_us)),
            Some(processor_us),
            memory_mib,
            Some(quotient(bytes, entries)),
            None,
        ])
    }
}

/// Bytes of the append-only file, which is several.
fn log_bytes(directory: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory.join("appendonlydir")).context("list appendonlydir")? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "aof") {
            bytes += fs::metadata(&path)?.len();
        }
    }
    Ok(bytes)
}

/// What the generator measured.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Row {
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
}

impl Row {
    /// Columns behind the name of the test: rps, then milliseconds: average, least, p50, p95, p99, most.
    const COLUMNS: usize = 7;

    /// The last line. Its first column is the command as it was given, quotes included, so columns are counted from behind.
    fn in_csv(text: &str) -> Option<Self> {
        let line = text.lines().rfind(|line| line.starts_with('"'))?;
        let fields: Vec<&str> = line
            .trim_end()
            .rsplit("\",\"")
            .take(Self::COLUMNS)
            .collect();
        let number = |from_behind: usize| {
            let field = fields.get(from_behind)?.trim_end_matches('"');
            field.parse::<f64>().ok()
        };
        Some(Self {
            per_second: number(6).filter(|&rate| rate > 0.0)?,
            p50_ms: number(3)?,
            p99_ms: number(1)?,
        })
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "figures are read to three digits"
    )]
    fn result(self, orders: u64) -> LoadResult {
        let microseconds = |ms: f64| {
            let time = Duration::try_from_secs_f64(ms / 1_000.0).unwrap_or(Duration::MAX);
            u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
        };
        LoadResult {
            succeeded: orders,
            not_ok: 0,
            failed: 0,
            elapsed: Duration::from_secs_f64(orders as f64 / self.per_second),
            p50_us: microseconds(self.p50_ms),
            p99_us: microseconds(self.p99_ms),
            unknown_max: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generators_result_is_found_behind_a_command_full_of_quotes() {
        let text = concat!(
            "\"test\",\"rps\",\"avg_latency_ms\",\"min_latency_ms\",\"p50_latency_ms\",\"p95_latency_ms\",",
            "\"p99_latency_ms\",\"max_latency_ms\"\n",
            "\"XADD orders * data {\"customer_id\":\"c-1042\",\"currency\":\"EUR\"}\",\"8802.82\",\"7.142\",\"0.640\",",
            "\"7.567\",\"15.879\",\"16.087\",\"19.519\"\n"
        );
        let row = Row::in_csv(text).unwrap();
        let expected = Row {
            per_second: 8_802.82,
            p50_ms: 7.567,
            p99_ms: 16.087,
        };
        assert_eq!(row, expected);
        let result = row.result(20_000);
        assert_eq!((result.p50_us, result.p99_us), (7_567, 16_087));
        assert!((result.sample().per_second - 8_802.82).abs() < 0.1);
        assert_eq!(Row::in_csv("ERR unknown command\n"), None);
        // The head alone is no result.
        assert_eq!(Row::in_csv(text.lines().next().unwrap()), None);
    }

    #[test]
    fn the_version_is_read_from_what_the_server_says() {
        let said = "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64";
        assert_eq!(version_in(said), Some("7.0.15"));
    }

    #[test]
    fn its_name_has_room_beside_a_bar_and_its_note_says_what_it_is() {
        let redis = Redis {
            version: "7.0.15".to_owned(),
        };
        assert_eq!(redis.name(), "redis 7.0 stream, appendfsync always");
        for part in ["7.0.15", "XADD", "no HTTP", "--appendfsync always"] {
            assert!(redis.words().contains(part), "{}", redis.words());
        }
    }

    #[test]
    fn what_was_acknowledged_is_there_after_a_restart() {
        if Redis::installed().is_none() {
            eprintln!("LEFT OUT: redis-server or redis-benchmark is not installed");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let server = Server::start(directory.path()).unwrap();
        let result = server.append(4, 500).unwrap();
        assert_eq!(result.succeeded, 500);
        assert_eq!(server.entries().unwrap(), 500);
        assert!(server.stop().unwrap().success());
        assert!(log_bytes(directory.path()).unwrap() > 500 * 100);
        let again = Server::start(directory.path()).unwrap();
        assert_eq!(again.entries().unwrap(), 500);
        assert!(again.stop().unwrap().success());
    }
}
