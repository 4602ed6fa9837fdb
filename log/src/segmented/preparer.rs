//! Segments made one ahead: allocated, written with zeros and synced before the writer needs them.
//!
//! A write into such a file changes no metadata, so a sync of it is one flush; and it cannot fail for want of space. When
//! the next segment cannot be made, the writer hears of it before it has written anything.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use super::Preparation;
use super::partition::Partition;
use super::segment::Segment;
use crate::disk::{Disk, DiskFile};
use crate::layout::index;

/// Where the next segment waits, before it has a base offset and so a name.
const PREPARED_NAME: &str = "next.tmp";
/// Bytes of zeros a write.
const ZEROS_BYTES: usize = 1024 * 1024;
/// Bytes written between two syncs: a foreground sync never waits behind more than this.
const SYNC_EVERY_BYTES: u64 = 8 * 1024 * 1024;

/// A file of zeros, synced, ready to become a segment.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) path: PathBuf,
    pub(super) capacity: u64,
}

/// The next segment of one partition, on its way or there.
#[derive(Debug, Default)]
pub(super) struct NextSegment {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Nothing,
    Preparing,
    Ready(Prepared),
    Failed(io::Error),
}

impl NextSegment {
    /// Waits until the next segment is there or failed; `None` if nobody asked for one, or it failed and that was told.
    pub(super) fn wait_ready(&self) -> Option<Result<(), io::Error>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match &*state {
                State::Nothing => return None,
                State::Ready(_) => return Some(Ok(())),
                State::Failed(_) => {
                    let State::Failed(error) = std::mem::take(&mut *state) else {
                        return None;
                    };
                    return Some(Err(error));
                }
                State::Preparing => {
                    state = self
                        .changed
                        .wait(state)
                        .unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    /// Takes the next segment if it is there.
    pub(super) fn take(&self) -> Option<Prepared> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::take(&mut *state) {
            State::Ready(prepared) => Some(prepared),
            other => {
                *state = other;
                None
            }
        }
    }

    /// Marks the next segment as asked for; `false` if it was.
    fn ask(&self) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let nothing = matches!(*state, State::Nothing);
        if nothing {
            *state = State::Preparing;
        }
        nothing
    }

    fn finish(&self, result: io::Result<Prepared>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = match result {
            Ok(prepared) => State::Ready(prepared),
            Err(error) => State::Failed(error),
        };
        self.changed.notify_all();
    }
}

enum Job {
    Prepare(Arc<Partition>, u64),
    SaveHints(Arc<Segment>),
}

/// Makes segments ahead and saves the indexes of sealed ones, in the background or inline.
#[derive(Debug, Clone)]
pub(super) struct Preparer {
    /// `None` works inline.
    background: Option<Arc<Background>>,
}

/// The thread. It has ended when the last handle is gone: nobody touches the files of a log that was closed.
#[derive(Debug)]
struct Background {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.jobs = None;
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("the thread that prepares segments panicked");
        }
    }
}

impl Preparer {
    pub(super) fn start(preparation: Preparation) -> io::Result<Self> {
        if preparation == Preparation::Inline {
            return Ok(Self { background: None });
        }
        let (jobs, queue) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name("log-prepare".to_owned())
            .spawn(move || {
                for job in queue {
                    run(job, &stopped);
                }
            })?;
        let (jobs, thread) = (Some(jobs), Some(thread));
        Ok(Self {
            background: Some(Arc::new(Background { jobs, thread, stop })),
        })
    }

    /// Asks for the next segment of a partition, unless it is on its way.
    pub(super) fn prepare(&self, partition: &Arc<Partition>, capacity: u64) {
        if partition.next_segment.ask()
            && !self.hand_over(Job::Prepare(Arc::clone(partition), capacity))
        {
            partition
                .next_segment
                .finish(Err(io::Error::other("the background thread has ended")));
        }
    }

    /// Asks for a sealed segment's indexes to be saved.
    pub(super) fn save_hints(&self, segment: &Arc<Segment>) {
        if !self.hand_over(Job::SaveHints(Arc::clone(segment))) {
            tracing::warn!("an index was not saved; it will be rebuilt when needed");
        }
    }

    fn hand_over(&self, job: Job) -> bool {
        match &self.background {
            Some(background) => background
                .jobs
                .as_ref()
                .is_some_and(|jobs| jobs.send(job).is_ok()),
            None => {
                run(job, &AtomicBool::new(false));
                true
            }
        }
    }
}

fn run(job: Job, stop: &AtomicBool) {
    match job {
        Job::Prepare(partition, capacity) => {
            let prepared = prepare(&*partition.disk, &partition.directory, capacity, stop);
            if let Err(error) = &prepared
                && !stop.load(Ordering::Relaxed)
            {
                let directory = partition.directory.display();
                tracing::warn!(%directory, %error, "the next segment cannot be made");
            }
            partition.next_segment.finish(prepared);
        }
        Job::SaveHints(segment) => {
            if let Err(error) = segment.save_hints() {
                tracing::warn!(%error, "an index was not saved; it will be rebuilt when needed");
            }
        }
    }
}

/// Makes a file of `capacity` zeros and syncs it, unless `stop` is set. Leaves nothing behind if it fails.
pub(super) fn prepare(
    disk: &dyn Disk,
    directory: &Path,
    capacity: u64,
    stop: &AtomicBool,
) -> io::Result<Prepared> {
    let path = directory.join(PREPARED_NAME);
    let file = disk.create(&path)?;
    match fill(&*file, capacity, stop) {
        Ok(()) => Ok(Prepared {
            file,
            path,
            capacity,
        }),
        Err(error) => {
            drop(file);
            disk.remove(&path)?;
            Err(error)
        }
    }
}

fn fill(file: &dyn DiskFile, capacity: u64, stop: &AtomicBool) -> io::Result<()> {
    match file.allocate(capacity) {
        // The zeros below reserve the space where the file system cannot do it ahead.
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
        result => result?,
    }
    let zeros = vec![0; ZEROS_BYTES.min(index(capacity))];
    let mut position = 0;
    while position < capacity {
        if stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("the log is being closed"));
        }
        let step = (capacity - position).min(zeros.len() as u64);
        file.write_all_at(&zeros[..index(step)], position)?;
        position += step;
        if position.is_multiple_of(SYNC_EVERY_BYTES) {
            file.sync_data()?;
        }
    }
    file.sync_data()
}
