//! What a peer must be able to do to take part.

use std::path::Path;

use order_benches::reference::Sink;

/// Somebody's log or store, new and empty, in a directory of its own.
pub(crate) trait Peer: Sink {
    /// Reads everything back that was committed; returns how many records there were. May close and open it.
    fn read_back(&mut self) -> anyhow::Result<u64>;
}

/// Makes a peer in an empty directory; its commits are durable, or only handed to the operating system.
pub(crate) type Make = fn(&Path, bool) -> anyhow::Result<Box<dyn Peer>>;

/// A peer by name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    pub(crate) make: Make,
    /// Whether its commits can be durable.
    pub(crate) durable: bool,
    /// Whether its commits can be left to the operating system.
    pub(crate) unsynced: bool,
}

/// Everybody, ours first.
pub(crate) const PEERS: [Entry; 6] = [
    Entry {
        name: "segmented (ours)",
        make: super::ours::segmented,
        durable: true,
        unsynced: true,
    },
    Entry {
        name: "JSON lines (ours)",
        make: super::ours::json_lines,
        durable: true,
        unsynced: true,
    },
    Entry {
        name: "okaywal 0.3, keeping its log",
        make: super::others::okaywal,
        durable: true,
        // Its commit always syncs.
        unsynced: false,
    },
    Entry {
        name: "fjall 3, keys in order",
        make: super::others::fjall,
        durable: true,
        unsynced: true,
    },
    Entry {
        name: "commitlog 0.2",
        make: super::others::commitlog,
        // Its flush does not sync.
        durable: false,
        unsynced: true,
    },
    Entry {
        name: "SQLite, unique (stream, version)",
        make: super::others::sqlite,
        durable: true,
        unsynced: true,
    },
];
