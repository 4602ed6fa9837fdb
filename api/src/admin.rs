//! For operators: the outbox and the log, looked at and moved.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use order_outbox::{DEAD_PAGE_MAX, EventId, HeldEvent, Outbox, OutboxError, OutboxStatus};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::answer::{self, Answer};
use crate::api::Shared;
use crate::error::{Problem, ProblemKind};
use crate::query;
use crate::time_text;

/// Dead letters of a page if the client does not say.
const DEAD_PAGE_DEFAULT: usize = 100;

/// How the outbox stands, as `GET /outbox` shows it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Outbox)]
pub(crate) struct OutboxJson {
    sink: String,
    running: bool,
    /// Why nothing is delivered, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<String>,
    /// The last try that failed since the start, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_failure: Option<String>,
    /// Events neither delivered nor dead.
    pending: u64,
    /// Those of them that failed and are tried again, or wait behind one that is.
    backing_off: u64,
    dead: u64,
    oldest_waiting_seconds: f64,
    oldest_backing_off_seconds: f64,
    partitions: Vec<OutboxPartitionJson>,
}

/// One partition's cursor.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OutboxPartition)]
pub(crate) struct OutboxPartitionJson {
    partition: u16,
    cursor: u64,
    end: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<String>,
}

impl From<OutboxStatus> for OutboxJson {
    fn from(status: OutboxStatus) -> Self {
        let partitions = status
            .partitions
            .into_iter()
            .map(|partition| OutboxPartitionJson {
                partition: partition.partition.get(),
                cursor: partition.cursor.get(),
                end: partition.end.get(),
                trouble: partition.trouble,
            });
        Self {
            sink: status.sink.to_string(),
            running: status.running,
            trouble: status.trouble,
            last_failure: status.last_failure,
            pending: status.pending,
            backing_off: status.backing_off,
            dead: status.dead,
            oldest_waiting_seconds: status.oldest_waiting_seconds,
            oldest_backing_off_seconds: status.oldest_backing_off_seconds,
            partitions: partitions.collect(),
        }
    }
}

/// `GET /outbox`
pub(crate) async fn outbox(State(shared): State<Arc<Shared>>) -> Result<Answer, Problem> {
    let outbox = outbox_of(&shared)?;
    let status = blocking(move || outbox.status()).await?;
    Ok(json(&OutboxJson::from(status)))
}

/// `POST /outbox/enable`
pub(crate) async fn enable_outbox(State(shared): State<Arc<Shared>>) -> Result<Answer, Problem> {
    moved(&shared, Outbox::enable).await
}

/// `POST /outbox/restart`
pub(crate) async fn restart_outbox(State(shared): State<Arc<Shared>>) -> Result<Answer, Problem> {
    moved(&shared, Outbox::restart).await
}

/// Does something to the outbox, and shows how it stands then.
async fn moved(
    shared: &Shared,
    action: impl FnOnce(&Outbox) -> Result<(), OutboxError> + Send + 'static,
) -> Result<Answer, Problem> {
    let outbox = outbox_of(shared)?;
    let status = blocking(move || action(&outbox).map(|()| outbox.status()));
    let status = status.await?.map_err(outbox_problem)?;
    Ok(json(&OutboxJson::from(status)))
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeadQuery {
    limit: Option<usize>,
    after: Option<String>,
}

/// A page of dead letters, as `GET /outbox/dead` shows it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeadLetters)]
pub(crate) struct DeadLettersJson {
    dead: Vec<DeadLetterJson>,
    /// What `after` must be for the next page, if there may be one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_after: Option<String>,
}

/// One event that waits for an operator.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeadLetter)]
pub(crate) struct DeadLetterJson {
    id: String,
    order_id: String,
    version: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    r#type: Option<&'static str>,
    appended_at: String,
    /// Whether it waits for an operator; otherwise it is tried again by itself.
    dead: bool,
    attempts: u32,
    error: String,
    /// The event of the same order that must be delivered first, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    behind: Option<String>,
    /// The CloudEvent; in the answer for one event alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    cloud_event: Option<Box<RawValue>>,
}

impl DeadLetterJson {
    fn of(held: HeldEvent) -> Self {
        let appended_at = time_text::text(held.appended_at);
        Self {
            id: held.id.to_string(),
            order_id: held.id.order().to_string(),
            version: held.id.version().get(),
            r#type: held.event_type,
            appended_at: String::from_utf8_lossy(&appended_at).into_owned(),
            dead: held.dead,
            attempts: held.attempts,
            error: held.error,
            behind: held.behind.map(|event| event.to_string()),
            cloud_event: None,
        }
    }
}

/// `GET /outbox/dead`
pub(crate) async fn dead_letters(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
) -> Result<Answer, Problem> {
    let query: DeadQuery = query::parse(&uri)?;
    let outbox = outbox_of(&shared)?;
    let limit = query.limit.unwrap_or(DEAD_PAGE_DEFAULT);
    if !(1..=DEAD_PAGE_MAX).contains(&limit) {
        return Err(query::refuse(
            "limit",
            format!("is not between 1 and {DEAD_PAGE_MAX}"),
        ));
    }
    let after = query.after.map(|after| {
        after
            .parse()
            .map_err(|error: OutboxError| query::refuse("after", error.to_string()))
    });
    let after: Option<EventId> = after.transpose()?;
    let page = blocking(move || outbox.dead(limit, after))
        .await?
        .map_err(outbox_problem)?;
    let full = page.len() == limit;
    let next_after = page.last().filter(|_| full).map(|held| held.id.to_string());
    Ok(json(&DeadLettersJson {
        dead: page.into_iter().map(DeadLetterJson::of).collect(),
        next_after,
    }))
}

/// `GET /outbox/dead/:id`
pub(crate) async fn dead_letter(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
) -> Result<Answer, Problem> {
    let outbox = outbox_of(&shared)?;
    let id = event_id(&uri)?;
    let inspection = blocking(move || outbox.inspect(id))
        .await?
        .map_err(outbox_problem)?;
    let mut letter = DeadLetterJson::of(inspection.held);
    match inspection.cloud_event {
        Ok(event) => letter.cloud_event = RawValue::from_string(event).ok(),
        Err(reason) => letter.error = format!("{}; {reason}", letter.error),
    }
    Ok(json(&letter))
}

/// How many events got all their tries again.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Redriven)]
pub(crate) struct RedrivenJson {
    redriven: u64,
}

/// `POST /outbox/dead/:id/redrive`
pub(crate) async fn redrive(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
) -> Result<Answer, Problem> {
    let outbox = outbox_of(&shared)?;
    let id = event_id(&uri)?;
    let redriven = blocking(move || outbox.redrive(id))
        .await?
        .map_err(outbox_problem)?;
    Ok(json(&RedrivenJson { redriven }))
}

/// `POST /outbox/dead/redrive`
pub(crate) async fn redrive_all(State(shared): State<Arc<Shared>>) -> Result<Answer, Problem> {
    let outbox = outbox_of(&shared)?;
    let redriven = blocking(move || outbox.redrive_all())
        .await?
        .map_err(outbox_problem)?;
    Ok(json(&RedrivenJson { redriven }))
}

/// What `POST /log/rotate` did.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Rotated)]
pub(crate) struct RotatedJson {
    partitions: Vec<RotatedPartitionJson>,
}

/// One partition of the log.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RotatedPartition)]
pub(crate) struct RotatedPartitionJson {
    partition: u16,
    /// Whether a segment was sealed; `false` if the one being written is empty.
    sealed: bool,
}

/// `POST /log/rotate`
pub(crate) async fn rotate_log(State(shared): State<Arc<Shared>>) -> Result<Answer, Problem> {
    let rotated = shared.commands()?.rotate_log().await?;
    let partitions = rotated.into_iter();
    Ok(json(&RotatedJson {
        partitions: partitions
            .map(|(partition, sealed)| RotatedPartitionJson {
                partition: partition.get(),
                sealed,
            })
            .collect(),
    }))
}

fn outbox_of(shared: &Shared) -> Result<Arc<Outbox>, Problem> {
    shared.outbox.clone().ok_or_else(|| {
        Problem::new(
            ProblemKind::NotFound,
            "the outbox does not run in this process",
        )
    })
}

/// The event that the path's third segment names.
fn event_id(uri: &Uri) -> Result<EventId, Problem> {
    let text = uri.path().split('/').nth(3).unwrap_or_default();
    text.parse().map_err(outbox_problem)
}

fn outbox_problem(error: OutboxError) -> Problem {
    let kind = match &error {
        OutboxError::InvalidEventId(_) | OutboxError::NotHeld(_) => ProblemKind::EventNotHeld,
        OutboxError::NotDead(_) => ProblemKind::EventNotDead,
        OutboxError::NotRunning(_) | OutboxError::Busy => ProblemKind::OutboxUnavailable,
        OutboxError::Config { .. }
        | OutboxError::Store { .. }
        | OutboxError::Incompatible { .. }
        | OutboxError::Io { .. }
        | OutboxError::Log(_)
        | OutboxError::Start(_) => return Problem::internal(error.to_string()),
    };
    Problem::new(kind, error.to_string())
}

/// Runs what may wait for a disk or another thread away from the async workers. Operators ask rarely: a thread of the
/// runtime's pool is fine, and the readers' queue, which may be full when an operator looks, is not in the way.
pub(crate) async fn blocking<T: Send + 'static>(
    task: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    let done = tokio::task::spawn_blocking(task).await;
    done.map_err(|error| Problem::internal(format!("an operator's request failed: {error}")))
}

pub(crate) fn json(shape: &impl Serialize) -> Answer {
    let json = serde_json::to_vec(shape).expect("texts and numbers always serialize");
    answer::json(StatusCode::OK, json)
}
