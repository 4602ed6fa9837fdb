//! What an order is: ids, money, commands, events, [`decide`], [`fold`] and the codec.
//!
//! Pure: no clock, no randomness, no I/O. Time and ids are arguments, so that the same input gives the same events on
//! every machine and in every replay.

#![forbid(unsafe_code)]

pub mod codec;
mod command;
mod currency;
mod decide;
mod event;
mod fold;
mod ids;
mod money;
mod names;
mod order;
mod time;

pub use command::{Command, CommandKind, NewLine, PlaceOrder};
pub use currency::Currency;
pub use decide::{Rejection, decide, decide_owned};
pub use event::{Event, EventContext, EventKind, Idempotency, RecordedEvent};
pub use fold::{FoldError, fold, fold_owned};
pub use ids::{CustomerId, InvalidId, LineId, OrderId, Sku, TEXT_ID_BYTES_MAX, Version};
pub use money::{Amount, MoneyError, Quantity};
pub use order::{
    LINES_MAX, Line, METADATA_ENTRIES_MAX, METADATA_KEY_BYTES_MAX, METADATA_VALUE_BYTES_MAX,
    Metadata, Order, Status, TEXT_BYTES_MAX,
};
pub use time::Timestamp;
