//! The rooms, driven like the references: the same loop around them, the same records, the same clock.

mod commands;
mod log;
mod orders;
mod replay;

pub use commands::{measure_commands, place_command};
pub use log::{LogSink, Store, open_log};
pub use orders::{OrderHistory, SampleOrder, order_id};
pub use replay::{Depth, replay};
