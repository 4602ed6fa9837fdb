//! Projections as an operator runs them: paused, rebuilt beside the live rows, compared with the log, mended.
//!
//! A parked order is made by hand, while the service is down: a row in `ParkedEvent` is what is left of an event that an
//! earlier version could not apply.

use std::path::Path;
use std::process::Output;

use rusqlite::{Connection, params};
use serde_json::{Value, json};

use crate::client::{Client, an_order};
use crate::service::{Service, run, stdout_of};
use crate::waits::{caught_up, eventually};

/// Orders that a test places: enough for several transactions of a rebuild, few enough to place quickly.
const ORDERS: usize = 150;

/// Places orders and takes some of them further, all with one request; returns their ids.
pub(crate) async fn place_many(client: &Client, count: usize) -> Vec<String> {
    let line = format!("{}\n", an_order());
    let answer = client
        .post("/orders/bulk")
        .bytes("application/x-ndjson", line.repeat(count))
        .send()
        .await
        .expect(200);
    let ids: Vec<String> = answer
        .text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|outcome| order_id_in(&outcome))
        .collect();
    assert_eq!(ids.len(), count, "{}", answer.text);
    for id in ids.iter().step_by(10) {
        client.step(id, "confirm", &json!({})).await;
    }
    ids
}

fn order_id_in(outcome: &Value) -> Option<String> {
    let order = outcome.get("order").unwrap_or(outcome);
    order.get("id")?.as_str().map(str::to_owned)
}

/// A command on a data directory.
fn on_files(command: &str, data: &Path, rest: &[&str]) -> Output {
    let data = data.to_string_lossy();
    let mut arguments = vec!["projections", command, "--data-dir", &data];
    arguments.extend(rest);
    run(arguments)
}

/// Standard output of a command that ended with this code.
fn ended(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A command to a running service, which must succeed. It must not block the test's own requests.
async fn asked(service: &Service, command: &str, rest: &[&str]) -> String {
    let url = service.url("");
    let mut arguments = vec![
        "projections".to_owned(),
        command.to_owned(),
        "--url".to_owned(),
        url,
    ];
    arguments.extend(rest.iter().map(|it| (*it).to_owned()));
    tokio::task::spawn_blocking(move || stdout_of(arguments))
        .await
        .expect("the command ran")
}

/// Changes a row behind the projector's back.
pub(crate) fn tamper(data: &Path, order: &str) {
    let read_model = Connection::open(data.join("read.db")).expect("the read model opens");
    let sql = "UPDATE OrderView SET total = total + 1, currency = 'XXX' WHERE order_id = ?1";
    assert_eq!(read_model.execute(sql, [order]).expect("SQLite writes"), 1);
}

fn count_of_integration_events(data: &Path) -> usize {
    let text = std::fs::read_to_string(data.join("outbox.jsonl")).expect("the outbox writes");
    text.lines().count()
}

/// Sets an order aside in a stopped service, as if the event at the end of its partition had not been applicable: the
/// next one waits behind it.
pub(crate) fn park(data: &Path, order: &str) {
    let read_model = Connection::open(data.join("read.db")).expect("the read model opens");
    let (partition, last_frame): (i64, i64) = read_model
        .query_row(
            "SELECT partition, last_frame FROM OrderView WHERE order_id = ?1",
            [order],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .expect("the order has a row");
    for table in ["OrderView", "ParkedEvent"] {
        let changed = match table {
            "OrderView" => read_model.execute(
                "UPDATE OrderView SET version = 1, status = 'placed' WHERE order_id = ?1",
                [order],
            ),
            _ => read_model.execute(
                "INSERT INTO ParkedEvent VALUES ('orders', ?1, ?2, ?3, 1, 'made by a test')",
                params![partition, order, last_frame],
            ),
        };
        assert_eq!(changed.expect("SQLite writes"), 1, "{table}");
    }
}

#[tokio::test]
async fn a_parked_order_is_no_404_and_no_stale_200_until_it_is_redriven() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let service = Service::start(data.path(), &["--partitions", "1"]);
    let client = Client::of(&service);
    let parked = client.place(&an_order()).await.id();
    client.step(&parked, "confirm", &json!({})).await;
    let other = client.place(&an_order()).await.id();
    caught_up(&client).await;
    assert!(service.terminate().success());
    park(data.path(), &parked);

    let service = Service::start(data.path(), &[]);
    let client = Client::of(&service);
    let path = format!("/orders/{parked}");
    for query in [
        "",
        "?min_version=1",
        "?min_version=9",
        "?at_version=2",
        "/events",
    ] {
        let answer = client.get(&format!("{path}{query}")).send().await;
        let answer = answer.expect(503);
        assert_eq!(answer.problem(), "order-parked", "{query}");
        assert_eq!(answer.json()["known_version"], 1, "{query}");
        assert!(answer.headers.contains_key("retry-after"), "{query}");
        assert!(!answer.headers.contains_key("etag"), "{query}");
    }
    let refused = client.post(&format!("{path}/pay"));
    let refused = refused.json(&json!({"amount": 3998})).send().await;
    assert_eq!(refused.expect(503).problem(), "order-parked");
    let known = client.get(&format!("{path}?at_version=1")).send().await;
    assert_eq!(known.expect(200).version(), 1);
    client
        .get(&format!("/orders/{other}"))
        .send()
        .await
        .expect(200);
    let list = client.get("/projections/orders/parked").send().await;
    let list = list.expect(200).json();
    assert_eq!(list["parked"][0]["order_id"], parked, "{list}");
    assert_eq!(list["parked"][0]["reason"], "made by a test", "{list}");
    assert_eq!(list["parked"].as_array().map(Vec::len), Some(1), "{list}");
    let none = client.get("/projections/sku_demand/parked").send().await;
    assert_eq!(none.expect(200).json()["parked"], json!([]));
    let metric = "projector_parked_orders{partition=\"0\",projection=\"orders\"} ";
    let metrics = client.metrics().await;
    assert!(metrics.contains(&format!("{metric}1")), "{metrics}");

    let redriven = client
        .post("/projections/orders/parked/redrive")
        .send()
        .await;
    let redriven = redriven.expect(200).json();
    let expected: Value = json!({"applied": 1, "parked_orders": 0});
    assert_eq!(redriven, expected);
    let whole = client.get(&path).send().await.expect(200).json();
    assert_eq!(whole["version"], 2, "{whole}");
    assert_eq!(whole["status"], "confirmed", "{whole}");
    let paid = client.step(&parked, "pay", &json!({"amount": 3998})).await;
    assert_eq!(paid.version(), 3);
    let metrics = client.metrics().await;
    assert!(metrics.contains(&format!("{metric}0")), "{metrics}");
    client
        .post("/projections/nothing/parked/redrive")
        .send()
        .await
        .expect(404);
}

#[tokio::test]
async fn a_projection_is_paused_and_resumed_by_command_and_a_service_keeps_its_files_to_itself() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let service = Service::start(data.path(), &["--partitions", "2"]);
    let client = Client::of(&service);
    asked(&service, "pause", &["sku_demand"]).await;
    place_many(&client, 10).await;
    eventually(
        "the orders are applied, the paused projection is not",
        async || {
            let text = asked(&service, "status", &["--json"]).await;
            let all: Value = serde_json::from_str(&text).expect("the status is JSON");
            let behind = |at: usize| -> u64 {
                let partitions = all["projections"][at]["partitions"].as_array();
                let lag = |it: &Value| it["lag_events"].as_u64().expect("a count");
                partitions.expect("partitions").iter().map(lag).sum()
            };
            let seen = (
                behind(0),
                behind(1),
                behind(2),
                &all["projections"][2]["paused"],
            );
            if seen == (0, 0, 11, &json!(true)) {
                Ok(())
            } else {
                Err(format!("{seen:?}"))
            }
        },
    )
    .await;
    let text = asked(&service, "status", &[]).await;
    assert!(
        text.contains("sku_demand") && text.contains("paused"),
        "{text}"
    );

    for command in ["status", "pause", "rebuild", "redrive"] {
        let rest: &[&str] = if command == "status" {
            &[]
        } else {
            &["orders"]
        };
        let refused = on_files(command, data.path(), rest);
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
        let message = String::from_utf8_lossy(&refused.stderr).into_owned();
        let owner = format!("process {}", service.pid());
        assert!(
            message.contains(&owner) && message.contains("--url"),
            "{message}"
        );
    }
    for wrong in [
        &["pause", "nothing"][..],
        &["rebuild"],
        &["status", "--url", "ftp://there"],
        &["status", "--url", "http://127.0.0.1:1", "--data-dir", "x"],
    ] {
        let output = run([&["projections"], wrong].concat());
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {output:?}");
    }
    let url = service.url("");
    let nothing_runs = run(["projections", "cancel", "orders", "--url", &url]);
    assert_eq!(nothing_runs.status.code(), Some(2), "{nothing_runs:?}");
    let nobody = run(["projections", "status", "--url", "http://127.0.0.1:1"]);
    assert_eq!(nobody.status.code(), Some(1), "{nobody:?}");
    asked(&service, "resume", &["sku_demand"]).await;
    caught_up(&client).await;
}

#[tokio::test]
async fn a_rebuild_beside_live_rows_shows_every_reader_every_order_and_tells_nobody_outside() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let service = Service::start(data.path(), &["--partitions", "2"]);
    let client = Client::of(&service);
    let ids = place_many(&client, ORDERS).await;
    caught_up(&client).await;
    let told = count_of_integration_events(data.path());
    assert_eq!(told, ORDERS + ORDERS.div_ceil(10));

    let rebuilding = async {
        for (command, projection) in [
            ("rebuild", "all"),
            ("reindex", "all"),
            ("switch-back", "orders"),
            ("discard-old", "all"),
            ("rebuild", "orders"),
        ] {
            let text = asked(&service, command, &[projection]).await;
            assert!(text.contains("done in"), "{command}: {text}");
            if text.contains("rows") {
                assert!(text.contains(" 0 differed"), "{command}: {text}");
            }
        }
    };
    let reading = async {
        let mut reads = 0;
        loop {
            for id in &ids {
                client
                    .get(&format!("/orders/{id}"))
                    .send()
                    .await
                    .expect(200);
                reads += 1;
                if reads % 20 == 0 {
                    client.place(&an_order()).await;
                }
            }
        }
    };
    tokio::select! {
        () = rebuilding => {}
        () = reading => {}
    }
    let refused = run([
        "projections",
        "rebuild",
        "orders",
        "--url",
        &service.url(""),
    ]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("discard-old"));

    caught_up(&client).await;
    let metrics = client.metrics().await;
    let end: usize = metrics
        .lines()
        .filter(|line| line.starts_with("log_end_offset{"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok())
        .sum();
    assert!(end >= told, "{end}");
    assert_eq!(
        count_of_integration_events(data.path()),
        end,
        "each event was told once"
    );
    // Beside the running service, which only has its files read.
    let proof = ended(&on_files("diff", data.path(), &[]), 0);
    assert!(proof.contains(" 0 differ"), "{proof}");
}

#[tokio::test]
async fn what_drifted_is_named_by_the_proof_and_mended_by_a_rebuild_of_the_files() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let service = Service::start(data.path(), &["--partitions", "2"]);
    let client = Client::of(&service);
    let ids = place_many(&client, 20).await;
    caught_up(&client).await;
    assert!(service.terminate().success());
    ended(&on_files("diff", data.path(), &[]), 0);
    tamper(data.path(), &ids[3]);

    let found = ended(&on_files("diff", data.path(), &[]), 1);
    let named = found.lines().next().expect("a line for the difference");
    assert!(named.contains(&format!("order {}", ids[3])), "{found}");
    for word in ["partition", "offset", "currency, total differ"] {
        assert!(named.contains(word), "{word}: {found}");
    }
    assert!(found.contains(" 1 differ"), "{found}");
    ended(&on_files("diff", data.path(), &["sku_demand"]), 0);
    let left: Vec<_> = std::fs::read_dir(data.path())
        .expect("the directory is there")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.contains("diff"))
        .collect();
    assert_eq!(left, Vec::<String>::new());

    let rebuilt = ended(&on_files("rebuild", data.path(), &["orders"]), 0);
    assert!(
        rebuilt.contains(&ids[3]) && rebuilt.contains(" 1 differed"),
        "{rebuilt}"
    );
    ended(&on_files("diff", data.path(), &[]), 0);
    let back = ended(&on_files("switch-back", data.path(), &["orders"]), 0);
    assert!(back.contains(" 1 differed"), "{back}");
    ended(&on_files("diff", data.path(), &[]), 1);
    ended(&on_files("switch-back", data.path(), &["orders"]), 0);
    ended(&on_files("discard-old", data.path(), &["all"]), 0);
    ended(&on_files("diff", data.path(), &[]), 0);
    ended(&on_files("switch-back", data.path(), &["orders"]), 2);

    let service = Service::start(data.path(), &[]);
    let client = Client::of(&service);
    let order = client.get(&format!("/orders/{}", ids[3])).send().await;
    assert_eq!(order.expect(200).json()["currency"], "EUR");
}

#[tokio::test]
async fn a_service_killed_in_the_middle_of_a_rebuild_goes_on_with_the_live_rows() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let mut service = Service::start(data.path(), &["--partitions", "2"]);
    let client = Client::of(&service);
    let ids = place_many(&client, ORDERS).await;
    caught_up(&client).await;
    for round in 0..4 {
        let client = Client::of(&service);
        client
            .post("/projections/orders/rebuild")
            .send()
            .await
            .expect(202);
        // Later and later: the looks take the time that moves the kill.
        for _ in 0..round * 4 {
            client.get("/projections").send().await.expect(200);
        }
        service.kill();
        service = Service::start(data.path(), &[]);
        let client = Client::of(&service);
        for id in ids.iter().step_by(7) {
            client
                .get(&format!("/orders/{id}"))
                .send()
                .await
                .expect(200);
        }
        asked(&service, "discard-old", &["orders"]).await;
    }
    let text = asked(&service, "rebuild", &["orders"]).await;
    assert!(text.contains(" 0 differed"), "{text}");
    let client = Client::of(&service);
    caught_up(&client).await;
    ended(&on_files("diff", data.path(), &[]), 0);
}

#[tokio::test]
async fn a_checkpoint_past_the_end_of_the_log_is_told_and_mended_by_a_rebuild() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let service = Service::start(data.path(), &["--partitions", "1"]);
    let client = Client::of(&service);
    let ids = place_many(&client, 20).await;
    caught_up(&client).await;
    assert!(service.terminate().success());
    Connection::open(data.path().join("read.db"))
        .and_then(|it| it.execute("UPDATE Checkpoint SET next_offset = next_offset + 7", []))
        .expect("SQLite writes");
    let proof = ended(&on_files("diff", data.path(), &[]), 1);
    assert!(proof.contains("the log ends at 22"), "{proof}");

    let service = Service::start(data.path(), &[]);
    let client = Client::of(&service);
    eventually("the projector says why it halted", async || {
        let text = asked(&service, "status", &[]).await;
        let told = [
            "HALTED",
            "checkpoint of orders is 29",
            "projections rebuild orders",
        ];
        if told.iter().all(|it| text.contains(it)) {
            Ok(())
        } else {
            Err(text)
        }
    })
    .await;
    client
        .post("/orders")
        .json(&an_order())
        .send()
        .await
        .expect(503);

    asked(&service, "rebuild", &["all"]).await;

    eventually("commands are taken again", async || {
        let answer = client.post("/orders").json(&an_order()).send().await;
        if answer.status == 201 {
            Ok(())
        } else {
            Err(answer.text)
        }
    })
    .await;
    client
        .get(&format!("/orders/{}", ids[0]))
        .send()
        .await
        .expect(200);
    caught_up(&client).await;
    ended(&on_files("diff", data.path(), &[]), 0);
}

#[tokio::test]
async fn a_damaged_file_is_set_aside_at_the_start_and_its_rows_come_from_the_log() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let service = Service::start(data.path(), &["--partitions", "2"]);
    let client = Client::of(&service);
    let ids = place_many(&client, 50).await;
    caught_up(&client).await;
    assert!(service.terminate().success());
    let file = data.path().join("read.db");
    let mut bytes = std::fs::read(&file).expect("the file reads");
    bytes[..4096].fill(0x5a);
    std::fs::write(&file, bytes).expect("the file is written");

    let service = Service::start(data.path(), &[]);
    let client = Client::of(&service);
    for id in &ids {
        client
            .get(&format!("/orders/{id}"))
            .send()
            .await
            .expect(200);
    }
    assert!(data.path().join("read.db.corrupt-1").exists());
    assert!(
        service.messages().contains("set aside"),
        "{}",
        service.messages()
    );
    caught_up(&client).await;
    ended(&on_files("diff", data.path(), &[]), 0);
}
