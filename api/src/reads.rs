//! Reading one order: from the read model, as fresh as the client asks, never a false 404.
//!
//! What a read depends on is a place in the log (`Sync-Token`), a version (`min_version`), or, when the order is not
//! there, everything that was acknowledged when it was missed. The read waits until the rows hold that; if they do not in
//! time, the answer is 503 `read-model-behind`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, Uri};
use order_domain::{OrderId, Version};
use order_projector_workers::{Offset, PartitionId, Projection};
use serde::Deserialize;

use crate::ApiConfig;
use crate::answer::{
    self, Answer, AnswerBody, PREFERENCE_APPLIED, READ_MODEL_LAG, READ_MODEL_POSITION,
};
use crate::api::Shared;
use crate::conditions::known_versions;
use crate::error::{Problem, ProblemKind};
use crate::history::{Moment, order_at};
use crate::order_json;
use crate::order_path::OrderPath;
use crate::query;
use crate::readers::{FoundOrder, OrderRead};
use crate::request_headers::preferred_wait;

/// Room for a partition's number, a colon and an offset.
const POSITION_BYTES: usize = 26;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct OrderQuery {
    min_version: Option<u32>,
    at_version: Option<u32>,
    as_of: Option<String>,
}

impl OrderQuery {
    /// The moment asked for; `None` is now.
    fn moment(&self) -> Result<Option<Moment>, Problem> {
        let asked = [
            self.min_version.is_some(),
            self.at_version.is_some(),
            self.as_of.is_some(),
        ];
        if asked.into_iter().filter(|asked| *asked).count() > 1 {
            let reason = "cannot be combined with another of min_version, at_version, as_of";
            return Err(query::refuse("at_version", reason));
        }
        if let Some(version) = self.at_version {
            return Ok(Some(Moment::Version(Version::new(version))));
        }
        let time = self.as_of.as_deref().map(|text| query::time("as_of", text));
        Ok(time.transpose()?.map(Moment::as_of))
    }
}

/// `GET /orders/:id`
pub(crate) async fn order(
    State(shared): State<Arc<Shared>>,
    OrderPath(id): OrderPath,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Answer, Problem> {
    let query: OrderQuery = query::parse(&uri)?;
    let known = known_versions(&headers)?;
    let mut wait = Wait::of(&shared, &headers);
    let (version, json, read) = match query.moment()? {
        None => {
            let read = fresh_order(&shared, id, &headers, query.min_version, &mut wait).await?;
            if read.parked {
                return Err(parked(id, &read));
            }
            let order = read.order.as_ref().ok_or_else(|| not_found(id))?;
            (order.version, order.json.clone(), read)
        }
        Some(moment) => {
            // Boxed, as are the waits below: what is rare should not make every request's future larger.
            let (order, read) =
                Box::pin(order_at(&shared, id, moment, &headers, &mut wait)).await?;
            let mut json = Vec::new();
            order_json::write_order(&order, &mut json);
            (order.version, json.into(), read)
        }
    };
    let not_modified = known.is_some_and(|tags| tags.weakly_match(version));
    let mut response = if not_modified {
        let mut response = Response::new(AnswerBody::EMPTY);
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        answer::json(StatusCode::OK, json)
    };
    answer::put_version(&mut response, version);
    answer::put_no_cache(&mut response);
    let partition = (shared.partition_of)(id);
    put_freshness(&mut response, partition, read.position, read.lag_ms);
    wait.put_applied(&mut response);
    Ok(response)
}

/// The problem of an order that does not exist.
pub(crate) fn not_found(id: OrderId) -> Problem {
    Problem::new(
        ProblemKind::OrderNotFound,
        format!("there is no order {id}"),
    )
}

/// The problem of an order that the projector has set aside: its row is older than the checkpoint says, or missing.
pub(crate) fn parked(id: OrderId, read: &OrderRead) -> Problem {
    let known = read.order.as_ref().map(|order| order.version);
    let detail = match known {
        Some(version) => format!(
            "order {id} was set aside: an event of it cannot be applied; its versions up to {version} can be read with \
             at_version"
        ),
        None => format!("order {id} was set aside: its first event cannot be applied"),
    };
    Problem::new(ProblemKind::OrderParked, detail).with_known_version(known)
}

/// The longest waits of reads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WaitBounds {
    /// Of one that a client prefers.
    preferred: Duration,
    /// Of one that no client asked for.
    patience: Duration,
}

impl WaitBounds {
    pub(crate) fn of(config: &ApiConfig) -> Self {
        let longest = ApiConfig::longest_wait(config.request_timeout);
        Self {
            preferred: config.prefer_wait_max.min(longest),
            patience: config.read_patience.min(longest),
        }
    }
}

/// How long a read may wait, whatever it waits for and how often.
#[derive(Debug)]
pub(crate) struct Wait {
    /// The whole of it.
    budget: Duration,
    /// What the client preferred, as far as it is honoured.
    preferred: Option<Duration>,
    /// When it is over; it begins with the first thing to wait for.
    deadline: Option<Instant>,
}

impl Wait {
    /// What the client prefers, within the bound; the service's own patience otherwise.
    pub(crate) fn of(shared: &Shared, headers: &HeaderMap) -> Self {
        Self::within(shared.waits, preferred_wait(headers))
    }

    fn within(bounds: WaitBounds, preferred: Option<Duration>) -> Self {
        let preferred = preferred.map(|wait| wait.min(bounds.preferred));
        Self {
            budget: preferred.unwrap_or(bounds.patience),
            preferred,
            deadline: None,
        }
    }

    /// What is left of it at `now`.
    fn left(&mut self, now: Instant) -> Duration {
        let deadline = *self.deadline.get_or_insert(now + self.budget);
        deadline.saturating_duration_since(now)
    }

    /// Tells the client that its preference was honoured, and how far.
    pub(crate) fn put_applied(&self, response: &mut Answer) {
        if let Some(applied) = self.applied() {
            response.headers_mut().insert(PREFERENCE_APPLIED, applied);
        }
    }

    /// In whole seconds, as RFC 7240 has them, and never more than the wait was. One of less than a second is neither 1
    /// nor the 0 of a client that asked for no wait: nothing is said of it.
    fn applied(&self) -> Option<HeaderValue> {
        let wait = self.preferred?;
        let told = wait.is_zero() || wait.as_secs() > 0;
        told.then(|| answer::printable(format!("wait={}", wait.as_secs())))
    }
}

/// How fresh the answer is: the age of the oldest event not in it, and up to which record of which partition all are.
pub(crate) fn put_freshness(
    response: &mut Answer,
    partition: PartitionId,
    position: Offset,
    lag_ms: u64,
) {
    let headers = response.headers_mut();
    headers.insert(READ_MODEL_LAG, lag_header(lag_ms));
    headers.insert(READ_MODEL_POSITION, position_header(partition, position));
}

/// Up to which record of which partition rows have everything.
fn position_header(partition: PartitionId, position: Offset) -> HeaderValue {
    let mut text = Vec::with_capacity(POSITION_BYTES);
    text.extend_from_slice(itoa::Buffer::new().format(partition.get()).as_bytes());
    text.push(b':');
    text.extend_from_slice(itoa::Buffer::new().format(position.get()).as_bytes());
    answer::digits(text)
}

/// Milliseconds as seconds.
pub(crate) fn lag_header(lag_ms: u64) -> HeaderValue {
    match lag_ms {
        0 => HeaderValue::from_static("0"),
        lag => answer::printable(format!("{}.{:03}", lag / 1000, lag % 1000)),
    }
}

/// The order, as new as the request's tokens and `min_version` ask. An order that is missing in the answer and not
/// parked does not exist: the read model has caught up with all that was acknowledged when it was missed. A parked
/// one is as it was when it was set aside: no wait makes it newer.
pub(crate) async fn fresh_order(
    shared: &Shared,
    id: OrderId,
    headers: &HeaderMap,
    min_version: Option<u32>,
    wait: &mut Wait,
) -> Result<OrderRead, Problem> {
    let partition = (shared.partition_of)(id);
    let min_version = Version::new(min_version.unwrap_or(0));
    if headers.contains_key(answer::SYNC_TOKEN) {
        let tokens = shared.sync_tokens(headers)?;
        let token = tokens.iter().filter(|token| token.partition == partition);
        if let Some(end) = token.map(|token| token.end).max() {
            catch_up(shared, partition, end, wait).await?;
        }
    }
    loop {
        let read = shared.readers.order(partition, id).await?;
        let version = read.order.as_ref().map(|order: &FoundOrder| order.version);
        if read.parked || version.is_some_and(|version| version >= min_version) {
            return Ok(read);
        }
        // What clients could know of when the order was missed, or found too old.
        let seen = shared.known_end(partition);
        if read.position < seen {
            catch_up(shared, partition, seen, wait)
                .await
                .map_err(|problem| problem.with_known_version(version))?;
            continue;
        }
        let Some(version) = version else {
            return Ok(read);
        };
        // All there is has been read, and the version is still to come. Only who asked to wait waits for that, and is then
        // told that it did not come in time.
        if wait.preferred.is_none() {
            return Err(Problem::new(
                ProblemKind::VersionNotReached,
                format!("the order has version {version}, and no event is waiting"),
            ));
        }
        let next = Offset::new(seen.get().saturating_add(1));
        catch_up(shared, partition, next, wait)
            .await
            .map_err(|problem| problem.with_known_version(Some(version)))?;
    }
}

/// Waits until the rows hold everything before `end`.
pub(crate) async fn catch_up(
    shared: &Shared,
    partition: PartitionId,
    end: Offset,
    wait: &mut Wait,
) -> Result<(), Problem> {
    let checkpoints = shared.read_model.checkpoints();
    if checkpoints.load(Projection::Orders, partition) >= end {
        return Ok(());
    }
    Box::pin(wait_for(shared, partition, end, wait)).await
}

async fn wait_for(
    shared: &Shared,
    partition: PartitionId,
    end: Offset,
    wait: &mut Wait,
) -> Result<(), Problem> {
    let checkpoints = shared.read_model.checkpoints();
    let left = wait.left(Instant::now());
    let reached = checkpoints
        .wait_for(Projection::Orders, partition, end, left)
        .await;
    if reached {
        return Ok(());
    }
    Err(behind(shared, partition, wait))
}

/// The problem of a wait in vain, with how far the rows are, as far as that is known: whoever comes back wants to know
/// whether they move.
fn behind(shared: &Shared, partition: PartitionId, wait: &Wait) -> Problem {
    let checkpoints = shared.read_model.checkpoints();
    let position = checkpoints.load(Projection::Orders, partition);
    let problem = Problem::new(
        ProblemKind::ReadModelBehind,
        format!(
            "the read model of partition {partition} has not reached what this read depends on within {} ms",
            wait.budget.as_millis()
        ),
    );
    let problem = match wait.applied() {
        Some(applied) => problem.with_header(PREFERENCE_APPLIED, applied),
        None => problem,
    };
    let problem = problem.with_header(READ_MODEL_POSITION, position_header(partition, position));
    // Looking for the lag would cost the readers most when they have most to do.
    let reader = shared.log.get(partition.index());
    let lag_ms = reader.and_then(|reader| shared.lag.known_ms(reader.as_ref(), position));
    match lag_ms {
        Some(lag_ms) => problem.with_header(READ_MODEL_LAG, lag_header(lag_ms)),
        None => problem,
    }
}

/// When to come back, as a header has it: whole seconds, at least one.
pub(crate) fn put_retry_after(response: &mut Answer, after: Duration) {
    let seconds = after.as_millis().div_ceil(1000).max(1);
    let value = answer::printable(seconds.to_string());
    response.headers_mut().insert(RETRY_AFTER, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    /// The wait of a read that prefers `seconds`, where a request may take `request_timeout`.
    fn wait(request_timeout: Duration, seconds: Option<u64>) -> Wait {
        let config = ApiConfig {
            request_timeout,
            ..ApiConfig::default()
        };
        Wait::within(WaitBounds::of(&config), seconds.map(Duration::from_secs))
    }

    #[test]
    fn a_read_that_waits_twice_has_one_budget_for_both() {
        let second = Duration::from_secs(1);
        let mut wait = wait(30 * second, Some(3));
        let begun = Instant::now();
        assert_eq!(wait.left(begun), 3 * second);
        assert_eq!(wait.left(begun + 2 * second), second);
        assert_eq!(wait.left(begun + 4 * second), Duration::ZERO);
    }

    #[test]
    fn a_wait_is_never_confirmed_as_more_than_it_was_nor_as_none() {
        for (request_ms, preferred, waited_ms, applied) in [
            (30_000, None, 1000, None),
            (600, None, 500, None),
            (30_000, Some(0), 0, Some("wait=0")),
            (30_000, Some(7), 7000, Some("wait=7")),
            (30_000, Some(60), 25_000, Some("wait=25")),
            (7000, Some(60), 5833, Some("wait=5")),
            (1000, Some(60), 833, None),
            (1000, Some(0), 0, Some("wait=0")),
        ] {
            let wait = wait(request_ms * MILLISECOND, preferred);
            let case = format!("{preferred:?} of {request_ms} ms");
            assert_eq!(wait.budget.as_millis(), waited_ms, "{case}");
            let applied = applied.map(HeaderValue::from_static);
            assert_eq!(wait.applied(), applied, "{case}");
        }
    }
}
