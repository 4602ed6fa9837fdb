//! How much memory a contestant has for itself, beside the page cache: anonymous pages alone.
//!
//! A mapped log counts as resident as far as it was read, and is the operating system's to take back at any moment; so
//! neither the resident set nor its peak (`VmHWM`) says what a service needs. The kernel keeps no peak of anonymous pages,
//! so it is looked at often instead.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use crossbeam_channel::{RecvTimeoutError, Sender, bounded};

/// Time between two looks: a peak that is shorter may be missed.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Looks at the memory of some processes until it is let go.
#[derive(Debug)]
pub(super) struct MemoryWatch {
    processes: Vec<u32>,
    peak_kib: Arc<AtomicU64>,
    /// Letting go of it ends the thread.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl MemoryWatch {
    pub(super) fn start(processes: Vec<u32>) -> anyhow::Result<Self> {
        let peak_kib = Arc::new(AtomicU64::new(0));
        let (stop, stopped) = bounded::<()>(0);
        let (watched, peak) = (processes.clone(), Arc::clone(&peak_kib));
        let thread = std::thread::Builder::new()
            .name("memory".to_owned())
            .spawn(move || {
                loop {
                    if let Some(kib) = all_kib(&watched) {
                        peak.fetch_max(kib, Ordering::Relaxed);
                    }
                    if stopped.recv_timeout(LOOK_EVERY) != Err(RecvTimeoutError::Timeout) {
                        return;
                    }
                }
            })
            .context("start a thread that looks at memory")?;
        Ok(Self {
            processes,
            peak_kib,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// The most that was seen, in MiB; `None` if the kernel tells none.
    pub(super) fn peak_mib(&self) -> Option<f64> {
        let now = self.now_kib().unwrap_or(0);
        let peak = self.peak_kib.fetch_max(now, Ordering::Relaxed).max(now);
        (peak > 0).then(|| mib(peak))
    }

    /// What it is now, in MiB; `None` if the kernel tells none.
    pub(super) fn now_mib(&self) -> Option<f64> {
        self.now_kib().map(mib)
    }

    fn now_kib(&self) -> Option<u64> {
        all_kib(&self.processes)
    }
}

impl Drop for MemoryWatch {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("the thread that looks at memory panicked");
        }
    }
}

/// Of all of them together.
fn all_kib(processes: &[u32]) -> Option<u64> {
    processes.iter().copied().map(anonymous_kib).sum()
}

fn anonymous_kib(process: u32) -> Option<u64> {
    anonymous_in(&fs::read_to_string(format!("/proc/{process}/status")).ok()?)
}

/// `RssAnon` of proc(5).
fn anonymous_in(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "figures are read to three digits"
)]
fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn mapped_files_are_not_counted() {
        let status = "Name:\torder\nVmHWM:\t  900 kB\nVmRSS:\t  800 kB\nRssAnon:\t     300 kB\nRssFile:\t  500 kB\n";
        assert_eq!(anonymous_in(status), Some(300));
        assert_eq!(anonymous_in("Name:\ta kernel thread\n"), None);
    }

    #[test]
    fn a_peak_is_remembered_when_it_is_over() {
        const MIB: usize = 128;
        // More than everything else in these tests.
        const SEEN_KIB: u64 = 120 << 10;
        let watch = MemoryWatch::start(vec![std::process::id()]).unwrap();
        let pages = vec![1_u8; MIB << 20];
        // Held until the thread has looked, which nobody's question is to do for it.
        let deadline = Instant::now() + Duration::from_secs(60);
        while watch.peak_kib.load(Ordering::Relaxed) < SEEN_KIB && Instant::now() < deadline {
            std::thread::sleep(LOOK_EVERY);
        }
        assert!(pages.iter().all(|&byte| byte == 1));
        drop(pages);
        let peak = watch.peak_mib().unwrap();
        assert!(peak >= mib(SEEN_KIB), "{peak}");
        let now = watch.now_mib().unwrap();
        assert!(now < peak, "{now} of {peak}");
    }

    #[test]
    fn a_process_that_is_gone_has_no_memory() {
        let watch = MemoryWatch::start(vec![u32::MAX]).unwrap();
        assert_eq!((watch.now_mib(), watch.peak_mib()), (None, None));
    }
}
