//! Segments made one ahead: allocated when the one before begins, and written with zeros a step at a time while that one
//! fills.
//!
//! A write into space that was written before changes no metadata, so its sync is one flush; and an allocated file cannot
//! fail for want of space. When the next segment cannot be made, the writer hears of it before it has written anything.
//!
//! The zeros save small syncs time and promise nothing: a writer that fills its segment faster than the disk takes both
//! does not wait for them, but takes the next segment as far as it is. Where space cannot be reserved otherwise, they are
//! what reserves it, and are written all at once.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use super::Preparation;
use super::partition::Partition;
use super::segment::Segment;
use crate::disk::{Disk, DiskFile};

/// Where the next segment waits, before it has a base offset and so a name.
const PREPARED_NAME: &str = "next.tmp";
/// Zeros of one step: a sync in the foreground never waits behind more than this.
const STEP_BYTES_MAX: u64 = 512 * 1024;
/// A small segment is written with zeros in as many steps as this, or a page each.
const STEPS: u64 = 16;
const STEP_BYTES_MIN: u64 = 4096;

/// A file that has its length and its space, ready to become a segment. It reads as zeros.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) path: PathBuf,
    pub(super) capacity: u64,
    /// Zeros are written up to here.
    zeroed: u64,
}

impl Prepared {
    /// Whether zeros are missing before `target`.
    fn lacks_zeros(&self, target: u64) -> bool {
        self.zeroed < target.min(self.capacity)
    }

    /// Writes the next zeros.
    fn zero_step(&mut self) -> io::Result<()> {
        let step = step_bytes(self.capacity).min(self.capacity - self.zeroed);
        self.file.write_zeros_at(self.zeroed, step)?;
        self.zeroed += step;
        Ok(())
    }
}

/// The next segment of one partition, on its way or there.
#[derive(Debug, Default)]
pub(super) struct NextSegment {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    state: State,
    /// How far zeros are wanted.
    target: u64,
    /// Whether somebody was asked for them and has not answered.
    zeroing: bool,
    /// Whether the writer waits: then it gets the segment as it is.
    wanted: bool,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Nothing,
    /// In the hands of whoever prepares it.
    Preparing,
    Ready(Prepared),
    Failed(io::Error),
}

impl NextSegment {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the next segment, waiting for it if it is on its way; `None` if nobody asked for one, or it failed and that
    /// was told.
    pub(super) fn take(&self) -> Option<io::Result<Prepared>> {
        let mut inner = self.lock();
        inner.wanted = true;
        while matches!(inner.state, State::Preparing) {
            inner = self
                .changed
                .wait(inner)
                .unwrap_or_else(PoisonError::into_inner);
        }
        inner.wanted = false;
        inner.target = 0;
        match std::mem::take(&mut inner.state) {
            State::Ready(prepared) => Some(Ok(prepared)),
            State::Failed(error) => Some(Err(error)),
            State::Nothing | State::Preparing => None,
        }
    }

    /// Marks the next segment as asked for; `false` if it was.
    fn ask(&self) -> bool {
        let mut inner = self.lock();
        let nothing = matches!(inner.state, State::Nothing);
        if nothing {
            inner.state = State::Preparing;
        }
        nothing
    }

    fn finish(&self, result: io::Result<Prepared>) {
        self.lock().state = match result {
            Ok(prepared) => State::Ready(prepared),
            Err(error) => State::Failed(error),
        };
        self.changed.notify_all();
    }

    /// Wants zeros up to `target`; `true` if somebody has to be asked for them.
    fn ask_zeros(&self, target: u64) -> bool {
        let mut inner = self.lock();
        inner.target = target;
        !std::mem::replace(&mut inner.zeroing, true)
    }

    /// Takes the next segment into the hands of whoever writes zeros into it, unless there are enough.
    fn take_to_zero(&self) -> Option<Prepared> {
        let mut inner = self.lock();
        match std::mem::take(&mut inner.state) {
            State::Ready(prepared) if !inner.wanted && prepared.lacks_zeros(inner.target) => {
                inner.state = State::Preparing;
                return Some(prepared);
            }
            other => inner.state = other,
        }
        inner.zeroing = false;
        None
    }
}

enum Job {
    Prepare(Arc<Partition>, u64),
    Zero(Arc<Partition>),
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
            .spawn(move || work(&queue, &stopped))?;
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

    /// Asks for the next segment of a partition to be written with zeros up to `target`.
    pub(super) fn zero(&self, partition: &Arc<Partition>, target: u64) {
        if partition.next_segment.ask_zeros(target)
            && !self.hand_over(Job::Zero(Arc::clone(partition)))
        {
            tracing::warn!("the next segment gets no zeros; syncs into it take longer");
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
                let proceed = AtomicBool::new(false);
                if let Some(partition) = run(job, &proceed) {
                    while zero_step(&partition, &proceed) {}
                }
                true
            }
        }
    }
}

/// Does what is asked for until nobody can ask any more. Zeros come last, a step of each partition in turn: nobody waits for
/// them, and everything else is waited for.
fn work(jobs: &Receiver<Job>, stop: &AtomicBool) {
    let mut zeroing: VecDeque<Arc<Partition>> = VecDeque::new();
    loop {
        let job = if zeroing.is_empty() {
            jobs.recv().map_err(|_| TryRecvError::Disconnected)
        } else {
            jobs.try_recv()
        };
        match job {
            Ok(job) => zeroing.extend(run(job, stop)),
            Err(TryRecvError::Empty) => {
                if let Some(partition) = zeroing.pop_front()
                    && zero_step(&partition, stop)
                {
                    zeroing.push_back(partition);
                }
            }
            Err(TryRecvError::Disconnected) => return,
        }
    }
}

/// Does a job; returns the partition whose next segment is to be written with zeros.
fn run(job: Job, stop: &AtomicBool) -> Option<Arc<Partition>> {
    match job {
        Job::Prepare(partition, capacity) => {
            let prepared = reserve(&*partition.disk, &partition.directory, capacity, stop);
            finish(&partition, prepared, stop);
        }
        Job::Zero(partition) => return Some(partition),
        Job::SaveHints(segment) => {
            if let Err(error) = segment.save_hints() {
                tracing::warn!(%error, "an index was not saved; it will be rebuilt when needed");
            }
        }
    }
    None
}

/// Writes the next zeros of a partition's next segment; `false` if there are none to write.
fn zero_step(partition: &Partition, stop: &AtomicBool) -> bool {
    let Some(mut prepared) = partition.next_segment.take_to_zero() else {
        return false;
    };
    let zeroed = if stop.load(Ordering::Relaxed) {
        Err(closing())
    } else {
        prepared.zero_step()
    };
    let prepared = match zeroed {
        Ok(()) => Ok(prepared),
        Err(error) => discard(&*partition.disk, prepared).and(Err(error)),
    };
    finish(partition, prepared, stop);
    true
}

fn finish(partition: &Partition, prepared: io::Result<Prepared>, stop: &AtomicBool) {
    if let Err(error) = &prepared
        && !stop.load(Ordering::Relaxed)
    {
        let directory = partition.directory.display();
        tracing::warn!(%directory, %error, "the next segment cannot be made");
    }
    partition.next_segment.finish(prepared);
}

fn closing() -> io::Error {
    io::Error::other("the log is being closed")
}

/// Removes what was prepared.
pub(super) fn discard(disk: &dyn Disk, prepared: Prepared) -> io::Result<()> {
    let Prepared { file, path, .. } = prepared;
    drop(file);
    disk.remove(&path)
}

/// [`reserve`], and all zeros at once: for a segment that is written from now on.
pub(super) fn reserve_with_zeros(
    disk: &dyn Disk,
    directory: &Path,
    capacity: u64,
) -> io::Result<Prepared> {
    let proceed = AtomicBool::new(false);
    let mut prepared = reserve(disk, directory, capacity, &proceed)?;
    match zero_all(&mut prepared, &proceed) {
        Ok(()) => Ok(prepared),
        Err(error) => {
            discard(disk, prepared)?;
            Err(error)
        }
    }
}

/// Makes a file of `capacity` bytes and reserves its space; where that takes zeros, unless `stop` is set. Leaves nothing
/// behind if it fails.
pub(super) fn reserve(
    disk: &dyn Disk,
    directory: &Path,
    capacity: u64,
    stop: &AtomicBool,
) -> io::Result<Prepared> {
    let path = directory.join(PREPARED_NAME);
    let file = disk.create(&path)?;
    let mut prepared = Prepared {
        file,
        path,
        capacity,
        zeroed: 0,
    };
    let reserved = match prepared.file.allocate(capacity) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => zero_all(&mut prepared, stop),
        result => result,
    };
    match reserved {
        Ok(()) => Ok(prepared),
        Err(error) => {
            discard(disk, prepared)?;
            Err(error)
        }
    }
}

/// Zeros to the end, and a sync that takes note of them.
fn zero_all(prepared: &mut Prepared, stop: &AtomicBool) -> io::Result<()> {
    while prepared.lacks_zeros(prepared.capacity) {
        prepared.zero_step()?;
        if stop.load(Ordering::Relaxed) {
            return Err(closing());
        }
    }
    prepared.file.sync_data()
}

/// Zeros of one step into a segment.
fn step_bytes(capacity: u64) -> u64 {
    (capacity / STEPS).clamp(STEP_BYTES_MIN, STEP_BYTES_MAX)
}

/// How far zeros should reach in the next segment of `next_capacity` bytes while the one of `capacity` is filled up to
/// `position`: as far in proportion, to the end of a step, and one step more.
pub(super) fn zeros_wanted(position: u64, capacity: u64, next_capacity: u64) -> u64 {
    let step = step_bytes(next_capacity);
    // Segments have at most 2^31 bytes: the product fits.
    (position * next_capacity / capacity).next_multiple_of(step) + step
}
