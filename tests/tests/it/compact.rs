//! Goal: orders that were closed long ago are told as one event each, and nobody who asks for what they are now, or what is
//! still promised of them, can tell the difference. A kill at any moment loses nothing.
//!
//! Method: clients take orders through lives that end in every way; the log is compacted and held against what it was:
//! rows of all projections by digest, answers over HTTP byte for byte, integration events line by line. Then the compacting
//! is killed at every rename it makes, and the data directory opened as it is.
//!
//! Long because each claim is held on both engines by one function, and all of them share the lives they begin with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::client::{Answer, Client, an_order};
use crate::renames::{RENAMES, Run, run_killed_at, run_with_fault};
use crate::service::{Service, binary, run, stdout_of};
use crate::stores::on_both_stores;
use crate::waits::caught_up;

on_both_stores! {
    a_compacted_log_gives_the_same_rows_and_goes_on,
    what_is_still_promised_is_not_compacted,
    a_compacted_orders_history_begins_with_its_snapshot,
    every_tool_works_on_a_compacted_log,
    killed_at_every_rename_the_data_are_those_of_before_or_of_after,
    a_disk_that_is_full_or_fails_leaves_the_data_as_they_were,
    what_cannot_be_compacted_is_refused_and_not_touched,
}

/// With it, no idempotency key is remembered after the moment it was used.
const FORGETFUL: (&str, &str) = ("ORDER_SERVICE__IDEMPOTENCY_RETENTION_HOURS", "0");

fn log_tool(data: &Path, tool: &[&str]) -> Output {
    let mut arguments = vec!["log"];
    arguments.extend(tool);
    let data = data.to_str().expect("a temporary directory is UTF-8");
    arguments.extend(["--data-dir", data]);
    run(arguments)
}

fn compact(data: &Path, more: &[&str]) -> Output {
    log_tool(data, &[&["compact", "--older-than", "0s"], more].concat())
}

fn done(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// All rows of all projections, but for where in the log they come from.
fn rows_of(data: &Path) -> String {
    [
        "select order_id, partition, version, status, customer_id, currency, total, paid, refunded, next_line_id, lines, \
         metadata, placed_at, updated_at from OrderView order by order_id",
        "select * from CustomerSummaryByPartition order by customer_id, currency, partition",
        "select * from SkuDemandByPartition order by sku, partition",
    ]
    .map(|statement| {
        stdout_of([
            "sql".as_ref(),
            "--format".as_ref(),
            "csv".as_ref(),
            "--data-dir".as_ref(),
            data.as_os_str(),
            statement.as_ref(),
        ])
    })
    .concat()
}

/// Every order's events as `log dump` prints them, without their offsets.
fn events_of(data: &Path) -> BTreeMap<String, Vec<Value>> {
    let dump = done(&log_tool(data, &["dump"]));
    let mut orders: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for line in dump.lines() {
        let mut event: Value = serde_json::from_str(line).expect("a line is JSON");
        let order = event["order_id"].as_str().expect("an event has an order");
        let order = order.to_owned();
        event["offset"] = Value::Null;
        orders.entry(order).or_default().push(event);
    }
    orders
}

fn kinds(events: &[Value]) -> Vec<&str> {
    let kinds = events.iter().map(|event| event["type"].as_str());
    kinds.map(Option::unwrap_or_default).collect()
}

fn lines_told(data: &Path) -> Vec<String> {
    let told = std::fs::read_to_string(data.join("outbox.jsonl")).expect("there is an outbox");
    told.lines().map(str::to_owned).collect()
}

/// Starts the service, waits until everything is applied and told, and stops it.
async fn settle(data: &Path) {
    let service = Service::start(data, &[]);
    caught_up(&Client::of(&service)).await;
    assert!(service.terminate().success());
}

/// Takes an order through steps; returns the last answer.
async fn live(client: &Client, steps: &[(&str, Value)]) -> Answer {
    let mut answer = client.place(&an_order()).await;
    for (step, body) in steps {
        answer = client.step(&answer.id(), step, body).await;
    }
    answer
}

/// The last answers of orders that ended, and of some that did not.
struct Orders {
    delivered: Answer,
    part_refunded: Answer,
    refunded: Answer,
    cancelled: Answer,
    open: Answer,
    part_refunded_open: Answer,
}

impl Orders {
    fn closed(&self) -> [&Answer; 4] {
        [
            &self.delivered,
            &self.part_refunded,
            &self.refunded,
            &self.cancelled,
        ]
    }

    fn all(&self) -> [&Answer; 6] {
        let [a, b, c, d] = self.closed();
        [a, b, c, d, &self.open, &self.part_refunded_open]
    }
}

/// A stopped service's directory with orders in every state, all of it told and applied.
async fn lived(store: &str, data: &Path) -> Orders {
    let service = Service::start(data, &["--store", store, "--partitions", "3"]);
    let client = Client::of(&service);
    let line = json!({"sku": "SKU-2", "quantity": 1, "unit_price": 2});
    let pay = |amount: i64| ("pay", json!({"amount": amount}));
    let bare = |step| (step, json!({}));
    let delivered = [bare("confirm"), pay(3998), bare("ship"), bare("deliver")];
    let mut orders = Orders {
        delivered: live(&client, &delivered).await,
        part_refunded: live(&client, &delivered).await,
        refunded: live(&client, &[bare("confirm"), pay(3998), bare("refund")]).await,
        cancelled: live(
            &client,
            &[
                ("lines", line.clone()),
                bare("confirm"),
                pay(4000),
                bare("cancel"),
            ],
        )
        .await,
        open: live(&client, &[("lines", line), bare("confirm")]).await,
        part_refunded_open: live(
            &client,
            &[bare("confirm"), pay(3998), ("refund", json!({"amount": 5}))],
        )
        .await,
    };
    let id = orders.part_refunded.id();
    orders.part_refunded = client.step(&id, "refund", &json!({"amount": 998})).await;
    // A line that is removed again leaves its mark on the demand.
    let removed = client.place(&an_order()).await.id();
    let line = json!({"sku": "GONE", "quantity": 1, "unit_price": 2});
    client.step(&removed, "lines", &line).await;
    let path = format!("/orders/{removed}/lines/2");
    let remove = client.request(reqwest::Method::DELETE, &path);
    remove.send().await.expect(200);
    client.step(&removed, "cancel", &json!({})).await;
    caught_up(&client).await;
    assert!(service.terminate().success());
    orders
}

async fn a_compacted_log_gives_the_same_rows_and_goes_on(store: &str) {
    let place = tempfile::tempdir().expect("a temporary directory");
    let data = place.path();
    let orders = lived(store, data).await;
    let (rows, told, events) = (rows_of(data), lines_told(data), events_of(data));

    let would = done(&compact(data, &["--dry-run"]));
    assert!(would.contains("would tell 5 orders, 25 events"), "{would}");
    assert_eq!(events_of(data), events, "a dry run changes nothing");
    let said = done(&compact(data, &[]));
    assert!(
        said.contains("5 orders, 25 events -> 5 snapshot events") && said.contains("proven"),
        "{said}"
    );
    let (before, after) = bytes_told(&said);
    assert!(0 < after && after < before, "{said}");
    let compacted = events_of(data);
    for answer in orders.closed() {
        assert_eq!(kinds(&compacted[&answer.id()]), ["OrderSnapshot"]);
        assert_eq!(compacted[&answer.id()][0]["version"], answer.version());
    }
    for answer in [&orders.open, &orders.part_refunded_open] {
        assert_eq!(compacted[&answer.id()], events[&answer.id()]);
    }

    settle(data).await;
    assert_eq!(rows_of(data), rows, "other rows");
    assert_eq!(lines_told(data), told, "nothing is told again");
    done(&run([
        "projections".as_ref(),
        "diff".as_ref(),
        "--data-dir".as_ref(),
        data.as_os_str(),
    ]));

    // The first commands come while the read model is being rebuilt from the snapshots.
    let service = Service::start(data, &[]);
    let client = Client::of(&service);
    for answer in orders.all() {
        let read = client.get(&format!("/orders/{}", answer.id())).send().await;
        assert_eq!(read.expect(200).text, answer.text);
    }
    let refund = |answer: &Answer, version: u64| {
        client
            .post(&format!("/orders/{}/refund", answer.id()))
            .header("if-match", &format!("\"{version}\""))
            .header("idempotency-key", &format!("refund-{version}"))
            .json(&json!({"amount": 1000}))
    };
    let version = orders.delivered.version();
    let outdated = refund(&orders.delivered, version - 1).send().await;
    assert_eq!(outdated.expect(412).problem(), "version-mismatch");
    let refunded = refund(&orders.delivered, version).send().await.expect(200);
    assert_eq!(refunded.version(), version + 1);
    assert_eq!(refunded.json()["refunded"], 1000);
    let too_much = json!({"amount": 3001});
    let path = format!("/orders/{}/refund", orders.part_refunded.id());
    let too_much = client.post(&path).json(&too_much).send().await.expect(422);
    assert_eq!(too_much.problem(), "refund-mismatch");
    let path = format!("/orders/{}/cancel", orders.refunded.id());
    let late = client.post(&path).json(&json!({})).send().await.expect(409);
    assert_eq!(late.json()["allowed"], json!([]));
    service.kill();

    // Killed and started again, the refund behind the snapshot is there, once, with its key.
    let service = Service::start(data, &[]);
    let client = Client::of(&service);
    let again = client
        .post(&format!("/orders/{}/refund", orders.delivered.id()))
        .header("if-match", &format!("\"{version}\""))
        .header("idempotency-key", &format!("refund-{version}"))
        .json(&json!({"amount": 1000}))
        .send()
        .await
        .expect(200);
    assert_eq!(again.text, refunded.text);
    caught_up(&client).await;
    assert!(service.terminate().success());
    let told_now = lines_told(data);
    assert_eq!(told_now[..told.len()], told, "nothing is told again");
    // The kill may have come between the telling and the note of it.
    let new = &told_now[told.len()..];
    assert!(!new.is_empty(), "the refund is told");
    for line in new {
        let event: Value = serde_json::from_str(line).expect("a line is JSON");
        let id = format!("{}-{}", orders.delivered.id(), version + 1);
        assert_eq!(event["id"], id, "the refund alone is new");
        assert_eq!(event["type"], "order.refunded.v1");
    }

    // Compacted once more, what followed the snapshot is part of the next one; with its key it stays.
    let said = done(&compact(data, &[]));
    assert!(said.contains("nothing to compact"), "{said}");
    assert!(said.contains("1 with an idempotency key"), "{said}");
    let rows = rows_of(data);
    let said = done(&forgetful(data));
    assert!(
        said.contains("1 orders, 2 events -> 1 snapshot events"),
        "{said}"
    );
    let compacted = events_of(data);
    assert_eq!(kinds(&compacted[&orders.delivered.id()]), ["OrderSnapshot"]);
    settle(data).await;
    assert_eq!(rows_of(data), rows);
    assert_eq!(lines_told(data), told_now);
}

/// How many bytes the events took before and take now, as the command says.
fn bytes_told(said: &str) -> (u64, u64) {
    let (_, bytes) = said.split_once("snapshot events, ").expect("it says so");
    let (before, rest) = bytes.split_once(" -> ").expect("it says both");
    let (after, _) = rest.split_once(" bytes").expect("it says bytes");
    let number = |text: &str| text.parse().expect("a number");
    (number(before), number(after))
}

/// Compacts as if no idempotency key were remembered.
fn forgetful(data: &Path) -> Output {
    Command::new(binary())
        .args(["log", "compact", "--older-than", "0s", "--data-dir"])
        .arg(data)
        .env(FORGETFUL.0, FORGETFUL.1)
        .output()
        .expect("the binary runs")
}

async fn what_is_still_promised_is_not_compacted(store: &str) {
    let place = tempfile::tempdir().expect("a temporary directory");
    let data = place.path();
    let none = ["--store", store, "--outbox-sink", "none"];
    let service = Service::start(data, &none);
    let client = Client::of(&service);
    let keyed = |key: &str| {
        client
            .post("/orders")
            .header("idempotency-key", key)
            .json(&an_order())
    };
    let placed = keyed("a-key").send().await.expect(201);
    client.step(&placed.id(), "cancel", &json!({})).await;
    let unkeyed = live(&client, &[("cancel", json!({}))]).await;
    caught_up(&client).await;
    assert!(service.terminate().success());
    let events = events_of(data);

    // Too young; its key is remembered; the outbox has told nothing.
    let young = log_tool(data, &["compact", "--older-than", "1h"]);
    assert!(done(&young).contains("2 not older than 1h"), "{young:?}");
    let said = done(&compact(data, &[]));
    assert!(said.contains("nothing to compact"), "{said}");
    assert!(
        said.contains(
            "1 with an idempotency key of the last 24 h, 1 that the outbox has to tell of"
        ),
        "{said}"
    );
    assert_eq!(events_of(data), events);
    let service = Service::start(data, &none);
    let client = Client::of(&service);
    let again = client
        .post("/orders")
        .header("idempotency-key", "a-key")
        .json(&an_order());
    assert_eq!(again.send().await.expect(201).text, placed.text);
    drop(service);

    // Told in one go with what is not compacted, it is not told again, and what was given up is never told.
    let said = done(&compact(data, &["--even-untold"]));
    assert!(said.contains("1 orders, 2 events -> 1 snapshot"), "{said}");
    let service = Service::start(data, &["--store", store]);
    let client = Client::of(&service);
    caught_up(&client).await;
    let again = client
        .post("/orders")
        .header("idempotency-key", "a-key")
        .json(&an_order());
    assert_eq!(again.send().await.expect(201).text, placed.text);
    assert!(service.terminate().success());
    let told = lines_told(data);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told.iter().all(|line| line.contains(&placed.id())),
        "{told:?}"
    );
    let rows = rows_of(data);
    assert!(rows.contains(&unkeyed.id()));

    // Now that it was told, and the key forgotten, the other one can go too.
    let said = done(&forgetful(data));
    assert!(said.contains("1 orders, 2 events -> 1 snapshot"), "{said}");
    settle(data).await;
    assert_eq!(rows_of(data), rows);
    assert_eq!(lines_told(data), told);
}

async fn a_compacted_orders_history_begins_with_its_snapshot(store: &str) {
    let place = tempfile::tempdir().expect("a temporary directory");
    let data = place.path();
    let orders = lived(store, data).await;
    let service = Service::start(data, &[]);
    let old_feed_id = first_feed_id(&service).await;
    let old_token = orders.delivered.header("sync-token").to_owned();
    assert!(service.terminate().success());
    done(&compact(data, &["--discard-old"]));

    let service = Service::start(data, &[]);
    let client = Client::of(&service);
    caught_up(&client).await;
    let answer = &orders.delivered;
    let (id, version) = (answer.id(), answer.version());
    let order = answer.json();
    let get = async |path: String| client.get(&path).send().await;
    let told = get(format!("/orders/{id}/events")).await.expect(200).json();
    let events = told["events"].as_array().expect("a list").clone();
    assert_eq!(kinds(&events), ["OrderSnapshot"]);
    assert_eq!(events[0]["version"], version);
    assert_eq!(events[0]["time"], order["updated_at"]);
    let data_of = &events[0]["data"];
    for member in [
        "status",
        "customer_id",
        "currency",
        "lines",
        "paid",
        "metadata",
        "placed_at",
    ] {
        assert_eq!(data_of[member], order[member], "{member}");
    }
    let after = get(format!("/orders/{id}/events?after_version={version}")).await;
    assert_eq!(after.expect(200).json()["events"], json!([]));

    // The order as it was: at its version and after, and no longer before. It was there from the time on that it shows.
    let placed_at = order["placed_at"].as_str().expect("a time");
    let updated_at = order["updated_at"].as_str().expect("a time");
    let at = async |moment: String| get(format!("/orders/{id}?{moment}")).await;
    let known = at(format!("at_version={version}")).await.expect(200);
    assert_eq!(known.text, answer.text);
    let now = at("as_of=2100-01-01T00:00:00Z".to_owned())
        .await
        .expect(200);
    assert_eq!(now.text, answer.text);
    let then = at(format!("as_of={updated_at}")).await.expect(200);
    assert_eq!(then.text, answer.text);
    for gone in [
        "at_version=1".to_owned(),
        format!("at_version={}", version - 1),
        format!("as_of={placed_at}"),
    ] {
        let gone_for = at(gone.clone()).await.expect(410);
        assert_eq!(gone_for.problem(), "version-compacted", "{gone}");
        let begins = format!("begins with version {version}");
        assert!(gone_for.text.contains(&begins), "{gone_for:?}");
    }
    let never = at(format!("at_version={}", version + 1)).await.expect(404);
    assert_eq!(never.problem(), "version-not-found");
    let before = at("as_of=2020-01-01T00:00:00Z".to_owned())
        .await
        .expect(404);
    assert_eq!(before.problem(), "version-not-found");
    let open = get(format!("/orders/{}?at_version=1", orders.open.id())).await;
    assert_eq!(open.expect(200).version(), 1);

    // A refund goes on behind it.
    client.step(&id, "refund", &json!({"amount": 1})).await;
    caught_up(&client).await;
    let told = get(format!("/orders/{id}/events")).await.expect(200).json();
    let events = told["events"].as_array().expect("a list").clone();
    assert_eq!(kinds(&events), ["OrderSnapshot", "OrderRefunded"]);
    assert_eq!(events[1]["version"], version + 1);
    let known = at(format!("at_version={version}")).await.expect(200);
    assert_eq!(known.text, answer.text);

    // Places in the log of before are known as such; the feed of now shows snapshots, and goes on where it was left.
    let outdated = client
        .get(&format!("/orders/{id}"))
        .header("sync-token", &old_token);
    let outdated = outdated.send().await.expect(400);
    assert_eq!(outdated.problem(), "invalid-sync-token");
    assert!(outdated.text.contains("rewritten"), "{outdated:?}");
    let outdated = client.get("/events").header("last-event-id", &old_feed_id);
    let outdated = outdated.send().await.expect(400);
    assert!(outdated.text.contains("rewritten"), "{outdated:?}");
    let snapshots = feed(&service, "/events?type=OrderSnapshot", None, 5).await;
    assert_eq!(snapshots.len(), 5);
    let rest = feed(
        &service,
        "/events?type=OrderSnapshot",
        Some(&snapshots[1].0),
        3,
    )
    .await;
    assert_eq!(rest, snapshots[2..]);
}

/// The ids and data of the first events that the live feed shows.
async fn feed(
    service: &Service,
    path: &str,
    last_event_id: Option<&str>,
    count: usize,
) -> Vec<(String, String)> {
    const CHUNKS_MAX: usize = 100;
    let mut request = reqwest::Client::new().get(service.url(path));
    if let Some(id) = last_event_id {
        request = request.header("last-event-id", id);
    }
    let mut feed = request.send().await.expect("the service answers");
    let mut text = String::new();
    for _ in 0..CHUNKS_MAX {
        let chunk = feed.chunk().await.expect("the feed goes on");
        text += &String::from_utf8_lossy(&chunk.expect("the feed has no end"));
        let whole = text
            .split_inclusive("\n\n")
            .filter(|event| event.ends_with("\n\n"));
        let events = whole.filter_map(|event| {
            let field = |name: &str| {
                let line = event.lines().find_map(|line| line.strip_prefix(name));
                line.map(|value| value.trim().to_owned())
            };
            Some((field("id:")?, field("data:")?))
        });
        let events: Vec<_> = events.collect();
        if events.len() >= count {
            return events;
        }
    }
    panic!("not {count} events in {text}");
}

async fn first_feed_id(service: &Service) -> String {
    let events = feed(service, "/events?from=start", None, 1).await;
    events[0].0.clone()
}

async fn every_tool_works_on_a_compacted_log(store: &str) {
    let place = tempfile::tempdir().expect("a temporary directory");
    let original = place.path().join("original");
    lived(store, &original).await;
    let (rows, told) = (rows_of(&original), lines_told(&original));
    done(&compact(&original, &["--discard-old"]));
    let events = events_of(&original);
    done(&log_tool(&original, &["verify"]));

    // Into other partitions and back.
    let data = copy_of(&original, "repartitioned");
    done(&log_tool(
        &data,
        &["repartition", "--partitions", "2", "--discard-old"],
    ));
    done(&log_tool(&data, &["verify"]));
    done(&log_tool(
        &data,
        &["repartition", "--partitions", "3", "--discard-old"],
    ));
    assert_eq!(events_of(&data), events);
    settle(&data).await;
    assert_eq!(rows_of(&data), rows);
    assert_eq!(lines_told(&data), told);

    // Out and in again, into either engine.
    let file = place.path().join("exported.jsonl");
    let file = file.to_str().expect("a temporary directory is UTF-8");
    done(&log_tool(&original, &["export", "--to", file]));
    for engine in ["segmented", "jsonl"] {
        let data = place.path().join(format!("imported-{engine}"));
        let import = [
            "import",
            "--from",
            file,
            "--store",
            engine,
            "--partitions",
            "3",
        ];
        done(&log_tool(
            &data,
            &[&import[..], &["--already-told"]].concat(),
        ));
        settle(&data).await;
        assert_eq!(rows_of(&data), rows, "{engine}");
    }

    // Backed up beside the running service, and restored.
    let service = Service::start(&original, &[]);
    caught_up(&Client::of(&service)).await;
    let backup = place.path().join("backup");
    let restored = place.path().join("restored");
    done(&run([
        "backup".as_ref(),
        "--data-dir".as_ref(),
        original.as_os_str(),
        "--to".as_ref(),
        backup.as_os_str(),
    ]));
    assert!(service.terminate().success());
    done(&run([
        "restore".as_ref(),
        "--from".as_ref(),
        backup.as_os_str(),
        "--data-dir".as_ref(),
        restored.as_os_str(),
    ]));
    settle(&restored).await;
    assert_eq!(rows_of(&restored), rows);

    // Rotated and archived, where there are segments.
    if store == "segmented" {
        done(&log_tool(&original, &["rotate"]));
        let archived = done(&log_tool(&original, &["archive"]));
        assert!(archived.contains("archived"), "{archived}");
        done(&log_tool(&original, &["verify"]));
        settle(&original).await;
        assert_eq!(events_of(&original), events);
        // What is archived is compacted as well.
        let service = Service::start(&original, &[]);
        let late = live(&Client::of(&service), &[("cancel", json!({}))]).await;
        caught_up(&Client::of(&service)).await;
        assert!(service.terminate().success());
        let said = done(&compact(&original, &["--discard-old"]));
        assert!(said.contains("1 orders, 2 events"), "{said}");
        assert_eq!(kinds(&events_of(&original)[&late.id()]), ["OrderSnapshot"]);
    }
    for projection in ["orders", "customer_summary", "sku_demand"] {
        done(&run([
            "projections".as_ref(),
            "rebuild".as_ref(),
            "--data-dir".as_ref(),
            restored.as_os_str(),
            projection.as_ref(),
        ]));
    }
    assert_eq!(rows_of(&restored), rows);
}

fn copy_of(original: &Path, name: &str) -> PathBuf {
    let copy = original.with_file_name(name);
    let copied = Command::new("cp")
        .arg("-r")
        .args([original, &copy])
        .status();
    assert!(copied.is_ok_and(|status| status.success()));
    copy
}

/// A stopped service's directory with a few closed orders, in `place`.
async fn small(store: &str, place: &Path) -> PathBuf {
    let original = place.join("original");
    let service = Service::start(&original, &["--store", store, "--partitions", "2"]);
    let client = Client::of(&service);
    for number in 0..8 {
        let placed = client.place(&an_order()).await;
        client.step(&placed.id(), "confirm", &json!({})).await;
        if number % 2 == 0 {
            client.step(&placed.id(), "cancel", &json!({})).await;
        }
    }
    caught_up(&client).await;
    assert!(service.terminate().success());
    original
}

/// Goes on with a directory in which the compacting ended somehow, in one of three ways in turn: a service that starts, the
/// command once more, and a look that only reads before the log is proven. Returns how the orders are told then.
async fn go_on(data: &Path, turn: usize) -> BTreeMap<String, Vec<Value>> {
    match turn % 3 {
        0 => settle(data).await,
        1 => drop(done(&compact(data, &["--discard-old"]))),
        _ => {
            let look = log_tool(data, &["ls"]);
            let told = String::from_utf8_lossy(&look.stderr);
            assert!(
                look.status.success() || told.contains("nothing is lost"),
                "{look:?}"
            );
            done(&log_tool(data, &["verify"]));
        }
    }
    events_of(data)
}

/// How the orders of a directory are told once it is compacted.
fn events_after(original: &Path) -> BTreeMap<String, Vec<Value>> {
    let reference = copy_of(original, "reference");
    done(&compact(&reference, &["--discard-old"]));
    events_of(&reference)
}

async fn killed_at_every_rename_the_data_are_those_of_before_or_of_after(store: &str) {
    const RENAMES_MAX: usize = 200;
    const RENAMES_LEAST: usize = 6;
    let place = tempfile::tempdir().expect("a temporary directory");
    let original = small(store, place.path()).await;
    let (before, rows, told) = (
        events_of(&original),
        rows_of(&original),
        lines_told(&original),
    );
    let after = events_after(&original);
    assert_ne!(before, after);
    let arguments = [
        "log",
        "compact",
        "--older-than",
        "0s",
        "--discard-old",
        "--data-dir",
    ];
    for when in 1..RENAMES_MAX {
        let data = copy_of(&original, &format!("killed-at-{when}"));
        let ended = match run_killed_at(RENAMES, when, &arguments, &data) {
            None => return,
            Some(ended) => ended,
        };
        let found = go_on(&data, when).await;
        assert!(found == before || found == after, "killed at rename {when}");
        settle(&data).await;
        assert_eq!(rows_of(&data), rows, "killed at rename {when}");
        assert_eq!(lines_told(&data), told, "killed at rename {when}");
        // And it can be run again, whatever became of the first run.
        done(&compact(&data, &["--discard-old"]));
        assert_eq!(events_of(&data), after, "killed at rename {when}");
        if ended == Run::Done {
            assert!(when > RENAMES_LEAST, "only {when} renames were met");
            return;
        }
        std::fs::remove_dir_all(&data).expect("the copy can be removed");
    }
    panic!("the compacting makes more than {RENAMES_MAX} renames");
}

async fn a_disk_that_is_full_or_fails_leaves_the_data_as_they_were(store: &str) {
    let place = tempfile::tempdir().expect("a temporary directory");
    let original = small(store, place.path()).await;
    let (before, rows, told) = (
        events_of(&original),
        rows_of(&original),
        lines_told(&original),
    );
    let after = events_after(&original);
    let faults = [
        ("pwrite64", "error=ENOSPC:when=1+"),
        ("pwrite64", "error=ENOSPC:when=6+"),
        ("fdatasync", "error=EIO:when=2"),
        ("fsync", "error=EIO:when=1"),
        ("fsync", "error=EIO:when=4"),
    ];
    let arguments = ["log", "compact", "--older-than", "0s", "--data-dir"];
    let mut failures = 0;
    for (turn, (call, fault)) in faults.into_iter().enumerate() {
        let data = copy_of(&original, &format!("fault-{turn}"));
        let Some(output) = run_with_fault(call, fault, &arguments, &data) else {
            return;
        };
        let code = output.status.code();
        assert!(matches!(code, Some(0 | 1)), "{call}, {fault}: {output:?}");
        failures += i32::from(code == Some(1));
        let found = go_on(&data, turn).await;
        assert!(found == before || found == after, "{call}, {fault}");
        settle(&data).await;
        assert_eq!(rows_of(&data), rows, "{call}, {fault}");
        assert_eq!(lines_told(&data), told, "{call}, {fault}");
        std::fs::remove_dir_all(&data).expect("the copy can be removed");
    }
    assert!(failures >= 3, "only {failures} faults were met");
}

async fn what_cannot_be_compacted_is_refused_and_not_touched(store: &str) {
    let place = tempfile::tempdir().expect("a temporary directory");
    let data = place.path();
    let service = Service::start(data, &["--store", store, "--partitions", "2"]);
    let client = Client::of(&service);
    live(&client, &[("cancel", json!({}))]).await;

    let refused = |output: Output, code: i32, word: &str| {
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(told.contains(word), "`{word}` is not in: {told}");
    };
    let pid = format!("process {}", service.pid());
    refused(compact(data, &[]), 1, &pid);
    refused(compact(data, &["--dry-run"]), 1, &pid);
    caught_up(&client).await;
    assert!(service.terminate().success());
    let before = events_of(data);
    let names = || {
        let mut names: Vec<_> = std::fs::read_dir(data)
            .expect("the directory lists")
            .map(|entry| entry.expect("the directory lists").file_name())
            .collect();
        names.sort();
        names
    };
    let names_before = names();
    for wrong in ["", "90", "1w", "-1d"] {
        refused(
            log_tool(data, &["compact", "--older-than", wrong]),
            2,
            "--older-than",
        );
    }
    refused(log_tool(data, &["compact"]), 2, "--older-than");
    let nowhere = data.join("nowhere");
    refused(compact(&nowhere, &[]), 2, "not a data directory");
    assert!(!nowhere.exists());

    // An outbox of another log.
    let outbox = data.join("outbox.db");
    let aside = data.join("aside.db");
    std::fs::rename(&outbox, &aside).expect("the outbox is there");
    let other = tempfile::tempdir().expect("a temporary directory");
    let stranger = Service::start(other.path(), &["--store", store, "--partitions", "3"]);
    assert!(stranger.terminate().success());
    std::fs::copy(other.path().join("outbox.db"), &outbox).expect("it can be copied");
    refused(compact(data, &[]), 1, "belongs to another log");
    std::fs::rename(&aside, &outbox).expect("it can be put back");

    // Ctrl-C before it is done: nothing is changed, and nothing is left behind by the next run.
    let interrupted = interrupt_at_start(data);
    if interrupted.status.success() {
        assert_ne!(
            events_of(data),
            before,
            "it was done before the signal came"
        );
    } else {
        assert_eq!(events_of(data), before, "{interrupted:?}");
        done(&compact(data, &["--discard-old"]));
    }
    let left: Vec<_> = names()
        .into_iter()
        .filter(|name| !names_before.contains(name))
        .filter(|name| !name.to_string_lossy().starts_with("before-compact-"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Starts the command and sends it SIGINT at once.
fn interrupt_at_start(data: &Path) -> Output {
    let child = Command::new(binary())
        .args(["log", "compact", "--older-than", "0s", "--data-dir"])
        .arg(data)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let pid = i32::try_from(child.id()).expect("a process id is small");
    let pid = rustix::process::Pid::from_raw(pid).expect("it is not 0");
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it runs");
    child.wait_with_output().expect("it ends")
}
