//! How far a long command is, on standard error: a line that changes on a terminal, a line now and then elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// How often a terminal is told.
const TERMINAL_INTERVAL: Duration = Duration::from_millis(200);
/// How often anything else is told: a log collector wants to know that it goes on, not each step.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

const MIB: u64 = 1024 * 1024;

/// The progress of one step.
#[derive(Debug)]
pub(crate) struct ByteProgress {
    /// What is done to what is counted: `read`, `copied`.
    done_what: &'static str,
    /// In bytes, if it is known.
    total: Option<u64>,
    terminal: bool,
    told: Instant,
    /// Bytes of what was done before the part that [`ByteProgress::at`] counts.
    before: u64,
}

impl ByteProgress {
    /// A step whose length nobody knows.
    pub(crate) fn new(done_what: &'static str) -> Self {
        Self {
            done_what,
            total: None,
            terminal: std::io::stderr().is_terminal(),
            told: Instant::now(),
            before: 0,
        }
    }

    /// A step of so many bytes.
    pub(crate) fn of(done_what: &'static str, total: u64) -> Self {
        Self {
            total: Some(total),
            ..Self::new(done_what)
        }
    }

    /// So many bytes of the part at hand are done.
    pub(crate) fn at(&mut self, bytes: u64) {
        let interval = if self.terminal {
            TERMINAL_INTERVAL
        } else {
            LINE_INTERVAL
        };
        if self.told.elapsed() < interval {
            return;
        }
        self.told = Instant::now();
        let done = (self.before + bytes) / MIB;
        let what = self.done_what;
        let text = match self.total {
            Some(total) => format!("{done} of {} MiB {what}", total.div_ceil(MIB)),
            None => format!("{done} MiB {what}"),
        };
        if self.terminal {
            eprint!("\r\u{1b}[K{text}");
        } else {
            eprintln!("order-service: {text}");
        }
    }

    /// The part at hand is done, all `bytes` of it; another one follows.
    pub(crate) fn part_done(&mut self, bytes: u64) {
        self.before += bytes;
        self.at(0);
    }

    /// The step is done: the terminal's line is free again.
    pub(crate) fn end(self) {
        if self.terminal {
            eprint!("\r\u{1b}[K");
        }
    }
}
