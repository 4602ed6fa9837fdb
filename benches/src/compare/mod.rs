//! The service, its engines and the bare reference as processes of their own, under the same load, in turn.
//!
//! Every run starts from a data directory that it knows, waits until the service is ready, and then proves that its figures
//! count something: every acknowledged order has its row once the service was started again, the rows are as many as the
//! records of the log and add up to what was ordered, `log verify` finds nothing, and the process ends cleanly when asked
//! to. Histories that were written beforehand must give the same rows, by digest, in every engine and layout.

mod ceiling;
mod checks;
mod contention;
mod contestant;
mod evidence;
mod experiment;
mod generator;
mod history;
mod ingest;
mod lag;
mod memory;
mod origin;
mod plan;
mod process;
mod program;
mod recovery;
mod redis;
mod restart;
mod rows;
mod verdict;
mod wrk;

pub use ceiling::{Ceiling, ceiling};
pub use contestant::{Contestant, Service};
pub use evidence::Evidence;
pub use experiment::{Better, Contender, Experiment, Figure, Metric, short};
pub use generator::{Generator, Load, LoadResult};
pub use origin::Origin;
pub use plan::{Plan, Question};
pub use program::{CompareConfig, compare};
pub use verdict::{Verdict, Winner};
