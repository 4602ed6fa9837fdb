//! How the API behaves: every limit is here, with its reason.

use std::time::Duration;

use crate::{BearerToken, Tls};

/// How the API behaves. [`ApiConfig::default`] is what a first run gets.
#[derive(Debug, Clone)]
pub struct ApiConfig {
    /// Most connections of clients at once. Beyond it a few more answer probes, scrapers and operators alone, everybody
    /// else 503. Bounds memory and descriptors.
    pub connections_max: usize,
    /// Longest time a connection may take to send the head of a request, and may stay idle between two.
    pub header_timeout: Duration,
    /// Longest time a request may take from its head to its answer, body included. Streams are exempt, but a line of a bulk
    /// request may take no longer to arrive.
    pub request_timeout: Duration,
    /// Longest time open requests may take after the shutdown signal; what is open then is cut off.
    pub drain_timeout: Duration,
    /// Most bytes of a request's body. Ten times an order of 500 ordinary lines.
    pub body_bytes_max: usize,
    /// Threads that read the read model.
    pub reader_threads: usize,
    /// Most reads waiting for such a thread; beyond it they are refused with 503.
    pub reads_queued_max: usize,
    /// How long a read waits by itself for the read model to catch up with what it depends on (a `Sync-Token`, a
    /// `min_version`, an order not seen yet) before it says 503 `read-model-behind`. `Prefer: wait=N` replaces it.
    pub read_patience: Duration,
    /// The longest wait a client may prefer; no wait is longer than [`Self::longest_wait`].
    pub prefer_wait_max: Duration,
    /// Most feeds (`GET /events`) open at once.
    pub feeds_max: usize,
    /// How often a feed that has nothing to show says that it is alive, and how far it has looked: proxies cut what is
    /// silent for a minute.
    pub heartbeat_every: Duration,
    /// Most bulk requests open at once: each may hold as many lines as are in flight.
    pub bulk_requests_max: usize,
    /// How long a line of a bulk request waits for room in a full queue before it is refused: it is the stream that has to
    /// wait then.
    pub bulk_patience: Duration,
    /// Most lines of a bulk request that wait for their outcome at once.
    pub bulk_lines_max: usize,
    /// Whether every command on an existing order must carry `If-Match` (428 otherwise).
    pub require_if_match: bool,
    /// Whether every POST that changes an order must carry `Idempotency-Key` (400 otherwise).
    pub require_idempotency_key: bool,
    /// Who may use the API; without any, everybody who reaches it.
    pub tokens: Vec<BearerToken>,
    /// What to prove the service with; without it, HTTP is not encrypted.
    pub tls: Option<Tls>,
    /// How often the files of the certificate are looked at: a changed pair is taken over without a restart.
    pub certificate_look_every: Duration,
    /// How long the command workers remember a used idempotency key. `/readyz?verbose` publishes it.
    pub idempotency_retention: Duration,
    /// Identities the log had before it was rewritten: tokens and feed ids of these are told from forged ones.
    pub former_log_ids: Vec<String>,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            connections_max: 4096,
            header_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(10),
            body_bytes_max: 256 * 1024,
            reader_threads: std::thread::available_parallelism()
                .map_or(1, |cores| cores.get().min(8)),
            reads_queued_max: 4096,
            read_patience: Duration::from_secs(1),
            prefer_wait_max: Duration::from_secs(25),
            feeds_max: 256,
            heartbeat_every: Duration::from_secs(15),
            bulk_requests_max: 64,
            bulk_patience: Duration::from_secs(10),
            bulk_lines_max: 1000,
            require_if_match: false,
            require_idempotency_key: false,
            tokens: Vec::new(),
            tls: None,
            certificate_look_every: Duration::from_secs(10),
            idempotency_retention: Duration::from_secs(24 * 60 * 60),
            former_log_ids: Vec::new(),
        }
    }
}

impl ApiConfig {
    /// The longest that a read can wait for the read model: five sixths of what a request may take. The rest is for the
    /// read and its answer, so that a wait in vain ends as `read-model-behind`, which says what is wrong, and not as
    /// `timeout`, which does not.
    #[must_use]
    pub fn longest_wait(request_timeout: Duration) -> Duration {
        request_timeout / 6 * 5
    }
}
