//! For operators: projections, looked at and moved.

use std::sync::Arc;

use axum::extract::State;
use axum::http::Uri;
use order_domain::OrderId;
use order_projector_workers::{ParkedOrder, Projection, ProjectionStatus, ReadModelError};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::admin::{blocking, json};
use crate::answer::Answer;
use crate::api::Shared;
use crate::error::{Problem, ProblemKind};
use crate::{query, readers};

/// Parked orders of a page if the client does not say.
const PARKED_PAGE_DEFAULT: usize = 100;
/// Most parked orders of a page.
const PARKED_PAGE_MAX: usize = 1000;

/// All projections, as `GET /projections` shows them.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Projections)]
pub(crate) struct ProjectionsJson {
    projections: Vec<ProjectionJson>,
}

/// One projection over all its partitions.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Projection)]
pub(crate) struct ProjectionJson {
    name: &'static str,
    paused: bool,
    partitions: Vec<ProjectionPartitionJson>,
}

/// One projection of one partition.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ProjectionPartition)]
pub(crate) struct ProjectionPartitionJson {
    partition: u16,
    /// Offset after the last applied record.
    checkpoint: u64,
    /// Offset after the last record there is.
    end: u64,
    lag_events: u64,
    /// Age of the oldest event not applied, 0 when there is none; while the log cannot be read, as old as it can be.
    lag_seconds: f64,
    /// Why the log cannot be read, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    log_unreadable: Option<String>,
    parked_orders: u64,
    /// Why it stands still, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    halted: Option<String>,
}

/// `GET /projections`
pub(crate) async fn projections(State(shared): State<Arc<Shared>>) -> Result<Answer, Problem> {
    let status = blocking(move || shared.projector.status()).await?;
    let projections = Projection::ALL
        .iter()
        .map(|which| projection_json(*which, &status));
    Ok(json(&ProjectionsJson {
        projections: projections.collect(),
    }))
}

fn projection_json(which: Projection, status: &[ProjectionStatus]) -> ProjectionJson {
    let of_it: Vec<_> = status
        .iter()
        .filter(|status| status.projection == which)
        .collect();
    let partition = |status: &&ProjectionStatus| ProjectionPartitionJson {
        partition: status.partition.get(),
        checkpoint: status.checkpoint.get(),
        end: status.end.get(),
        lag_events: status.end.get().saturating_sub(status.checkpoint.get()),
        lag_seconds: status.lag_seconds,
        log_unreadable: status.log_unreadable.clone(),
        parked_orders: status.parked_orders,
        halted: status.halted.clone(),
    };
    ProjectionJson {
        name: which.name(),
        paused: of_it.iter().any(|status| status.paused),
        partitions: of_it.iter().map(partition).collect(),
    }
}

/// `POST /projections/:name/pause`
pub(crate) async fn pause(State(shared): State<Arc<Shared>>, uri: Uri) -> Result<Answer, Problem> {
    let which = projection_of(&uri)?;
    let paused = Arc::clone(&shared);
    let done = blocking(move || paused.projector.pause(which)).await?;
    done.map_err(|error| Problem::internal(error.to_string()))?;
    one_projection(shared, which).await
}

/// `POST /projections/:name/resume`
pub(crate) async fn resume(State(shared): State<Arc<Shared>>, uri: Uri) -> Result<Answer, Problem> {
    let which = projection_of(&uri)?;
    let resumed = Arc::clone(&shared);
    let done = blocking(move || resumed.projector.resume(which)).await?;
    done.map_err(|error| Problem::internal(error.to_string()))?;
    one_projection(shared, which).await
}

async fn one_projection(shared: Arc<Shared>, which: Projection) -> Result<Answer, Problem> {
    let status = blocking(move || shared.projector.status()).await?;
    Ok(json(&projection_json(which, &status)))
}

/// The projection that the path's second segment names.
fn projection_of(uri: &Uri) -> Result<Projection, Problem> {
    let name = uri.path().split('/').nth(2).unwrap_or_default();
    let named = Projection::ALL
        .into_iter()
        .find(|projection| projection.name() == name);
    named.ok_or_else(|| {
        let names: Vec<_> = Projection::ALL
            .iter()
            .map(|projection| projection.name())
            .collect();
        Problem::new(
            ProblemKind::ProjectionNotFound,
            format!("there are {}", names.join(", ")),
        )
    })
}

/// A page of parked orders, as `GET /projections/:name/parked` shows it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ParkedOrders)]
pub(crate) struct ParkedOrdersJson {
    parked: Vec<ParkedOrderJson>,
    /// What `after` must be for the next page, if there may be one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_after: Option<String>,
}

/// One order that a projection has set aside.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ParkedOrder)]
pub(crate) struct ParkedOrderJson {
    order_id: String,
    partition: u16,
    /// Where in the log the event is that could not be applied.
    offset: u64,
    /// Events that wait, those behind the first included.
    events: u64,
    /// Why the first could not be applied.
    reason: String,
}

impl From<ParkedOrder> for ParkedOrderJson {
    fn from(order: ParkedOrder) -> Self {
        Self {
            order_id: order.id.to_string(),
            partition: order.partition.get(),
            offset: order.offset.get(),
            events: order.events,
            reason: order.reason,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ParkedQuery {
    limit: Option<usize>,
    after: Option<String>,
}

/// `GET /projections/:name/parked`
pub(crate) async fn parked(State(shared): State<Arc<Shared>>, uri: Uri) -> Result<Answer, Problem> {
    let which = projection_of(&uri)?;
    let query: ParkedQuery = query::parse(&uri)?;
    let limit = query.limit.unwrap_or(PARKED_PAGE_DEFAULT);
    if !(1..=PARKED_PAGE_MAX).contains(&limit) {
        return Err(query::refuse(
            "limit",
            format!("is not between 1 and {PARKED_PAGE_MAX}"),
        ));
    }
    let after = query.after.map(|after| {
        OrderId::parse(&after).map_err(|error| query::refuse("after", error.to_string()))
    });
    let after = after.transpose()?;
    let page = blocking(move || shared.read_model.reader()?.parked(which, after, limit)).await?;
    let page = page.map_err(|error| readers::unreadable(&error))?;
    let full = page.len() == limit;
    let next_after = page.last().filter(|_| full).map(|last| last.id.to_string());
    Ok(json(&ParkedOrdersJson {
        parked: page.into_iter().map(ParkedOrderJson::from).collect(),
        next_after,
    }))
}

/// What trying parked orders again came to.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ParkedRedriven)]
pub(crate) struct ParkedRedrivenJson {
    /// Appends that could be applied now.
    applied: u64,
    /// Orders that are still parked.
    parked_orders: u64,
}

/// `POST /projections/:name/parked/redrive`
pub(crate) async fn redrive_parked(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
) -> Result<Answer, Problem> {
    let which = projection_of(&uri)?;
    let redriven = blocking(move || shared.projector.redrive(which)).await?;
    let redriven = redriven.map_err(|error| match error {
        ReadModelError::Halted { .. } => {
            Problem::new(ProblemKind::ProjectorHalted, error.to_string())
        }
        other => Problem::internal(other.to_string()),
    })?;
    Ok(json(&ParkedRedrivenJson {
        applied: redriven.applied_frames,
        parked_orders: redriven.parked_orders,
    }))
}
