//! The write side as tests need it: one process, no clock, no network, every order remembered as it was decided.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use order_domain::codec::{self, Codec};
use order_domain::{
    Amount, Command, Currency, CustomerId, EventContext, Idempotency, LineId, NewLine, Order,
    OrderId, PlaceOrder, Quantity, Rejection, Sku, Timestamp, decide, fold,
};
use order_log::disk::RealDisk;
use order_log::segmented::{SegmentedConfig, SegmentedLog};
use order_log::{
    AppendTime, Batch, Durability, EventLog, Frame, Key, LogError, Offset, PartitionId,
    PartitionReader, PartitionWriter, RecordTag, ScanLimit,
};
use order_partitioner::Partitioner;
use tempfile::TempDir;

use crate::board::Board;
use crate::metrics::Metrics;
use crate::worker::{Step, Worker};
use crate::{
    Projection, ProjectionDigest, ProjectorConfig, ReadModel, ReadModelConfig, fold_afresh,
};

/// When the first frame of every world is appended: ids count milliseconds, so this is a whole one.
pub(crate) const FIRST_MICROS: u64 = 1_700_000_000_000_000;

/// Between two frames.
pub(crate) const TICK_MICROS: u64 = 1_000;

/// An order as the write side knows it.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) order: Order,
    pub(crate) last_frame: Offset,
}

pub(crate) struct World {
    pub(crate) directory: TempDir,
    pub(crate) log: SegmentedLog,
    writers: Vec<Box<dyn PartitionWriter>>,
    pending: Vec<Batch>,
    partitioner: Partitioner,
    pub(crate) orders: BTreeMap<OrderId, Known>,
    /// Append time of the next frame.
    pub(crate) now_micros: u64,
    ids_made: u64,
    /// How many of the last records the next step of a projector does not see when it looks at the end of the log,
    /// though they are there when it reads.
    pub(crate) unseen: Arc<AtomicU64>,
}

impl World {
    pub(crate) fn new(partitions: u16) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let log = SegmentedLog::open(
            SegmentedConfig::new(
                directory.path().join("log"),
                [7; 16],
                partitions,
                Durability::Always,
            ),
            Arc::new(RealDisk),
        )
        .unwrap();
        let writers = (0..partitions)
            .map(|number| log.writer(PartitionId::new(number)).unwrap())
            .collect();
        Self {
            directory,
            log,
            writers,
            pending: (0..partitions).map(|_| Batch::new()).collect(),
            partitioner: Partitioner::new(partitions).unwrap(),
            orders: BTreeMap::new(),
            now_micros: FIRST_MICROS,
            ids_made: 0,
            unseen: Arc::default(),
        }
    }

    pub(crate) fn partitions(&self) -> impl Iterator<Item = PartitionId> + use<> {
        (0..self.partitioner.partitions()).map(PartitionId::new)
    }

    pub(crate) fn partition_of(&self, id: OrderId) -> PartitionId {
        let number = self
            .partitioner
            .partition_of(id.text(&mut [0; 36]).as_bytes());
        PartitionId::new(number)
    }

    /// An id as the server makes it now: time in front, then a counter where others have randomness.
    pub(crate) fn new_id(&mut self) -> OrderId {
        self.ids_made += 1;
        let mut bytes = [0; 16];
        bytes[..6].copy_from_slice(&(self.now_micros / 1_000).to_be_bytes()[2..]);
        bytes[6] = 0x70;
        bytes[8..].copy_from_slice(&self.ids_made.to_be_bytes());
        OrderId::from_bytes(bytes)
    }

    pub(crate) fn place(&mut self, customer: &str, lines: &[(&str, u32, i64)]) -> OrderId {
        let id = self.new_id();
        self.run(id, &place(customer, lines)).unwrap();
        id
    }

    /// Decides a command and puts its events into the next append.
    pub(crate) fn run(&mut self, id: OrderId, command: &Command) -> Result<Offset, Rejection> {
        self.run_with(id, command, &EventContext::default())
    }

    /// The same, with an idempotency key.
    pub(crate) fn run_keyed(&mut self, id: OrderId, command: &Command, key: &str) -> Offset {
        let context = EventContext {
            idempotency: Some(Idempotency {
                key: key.to_owned().into(),
                fingerprint: Idempotency::fingerprint(&[key.as_bytes()]),
            }),
            ..EventContext::default()
        };
        self.run_with(id, command, &context).unwrap()
    }

    fn run_with(
        &mut self,
        id: OrderId,
        command: &Command,
        context: &EventContext<'_>,
    ) -> Result<Offset, Rejection> {
        let known = self.orders.get(&id).cloned();
        let mut order = known.as_ref().map(|known| known.order.clone());
        let events = decide(order.as_ref(), command)?;
        let sequence = order.as_ref().map_or(0, |order| order.version.get()) + 1;
        let at = Timestamp::from_micros(self.now_micros);
        let none = EventContext::default();
        let mut records = Vec::new();
        for (index, event) in events.iter().enumerate() {
            fold(&mut order, id, event, at).unwrap();
            let mut bytes = Vec::new();
            let context = if index == 0 { context } else { &none };
            let header = codec::encode(Codec::Bincode, event, context, &mut bytes);
            let tag = RecordTag {
                event_type: header.event_type,
                schema: header.schema,
                codec: header.codec,
            };
            records.push((tag, bytes));
        }
        let previous = known.map(|known| known.last_frame);
        let last_frame = self.append_records(id, sequence, previous, &records);
        let order = order.unwrap();
        self.orders.insert(id, Known { order, last_frame });
        Ok(last_frame)
    }

    /// Puts a frame into the next append, whatever it holds.
    pub(crate) fn append_records(
        &mut self,
        id: OrderId,
        sequence: u32,
        previous: Option<Offset>,
        records: &[(RecordTag, Vec<u8>)],
    ) -> Offset {
        let partition = self.partition_of(id).index();
        let batch = &mut self.pending[partition];
        if batch.is_empty() {
            batch.start_at(self.writers[partition].end());
        }
        let at = AppendTime::from_micros(self.now_micros);
        self.now_micros += TICK_MICROS;
        batch.begin_frame(Key::new(*id.as_bytes()), sequence, previous, at);
        for (tag, bytes) in records {
            batch.record(|buffer| {
                buffer.extend_from_slice(bytes);
                *tag
            });
        }
        batch.end_frame()
    }

    /// Appends a frame that no version of the codec decodes, as the order's next, and remembers it as if it had been
    /// `command`: a later repair makes it so.
    pub(crate) fn append_undecodable(&mut self, id: OrderId) -> Offset {
        let known = self.orders[&id].clone();
        let sequence = known.order.version.get() + 1;
        let tag = RecordTag {
            event_type: 999,
            schema: 1,
            codec: Codec::Bincode.number(),
        };
        self.append_records(
            id,
            sequence,
            Some(known.last_frame),
            &[(tag, vec![1, 2, 3])],
        )
    }

    /// Makes everything so far durable and visible.
    pub(crate) fn flush(&mut self) {
        for (batch, writer) in self.pending.iter_mut().zip(&mut self.writers) {
            if !batch.is_empty() {
                writer.append(batch).unwrap();
                batch.start_at(writer.end());
            }
        }
    }

    pub(crate) fn end(&self, partition: PartitionId) -> Offset {
        self.log.reader(partition).unwrap().durable_end()
    }

    pub(crate) fn config(&self, directory: &Path, shards: u16) -> ReadModelConfig {
        ReadModelConfig {
            directory: directory.to_owned(),
            partitions: self.partitioner.partitions(),
            shards,
            log_id: "07".repeat(16),
        }
    }

    /// The read model beside the log, in one file.
    pub(crate) fn open(&self) -> Arc<ReadModel> {
        ReadModel::open(self.config(self.directory.path(), 1)).unwrap()
    }

    pub(crate) fn projector(&self, read_model: &Arc<ReadModel>) -> Projector {
        self.projector_with(read_model, &projector_config(u64::MAX))
    }

    pub(crate) fn projector_with(
        &self,
        read_model: &Arc<ReadModel>,
        config: &ProjectorConfig,
    ) -> Projector {
        let board = Arc::new(Board::new(&self.log, Arc::clone(read_model)).unwrap());
        let registry = prometheus::Registry::new();
        let metrics = Metrics::register(&registry, &board).unwrap();
        let worker = |partition| {
            Worker::new(
                Box::new(Growing {
                    log: self.log.reader(partition).unwrap(),
                    unseen: Arc::clone(&self.unseen),
                }),
                Arc::clone(read_model),
                Arc::clone(&board),
                metrics.of(&board, partition),
                config.clone(),
            )
            .unwrap()
        };
        Projector {
            workers: self.partitions().map(worker).collect(),
            registry,
            board,
        }
    }

    /// The same log folded into new files: what the rows should be.
    pub(crate) fn folded_afresh(&self, shards: u16, batch_records_max: u64) -> Digests {
        let directory = tempfile::tempdir().unwrap();
        let read_model = fold_afresh(
            &self.log,
            self.config(directory.path(), shards),
            &projector_config(batch_records_max),
            &|_, _| Offset::new(u64::MAX),
        )
        .unwrap();
        digests(&read_model)
    }

    /// Asserts that every order's row is the order as it was decided.
    pub(crate) fn assert_rows_are_the_orders(&self, read_model: &ReadModel) {
        let mut reader = read_model.reader().unwrap();
        for (id, known) in &self.orders {
            let row = reader.order(self.partition_of(*id), *id).unwrap().unwrap();
            assert_eq!(row.to_order().unwrap(), known.order);
            assert_eq!(row.last_frame, known.last_frame);
            assert_eq!(row.partition, self.partition_of(*id));
        }
    }
}

/// A reading end that at first does not see the last records, as if they were appended a moment later.
#[derive(Debug)]
struct Growing {
    log: Box<dyn PartitionReader>,
    /// How many records the next look at the end leaves out.
    unseen: Arc<AtomicU64>,
}

impl PartitionReader for Growing {
    fn partition(&self) -> PartitionId {
        self.log.partition()
    }

    fn start(&self) -> Offset {
        self.log.start()
    }

    fn durable_end(&self) -> Offset {
        let unseen = self.unseen.swap(0, Ordering::SeqCst);
        Offset::new(self.log.durable_end().get() - unseen)
    }

    fn wait_beyond(&self, offset: Offset, timeout: Duration) -> Offset {
        self.log.wait_beyond(offset, timeout)
    }

    fn scan(
        &self,
        from: Offset,
        limit: ScanLimit,
        visit: &mut dyn FnMut(Frame<'_>) -> ControlFlow<()>,
    ) -> Result<Offset, LogError> {
        self.log.scan(from, limit, visit)
    }

    fn seek_time(&self, time: AppendTime) -> Result<Offset, LogError> {
        self.log.seek_time(time)
    }
}

/// Workers of all partitions, stepped by the test.
pub(crate) struct Projector {
    pub(crate) workers: Vec<Worker>,
    pub(crate) registry: prometheus::Registry,
    pub(crate) board: Arc<Board>,
}

impl Projector {
    /// Applies everything there is.
    pub(crate) fn catch_up(&mut self) {
        for worker in &mut self.workers {
            while worker.step().unwrap() == Step::Moved {}
        }
    }
}

pub(crate) type Digests = Vec<(&'static str, PartitionId, ProjectionDigest)>;

/// The digests of all projections and partitions.
pub(crate) fn digests(read_model: &ReadModel) -> Digests {
    let mut reader = read_model.reader().unwrap();
    let mut all = Vec::new();
    for projection in Projection::ALL {
        for partition in read_model.partitions() {
            let digest = reader.digest(projection, partition).unwrap();
            all.push((projection.name(), partition, digest));
        }
    }
    all
}

pub(crate) fn projector_config(batch_records_max: u64) -> ProjectorConfig {
    ProjectorConfig {
        batch_records_max,
        idempotency_retention_us: u64::MAX,
    }
}

pub(crate) fn place(customer: &str, lines: &[(&str, u32, i64)]) -> Command {
    Command::Place(PlaceOrder {
        customer_id: CustomerId::new(customer.to_owned()).unwrap(),
        currency: Currency::parse("EUR").unwrap(),
        lines: lines
            .iter()
            .map(|(sku, quantity, price)| line(sku, *quantity, *price))
            .collect(),
        metadata: BTreeMap::from([("channel".to_owned(), "w\"e\"b\n".to_owned())]),
    })
}

pub(crate) fn line(sku: &str, quantity: u32, unit_price: i64) -> NewLine {
    NewLine {
        sku: Sku::new(sku.to_owned()).unwrap(),
        quantity: Quantity::new(quantity).unwrap(),
        unit_price: Amount::new(unit_price).unwrap(),
    }
}

pub(crate) fn pay(amount: i64) -> Command {
    Command::Pay {
        amount: Amount::new(amount).unwrap(),
        reference: None,
    }
}

pub(crate) fn cancel() -> Command {
    Command::Cancel { reason: None }
}

pub(crate) fn remove(line: u32) -> Command {
    Command::RemoveLine(LineId::new(line).unwrap())
}
