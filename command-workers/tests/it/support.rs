//! What the tests stand on: a log in memory whose appends can be made to fail or to wait, a read model whose checkpoint
//! moves only when told, and short words for requests.

mod memory_log;
mod read_model;
mod requests;
mod service;

pub(crate) use memory_log::{MemoryLog, Plan};
pub(crate) use read_model::{ReadModel, Rewritten};
pub(crate) use requests::{Requests, on, place};
pub(crate) use service::{Service, Setup, queue};
