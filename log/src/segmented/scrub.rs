//! The background scrub: reads every sealed segment again and again, slowly, so that rot is found while there is still a
//! backup that has the segment whole, and not when somebody needs it.
//!
//! It reads through files, not through maps, and from the disk, not from the cache; a damaged segment is reported and
//! otherwise left as it is. The partition goes on: new records do not depend on old ones being readable.

use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroU64;
use std::ops::ControlFlow;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use super::Finding;
use super::archive;
use super::partition::Partition;
use super::proof::{Fault, SealedProof, prove_sealed};
use super::segment::Segment;
use crate::{Offset, PartitionId};

/// Least time from the beginning of one pass to that of the next: a small log is not read all day.
const PASS_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// How the scrub stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScrubStatus {
    /// Bytes read since the start.
    pub bytes: u64,
    /// Passes over all sealed segments since the start.
    pub passes: u64,
    /// When the last pass ended.
    pub last_completed: Option<SystemTime>,
    /// The first fault of each damaged segment, by partition and offset.
    pub damaged: Vec<Finding>,
}

/// The running scrub; dropping it ends it.
#[derive(Debug)]
pub struct Scrub {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    stop: bool,
    bytes: u64,
    passes: u64,
    last_completed: Option<SystemTime>,
    damaged: BTreeMap<(PartitionId, u64), Finding>,
}

impl Scrub {
    /// Starts a thread that reads the sealed segments of `partitions` at no more than `bytes_per_second`.
    ///
    /// # Errors
    /// If the thread cannot be made.
    pub(super) fn start(
        partitions: Vec<Arc<Partition>>,
        bytes_per_second: NonZeroU64,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let worker = Worker {
            partitions,
            bytes_per_second,
            shared: Arc::clone(&shared),
        };
        let thread = thread::Builder::new()
            .name("log-scrub".to_owned())
            .spawn(move || worker.run())?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// How it stands.
    #[must_use]
    pub fn status(&self) -> ScrubStatus {
        let state = self.shared.lock();
        ScrubStatus {
            bytes: state.bytes,
            passes: state.passes,
            last_completed: state.last_completed,
            damaged: state.damaged.values().cloned().collect(),
        }
    }
}

impl Drop for Scrub {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.changed.notify_all();
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("the thread that scrubs the log panicked");
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits, and breaks when the scrub is to end.
    fn wait(&self, time: Duration) -> ControlFlow<()> {
        let state = self.lock();
        let (state, _) = self
            .changed
            .wait_timeout_while(state, time, |state| !state.stop)
            .unwrap_or_else(PoisonError::into_inner);
        if state.stop {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }
}

struct Worker {
    partitions: Vec<Arc<Partition>>,
    bytes_per_second: NonZeroU64,
    shared: Arc<Shared>,
}

impl Worker {
    fn run(&self) {
        loop {
            let begun = Instant::now();
            if self.pass().is_break() {
                return;
            }
            let mut state = self.shared.lock();
            state.passes += 1;
            state.last_completed = Some(SystemTime::now());
            drop(state);
            if self
                .shared
                .wait(PASS_INTERVAL.saturating_sub(begun.elapsed()))
                .is_break()
            {
                return;
            }
        }
    }

    fn pass(&self) -> ControlFlow<()> {
        for partition in &self.partitions {
            // Found again or gone: what is not found in this pass is not damaged any more.
            let mut at = None;
            while let Some((segment, next_base)) = next_sealed(partition, at) {
                at = Some(segment.base);
                self.scrub(partition, &segment, next_base)?;
            }
        }
        ControlFlow::Continue(())
    }

    fn scrub(&self, partition: &Partition, segment: &Segment, next_base: u64) -> ControlFlow<()> {
        let mut pace = |bytes: u64| {
            self.shared.lock().bytes += bytes;
            // Nanoseconds to take for these bytes; a read has at most some hundred KiB.
            let nanoseconds = bytes.saturating_mul(1_000_000_000) / self.bytes_per_second;
            self.shared.wait(Duration::from_nanos(nanoseconds))
        };
        let opened = archive::open_file(
            &*segment.disk,
            &segment.path,
            partition.identity,
            segment.base,
        );
        let proof = match opened {
            Ok((_, Err(reason))) => SealedProof {
                faults: vec![Fault {
                    position: 0,
                    offset: segment.base,
                    reason,
                }],
                ..SealedProof::default()
            },
            Ok((_, Ok(file))) => {
                file.forget_cached();
                let proof = prove_sealed(
                    &*file,
                    partition.identity,
                    segment.base,
                    next_base,
                    &mut pace,
                );
                file.forget_cached();
                proof
            }
            // Taken away by whoever may: it is in no list any more.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound && !is_listed(partition, segment) =>
            {
                SealedProof::default()
            }
            Err(error) => SealedProof {
                faults: vec![Fault {
                    position: 0,
                    offset: segment.base,
                    reason: format!("cannot be opened: {error}"),
                }],
                ..SealedProof::default()
            },
        };
        if proof.interrupted {
            return ControlFlow::Break(());
        }
        self.note(partition, segment, proof.faults.into_iter().next());
        ControlFlow::Continue(())
    }

    fn note(&self, partition: &Partition, segment: &Segment, fault: Option<Fault>) {
        let place = (partition.id, segment.base);
        let mut state = self.shared.lock();
        let Some(fault) = fault else {
            if state.damaged.remove(&place).is_some() {
                tracing::info!(path = %segment.path.display(), "a segment that was damaged verifies again");
            }
            return;
        };
        let finding = Finding {
            partition: partition.id,
            path: segment.path.clone(),
            position: fault.position,
            offset: Offset::new(fault.offset),
            reason: fault.reason,
            damage: true,
        };
        if state.damaged.insert(place, finding.clone()).as_ref() != Some(&finding) {
            tracing::error!(
                partition = partition.id.get(),
                path = %finding.path.display(),
                position = finding.position,
                offset = finding.offset.get(),
                reason = finding.reason,
                "a sealed segment is damaged: restore it from a backup, or see what `log repair` would save"
            );
        }
    }
}

/// The first sealed segment behind the one that starts at `at`, and where its successor starts.
fn next_sealed(partition: &Partition, at: Option<u64>) -> Option<(Arc<Segment>, u64)> {
    let segments = partition.segments();
    let first = at.map_or(0, |at| segments.partition_point(|it| it.base <= at));
    let [segment, next, ..] = segments.get(first..)? else {
        return None;
    };
    // Behind the durable end, a segment may be full and still be on its way to the disk.
    (next.base <= partition.durable_end.load().get()).then(|| (Arc::clone(segment), next.base))
}

fn is_listed(partition: &Partition, segment: &Segment) -> bool {
    let segments = partition.segments();
    segments.iter().any(|it| it.path == segment.path)
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::disk::Disk;
    use crate::disk::simulated::SimulatedDisk;
    use crate::segmented::{Preparation, SegmentedConfig, SegmentedLog};
    use crate::{AppendTime, Batch, Durability, EventLog, Key, RecordTag};

    const RATE: NonZeroU64 = NonZeroU64::new(1 << 40).unwrap();

    fn log(disk: &SimulatedDisk) -> SegmentedLog {
        let config = SegmentedConfig {
            segment_bytes_first: 4096,
            segment_bytes_max: 4096,
            preparation: Preparation::Inline,
            ..SegmentedConfig::new(PathBuf::from("/log"), [5; 16], 1, Durability::Always)
        };
        let log = SegmentedLog::open(config, Arc::new(disk.clone())).unwrap();
        let mut writer = log.writer(PartitionId::new(0)).unwrap();
        for _ in 0..40 {
            let mut batch = Batch::new();
            batch.start_at(writer.end());
            batch.begin_frame(Key::new([1; 16]), 1, None, AppendTime::from_micros(1));
            batch.record(|bytes| {
                bytes.extend_from_slice(&[7; 300]);
                RecordTag {
                    event_type: 1,
                    schema: 1,
                    codec: 1,
                }
            });
            batch.end_frame();
            writer.append(&batch).unwrap();
        }
        log
    }

    /// One whole pass; a scrub that never ends one would hang here, so the wait is bounded.
    fn one_pass(log: &SegmentedLog) -> ScrubStatus {
        let scrub = log.start_scrub(RATE).unwrap().unwrap();
        for _ in 0..60_000 {
            let status = scrub.status();
            if status.passes > 0 {
                return status;
            }
            thread::sleep(Duration::from_millis(1));
        }
        panic!("no pass in a minute: {:?}", scrub.status());
    }

    #[test]
    fn a_scrub_reads_all_sealed_segments_and_names_the_first_fault_of_each_damaged_one() {
        let disk = SimulatedDisk::new();
        let log = log(&disk);
        let segments = log.segments().unwrap();
        assert!(segments.len() > 3);
        let sound = one_pass(&log);
        assert_eq!(sound.damaged, []);
        assert!(sound.bytes > 4000 * 2 && sound.last_completed.is_some());

        let flip = |path: &Path, at: u64| {
            let file = disk.open(path).unwrap();
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 1], at).unwrap();
        };
        flip(&segments[0].path, 1000);
        flip(&segments[1].path, 20);
        // The active segment is recovery's matter.
        flip(&segments[segments.len() - 1].path, 100);
        let damaged = one_pass(&log).damaged;
        let places: Vec<_> = damaged
            .iter()
            .map(|finding| (finding.path.clone(), finding.offset))
            .collect();
        assert_eq!(
            places,
            [
                (segments[0].path.clone(), Offset::new(2)),
                (segments[1].path.clone(), segments[1].base)
            ]
        );
        assert!(damaged[0].reason.contains("checksum"), "{damaged:?}");
    }

    #[test]
    fn a_segment_that_cannot_be_read_is_damaged_and_one_that_was_restored_is_not() {
        use crate::disk::simulated::Fault as DiskFault;
        let disk = SimulatedDisk::new();
        let log = log(&disk);
        let scrub = Worker {
            partitions: log.partitions.clone(),
            bytes_per_second: RATE,
            shared: Arc::new(Shared::default()),
        };
        // Opening and its length are operations too: the header's read fails, then that of the frames.
        for operation in [3, 5] {
            disk.set_fault(Some((operation, DiskFault::Error(io::ErrorKind::Other))));
            assert!(scrub.pass().is_continue());
            let damaged: Vec<_> = scrub.shared.lock().damaged.values().cloned().collect();
            assert_eq!(damaged.len(), 1, "{damaged:?}");
            assert!(damaged[0].reason.contains("cannot be read"), "{damaged:?}");
            disk.set_fault(None);
            assert!(scrub.pass().is_continue());
            assert!(scrub.shared.lock().damaged.is_empty());
        }
    }

    #[test]
    fn a_scrub_ends_at_once_when_it_is_dropped() {
        let disk = SimulatedDisk::new();
        let log = log(&disk);
        // At a byte a second the first segment would take an hour.
        let scrub = log.start_scrub(NonZeroU64::MIN).unwrap();
        drop(scrub);
    }
}
