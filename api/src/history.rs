//! An order's story, out of the log: its events, and the order as it was at a version or at a time.
//!
//! The read model's row leads to the order's last frame; every frame leads to the one before. So a story costs as many
//! steps as the order has had commands, whatever the log's size. In a log that was compacted, a story may begin with a
//! snapshot: what it stands for can be told no more, and a moment before it is refused as such.

use std::ops::ControlFlow;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header::LINK;
use axum::http::{HeaderMap, StatusCode, Uri};
use order_domain::{Event, Order, OrderId, Timestamp, Version, fold_owned};
use order_projector_workers::{Offset, PartitionReader};
use serde::Deserialize;

use crate::answer::{self, Answer};
use crate::api::Shared;
use crate::error::{Problem, ProblemKind};
use crate::event_json::EventJson;
use crate::frames::{StoryError, StoryEvent, each_event, visit_frame};
use crate::order_path::OrderPath;
use crate::query;
use crate::readers::OrderRead;
use crate::reads::{Wait, catch_up, fresh_order, not_found, parked, put_freshness};
use crate::time_text;

/// Events of a page if the client does not say.
const LIMIT_DEFAULT: usize = 100;
/// Most events of a page.
const LIMIT_MAX: usize = 1000;
/// Most frames a walk visits: a second's work, and far more than an order's life has steps.
const FRAMES_MAX: usize = 100_000;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct EventsQuery {
    after_version: Option<u32>,
    limit: Option<usize>,
}

/// `GET /orders/:id/events`
pub(crate) async fn events(
    State(shared): State<Arc<Shared>>,
    OrderPath(id): OrderPath,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Answer, Problem> {
    let query: EventsQuery = query::parse(&uri)?;
    let limit = query.limit.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(query::refuse(
            "limit",
            format!("is not between 1 and {LIMIT_MAX}"),
        ));
    }
    let after = Version::new(query.after_version.unwrap_or(0));
    let mut wait = Wait::of(&shared, &headers);
    let read = fresh_order(&shared, id, &headers, None, &mut wait).await?;
    if read.parked {
        // The row leads to the last frame that could be applied: the page would end there and look whole.
        return Err(parked(id, &read));
    }
    let last_frame = last_frame(&read, id)?;
    let page = on_log(&shared, id, move |log| {
        let bases = walk(log, id, last_frame, after)?;
        Ok(events_json(log, &bases, id, after, limit)?)
    });
    let (json, next_after) = page.await?;
    let mut response = answer::json(StatusCode::OK, json);
    put_freshness(
        &mut response,
        (shared.partition_of)(id),
        read.position,
        read.lag_ms,
    );
    if let Some(next) = next_after {
        let next =
            format!("</orders/{id}/events?after_version={next}&limit={limit}>; rel=\"next\"");
        response.headers_mut().insert(LINK, answer::printable(next));
    }
    wait.put_applied(&mut response);
    Ok(response)
}

/// The page as JSON, and the version to go on after if there is more.
fn events_json(
    log: &dyn PartitionReader,
    bases: &[Offset],
    id: OrderId,
    after: Version,
    limit: usize,
) -> Result<(Vec<u8>, Option<Version>), StoryError> {
    let mut json = format!("{{\"order_id\":\"{id}\",\"events\":[").into_bytes();
    let mut written = 0;
    let mut last = after;
    let mut more = false;
    for base in bases {
        let flow = visit_frame(log, *base, |frame| {
            each_event(frame, |event| {
                if event.version <= after {
                    return Ok(ControlFlow::Continue(()));
                }
                if written == limit {
                    more = true;
                    return Ok(ControlFlow::Break(()));
                }
                if written > 0 {
                    json.push(b',');
                }
                let context = &event.recorded.context;
                EventJson {
                    order_id: event.order_id,
                    version: event.version,
                    at: event.at,
                    event: &event.recorded.event,
                    request_id: context.request_id.as_deref(),
                    traceparent: context.traceparent.as_deref(),
                }
                .write(&mut json);
                written += 1;
                last = event.version;
                Ok(ControlFlow::Continue(()))
            })
        })??;
        if flow.is_break() {
            break;
        }
    }
    json.push(b']');
    if more {
        json.extend_from_slice(format!(",\"next_after_version\":{last}").as_bytes());
    }
    json.push(b'}');
    Ok((json, more.then_some(last)))
}

/// Which moment of an order's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// After this many events.
    Version(Version),
    /// After the last event that is shown with this time or an earlier one: [`Self::as_of`].
    Time(Timestamp),
}

impl Moment {
    /// A time as a client gives it. Events keep microseconds and are shown with milliseconds, so the moment is the end of
    /// the millisecond: who asks for the time that an event is shown with, gets the order with that event. Digits beyond
    /// the third say nothing that a client could have seen.
    pub(crate) fn as_of(time: Timestamp) -> Self {
        Self::Time(time_text::last_shown_as(time))
    }
}

/// `GET /orders/:id?at_version=N` and `?as_of=T`: the order as it was.
pub(crate) async fn order_at(
    shared: &Arc<Shared>,
    id: OrderId,
    moment: Moment,
    headers: &HeaderMap,
    wait: &mut Wait,
) -> Result<(Order, OrderRead), Problem> {
    let partition = (shared.partition_of)(id);
    let min_version = match moment {
        Moment::Version(version) => Some(version.get()),
        Moment::Time(_) => {
            // An event before that time may be in the log and not yet in the rows.
            let end = shared.known_end(partition);
            catch_up(shared, partition, end, wait).await?;
            None
        }
    };
    let read = fresh_order(shared, id, headers, min_version, wait).await;
    let read = read.map_err(|problem| match problem.kind() {
        ProblemKind::VersionNotReached => no_such_moment(id, moment),
        _ => problem,
    })?;
    if read.parked && !is_before_parking(&read, moment) {
        return Err(parked(id, &read));
    }
    let last_frame = last_frame(&read, id)?;
    let folded = on_log(shared, id, move |log| {
        let bases = walk(log, id, last_frame, Version::NONE)?;
        Ok(fold_until(log, &bases, id, moment)?)
    });
    match folded.await? {
        Found::Order(order) => Ok((*order, read)),
        Found::Never => Err(no_such_moment(id, moment)),
        Found::Compacted { from } => Err(compacted(id, moment, from)),
    }
}

/// Whether a parked order was at that moment as its row and what is behind it say. A time may be later than an event that
/// could not be applied.
fn is_before_parking(read: &OrderRead, moment: Moment) -> bool {
    let row = read.order.as_ref().map(|order| order.version);
    match moment {
        Moment::Version(version) => row.is_some_and(|row| version <= row),
        Moment::Time(_) => false,
    }
}

fn no_such_moment(id: OrderId, moment: Moment) -> Problem {
    let detail = match moment {
        Moment::Version(version) => format!("order {id} has no version {version}"),
        Moment::Time(time) => format!("order {id} was not yet placed at {time}"),
    };
    Problem::new(ProblemKind::VersionNotFound, detail)
}

fn compacted(id: OrderId, moment: Moment, from: Version) -> Problem {
    let wanted = match moment {
        Moment::Version(version) => format!("version {version}"),
        Moment::Time(time) => format!("its state at {time}"),
    };
    Problem::new(
        ProblemKind::VersionCompacted,
        format!("order {id}: {wanted} is no longer kept, its history begins with version {from}"),
    )
}

/// What the log has of a moment.
enum Found {
    Order(Box<Order>),
    /// The order was not there by then, or never had the version.
    Never,
    /// Its events of then are no more: what the log has begins with this version.
    Compacted {
        from: Version,
    },
}

/// The order after its events up to `moment`.
fn fold_until(
    log: &dyn PartitionReader,
    bases: &[Offset],
    id: OrderId,
    moment: Moment,
) -> Result<Found, StoryError> {
    let mut order = None;
    let mut compacted = None;
    for base in bases {
        let flow = visit_frame(log, *base, |frame| {
            each_event(frame, |event| {
                let within = match moment {
                    Moment::Version(version) => event.version <= version,
                    Moment::Time(time) => event.at <= time,
                };
                if !within {
                    compacted = stood_for(&event, moment).then_some(event.version);
                    return Ok(ControlFlow::Break(()));
                }
                let offset = event.offset;
                fold_owned(&mut order, id, event.recorded.event, event.at)
                    .map_err(|source| StoryError::Unfoldable { offset, source })?;
                Ok(ControlFlow::Continue(()))
            })
        })??;
        if flow.is_break() {
            break;
        }
    }
    Ok(match (order, compacted) {
        (Some(order), _) => Found::Order(Box::new(order)),
        (None, Some(from)) => Found::Compacted { from },
        (None, None) => Found::Never,
    })
}

/// Whether an event is the snapshot of events that included a moment.
fn stood_for(event: &StoryEvent<'_>, moment: Moment) -> bool {
    match (&event.recorded.event, moment) {
        (Event::OrderSnapshot(_), Moment::Version(version)) => version > Version::NONE,
        (Event::OrderSnapshot(snapshot), Moment::Time(time)) => time >= snapshot.placed_at,
        _ => false,
    }
}

fn last_frame(read: &OrderRead, id: OrderId) -> Result<Offset, Problem> {
    let order = read.order.as_ref().ok_or_else(|| not_found(id))?;
    Ok(order.last_frame)
}

/// What a walk can end in, beside a fault of the log.
enum WalkError {
    Story(StoryError),
    TooLong,
}

impl From<StoryError> for WalkError {
    fn from(error: StoryError) -> Self {
        Self::Story(error)
    }
}

/// Runs `task` on the log of the order's partition, on a thread that may wait for a disk.
async fn on_log<T: Send + 'static>(
    shared: &Arc<Shared>,
    id: OrderId,
    task: impl FnOnce(&dyn PartitionReader) -> Result<T, WalkError> + Send + 'static,
) -> Result<T, Problem> {
    let partition = (shared.partition_of)(id);
    let log = Arc::clone(&shared.log);
    let done = shared.readers.run(move |_| {
        let reader = log.get(partition.index())?;
        Some(task(reader.as_ref()))
    });
    match done.await? {
        Some(Ok(found)) => Ok(found),
        Some(Err(WalkError::TooLong)) => Err(Problem::new(
            ProblemKind::HistoryTooLong,
            format!("order {id} has had more than {FRAMES_MAX} commands"),
        )),
        Some(Err(WalkError::Story(error))) => Err(Problem::internal(format!(
            "the history of order {id}: {error}"
        ))),
        None => Err(Problem::internal(format!(
            "partition {partition} has no reader"
        ))),
    }
}

/// The bases of an order's frames that hold versions above `after`, oldest first, found from the last one backwards.
fn walk(
    log: &dyn PartitionReader,
    id: OrderId,
    last: Offset,
    after: Version,
) -> Result<Vec<Offset>, WalkError> {
    let mut bases = Vec::new();
    let mut next = Some(last);
    while let Some(base) = next {
        if bases.len() == FRAMES_MAX {
            return Err(WalkError::TooLong);
        }
        let led_back = bases.last().is_none_or(|later| base < *later);
        let (key, sequence, previous) = visit_frame(log, base, |frame| {
            (frame.key, frame.sequence, frame.previous)
        })?;
        if !led_back || key.as_bytes() != id.as_bytes() {
            return Err(StoryError::Astray(base).into());
        }
        bases.push(base);
        // `sequence` is the version that the frame's first event made.
        next = previous.filter(|_| sequence > after.get().saturating_add(1));
    }
    bases.reverse();
    Ok(bases)
}
