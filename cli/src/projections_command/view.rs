//! Projections as they are shown: read from a service's answers, or made from the files.

use order_projector_workers::{
    Difference, DifferenceKind, KeptTables, Offset, Projection, ProjectionStatus, TaskStatus,
};
use serde::{Deserialize, Serialize};

/// All projections, and what is being done.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Overview {
    pub(super) projections: Vec<OneProjection>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) task: Option<Task>,
}

/// One projection.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct OneProjection {
    pub(super) name: String,
    pub(super) paused: bool,
    pub(super) old_tables: bool,
    pub(super) unfinished_rebuild: bool,
    pub(super) partitions: Vec<Partition>,
}

/// One projection of one partition.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Partition {
    pub(super) partition: u16,
    pub(super) checkpoint: u64,
    pub(super) end: u64,
    pub(super) lag_events: u64,
    pub(super) lag_seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) log_unreadable: Option<String>,
    pub(super) parked_orders: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) halted: Option<String>,
}

/// A task.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Task {
    pub(super) projection: String,
    pub(super) action: String,
    pub(super) phase: String,
    pub(super) over: bool,
    pub(super) done: u64,
    pub(super) total: u64,
    pub(super) elapsed_seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rows_compared: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) differences: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) first_differences: Vec<RowDifference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

/// One row that was not what the log says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct RowDifference {
    pub(super) table: String,
    pub(super) key: String,
    pub(super) partition: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) order_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) offset: Option<u64>,
    pub(super) kind: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) columns: Vec<String>,
}

/// A page of parked orders.
#[derive(Debug, Deserialize)]
pub(super) struct ParkedOrders {
    pub(super) parked: Vec<ParkedOrder>,
    pub(super) next_after: Option<String>,
}

/// An order that was set aside.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ParkedOrder {
    pub(super) order_id: String,
    pub(super) partition: u16,
    pub(super) offset: u64,
    pub(super) events: u64,
    pub(super) reason: String,
}

/// What a redrive came to.
#[derive(Debug, Deserialize)]
pub(super) struct Redriven {
    pub(super) applied: u64,
    pub(super) parked_orders: u64,
}

impl OneProjection {
    pub(super) fn of(
        projection: Projection,
        status: &[ProjectionStatus],
        kept: KeptTables,
    ) -> Self {
        let mine: Vec<_> = status
            .iter()
            .filter(|status| status.projection == projection)
            .collect();
        Self {
            name: projection.name().to_owned(),
            paused: mine.iter().any(|status| status.paused),
            old_tables: kept.old,
            unfinished_rebuild: kept.unfinished,
            partitions: mine.into_iter().map(Partition::from).collect(),
        }
    }
}

impl From<&ProjectionStatus> for Partition {
    fn from(status: &ProjectionStatus) -> Self {
        Self {
            partition: status.partition.get(),
            checkpoint: status.checkpoint.get(),
            end: status.end.get(),
            lag_events: status.end.get().saturating_sub(status.checkpoint.get()),
            lag_seconds: status.lag_seconds,
            log_unreadable: status.log_unreadable.clone(),
            parked_orders: status.parked_orders,
            halted: status.halted.clone(),
        }
    }
}

impl From<TaskStatus> for Task {
    fn from(task: TaskStatus) -> Self {
        let findings = task.findings.as_ref();
        Self {
            projection: task.projection.name().to_owned(),
            action: task.action.name().to_owned(),
            phase: task.phase.name().to_owned(),
            over: task.phase.is_over(),
            done: task.done,
            total: task.total,
            elapsed_seconds: task.elapsed.as_secs_f64(),
            rows_compared: findings.map(|found| found.rows),
            differences: findings.map(|found| found.differences),
            first_differences: findings.map_or_else(Vec::new, |found| {
                found.first.iter().map(RowDifference::from).collect()
            }),
            error: task.error,
        }
    }
}

impl From<&Difference> for RowDifference {
    fn from(difference: &Difference) -> Self {
        let (kind, columns) = match &difference.kind {
            DifferenceKind::Missing => ("missing", Vec::new()),
            DifferenceKind::Unexpected => ("unexpected", Vec::new()),
            DifferenceKind::Columns(columns) => {
                let columns = columns.iter().map(|it| (*it).to_owned());
                ("different", columns.collect())
            }
        };
        Self {
            table: difference.table.to_owned(),
            key: difference.key.clone(),
            partition: difference.partition.get(),
            order_id: difference.order.map(|order| order.to_string()),
            offset: difference.offset.map(Offset::get),
            kind: kind.to_owned(),
            columns,
        }
    }
}
