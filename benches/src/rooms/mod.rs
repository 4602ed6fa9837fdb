//! The rooms, driven like the references: the same loop around them, the same records, the same clock.

mod commands;
mod log;
mod orders;
mod projector;
mod replay;

pub use commands::{measure_commands, place_command};
pub use log::{ClosedLog, LOG_ID, LogSink, Store, open_log};
pub use orders::{FIRST_APPEND_US, OrderHistory, SampleOrder, order_id};
pub use projector::{TRANSACTION_RECORDS, catch_up, open_read_model};
pub use replay::{Depth, replay};
