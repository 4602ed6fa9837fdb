//! The operators' runbook, literally: its commands, paths, metric names and labels.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::client::{Client, an_order};
use crate::metrics::Metrics;
use crate::service::Service;
use crate::waits::caught_up;

/// Runs a command line of the runbook in a directory. `None` where the program is not installed: `./test` says so.
fn shell(directory: &Path, line: &str) -> Option<String> {
    let program = line.split(' ').next().unwrap_or_default();
    let lookup = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .output();
    if !lookup.expect("there is a shell").status.success() {
        eprintln!("LEFT OUT: `{program}` is not installed, so `{line}` was not run");
        return None;
    }
    let output = Command::new("sh")
        .args(["-c", line])
        .current_dir(directory)
        .output();
    let output = output.expect("there is a shell");
    assert!(output.status.success(), "{line}: {output:?}");
    Some(String::from_utf8(output.stdout).expect("the output is UTF-8"))
}

#[tokio::test]
async fn its_sqlite_commands_see_the_orders_of_a_running_service() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let service = Service::start(data.path(), &[]);
    let client = Client::of(&service);
    for _ in 0..3 {
        let placed = client.place(&an_order()).await;
        client.order_after(&placed).await;
    }
    if let Some(tables) = shell(data.path(), "sqlite3 read.db '.tables'") {
        assert!(
            tables.split_whitespace().any(|table| table == "OrderView"),
            "{tables}"
        );
    }
    if let Some(count) = shell(
        data.path(),
        "sqlite3 read.db 'select count(1) from OrderView;'",
    ) {
        assert_eq!(count.trim(), "3");
    }
}

#[tokio::test]
async fn its_paths_are_where_it_says() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let service = Service::start(data.path(), &["--store", "jsonl"]);
    let client = Client::of(&service);
    client.place(&an_order()).await;
    caught_up(&client).await;
    for name in ["events.jsonl", "read.db", "outbox.jsonl"] {
        let length = std::fs::metadata(data.path().join(name)).map(|metadata| metadata.len());
        assert!(length.is_ok_and(|length| length > 0), "{name}");
    }
}

#[tokio::test]
async fn its_queries_find_their_series_with_the_labels_they_ask_for() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let service = Service::start(data.path(), &["--partitions", "2"]);
    let client = Client::of(&service);

    // Before the first request: a rate needs a zero to start from.
    let metrics = Metrics::of(&client).await;
    let posts = [("route", "/orders"), ("method", "POST")];
    let reads = [("route", "/orders/:id"), ("method", "GET")];
    for status in ["201", "400", "503"] {
        let series = metrics.with(
            "http_requests_total",
            &[&posts[..], &[("status", status)]].concat(),
        );
        assert_eq!(series.len(), 1, "{status}");
        assert_eq!(series[0].value, 0.0);
    }
    let bounds: BTreeSet<_> = metrics
        .with("http_server_request_duration_seconds_bucket", &reads)
        .into_iter()
        .map(|sample| sample.labels["le"].clone())
        .collect();
    for bound in ["0.0005", "0.001", "0.0025", "0.005", "0.4", "10", "+Inf"] {
        assert!(bounds.contains(bound), "{bound} is not in {bounds:?}");
    }
    for projection in ["orders", "customer_summary", "sku_demand"] {
        for partition in ["0", "1"] {
            let labels = [("projection", projection), ("partition", partition)];
            let lag = metrics.with("projector_event_lag_seconds", &labels);
            assert_eq!(lag.len(), 1, "{labels:?}");
            assert_eq!(lag[0].value, 0.0, "an idle projector is not behind");
        }
    }

    let placed = client.place(&an_order()).await;
    client.order_after(&placed).await;
    client
        .get("/orders/0199c82c-0000-7000-8000-000000000000")
        .send()
        .await
        .expect(404);
    client.get("/no/such/path").send().await.expect(404);
    client
        .post("/orders")
        .json(&json!({}))
        .send()
        .await
        .expect(400);
    let metrics = Metrics::of(&client).await;
    let count = |route, method, status| {
        let labels = [("route", route), ("method", method), ("status", status)];
        metrics
            .with("http_requests_total", &labels)
            .first()
            .map(|sample| sample.value)
    };
    assert_eq!(count("/orders", "POST", "201"), Some(1.0));
    assert_eq!(count("/orders", "POST", "400"), Some(1.0));
    assert_eq!(count("/orders/:id", "GET", "200"), Some(1.0));
    assert_eq!(count("/orders/:id", "GET", "404"), Some(1.0));
    assert_eq!(count("unmatched", "GET", "404"), Some(1.0));
    let timed = metrics.with("http_server_request_duration_seconds_count", &reads);
    assert_eq!(timed[0].value, 2.0);
}

#[tokio::test]
async fn every_metric_that_is_promised_is_there_with_its_type_and_labels() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let service = Service::start(
        data.path(),
        &["--partitions", "2", "--durability", "interval=2"],
    );
    let client = Client::of(&service);
    client.place(&an_order()).await;
    caught_up(&client).await;
    let metrics = Metrics::of(&client).await;

    let projection: &[&str] = &["projection", "partition"];
    let promised: &[(&str, &str, &[&str])] = &[
        (
            "http_server_request_duration_seconds",
            "histogram",
            &["route", "method"],
        ),
        (
            "http_requests_total",
            "counter",
            &["route", "method", "status"],
        ),
        ("http_connections_open", "gauge", &[]),
        ("http_connections_refused_total", "counter", &[]),
        ("projector_event_lag_seconds", "gauge", projection),
        ("projector_lag_events", "gauge", projection),
        ("projector_checkpoint_offset", "gauge", projection),
        ("projector_paused", "gauge", projection),
        ("projector_halted", "gauge", projection),
        ("projector_errors_total", "counter", projection),
        ("projector_apply_seconds", "histogram", &["partition"]),
        ("log_end_offset", "gauge", &["partition"]),
        ("log_fsync_seconds", "histogram", &["partition"]),
        ("log_active_segment_bytes", "gauge", &["partition"]),
        ("log_disk_free_bytes", "gauge", &[]),
        ("log_scrub_bytes_total", "counter", &[]),
        ("log_scrub_damaged_segments", "gauge", &["partition"]),
        ("log_scrub_last_completed_timestamp_seconds", "gauge", &[]),
        ("log_durability_info", "gauge", &["mode"]),
        ("command_queue_depth", "gauge", &["partition"]),
        ("command_batch_size", "histogram", &["partition"]),
        ("outbox_pending", "gauge", &[]),
        ("outbox_oldest_age_seconds", "gauge", &["state"]),
        ("outbox_dead", "gauge", &[]),
        ("outbox_attempts_total", "counter", &["outcome"]),
        ("sqlite_wal_bytes", "gauge", &["file"]),
        ("sqlite_busy_total", "counter", &["file"]),
        ("process_resident_memory_bytes", "gauge", &[]),
        ("process_cpu_seconds_total", "counter", &[]),
    ];
    for (name, kind, labels) in promised {
        assert_eq!(
            metrics.types.get(*name).map(String::as_str),
            Some(*kind),
            "{name}"
        );
        let sampled = if *kind == "histogram" {
            format!("{name}_count")
        } else {
            (*name).to_owned()
        };
        let samples = metrics.with(&sampled, &[]);
        assert!(!samples.is_empty(), "{name} has no sample");
        for sample in samples {
            let found: BTreeSet<_> = sample.labels.keys().map(String::as_str).collect();
            assert_eq!(found, labels.iter().copied().collect(), "labels of {name}");
        }
    }
    assert_eq!(
        metrics
            .with("log_durability_info", &[("mode", "interval=2")])
            .len(),
        1
    );
    assert_eq!(
        metrics.with("log_end_offset", &[]).len(),
        2,
        "a series a partition"
    );
}

#[tokio::test]
async fn a_copy_of_a_stopped_data_directory_is_a_backup() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let service = Service::start(data.path(), &[]);
    let placed = Client::of(&service).place(&an_order()).await;
    assert!(service.terminate().success());

    let elsewhere = tempfile::tempdir().expect("a temporary directory");
    let copied = Command::new("cp")
        .arg("-r")
        .arg(data.path())
        .arg(elsewhere.path().join("copy"))
        .status();
    assert!(copied.expect("cp runs").success());
    let service = Service::start(&elsewhere.path().join("copy"), &[]);
    let read = Client::of(&service)
        .get(&format!("/orders/{}", placed.id()))
        .header("prefer", "wait=30");
    assert_eq!(read.send().await.expect(200).text, placed.text);
}
