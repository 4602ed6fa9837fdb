//! What wakes another process when rows were committed: a cell beside the files, rung by whoever projects.
//!
//! A bell says nothing but "look": how far the rows are is read from the files, in one transaction with them. So it does
//! no harm if it is lost, late, or of another life.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use order_log::{CellsFollower, CellsOwner};

use crate::ReadModelError;

const FILE_NAME: &str = "read-model.bell";
const IDENTITY: [u8; 16] = *b"read model bell ";

/// How often a bell that does not hang yet is looked for.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The rope's end.
#[derive(Debug)]
pub(crate) struct Bell {
    cell: CellsOwner,
    rung: AtomicU64,
    failing: AtomicBool,
}

impl Bell {
    pub(crate) fn hang(directory: &Path) -> Result<Self, ReadModelError> {
        let path = directory.join(FILE_NAME);
        let cell =
            CellsOwner::open(&path, IDENTITY, 1, 0).map_err(ReadModelError::io("open", &path))?;
        Ok(Self {
            cell,
            rung: AtomicU64::new(0),
            failing: AtomicBool::new(false),
        })
    }

    pub(crate) fn ring(&self) {
        let rung = || self.rung.fetch_add(1, Ordering::Relaxed);
        match self.cell.tell(0, rung) {
            Ok(()) => self.failing.store(false, Ordering::Relaxed),
            Err(error) => {
                if !self.failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "the bell cannot be rung: other processes see new rows later");
                }
            }
        }
    }
}

/// Who listens.
#[derive(Debug)]
pub(crate) struct Listener {
    path: PathBuf,
    cell: OnceLock<CellsFollower>,
}

impl Listener {
    pub(crate) fn new(directory: &Path) -> Self {
        Self {
            path: directory.join(FILE_NAME),
            cell: OnceLock::new(),
        }
    }

    fn cell(&self) -> Option<&CellsFollower> {
        if let Some(cell) = self.cell.get() {
            return Some(cell);
        }
        let cell = CellsFollower::open(&self.path, IDENTITY, 1).ok()?;
        Some(self.cell.get_or_init(|| cell))
    }

    /// To be taken before a look at the files.
    pub(crate) fn turn(&self) -> Option<u32> {
        Some(self.cell()?.turn(0))
    }

    /// Sleeps until the bell rings after `turn`, or `timeout` passed.
    pub(crate) fn wait(&self, turn: Option<u32>, timeout: Duration) {
        let slept = match (self.cell(), turn) {
            (Some(cell), Some(turn)) => cell.wait(0, turn, timeout).is_ok(),
            _ => false,
        };
        if !slept {
            std::thread::sleep(timeout.min(LOOK_AGAIN));
        }
    }
}
