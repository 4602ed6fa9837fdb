//! `GET /events`: everything that happens, as server-sent events; first what the log has, then live.
//!
//! A feed is pulled: nothing is read before the connection can take it, so a slow reader holds one chunk of memory and
//! nobody else up; one that reads nothing at all is cut off. It ends with the service's shutdown.
//!
//! A client may come back from wherever it was, also from before its first event: the greeting and every heartbeat have an
//! id, in a block without data, which a client remembers and shows to nobody (WHATWG HTML, 9.2.6: the last event id is set
//! before an event without data is dropped).

use std::convert::Infallible;
use std::io::Write;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, Uri};
use axum::response::Response;
use bytes::Bytes;
use order_domain::EventKind;
use order_projector_workers::{Frame, Offset, PartitionId, PartitionReader, ScanLimit};
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::api::Shared;
use crate::connection_clock::ConnectionClock;
use crate::error::{Problem, ProblemKind};
use crate::event_json::EventJson;
use crate::feed_position::FeedPosition;
use crate::frames::{StoryError, each_event};
use crate::query;
use crate::sync_token::Seal;

/// Records that one chunk looks at, and bytes of frames: a chunk stays small, and a reader thread is soon free again.
const CHUNK: ScanLimit = ScanLimit {
    records: 512,
    bytes: 256 * 1024,
    until: Offset::new(u64::MAX),
};
/// How often the ends of the log are looked at while a feed waits.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// When a client is to come back after its feed has ended: a restart takes seconds.
const RETRY: Duration = Duration::from_secs(1);
/// How long a feed waits before it reads again after the readers were too busy for it.
const BUSY_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FeedQuery {
    partition: Option<u16>,
    r#type: Option<String>,
    from: Option<String>,
}

/// Which events a feed shows.
#[derive(Debug, Clone)]
struct Filter {
    partition: Option<PartitionId>,
    /// All kinds if empty.
    kinds: Vec<EventKind>,
}

/// `GET /events`
pub(crate) async fn events(
    State(shared): State<Arc<Shared>>,
    Extension(clock): Extension<Arc<ConnectionClock>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let query: FeedQuery = query::parse(&uri)?;
    let filter = filter(&query, shared.log.len())?;
    let position = start(&shared, &query, &headers)?;
    let place = FeedPlace::take(&shared)?;
    let feed = Feed {
        ends: shared.feeds.ends.subscribe(),
        shared: Arc::clone(&shared),
        filter,
        position,
        greeted: false,
        heartbeat_at: Instant::now(),
        _place: place,
    };
    let chunks = futures_util::stream::unfold(feed, Feed::next);
    let chunks = ConnectionClock::stream(&clock).watch(chunks);
    let mut response = Response::new(Body::from_stream(chunks));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // nginx would hold events back to fill its buffers.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

fn filter(query: &FeedQuery, partitions: usize) -> Result<Filter, Problem> {
    if let Some(partition) = query.partition
        && usize::from(partition) >= partitions
    {
        let reason = format!("is not below {partitions}, the count of partitions");
        return Err(query::refuse("partition", reason));
    }
    let names = query.r#type.iter().flat_map(|names| names.split(','));
    let kinds = names.map(|name| {
        EventKind::parse(name).ok_or_else(|| {
            let names: Vec<_> = EventKind::ALL.iter().map(|kind| kind.name()).collect();
            query::refuse("type", format!("is no list of {}", names.join(", ")))
        })
    });
    Ok(Filter {
        partition: query.partition.map(PartitionId::new),
        kinds: kinds.collect::<Result<_, _>>()?,
    })
}

/// Where the feed begins: behind the event the client saw last, or where the query says, or at the log's beginning.
fn start(shared: &Shared, query: &FeedQuery, headers: &HeaderMap) -> Result<FeedPosition, Problem> {
    if let Some(last) = headers.get("last-event-id") {
        let text = last.to_str().unwrap_or_default();
        let position = FeedPosition::parse(text, shared.seal, shared.log.len());
        return position.ok_or_else(|| {
            let former = &shared.former_seals;
            let outdated = former.iter().any(|seal| FeedPosition::is_of(text, *seal));
            let detail = if outdated {
                "Last-Event-ID is from before the log was rewritten: begin anew, without it"
            } else {
                "Last-Event-ID is none that this service's feed has shown"
            };
            Problem::new(ProblemKind::InvalidHeader, detail)
        });
    }
    let at = |place: fn(&dyn PartitionReader) -> Offset| {
        FeedPosition(
            shared
                .log
                .iter()
                .map(|reader| place(reader.as_ref()))
                .collect(),
        )
    };
    match query.from.as_deref() {
        None | Some("start") => Ok(at(|reader| reader.start())),
        Some("end") => Ok(at(|reader| reader.durable_end())),
        Some(_) => Err(query::refuse("from", "is neither start nor end")),
    }
}

/// What all feeds share: how many there are, and a look-out for new events that runs only while there are any.
#[derive(Debug)]
pub(crate) struct Feeds {
    open: AtomicUsize,
    /// The sum of all partitions' ends: it moves whenever one of them does.
    ends: watch::Sender<u64>,
}

impl Feeds {
    pub(crate) fn new() -> Self {
        Self {
            open: AtomicUsize::new(0),
            ends: watch::Sender::new(0),
        }
    }
}

/// The right to one of the feeds there may be.
#[derive(Debug)]
struct FeedPlace(Arc<Shared>);

impl FeedPlace {
    fn take(shared: &Arc<Shared>) -> Result<Self, Problem> {
        let before = shared.feeds.open.fetch_add(1, Ordering::SeqCst);
        let place = Self(Arc::clone(shared));
        if before >= shared.config.feeds_max {
            return Err(Problem::new(
                ProblemKind::Overloaded,
                format!("{before} feeds are open"),
            ));
        }
        if before == 0 {
            tokio::spawn(look_out(Arc::clone(shared)));
        }
        Ok(place)
    }
}

impl Drop for FeedPlace {
    fn drop(&mut self) {
        self.0.feeds.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Tells waiting feeds when an end moves. A few atomic loads a look, by one task for all feeds; it ends with the last.
async fn look_out(shared: Arc<Shared>) {
    let mut every = tokio::time::interval(LOOK_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while shared.feeds.open.load(Ordering::SeqCst) > 0 && !shared.is_stopping() {
        every.tick().await;
        let sum = sum_of_ends(&shared.log);
        shared.feeds.ends.send_if_modified(|known| {
            let moved = *known != sum;
            *known = sum;
            moved
        });
    }
}

fn sum_of_ends(log: &[Box<dyn PartitionReader>]) -> u64 {
    log.iter().fold(0, |sum, reader| {
        sum.wrapping_add(reader.durable_end().get())
    })
}

struct Feed {
    shared: Arc<Shared>,
    ends: watch::Receiver<u64>,
    filter: Filter,
    position: FeedPosition,
    greeted: bool,
    /// When there must be something to read again.
    heartbeat_at: Instant,
    _place: FeedPlace,
}

impl Feed {
    /// The next chunk, when there is something to say; `None` ends the feed.
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        if !self.greeted {
            // The head goes out with the first bytes: a client sees at once that it is connected.
            self.greeted = true;
            let greeting = format!(": welcome\nretry: {}\n", RETRY.as_millis());
            return Some(self.say_position(greeting));
        }
        loop {
            if self.shared.is_stopping() {
                return None;
            }
            // Here, where all ways come by: one that shows few events of many has enough to read for ever.
            if Instant::now() >= self.heartbeat_at {
                return Some(self.say_position(": alive\n".to_owned()));
            }
            // Marked as seen before the read: an end that moves during the read wakes the wait behind it.
            self.ends.mark_unchanged();
            match self.read().await {
                Ok(Chunk { text, more }) => {
                    if !text.is_empty() {
                        return Some(self.say(text));
                    }
                    if more {
                        continue;
                    }
                }
                Err(problem) if problem.kind() == ProblemKind::Overloaded => {
                    tokio::time::sleep(BUSY_PAUSE).await;
                    continue;
                }
                Err(problem) => {
                    problem.log("feed");
                    return None;
                }
            }
            let shared = Arc::clone(&self.shared);
            tokio::select! {
                biased;
                () = shared.stopped() => return None,
                _ = self.ends.changed() => {}
                () = tokio::time::sleep_until(self.heartbeat_at) => {}
            }
        }
    }

    fn say(mut self, text: impl Into<Bytes>) -> (Result<Bytes, Infallible>, Self) {
        self.heartbeat_at = Instant::now() + self.shared.config.heartbeat_every;
        (Ok(text.into()), self)
    }

    /// Ends a block with the position: everything before it that is to be shown was said.
    fn say_position(self, mut block: String) -> (Result<Bytes, Infallible>, Self) {
        block.push_str("id: ");
        block.push_str(&self.position.text(self.shared.seal));
        block.push_str("\n\n");
        self.say(block)
    }

    /// Reads on from the position, and moves it.
    async fn read(&mut self) -> Result<Chunk, Problem> {
        let shared = Arc::clone(&self.shared);
        let filter = self.filter.clone();
        let mut position = self.position.clone();
        let read = self.shared.readers.run(move |_| {
            let chunk = read_chunk(&shared, &filter, &mut position);
            (chunk, position)
        });
        let (chunk, position) = read.await?;
        self.position = position;
        chunk.map_err(|error| Problem::internal(format!("the feed: {error}")))
    }
}

/// Events as text, and whether there is more to read at once.
struct Chunk {
    text: Vec<u8>,
    more: bool,
}

/// Looks at a piece of every partition.
fn read_chunk(
    shared: &Shared,
    filter: &Filter,
    position: &mut FeedPosition,
) -> Result<Chunk, StoryError> {
    let mut chunk = Chunk {
        text: Vec::new(),
        more: false,
    };
    for reader in shared.log.iter() {
        let index = reader.partition().index();
        if filter
            .partition
            .is_some_and(|partition| partition.index() != index)
        {
            continue;
        }
        // What was archived away meanwhile cannot be shown any more.
        let from = position.0[index].max(reader.start());
        if from >= reader.durable_end() {
            continue;
        }
        position.0[index] = from;
        let mut failed = None;
        let reached = reader.scan(from, CHUNK, &mut |frame| match write_frame(
            &frame,
            filter,
            index,
            position,
            shared.seal,
            &mut chunk.text,
        ) {
            Ok(flow) => flow,
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        if position.0[index] == from {
            // Nothing stood there but records that are declared lost.
            position.0[index] = reached;
        }
        chunk.more |= position.0[index] < reader.durable_end();
    }
    Ok(chunk)
}

/// Writes the events of a frame. Positions lie between frames: within a frame an event's id leads to the frame's
/// beginning, so that a client that resumes there is shown the frame again, not half of it.
fn write_frame(
    frame: &Frame<'_>,
    filter: &Filter,
    partition: usize,
    position: &mut FeedPosition,
    seal: Seal,
    out: &mut Vec<u8>,
) -> Result<ControlFlow<()>, StoryError> {
    let end = frame.end();
    let flow = each_event(frame, |event| {
        if event.offset.plus(1) == end {
            position.0[partition] = end;
        }
        let kind = event.recorded.event.kind();
        if filter.kinds.is_empty() || filter.kinds.contains(&kind) {
            let context = &event.recorded.context;
            let shown = EventJson {
                order_id: event.order_id,
                version: event.version,
                at: event.at,
                event: &event.recorded.event,
                request_id: context.request_id.as_deref(),
                traceparent: context.traceparent.as_deref(),
            };
            write_event(&shown, &position.text(seal), out);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(flow)
}

fn write_event(event: &EventJson<'_>, id: &str, out: &mut Vec<u8>) {
    write!(
        out,
        "id: {id}\nevent: {}\ndata: ",
        event.event.kind().name()
    )
    .expect("a Vec takes any text");
    event.write(out);
    out.extend_from_slice(b"\n\n");
}
