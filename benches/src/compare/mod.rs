//! The service and the bare reference as processes of their own, under the same load, in turn.
//!
//! Every run starts from an empty data directory, waits until the service is ready, applies the load, and then proves
//! that the figures count something: every acknowledged order has its row once the service was started again, the rows are
//! as many as the records of the log, `log verify` finds nothing, and the process ends cleanly when asked to.

mod checks;
mod contestant;
mod generator;
mod process;
mod program;
mod wrk;

pub use contestant::{Contestant, Service};
pub use generator::{Generator, Load, LoadResult};
pub use program::{CompareConfig, compare};
