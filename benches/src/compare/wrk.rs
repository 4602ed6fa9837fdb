//! `wrk` as the generator: it needs far less of the processor than the service it loads.

use std::fmt::Write as _;
use std::fs;
use std::path::Path as FilePath;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use serde::Deserialize;

use super::{Load, LoadResult};
use crate::load::Target;
use crate::sample::ORDER_REQUEST;

/// Prints what the run gave as one line of JSON behind [`RESULT`].
const DONE: &str = r#"
function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    'RESULT {"requests":%d,"duration_us":%d,"failed":%d,"not_ok":%d,"p50_us":%d,"p99_us":%d}\n',
    summary.requests, summary.duration, errors.connect + errors.read + errors.write + errors.timeout,
    errors.status, latency:percentile(50.0), latency:percentile(99.0)))
end
"#;

/// Reads `ids` below `base` in turn; each thread starts somewhere else.
const READ: &str = r#"
local requests, next = {}, 0
function init(arguments)
  for at, id in ipairs(ids) do requests[at] = wrk.format("GET", base .. id) end
  next = math.random(#requests)
end
function request()
  next = next % #requests + 1
  return requests[next]
end
"#;

const RESULT: &str = "RESULT ";

#[derive(Debug, Deserialize)]
struct Outcome {
    requests: u64,
    duration_us: u64,
    failed: u64,
    not_ok: u64,
    p50_us: u64,
    p99_us: u64,
}

/// Whether there is a `wrk` to be run.
pub(super) fn is_installed() -> bool {
    // Without a target it prints its usage and ends with 1; what counts is that it starts.
    Command::new("wrk")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok()
}

/// Runs `load` against `target`; `directory` takes the script.
pub(super) fn run(
    load: &Load,
    target: &Target,
    connections: usize,
    duration: Duration,
    directory: &FilePath,
) -> anyhow::Result<LoadResult> {
    let script = directory.join("load.lua");
    fs::write(&script, script_of(load, &target.base))
        .with_context(|| format!("write {}", script.display()))?;
    let threads = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(connections);
    let output = Command::new("wrk")
        .arg(format!("--threads={threads}"))
        .arg(format!("--connections={connections}"))
        .arg(format!("--duration={}s", duration.as_secs().max(1)))
        .arg("--timeout=10s")
        .arg("--script")
        .arg(&script)
        .arg(format!("http://{}", target.host))
        .stdin(Stdio::null())
        .output()
        .context("run wrk")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let outcome = text
        .lines()
        .find_map(|line| line.strip_prefix(RESULT))
        .with_context(|| {
            format!(
                "wrk gave no result:\n{text}{}",
                String::from_utf8_lossy(&output.stderr)
            )
        })?;
    let outcome: Outcome = serde_json::from_str(outcome).context("read wrk's result")?;
    Ok(LoadResult {
        succeeded: outcome.requests.saturating_sub(outcome.not_ok),
        not_ok: outcome.not_ok,
        failed: outcome.failed,
        elapsed: Duration::from_micros(outcome.duration_us),
        p50_us: outcome.p50_us,
        p99_us: outcome.p99_us,
        // It ends with requests on their way.
        unknown_max: u64::try_from(connections).unwrap_or(u64::MAX),
    })
}

/// A script for a service whose paths start with `base`.
fn script_of(load: &Load, base: &str) -> String {
    let mut script = String::new();
    match load {
        Load::Create => {
            script.push_str("wrk.method = \"POST\"\n");
            script.push_str(&format!("wrk.path = \"{base}/orders\"\n"));
            // The body is JSON without a closing double bracket.
            script.push_str(&format!("wrk.body = [==[{ORDER_REQUEST}]==]\n"));
            script.push_str("wrk.headers[\"Content-Type\"] = \"application/json\"\n");
        }
        Load::Get { ids } => {
            script.push_str("local ids = {\n");
            for id in ids {
                writeln!(script, "\"{id}\",").expect("writing to a string cannot fail");
            }
            script.push_str(&format!("}}\nlocal base = \"{base}/orders/\"\n"));
            script.push_str(READ);
        }
    }
    script.push_str(DONE);
    script
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::Server;
    use crate::sample::OrderRequest;
    use axum::extract::Path;
    use axum::http::StatusCode;
    use axum::routing::{get, post};
    use axum::{Json, Router};
    use tokio::sync::oneshot;

    /// A service that answers only what it should be asked, as the scripts are run by `wrk`, which not every machine has.
    fn service() -> Router {
        let place = |Json(order): Json<OrderRequest>| async move {
            assert_eq!(order, serde_json::from_str(ORDER_REQUEST).unwrap());
            StatusCode::CREATED
        };
        let read = |Path(id): Path<String>| async move {
            if id == "a" || id == "b" {
                StatusCode::OK
            } else {
                StatusCode::NOT_FOUND
            }
        };
        Router::new()
            .route("/orders", post(place))
            .route("/orders/{id}", get(read))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn every_request_of_a_load_is_one_the_service_should_be_asked() {
        if !is_installed() {
            eprintln!("LEFT OUT: wrk is not installed");
            return;
        }
        let server = Server::bind("127.0.0.1:0".parse().unwrap(), service())
            .await
            .unwrap();
        let target =
            Target::parse(&format!("http://{}", server.address().unwrap()), false).unwrap();
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(server.serve_until(async move { stopped.await.unwrap() }));
        let results = tokio::task::spawn_blocking(move || {
            let directory = tempfile::tempdir().unwrap();
            let reads = Load::Get {
                ids: vec!["a".to_owned(), "b".to_owned()],
            };
            [Load::Create, reads].map(|load| {
                run(&load, &target, 2, Duration::from_secs(1), directory.path()).unwrap()
            })
        })
        .await
        .unwrap();
        for result in results {
            assert!(result.succeeded > 0, "{result:?}");
            assert_eq!((result.not_ok, result.failed), (0, 0), "{result:?}");
        }
        stop.send(()).unwrap();
        served.await.unwrap().unwrap();
    }
}
