//! One try: sign an event, send it, read how it was taken. Bounded in time and bytes, whatever the other side does.

use std::error::Error;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::OutboxError;
use crate::cloud_event::CloudEvent;
use crate::config::{OutboxConfig, WebhookConfig};
use crate::log_event::LogEvent;
use crate::webhook::address::not_public;
use crate::webhook::outcome::Outcome;
use crate::webhook::resolver::{GuardedResolver, Lookup};
use crate::webhook::retry_after::retry_after;
use crate::webhook::secrets::Keys;

/// Most bytes of an answer's head: a target that sends headers for ever is cut off.
const HEAD_BYTES_MAX: usize = 32 * 1024;
/// Most bytes of an answer's body that are read, so that its connection can be used again.
const BODY_BYTES_MAX: usize = 16 * 1024;
/// Longest wait for an answer's body: the status has decided already.
const BODY_WITHIN: Duration = Duration::from_millis(500);
/// Most characters of an answer's body in the reason of a failure.
const EXCERPT_CHARACTERS_MAX: usize = 200;
/// How long an unused connection is kept.
const IDLE_CONNECTION: Duration = Duration::from_secs(60);

/// Where events are sent, and how.
#[derive(Debug)]
pub(crate) struct Target {
    uri: Uri,
    keys: Keys,
    client: Client<HttpsConnector<HttpConnector<GuardedResolver>>, Full<Bytes>>,
    timeout: Duration,
    retry_after_max: Duration,
    source: String,
    source_header: HeaderValue,
}

impl Target {
    /// Checks the settings and makes the client; connects to nothing.
    ///
    /// # Errors
    /// [`OutboxError::Config`] names the setting that cannot be.
    pub(crate) fn new(config: &OutboxConfig, lookup: Arc<dyn Lookup>) -> Result<Self, OutboxError> {
        let source = config.source.as_str();
        let config = &config.webhook;
        let uri = checked_uri(config)?;
        let keys = config
            .secret
            .keys()
            .map_err(|reason| refuse("webhook.secret", reason))?;
        let mut http =
            HttpConnector::new_with_resolver(GuardedResolver::new(lookup, config.allow_private));
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(Duration::from_millis(config.connect_timeout_ms)));
        let connector = connector(http, uri.scheme_str() == Some("https"))?;
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_CONNECTION)
            .pool_max_idle_per_host(config.in_flight_max)
            .http1_max_buf_size(HEAD_BYTES_MAX)
            .build(connector);
        Ok(Self {
            uri,
            keys,
            client,
            timeout: Duration::from_millis(config.timeout_ms),
            retry_after_max: Duration::from_millis(config.retry_after_max_ms),
            source_header: header(&escaped(source))
                .map_err(|error| refuse("source", error.to_string()))?,
            source: source.to_owned(),
        })
    }

    /// Checks the settings alone: what is wrong should be told before anything is opened.
    ///
    /// # Errors
    /// As [`Target::new`], but for what the system lacks.
    pub(crate) fn check(config: &OutboxConfig) -> Result<(), OutboxError> {
        checked_uri(&config.webhook)?;
        let keys = config.webhook.secret.keys();
        keys.map_err(|reason| refuse("webhook.secret", reason))?;
        Ok(())
    }

    /// The same of what is set: what is not may be in the environment of the service alone.
    ///
    /// # Errors
    /// As [`Target::check`].
    pub(crate) fn check_what_is_set(config: &OutboxConfig) -> Result<(), OutboxError> {
        if config.webhook.url.is_some() {
            checked_uri(&config.webhook)?;
        }
        if !config.webhook.secret.is_empty() {
            let keys = config.webhook.secret.keys();
            keys.map_err(|reason| refuse("webhook.secret", reason))?;
        }
        Ok(())
    }

    /// Sends an event and waits for the answer, within the configured time.
    pub(crate) async fn send(&self, event: &LogEvent<'_>) -> Outcome {
        let request = CloudEvent::decode(event, &self.source)
            .map_err(|error| error.to_string())
            .and_then(|event| self.request(&event).map_err(|error| error.to_string()));
        let request = match request {
            Ok(request) => request,
            Err(reason) => return Outcome::Unreadable { reason },
        };
        match tokio::time::timeout(self.timeout, self.client.request(request)).await {
            Ok(Ok(response)) => self.judge(response).await,
            Ok(Err(error)) => Outcome::Failed {
                reason: chain(&error),
            },
            Err(_) => Outcome::Failed {
                reason: format!("no answer within {} ms", self.timeout.as_millis()),
            },
        }
    }

    /// CloudEvents in binary mode: the attributes are headers, the data is the body.
    fn request(
        &self,
        event: &CloudEvent<'_>,
    ) -> Result<Request<Full<Bytes>>, Box<dyn Error + Send + Sync>> {
        let body = serde_json::to_vec(&event.data())?;
        let id = event.id.to_string();
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let timestamp = since_epoch.as_secs().to_string();
        let signature = self.keys.sign(&id, &timestamp, &body);
        let order = header(&event.order().to_string())?;
        let id = header(&id)?;
        let mut request = Request::post(self.uri.clone())
            .header(CONTENT_TYPE, CloudEvent::CONTENT_TYPE)
            .header(
                USER_AGENT,
                concat!("order-service/", env!("CARGO_PKG_VERSION")),
            )
            .header("ce-specversion", CloudEvent::SPEC_VERSION)
            .header("ce-id", id.clone())
            .header("ce-source", self.source_header.clone())
            .header("ce-type", event.event_type())
            .header("ce-subject", order.clone())
            .header("ce-time", header(&event.time.to_string())?)
            .header("ce-partitionkey", order)
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signature);
        if let Some(traceparent) = &event.traceparent {
            let traceparent = header(traceparent)?;
            request = request
                .header("ce-traceparent", traceparent.clone())
                .header("traceparent", traceparent);
        }
        Ok(request.body(Full::new(Bytes::from(body)))?)
    }

    async fn judge(&self, response: Response<Incoming>) -> Outcome {
        let status = response.status();
        let asked = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok());
        let retry_after =
            asked.and_then(|value| retry_after(value, SystemTime::now(), self.retry_after_max));
        let excerpt = excerpt(response.into_body()).await;
        if status.is_success() {
            return Outcome::Delivered;
        }
        let reason = format!("answered {status}{excerpt}");
        if status == StatusCode::GONE {
            return Outcome::Gone { reason };
        }
        Outcome::Refused {
            reason,
            retry_after,
            whole_target: matches!(
                status,
                StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
            ),
        }
    }
}

fn checked_uri(config: &WebhookConfig) -> Result<Uri, OutboxError> {
    let refuse = |reason: String| refuse("webhook.url", reason);
    let url = config
        .url
        .as_deref()
        .ok_or_else(|| refuse("is not set, and the sink is `webhook`".to_owned()))?;
    let uri: Uri = url
        .parse()
        .map_err(|error| refuse(format!("is not a URL: {error}")))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(refuse("must begin with http:// or https://".to_owned()));
    }
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    if authority.contains('@') {
        return Err(refuse(
            "must not hold a user or password: requests are signed".to_owned(),
        ));
    }
    let host = uri.host().unwrap_or_default();
    if host.is_empty() {
        return Err(refuse("has no host".to_owned()));
    }
    // An address in the URL never meets the resolver; names do, at every connection.
    let literal = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<IpAddr>();
    if let (Ok(address), false) = (literal, config.allow_private)
        && let Some(why) = not_public(address)
    {
        return Err(refuse(format!(
            "is at {address}, which is {why}; set outbox.webhook.allow_private to allow it"
        )));
    }
    Ok(uri)
}

fn connector(
    http: HttpConnector<GuardedResolver>,
    needs_roots: bool,
) -> Result<HttpsConnector<HttpConnector<GuardedResolver>>, OutboxError> {
    let provider = rustls::crypto::ring::default_provider();
    let builder = hyper_rustls::HttpsConnectorBuilder::new();
    let builder = if needs_roots {
        builder.with_provider_and_native_roots(provider).map_err(|error| {
            refuse(
                "webhook.url",
                format!(
                    "needs the system's certificate authorities ({error}); install `ca-certificates` or set SSL_CERT_FILE"
                ),
            )
        })?
    } else {
        // Nobody is trusted: this connector never meets TLS.
        let tls = rustls::ClientConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()
            .map_err(|error| OutboxError::Start(error.to_string()))?
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        builder.with_tls_config(tls)
    };
    Ok(builder.https_or_http().enable_http1().wrap_connector(http))
}

/// Reads the beginning of a body and forgets the rest: ` : <beginning>`, or nothing.
async fn excerpt(mut body: Incoming) -> String {
    let mut begin = Vec::new();
    let read = async {
        let mut seen = 0;
        while seen < BODY_BYTES_MAX
            && let Some(Ok(frame)) = body.frame().await
        {
            if let Some(data) = frame.data_ref() {
                seen += data.len();
                let room = (4 * EXCERPT_CHARACTERS_MAX).saturating_sub(begin.len());
                begin.extend_from_slice(&data[..room.min(data.len())]);
            }
        }
    };
    // Too late is as good as the end: what was read is enough to report.
    let ended = tokio::time::timeout(BODY_WITHIN, read).await;
    tracing::trace!(whole = ended.is_ok(), "read an answer's body");
    let text = String::from_utf8_lossy(&begin);
    let text: String = text
        .chars()
        .map(|character| {
            if character.is_control() {
                ' '
            } else {
                character
            }
        })
        .take(EXCERPT_CHARACTERS_MAX)
        .collect();
    match text.trim() {
        "" => String::new(),
        text => format!(": {text}"),
    }
}

/// An error with its causes, which is where hyper keeps what happened.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// CloudEvents' HTTP binding: in a header, these two would be mistaken for something else.
fn escaped(source: &str) -> String {
    source.replace('%', "%25").replace('"', "%22")
}

fn header(text: &str) -> Result<HeaderValue, hyper::header::InvalidHeaderValue> {
    HeaderValue::from_str(text)
}

fn refuse(field: &'static str, reason: String) -> OutboxError {
    OutboxError::Config { field, reason }
}

#[cfg(test)]
#[path = "target_tests.rs"]
mod tests;
