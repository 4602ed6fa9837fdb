//! For operators: projections, looked at and moved.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use order_domain::OrderId;
use order_projector_workers::{
    Action, Difference, DifferenceKind, KeptTables, Offset, ParkedOrder, Projection,
    ProjectionStatus, ReadModelError, TaskStatus,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::admin::{blocking, json};
use crate::answer::{self, Answer};
use crate::api::Shared;
use crate::error::{Problem, ProblemKind};
use crate::request_headers::prefers_async;
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
    /// What is being done to a projection's tables, or was last since the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<TaskJson>,
}

/// One projection over all its partitions.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Projection)]
pub(crate) struct ProjectionJson {
    name: &'static str,
    paused: bool,
    /// Whether the tables that a rebuild replaced are still kept.
    old_tables: bool,
    /// Whether there are tables of a rebuild that runs, or did not come to its end.
    unfinished_rebuild: bool,
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

/// What is done to a projection's tables.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ProjectionTask)]
pub(crate) struct TaskJson {
    projection: &'static str,
    /// `rebuild`, `switch-back`, `discard-old` or `reindex`.
    action: &'static str,
    /// `preparing`, `folding`, `comparing`, `switching`, `working`, then `done`, `stopped` or `failed`.
    phase: &'static str,
    /// Whether it is over.
    over: bool,
    /// How much of the phase is done: records while folding, rows while comparing.
    done: u64,
    /// How much there is to do in the phase, as far as is known.
    total: u64,
    elapsed_seconds: f64,
    /// Rows that were compared with those the log says, once they were.
    #[serde(skip_serializing_if = "Option::is_none")]
    rows_compared: Option<u64>,
    /// How many of them differed.
    #[serde(skip_serializing_if = "Option::is_none")]
    differences: Option<u64>,
    /// The first of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    first_differences: Vec<DifferenceJson>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// One row that was not what the log says.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ProjectionDifference)]
pub(crate) struct DifferenceJson {
    table: &'static str,
    key: String,
    partition: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    order_id: Option<String>,
    /// Where in the log the last event is that the row should show.
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    /// `missing`, `unexpected` or `different`.
    kind: &'static str,
    /// The columns that differed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    columns: Vec<&'static str>,
}

impl From<Difference> for DifferenceJson {
    fn from(difference: Difference) -> Self {
        let (kind, columns) = match difference.kind {
            DifferenceKind::Missing => ("missing", Vec::new()),
            DifferenceKind::Unexpected => ("unexpected", Vec::new()),
            DifferenceKind::Columns(columns) => ("different", columns),
        };
        Self {
            table: difference.table,
            key: difference.key,
            partition: difference.partition.get(),
            order_id: difference.order.map(|order| order.to_string()),
            offset: difference.offset.map(Offset::get),
            kind,
            columns,
        }
    }
}

impl From<TaskStatus> for TaskJson {
    fn from(task: TaskStatus) -> Self {
        let findings = task.findings.as_ref();
        Self {
            projection: task.projection.name(),
            action: task.action.name(),
            phase: task.phase.name(),
            over: task.phase.is_over(),
            done: task.done,
            total: task.total,
            elapsed_seconds: task.elapsed.as_secs_f64(),
            rows_compared: findings.map(|found| found.rows),
            differences: findings.map(|found| found.differences),
            first_differences: task
                .findings
                .map(|found| found.first.into_iter().map(DifferenceJson::from).collect())
                .unwrap_or_default(),
            error: task.error,
        }
    }
}

/// `GET /projections`
pub(crate) async fn projections(State(shared): State<Arc<Shared>>) -> Result<Answer, Problem> {
    let all = blocking(move || {
        let status = shared.projector.status();
        let mut reader = shared.read_model.reader()?;
        let projections = Projection::ALL
            .iter()
            .map(|which| {
                Ok(projection_json(
                    *which,
                    &status,
                    reader.kept_tables(*which)?,
                ))
            })
            .collect::<Result<_, ReadModelError>>()?;
        Ok(ProjectionsJson {
            projections,
            task: shared.projector.task().map(TaskJson::from),
        })
    });
    let all = all.await?;
    Ok(json(&all.map_err(|error| readers::unreadable(&error))?))
}

fn projection_json(
    which: Projection,
    status: &[ProjectionStatus],
    kept: KeptTables,
) -> ProjectionJson {
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
        old_tables: kept.old,
        unfinished_rebuild: kept.unfinished,
        partitions: of_it.iter().map(partition).collect(),
    }
}

/// `POST /projections/:name/pause`
pub(crate) async fn pause(State(shared): State<Arc<Shared>>, uri: Uri) -> Result<Answer, Problem> {
    let which = projection_of(&uri)?;
    let paused = Arc::clone(&shared);
    let done = blocking(move || Ok::<_, Problem>(paused.projector.here()?.pause(which))).await??;
    done.map_err(|error| Problem::internal(error.to_string()))?;
    one_projection(shared, which).await
}

/// `POST /projections/:name/resume`
pub(crate) async fn resume(State(shared): State<Arc<Shared>>, uri: Uri) -> Result<Answer, Problem> {
    let which = projection_of(&uri)?;
    let resumed = Arc::clone(&shared);
    let done =
        blocking(move || Ok::<_, Problem>(resumed.projector.here()?.resume(which))).await??;
    done.map_err(|error| Problem::internal(error.to_string()))?;
    one_projection(shared, which).await
}

async fn one_projection(shared: Arc<Shared>, which: Projection) -> Result<Answer, Problem> {
    let one = blocking(move || {
        let status = shared.projector.status();
        let kept = shared.read_model.reader()?.kept_tables(which)?;
        Ok(projection_json(which, &status, kept))
    });
    let one = one.await?;
    Ok(json(&one.map_err(|error: ReadModelError| {
        readers::unreadable(&error)
    })?))
}

/// `POST /projections/:name/rebuild`
pub(crate) async fn rebuild(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Answer, Problem> {
    begin(shared, &uri, &headers, Action::Rebuild).await
}

/// `POST /projections/:name/switch-back`
pub(crate) async fn switch_back(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Answer, Problem> {
    begin(shared, &uri, &headers, Action::SwitchBack).await
}

/// `POST /projections/:name/discard-old`
pub(crate) async fn discard_old(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Answer, Problem> {
    begin(shared, &uri, &headers, Action::DiscardOld).await
}

/// `POST /projections/:name/reindex`
pub(crate) async fn reindex(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Answer, Problem> {
    begin(shared, &uri, &headers, Action::Reindex).await
}

/// Begins what takes its time, whether the client prefers not to wait for it or not; who does is told that it need not.
async fn begin(
    shared: Arc<Shared>,
    uri: &Uri,
    headers: &HeaderMap,
    action: Action,
) -> Result<Answer, Problem> {
    let which = projection_of(uri)?;
    let task = blocking(move || {
        let tasks = shared.projector.here()?.tasks();
        Ok::<_, Problem>(tasks.start(which, action).map(|()| tasks.status()))
    });
    let mut answer = answer_task(StatusCode::ACCEPTED, task.await??)?;
    if prefers_async(headers) {
        let applied = HeaderValue::from_static("respond-async");
        answer
            .headers_mut()
            .insert(answer::PREFERENCE_APPLIED, applied);
    }
    Ok(answer)
}

/// `POST /projections/:name/cancel`
pub(crate) async fn cancel_task(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
) -> Result<Answer, Problem> {
    let which = projection_of(&uri)?;
    let tasks = shared.projector.here()?.tasks();
    let cancelled = tasks.cancel(which).map(|()| tasks.status());
    answer_task(StatusCode::OK, cancelled)
}

fn answer_task(
    status: StatusCode,
    task: Result<Option<TaskStatus>, ReadModelError>,
) -> Result<Answer, Problem> {
    let task = task.map_err(|error| match error {
        ReadModelError::Unfit(reason) => Problem::new(ProblemKind::ProjectionBusy, reason),
        other => Problem::internal(other.to_string()),
    })?;
    let task = task.ok_or_else(|| Problem::internal("a task that began is not known"))?;
    let body =
        serde_json::to_vec(&TaskJson::from(task)).expect("texts and numbers always serialize");
    Ok(answer::json(status, body))
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
    let redriven =
        blocking(move || Ok::<_, Problem>(shared.projector.here()?.redrive(which))).await??;
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
