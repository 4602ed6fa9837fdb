//! What an order is: ids, money, commands, events, [`decide`], [`fold`] and the codec.
//!
//! Pure: no clock, no randomness, no I/O. Time and ids are arguments, so that the same input gives the same events on
//! every machine and in every replay.
//!
//! ```
//! use order_domain::codec::{Codec, decode, encode};
//! use order_domain::{
//!     Amount, Command, Currency, CustomerId, EventContext, Metadata, NewLine, OrderId, PlaceOrder,
//!     Quantity, Sku, Status, Timestamp, decide, fold_owned,
//! };
//!
//! let place = Command::Place(PlaceOrder {
//!     customer_id: CustomerId::new("c-1042")?,
//!     currency: Currency::parse("EUR")?,
//!     lines: vec![NewLine {
//!         sku: Sku::new("SKU-1")?,
//!         quantity: Quantity::new(2)?,
//!         unit_price: Amount::new(1999)?,
//!     }],
//!     metadata: Metadata::new(),
//! });
//!
//! // The command worker decides and appends …
//! let mut record = Vec::new();
//! let events = decide(None, &place)?;
//! let header = encode(Codec::Bincode, &events[0], &EventContext::default(), &mut record);
//!
//! // … and the projector decodes and folds.
//! let id = OrderId::parse("0199c82c-7a1b-7c3d-8e4f-5a6b7c8d9e0f")?;
//! let mut order = None;
//! fold_owned(&mut order, id, decode(header, &record)?.event, Timestamp::from_micros(1))?;
//!
//! let order = order.expect("the first event makes the order");
//! assert_eq!((order.status, order.total), (Status::Placed, Amount::new(3998)?));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

pub mod codec;
mod command;
mod currency;
mod decide;
mod event;
mod fold;
mod idempotency;
mod ids;
mod money;
mod names;
mod order;
mod snapshot;
mod time;

pub use command::{Command, CommandKind, NewLine, PlaceOrder};
pub use currency::Currency;
pub use decide::{Rejection, decide, decide_owned};
pub use event::{Event, EventContext, EventKind, RecordedEvent};
pub use fold::{FoldError, fold, fold_owned};
pub use idempotency::{Caller, Idempotency, UsedKey};
pub use ids::{CustomerId, InvalidId, LineId, OrderId, Sku, TEXT_ID_BYTES_MAX, Version};
pub use money::{Amount, MoneyError, Quantity};
pub use order::{
    LINES_MAX, Line, METADATA_ENTRIES_MAX, METADATA_KEY_BYTES_MAX, METADATA_VALUE_BYTES_MAX,
    Metadata, Order, Status, TEXT_BYTES_MAX,
};
pub use snapshot::{LastOrdered, Life, Snapshot};
pub use time::Timestamp;
