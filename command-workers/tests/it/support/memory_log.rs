//! A log in memory behind the real seam. Appends do what the test planned for them, one plan an append, in order.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use order_domain::codec::{RecordHeader, decode};
use order_domain::{Event, EventContext, OrderId};
use order_log::{
    AppendTime, Appended, Batch, DurableEnd, EventLog, Frame, LogError, Offset, PartitionId,
    PartitionReader, PartitionStatus, PartitionWriter, PayloadFormat, ScanLimit,
};

/// How long a test waits for what must happen before it fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(30);

/// What becomes of one append.
pub(crate) enum Plan {
    Succeed,
    StorageFull,
    /// The sync fails; the frames may have reached the disk all the same.
    SyncFails {
        survives: bool,
    },
    Panic,
    /// Waits at the gate, then does as planned.
    Wait(GateKeeper, Box<Plan>),
}

impl Plan {
    /// An append that is in flight until the gate is opened.
    pub(crate) fn wait_then(then: Self) -> (Self, Gate) {
        let (arrive, arrived) = bounded(1);
        let (open, opened) = bounded(1);
        let keeper = GateKeeper { arrive, opened };
        (Self::Wait(keeper, Box::new(then)), Gate { arrived, open })
    }
}

pub(crate) struct GateKeeper {
    arrive: Sender<()>,
    opened: Receiver<()>,
}

pub(crate) struct Gate {
    arrived: Receiver<()>,
    open: Sender<()>,
}

impl Gate {
    /// Returns once the append is in flight.
    pub(crate) fn arrived(&self) {
        self.arrived.recv_timeout(PATIENCE).expect("an append came");
    }

    pub(crate) fn open(self) {
        self.open.send(()).expect("an append waits");
    }
}

/// A frame taken out of the log, owned.
#[derive(Debug, Clone)]
pub(crate) struct StoredFrame {
    pub(crate) base: Offset,
    pub(crate) order: OrderId,
    pub(crate) sequence: u32,
    pub(crate) previous: Option<Offset>,
    pub(crate) events: Vec<String>,
    /// Per record: key, traceparent, request id.
    pub(crate) contexts: Vec<(Option<String>, Option<String>, Option<String>)>,
}

struct Partition {
    /// By base offset, one frame each.
    frames: Mutex<BTreeMap<Offset, Arc<Batch>>>,
    durable_end: DurableEnd,
    plans: Mutex<VecDeque<Plan>>,
    /// Count of frames of each append that was tried.
    appends: Mutex<Vec<usize>>,
    idles: AtomicUsize,
    closed: AtomicBool,
    /// What the log says its last append time is, if that is later than the truth: a clock that jumps ahead.
    clock: AtomicU64,
    /// Whether the writer is away.
    taken: AtomicBool,
    damaged: AtomicBool,
}

impl Partition {
    fn new() -> Self {
        Self {
            frames: Mutex::default(),
            durable_end: DurableEnd::new(Offset::ZERO),
            plans: Mutex::default(),
            appends: Mutex::default(),
            idles: AtomicUsize::default(),
            closed: AtomicBool::default(),
            clock: AtomicU64::default(),
            taken: AtomicBool::default(),
            damaged: AtomicBool::default(),
        }
    }
}

#[derive(Clone)]
pub(crate) struct MemoryLog {
    partitions: Arc<Vec<Arc<Partition>>>,
    format: PayloadFormat,
}

impl MemoryLog {
    pub(crate) fn new(partitions: u16, format: PayloadFormat) -> Self {
        Self {
            partitions: Arc::new(
                (0..partitions)
                    .map(|_| Arc::new(Partition::new()))
                    .collect(),
            ),
            format,
        }
    }

    fn at(&self, partition: u16) -> &Arc<Partition> {
        &self.partitions[usize::from(partition)]
    }

    /// What the next appends of a partition do; those behind them succeed.
    pub(crate) fn plan(&self, partition: u16, plans: impl IntoIterator<Item = Plan>) {
        self.at(partition).plans.lock().unwrap().extend(plans);
    }

    /// Frames of each append that was tried, in order.
    pub(crate) fn appends(&self, partition: u16) -> Vec<usize> {
        self.at(partition).appends.lock().unwrap().clone()
    }

    pub(crate) fn idles(&self, partition: u16) -> usize {
        self.at(partition).idles.load(Ordering::SeqCst)
    }

    pub(crate) fn is_closed(&self, partition: u16) -> bool {
        self.at(partition).closed.load(Ordering::SeqCst)
    }

    pub(crate) fn end(&self, partition: u16) -> Offset {
        self.at(partition).durable_end.load()
    }

    /// From now on the partition can be read, not written.
    pub(crate) fn damage(&self, partition: u16) {
        self.at(partition).damaged.store(true, Ordering::SeqCst);
    }

    /// From now on no frame is older than this.
    pub(crate) fn set_clock(&self, partition: u16, time: AppendTime) {
        let clock = &self.at(partition).clock;
        clock.store(time.as_micros(), Ordering::SeqCst);
    }

    /// Every frame of a partition.
    pub(crate) fn frames(&self, partition: u16) -> Vec<StoredFrame> {
        let mut frames = Vec::new();
        let reader = self.reader(PartitionId::new(partition)).unwrap();
        let start = reader.start();
        reader
            .scan(start, ScanLimit::NONE, &mut |frame| {
                frames.push(stored(&frame));
                ControlFlow::Continue(())
            })
            .unwrap();
        frames
    }
}

fn stored(frame: &Frame<'_>) -> StoredFrame {
    let mut events = Vec::new();
    let mut contexts = Vec::new();
    for record in frame.records() {
        let header = RecordHeader {
            event_type: record.tag.event_type,
            schema: record.tag.schema,
            codec: record.tag.codec,
        };
        let recorded = decode(header, record.bytes).unwrap();
        events.push(Event::kind(&recorded.event).name().to_owned());
        let EventContext {
            idempotency,
            traceparent,
            request_id,
        } = recorded.context;
        contexts.push((
            idempotency.map(|key| key.key.into_owned()),
            traceparent.map(|text| text.into_owned()),
            request_id.map(|text| text.into_owned()),
        ));
    }
    StoredFrame {
        base: frame.base,
        order: OrderId::from_bytes(*frame.key.as_bytes()),
        sequence: frame.sequence,
        previous: frame.previous,
        events,
        contexts,
    }
}

impl std::fmt::Debug for MemoryLog {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("MemoryLog")
    }
}

impl EventLog for MemoryLog {
    fn partition_count(&self) -> u16 {
        u16::try_from(self.partitions.len()).unwrap()
    }

    fn payload_format(&self) -> PayloadFormat {
        self.format
    }

    fn writer(&self, partition: PartitionId) -> Result<Box<dyn PartitionWriter>, LogError> {
        let log = Arc::clone(self.at(partition.get()));
        if log.taken.swap(true, Ordering::SeqCst) {
            return Err(LogError::WriterTaken(partition));
        }
        log.closed.store(false, Ordering::SeqCst);
        Ok(Box::new(Writer {
            partition,
            log,
            poisoned: false,
        }))
    }

    fn reader(&self, partition: PartitionId) -> Result<Box<dyn PartitionReader>, LogError> {
        let log = Arc::clone(self.at(partition.get()));
        Ok(Box::new(Reader { partition, log }))
    }

    fn status(&self) -> Vec<PartitionStatus> {
        let partitions = self.partitions.iter().zip(0_u16..);
        partitions
            .map(|(log, number)| PartitionStatus {
                partition: PartitionId::new(number),
                start: Offset::ZERO,
                durable_end: log.durable_end.load(),
                active_segment_bytes: 0,
                segments: 1,
                unwritable: log
                    .damaged
                    .load(Ordering::SeqCst)
                    .then(|| "a planned flipped bit".to_owned()),
            })
            .collect()
    }
}

/// Gives the partition back when dropped, so that a test can start other workers on the same log.
struct Writer {
    partition: PartitionId,
    log: Arc<Partition>,
    poisoned: bool,
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.log.taken.store(false, Ordering::SeqCst);
    }
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Writer")
    }
}

impl Writer {
    fn write(&self, batch: &Batch) {
        let mut frames = self.log.frames.lock().unwrap();
        for frame in batch.iter() {
            let mut copy = Batch::new();
            copy.start_at(frame.base);
            copy.begin_frame(frame.key, frame.sequence, frame.previous, frame.appended_at);
            for record in frame.records() {
                copy.record(|bytes| {
                    bytes.extend_from_slice(record.bytes);
                    record.tag
                });
            }
            copy.end_frame();
            frames.insert(frame.base, Arc::new(copy));
        }
        self.log.durable_end.publish(batch.end());
    }

    fn carry_out(&mut self, plan: Plan, batch: &Batch) -> Result<(), LogError> {
        match plan {
            Plan::Succeed => {
                self.write(batch);
                Ok(())
            }
            Plan::StorageFull => Err(LogError::StorageFull {
                partition: self.partition,
                path: PathBuf::from("memory"),
            }),
            Plan::SyncFails { survives } => {
                if survives {
                    self.write(batch);
                }
                self.poisoned = true;
                Err(LogError::OutcomeUnknown {
                    partition: self.partition,
                    at: batch.start(),
                    source: std::io::Error::other("the disk is gone"),
                })
            }
            Plan::Panic => panic!("a planned bug in the log"),
            Plan::Wait(keeper, then) => {
                keeper.arrive.send(()).expect("the test holds the gate");
                keeper
                    .opened
                    .recv_timeout(PATIENCE)
                    .expect("the test opens the gate");
                self.carry_out(*then, batch)
            }
        }
    }

    fn check(&self) -> Result<(), LogError> {
        if self.poisoned {
            return Err(LogError::Poisoned {
                partition: self.partition,
                cause: "the disk is gone".to_owned(),
            });
        }
        Ok(())
    }
}

impl PartitionWriter for Writer {
    fn end(&self) -> Offset {
        self.log.durable_end.load()
    }

    fn last_append_time(&self) -> AppendTime {
        let clock = AppendTime::from_micros(self.log.clock.load(Ordering::SeqCst));
        let frames = self.log.frames.lock().unwrap();
        let last = frames.last_key_value();
        last.map_or(clock, |(_, batch)| {
            batch.iter().next().unwrap().appended_at.max(clock)
        })
    }

    fn append(&mut self, batch: &Batch) -> Result<Appended, LogError> {
        self.check()?;
        assert_eq!(batch.start(), self.end(), "the batch starts at the end");
        self.log.appends.lock().unwrap().push(batch.frames());
        let plan = self.log.plans.lock().unwrap().pop_front();
        self.carry_out(plan.unwrap_or(Plan::Succeed), batch)?;
        Ok(Appended {
            start: batch.start(),
            end: batch.end(),
            sync_time: Duration::from_micros(100),
        })
    }

    fn idle(&mut self) -> Result<(), LogError> {
        self.log.idles.fetch_add(1, Ordering::SeqCst);
        self.check()
    }

    fn close(&mut self) -> Result<(), LogError> {
        self.log.closed.store(true, Ordering::SeqCst);
        self.check()
    }
}

struct Reader {
    partition: PartitionId,
    log: Arc<Partition>,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Reader")
    }
}

impl PartitionReader for Reader {
    fn partition(&self) -> PartitionId {
        self.partition
    }

    fn start(&self) -> Offset {
        Offset::ZERO
    }

    fn durable_end(&self) -> Offset {
        self.log.durable_end.load()
    }

    fn wait_beyond(&self, offset: Offset, timeout: Duration) -> Offset {
        self.log.durable_end.wait_beyond(offset, timeout)
    }

    fn scan(
        &self,
        from: Offset,
        limit: ScanLimit,
        visit: &mut dyn FnMut(Frame<'_>) -> ControlFlow<()>,
    ) -> Result<Offset, LogError> {
        if from > self.durable_end() {
            return Err(LogError::OutOfRange {
                partition: self.partition,
                offset: from,
                start: Offset::ZERO,
                end: self.durable_end(),
            });
        }
        let frames: Vec<_> = {
            let frames = self.log.frames.lock().unwrap();
            frames
                .range(from..)
                .map(|(_, frame)| Arc::clone(frame))
                .collect()
        };
        let mut end = from;
        let mut records = 0;
        for batch in frames {
            let frame = batch.iter().next().unwrap();
            assert_eq!(frame.base, end, "scans start at a frame");
            if records >= limit.records || frame.base >= limit.until {
                break;
            }
            end = frame.end();
            records += frame.len();
            if visit(frame).is_break() {
                break;
            }
        }
        Ok(end)
    }

    fn seek_time(&self, time: AppendTime) -> Result<Offset, LogError> {
        let frames = self.log.frames.lock().unwrap();
        let mut frames = frames.values().filter_map(|batch| batch.iter().next());
        let first = frames.find(|frame| frame.appended_at >= time);
        Ok(first.map_or_else(|| self.durable_end(), |frame| frame.base))
    }
}
