//! The two engines of this project behind [`Peer`].

use std::path::Path;

use order_benches::reference::Sink;
use order_benches::rooms::{Depth, LogSink, Store, replay};
use order_log::Durability;

use crate::peer::Peer;

struct Ours(LogSink);

pub(crate) fn segmented(directory: &Path, durable: bool) -> anyhow::Result<Box<dyn Peer>> {
    open(Store::Segmented, directory, durable)
}

pub(crate) fn json_lines(directory: &Path, durable: bool) -> anyhow::Result<Box<dyn Peer>> {
    open(Store::Jsonl, directory, durable)
}

fn open(store: Store, directory: &Path, durable: bool) -> anyhow::Result<Box<dyn Peer>> {
    let durability = if durable {
        Durability::Always
    } else {
        Durability::Os
    };
    Ok(Box::new(Ours(LogSink::new(store, directory, durability)?)))
}

impl Sink for Ours {
    fn add(&mut self, record: &[u8]) {
        self.0.add(record);
    }

    fn commit(&mut self) -> anyhow::Result<()> {
        self.0.commit()
    }
}

impl Peer for Ours {
    fn read_back(&mut self) -> anyhow::Result<u64> {
        replay(&*self.0.reader()?, Depth::Verify)
    }
}
