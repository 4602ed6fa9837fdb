//! `/livez`, `/readyz`, `/healthz`, in the form Kubernetes made known, and `/metrics`.

use std::fmt::Write;
use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use order_command_workers::CommandWorkers;
use prometheus::{Encoder, TextEncoder};

use crate::answer::{self, Answer};
use crate::api::{Check, Shared};
use crate::error::Problem;

/// `GET /livez`, `GET /healthz`: the process answers.
pub(crate) async fn livez() -> Answer {
    answer::text(StatusCode::OK, "ok\n")
}

/// `GET /readyz`: whether this process should get traffic; with `?verbose`, why.
pub(crate) async fn readyz(
    State(shared): State<Arc<Shared>>,
    RawQuery(query): RawQuery,
) -> Result<Answer, Problem> {
    let checks = all_checks(&shared).await?;
    let ready = checks.iter().all(|check| check.ok || !check.required);
    let degraded = checks.iter().any(|check| !check.ok);
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let verdict = match (ready, degraded) {
        (true, false) => "ok",
        (true, true) => "degraded",
        (false, _) => "not ready",
    };
    let verbose = query.is_some_and(|query| {
        let mut names = query
            .split('&')
            .map(|parameter| parameter.split('=').next());
        names.any(|name| name == Some("verbose"))
    });
    let text = if verbose || !ready {
        explain(&checks, &shared.facts, verdict)
    } else {
        format!("{verdict}\n")
    };
    Ok(answer::text(status, text))
}

/// The checks look at files and read the log, which an async worker must not wait for.
async fn all_checks(shared: &Arc<Shared>) -> Result<Vec<Check>, Problem> {
    let asked = Arc::clone(shared);
    tokio::task::spawn_blocking(move || asked.all_checks())
        .await
        .map_err(|error| Problem::internal(format!("readiness cannot be told: {error}")))
}

fn explain(checks: &[Check], facts: &[(String, String)], verdict: &str) -> String {
    let mut text = String::new();
    let mut line = |arguments: std::fmt::Arguments<'_>| {
        text.write_fmt(arguments).expect("a string takes any text");
    };
    for check in checks {
        let sign = if check.ok { "[+]" } else { "[-]" };
        line(format_args!("{sign}{} {}\n", check.name, check.detail));
    }
    for (name, value) in facts {
        line(format_args!("[i]{name} {value}\n"));
    }
    line(format_args!("{verdict}\n"));
    text
}

impl Shared {
    fn check_writes(&self, commands: &CommandWorkers, checks: &mut Vec<Check>) {
        let unavailable = commands.unavailable();
        // Reads and the other partitions go on: traffic stays away only when no partition takes writes.
        let none_left = unavailable.len() >= self.log.len();
        for (partition, cause) in &unavailable {
            checks.push(Check {
                name: format!("writes-partition-{partition}"),
                ok: false,
                required: none_left,
                detail: cause.clone(),
            });
        }
        if unavailable.is_empty() {
            checks.push(Check {
                name: "writes".to_owned(),
                ok: true,
                required: true,
                detail: format!("{} partitions", self.log.len()),
            });
        }
    }

    /// What the API knows by itself, then what the wiring adds.
    fn all_checks(&self) -> Vec<Check> {
        let mut checks = Vec::new();
        let stopping = self.is_turning_away();
        checks.push(Check {
            name: "serving".to_owned(),
            ok: !stopping,
            required: true,
            detail: if stopping { "stopping" } else { "ok" }.to_owned(),
        });
        if let Ok(commands) = self.commands() {
            self.check_writes(commands, &mut checks);
        }
        for status in self.projector.status() {
            let name = format!(
                "projection-{}-{}",
                status.projection.name(),
                status.partition
            );
            let standing = match (&status.halted, status.paused) {
                (Some(cause), _) => format!("halted: {cause}"),
                (None, true) => "paused".to_owned(),
                (None, false) => format!("{:.3} s behind", status.lag_seconds),
            };
            let unreadable = status.log_unreadable.as_ref();
            let unreadable = unreadable.map_or_else(String::new, |error| {
                format!("; at most, as the log cannot be read: {error}")
            });
            checks.push(Check {
                name,
                ok: status.halted.is_none() && status.log_unreadable.is_none(),
                required: false,
                detail: format!(
                    "{standing}{unreadable}; checkpoint {} of {}, {} parked orders",
                    status.checkpoint, status.end, status.parked_orders
                ),
            });
        }
        checks.extend((self.checks)());
        checks
    }
}

/// `GET /metrics`: every room's metrics. Some are computed now, from files, so this is not for an async worker.
pub(crate) async fn metrics(State(shared): State<Arc<Shared>>) -> Result<Answer, Problem> {
    let encoded = tokio::task::spawn_blocking(move || {
        let mut text = Vec::new();
        let encoded = TextEncoder::new().encode(&shared.registry.gather(), &mut text);
        encoded.map(|()| text)
    });
    let failed = |error: String| Problem::internal(format!("metrics cannot be gathered: {error}"));
    let text = encoded
        .await
        .map_err(|error| failed(error.to_string()))?
        .map_err(|error| failed(error.to_string()))?;
    let mut response = answer::text(StatusCode::OK, text);
    let kind = HeaderValue::from_static(prometheus::TEXT_FORMAT);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    Ok(response)
}
