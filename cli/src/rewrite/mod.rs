//! Writing the frames of one log into another: what `log repartition`, `log compact`, `log import` and `log export` have in
//! common.
//!
//! Frames are read merged over the partitions by append time ([`Merged`]), so that in the new partitions, too, times never
//! decrease. They are written through the log's own writers ([`NewLog`]), and what was written is read back and held
//! against what was read ([`Fingerprint`], [`Chains`]). What else of a data directory goes with its log is in [`beside`].

pub(crate) mod beside;
mod merged;
mod new_log;
mod proof;
mod transcode;

pub(crate) use merged::{Merged, OwnedFrame};
pub(crate) use new_log::NewLog;
pub(crate) use proof::{Chains, Fingerprint};
pub(crate) use transcode::{encoded, event_of, to_binary, to_json};
