//! A gate in the way of a disk's syncs or of a log's readers: closed, it shows what goes on meanwhile.

use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use order_log::disk::{Disk, DiskFile, Map, RealDisk};
use order_log::{AppendTime, Frame, LogError, Offset, PartitionId, PartitionReader, ScanLimit};

/// Longest wait for anything that should happen by itself.
const PATIENCE: Duration = Duration::from_secs(60);

/// Open at first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<State>, Condvar)>);

#[derive(Debug, Default)]
struct State {
    closed: bool,
    waiting: usize,
}

/// Opens its gate when it is dropped: whatever becomes of a test, nobody waits for ever.
#[derive(Debug)]
pub(crate) struct Closed(Gate);

impl Gate {
    pub(crate) fn close(&self) -> Closed {
        self.0.0.lock().unwrap().closed = true;
        Closed(self.clone())
    }

    fn pass(&self) {
        let (state, changed) = &*self.0;
        let mut state = state.lock().unwrap();
        state.waiting += 1;
        let (mut state, waited) = changed
            .wait_timeout_while(state, PATIENCE, |state| state.closed)
            .unwrap();
        state.waiting -= 1;
        drop(state);
        assert!(!waited.timed_out(), "the gate is closed for ever");
    }
}

impl Closed {
    /// Waits until somebody stands before it.
    pub(crate) async fn until_somebody_waits(&self) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while self.0.0.0.lock().unwrap().waiting == 0 {
            assert!(tokio::time::Instant::now() < deadline, "nobody comes");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Drop for Closed {
    fn drop(&mut self) {
        let (state, changed) = &*self.0.0;
        state.lock().unwrap().closed = false;
        changed.notify_all();
    }
}

/// A disk whose syncs pass a gate.
#[derive(Debug, Default)]
pub(crate) struct GatedDisk {
    pub(crate) gate: Gate,
}

#[derive(Debug)]
struct GatedFile {
    file: Arc<dyn DiskFile>,
    gate: Gate,
}

impl GatedDisk {
    fn gated(&self, file: io::Result<Arc<dyn DiskFile>>) -> io::Result<Arc<dyn DiskFile>> {
        let gate = self.gate.clone();
        Ok(Arc::new(GatedFile { file: file?, gate }))
    }
}

impl Disk for GatedDisk {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_directory(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(path)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.gated(RealDisk.create(path))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.gated(RealDisk.open(path))
    }

    fn open_read_only(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        RealDisk.open_read_only(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_directory(path)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        RealDisk.free_bytes(path)
    }
}

impl DiskFile for GatedFile {
    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn write_all_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, position)
    }

    fn write_zeros_at(&self, position: u64, bytes: u64) -> io::Result<()> {
        self.file.write_zeros_at(position, bytes)
    }

    fn forget_cached(&self) {
        self.file.forget_cached();
    }

    fn read_exact_at(&self, bytes: &mut [u8], position: u64) -> io::Result<()> {
        self.file.read_exact_at(bytes, position)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.gate.pass();
        self.file.sync_data()
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.file.allocate(bytes)
    }

    fn set_length(&self, bytes: u64) -> io::Result<()> {
        self.file.set_length(bytes)
    }

    fn map(&self) -> io::Result<Map> {
        self.file.map()
    }
}

/// A reader of a partition whose scans pass a gate.
#[derive(Debug)]
pub(crate) struct GatedReader {
    pub(crate) reader: Box<dyn PartitionReader>,
    pub(crate) gate: Gate,
}

impl PartitionReader for GatedReader {
    fn partition(&self) -> PartitionId {
        self.reader.partition()
    }

    fn start(&self) -> Offset {
        self.reader.start()
    }

    fn durable_end(&self) -> Offset {
        self.reader.durable_end()
    }

    fn wait_beyond(&self, offset: Offset, timeout: Duration) -> Offset {
        self.reader.wait_beyond(offset, timeout)
    }

    fn scan(
        &self,
        from: Offset,
        limit: ScanLimit,
        visit: &mut dyn FnMut(Frame<'_>) -> ControlFlow<()>,
    ) -> Result<Offset, LogError> {
        self.gate.pass();
        self.reader.scan(from, limit, visit)
    }

    fn seek_time(&self, time: AppendTime) -> Result<Offset, LogError> {
        self.reader.seek_time(time)
    }
}
