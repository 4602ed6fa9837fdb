//! Load on any order service: at a constant rate whatever the service does, or as fast as it answers.
//!
//! **Open loop** (a rate above 0): the moment each request should be sent is fixed beforehand, and its latency counts
//! from that moment. A service that stalls is charged for every request that had to wait for it, not only for the few
//! that were on the wire: no coordinated omission.
//!
//! **Closed loop** (rate 0): each connection sends its next request when the last was answered. That finds the highest
//! throughput; its latencies say nothing about a service under a given load, and every report of it says so.
//!
//! **Ramp**: open-loop steps at growing rates, until latency or projector lag leave their bounds: the knee.

mod asking;
mod connection;
mod ledger;
mod metrics;
mod operation;
mod orders;
mod outcome;
mod pacing;
mod pictures;
mod ramp;
mod run;
mod series;
mod target;
#[cfg(test)]
mod tests;

pub use connection::fetch;
pub use ledger::{Ledger, LedgerEntry, LedgerProof, prove_ledger};
pub use metrics::{lag_seconds, metrics_of, samples, sum_of};
pub use operation::{Mix, Operation};
pub use outcome::{LoadReport, OperationReport, Percentile, Quantiles};
pub use pictures::{draw_ramp, draw_run, over_time, percentile_curve, ramp_curves};
pub use ramp::{Bounds, Ramp, RampReport, Step, climb};
pub use run::{LoadConfig, run};
pub use series::SeriesPoint;
pub use target::Target;
