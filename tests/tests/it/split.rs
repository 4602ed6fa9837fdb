//! The service as two processes on one data directory: `api` writes the log, `projector` follows it.
//!
//! Goal: what one process promises, two keep: nothing acknowledged is lost and rows are what the log says, whichever
//! process starts first, is killed, and comes back; and while there is no projector, everybody is told how old rows are.

use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::client::{Client, an_order};
use crate::history::History;
use crate::service::{Service, run};
use crate::waits::eventually;
use crate::writers::{Dice, Ledger, write_until_gone};

/// Kills of an ordinary run, of one process, the other, or both.
const CYCLES: u32 = 5;
const CYCLES_VARIABLE: &str = "ORDER_TESTS_SPLIT_KILL_CYCLES";
/// Clients writing at the same time.
const CLIENTS: u64 = 8;

fn api(data: &Path) -> Service {
    Service::start_part("api", data, &[])
}

fn projector(data: &Path) -> Service {
    Service::start_part("projector", data, &[])
}

/// Waits until the files of the projector hold all that the API has written, and the outbox has told it.
async fn rows_and_outbox_are_current(api: &Client) {
    eventually("the projector has caught up", async || {
        let projections = api.get("/projections").send().await.expect(200).json();
        let behind: u64 = projections["projections"]
            .as_array()
            .expect("a list of projections")
            .iter()
            .flat_map(|it| it["partitions"].as_array().expect("a list of partitions"))
            .map(|it| it["lag_events"].as_u64().expect("a number"))
            .sum();
        let outbox = api.get("/outbox").send().await.expect(200).json();
        match (behind, outbox["pending"].as_u64()) {
            (0, Some(0)) => Ok(()),
            (behind, pending) => Err(format!("{behind} events behind, {pending:?} to tell")),
        }
    })
    .await;
}

/// Stops both, and holds rows and integration events against the log.
async fn stop_and_compare(api: Service, projector: Service, data: &Path) -> History {
    rows_and_outbox_are_current(&Client::of(&api)).await;
    for process in [api, projector] {
        let status = process.terminate();
        assert!(status.success(), "{status}");
    }
    let history = History::of(data);
    history.assert_rows_equal_it(data);
    history.assert_all_was_told(data);
    history
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn either_process_may_start_first() {
    let data = tempfile::tempdir().expect("a temporary directory");
    // First the projector, before there is a data directory; it waits for a log.
    let path = data.path().join("made/by/either");
    let waiting = std::thread::spawn({
        let path = path.clone();
        move || projector(&path)
    });
    eventually("the projector has the lock", async || {
        path.join("PROJECTOR.LOCK")
            .exists()
            .then_some(())
            .ok_or_else(|| "no lock".to_owned())
    })
    .await;
    let writes = api(&path);
    let reads = waiting.join().expect("the projector starts");
    let client = Client::of(&writes);
    let order = client.place(&an_order()).await;
    let read = client.order_after(&order).await;
    assert_eq!(read.version(), 1);
    stop_and_compare(writes, reads, &path).await;

    // Then the API.
    let writes = api(&path);
    let client = Client::of(&writes);
    let confirmed = client.step(&order.id(), "confirm", &json!({})).await;
    let reads = projector(&path);
    assert_eq!(client.order_after(&confirmed).await.version(), 2);
    stop_and_compare(writes, reads, &path).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_under_load_on_either_side_they_keep_what_was_acknowledged() {
    let cycles = std::env::var(CYCLES_VARIABLE).map_or(CYCLES, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{CYCLES_VARIABLE} is a number"))
    });
    let data = tempfile::tempdir().expect("a temporary directory");
    let ledger: Arc<Mutex<Ledger>> = Arc::default();
    let mut dice = Dice::seeded();
    let count = |ledger: &Mutex<Ledger>| ledger.lock().expect("nobody panics with it").count;
    for cycle in 1..=cycles {
        let writes = api(data.path());
        let mut reads = Some(projector(data.path()));
        let clients = write_until_gone(CLIENTS, cycle, &writes, &ledger, &mut dice);
        // The projector is killed, and mostly started again, while clients go on writing.
        for _ in 0..=dice.below(3) {
            let goal = count(&ledger) + 1 + dice.below(300);
            eventually("enough is acknowledged", async || {
                let seen = count(&ledger);
                (seen >= goal)
                    .then_some(())
                    .ok_or_else(|| format!("{seen} of {goal}"))
            })
            .await;
            if let Some(projector) = reads.take() {
                projector.kill();
            }
            if dice.below(4) > 0 {
                reads = Some(projector(data.path()));
            }
        }
        writes.kill();
        for client in clients {
            client.await.expect("a client ends when it gets no answer");
        }
        if dice.below(2) == 0 {
            // The projector of the last life goes on with the API of the next.
            let writes = api(data.path());
            let reads = match reads.take() {
                Some(reads) => reads,
                None => projector(data.path()),
            };
            rows_and_outbox_are_current(&Client::of(&writes)).await;
            writes.kill();
            reads.kill();
        } else if let Some(reads) = reads.take() {
            reads.kill();
        }
    }
    let (writes, reads) = (api(data.path()), projector(data.path()));
    let history = stop_and_compare(writes, reads, data.path()).await;
    let ledger = ledger.lock().expect("nobody panics with it");
    ledger.assert_is_in(&history);
    eprintln!(
        "{cycles} cycles, {} acknowledgements, nothing lost",
        ledger.count
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_projector_reads_say_how_old_they_are_and_writes_end_at_the_limit() {
    const LAG_EVENTS_MAX: usize = 20;
    let data = tempfile::tempdir().expect("a temporary directory");
    let file = data.path().join("settings.toml");
    let settings = format!("partitions = 1\n[commands]\nlag_events_max = {LAG_EVENTS_MAX}\n");
    std::fs::write(&file, settings).expect("the settings are written");
    let arguments = ["--config", file.to_str().expect("the path is UTF-8")];
    let data = data.path().join("data");

    let writes = Service::start_part("api", &data, &arguments);
    let reads = Service::start_part("projector", &data, &arguments);
    let client = Client::of(&writes);
    let old = client.place(&an_order()).await;
    client.order_after(&old).await;
    rows_and_outbox_are_current(&client).await;
    reads.kill();

    let mut last = old.clone();
    let mut refused = None;
    for _ in 0..LAG_EVENTS_MAX * 3 {
        let answer = client.post("/orders").json(&an_order()).send().await;
        if answer.status != 201 {
            refused = Some(answer.expect(503));
            break;
        }
        last = answer;
    }
    let refused = refused.expect("the limit is reached");
    assert_eq!(refused.problem(), "projector-behind");
    assert!(!refused.header("retry-after").is_empty());

    // What is there is read, with its age; what is not there yet is not said to be missing.
    let path = format!("/orders/{}", old.id());
    let read = client.get(&path).send().await.expect(200);
    let lag: f64 = read
        .header("read-model-lag-seconds")
        .parse()
        .expect("seconds");
    assert!(lag > 0.0, "{read:?}");
    let path = format!("/orders/{}", last.id());
    let missed = client.get(&path).send().await.expect(503);
    assert_eq!(missed.problem(), "read-model-behind");
    let ready = client.get("/readyz?verbose").send().await.expect(200);
    assert!(ready.text.contains("[-]projector not running"), "{ready:?}");

    let reads = Service::start_part("projector", &data, &arguments);
    client.order_after(&last).await;
    eventually("writes are taken again", async || {
        let answer = client.post("/orders").json(&an_order()).send().await;
        match answer.status.as_u16() {
            201 => Ok(()),
            _ => Err(format!("{answer:?}")),
        }
    })
    .await;
    stop_and_compare(writes, reads, &data).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_are_lost_are_made_again_under_the_running_api() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let data = data.path();
    let (writes, reads) = (api(data), projector(data));
    let client = Client::of(&writes);
    let mut orders = Vec::new();
    for _ in 0..20 {
        orders.push(client.place(&an_order()).await);
    }
    rows_and_outbox_are_current(&client).await;
    reads.kill();
    for name in ["read.db", "read.db-wal", "read.db-shm"] {
        std::fs::remove_file(data.join(name)).expect("the file is there");
    }
    // Whoever has the old file open reads it on, whoever has not is told to come back: nobody hears of a missing order.
    let path = format!("/orders/{}", orders[0].id());
    let read = client.get(&path).send().await;
    if read.status != 200 {
        assert_eq!(read.expect(503).problem(), "read-model-behind");
    }

    let reads = projector(data);
    rows_and_outbox_are_current(&client).await;
    for order in &orders {
        let read = client.order_after(order).await;
        assert_eq!(read.version(), 1);
        let confirmed = client.step(&order.id(), "confirm", &json!({})).await;
        assert_eq!(client.order_after(&confirmed).await.version(), 2);
    }
    stop_and_compare(writes, reads, data).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_the_projector_can_do_is_asked_of_it() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let data = data.path();
    let (writes, reads) = (api(data), projector(data));
    let (asked, owner) = (Client::of(&writes), Client::of(&reads));
    let refused = asked
        .post("/projections/sku_demand/pause")
        .send()
        .await
        .expect(421);
    assert_eq!(refused.problem(), "projector-elsewhere");
    let detail = refused.json()["detail"].to_string();
    assert!(detail.contains(&reads.url("")), "{detail}");
    assert!(detail.contains(&reads.pid().to_string()), "{detail}");

    owner
        .post("/projections/sku_demand/pause")
        .send()
        .await
        .expect(200);
    let is_paused = |projections: &Value| {
        let all = projections["projections"].as_array().expect("a list");
        let which = all.iter().find(|it| it["name"] == "sku_demand");
        which.is_some_and(|it| it["paused"] == true)
    };
    eventually("the API sees the pause", async || {
        let seen = asked.get("/projections").send().await.expect(200).json();
        is_paused(&seen).then_some(()).ok_or(seen.to_string())
    })
    .await;

    // Each has the metrics of its rooms; the projector serves nothing but its own.
    let (of_api, of_projector) = (asked.metrics().await, owner.metrics().await);
    for (name, here, there) in [
        ("projector_event_lag_seconds{", &of_projector, &of_api),
        ("sqlite_wal_bytes{", &of_projector, &of_api),
        ("log_end_offset{", &of_api, &of_projector),
        ("command_queue_depth{", &of_api, &of_projector),
        ("outbox_pending", &of_api, &of_projector),
    ] {
        assert!(here.contains(name), "{name} is missing");
        assert!(!there.contains(name), "{name} is told twice");
    }
    assert_eq!(
        owner.get("/orders").send().await.expect(404).problem(),
        "not-found"
    );
    owner.get("/livez").send().await.expect(200);
    owner.get("/readyz").send().await.expect(200);
}

#[test]
fn a_second_process_of_a_kind_is_refused_with_the_pid_of_the_first() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let data = data.path();
    let (writes, reads) = (api(data), projector(data));
    for (part, lock, holder) in [
        ("api", "LOCK", writes.pid()),
        ("projector", "PROJECTOR.LOCK", reads.pid()),
        ("serve", "LOCK", writes.pid()),
    ] {
        let Err(refused) = Service::try_start_part(part, data, &[]) else {
            panic!("a second {part} runs");
        };
        assert_eq!(refused.status.code(), Some(1), "{part}");
        let expected = format!("/{lock} is held by process {holder}");
        assert!(refused.message.contains(&expected), "{}", refused.message);
    }
    // A whole service takes no place beside a projector either.
    writes.kill();
    let Err(refused) = Service::try_start_part("serve", data, &[]) else {
        panic!("a service runs beside a projector");
    };
    let expected = format!("/PROJECTOR.LOCK is held by process {}", reads.pid());
    assert!(refused.message.contains(&expected), "{}", refused.message);
}

#[test]
fn a_store_that_cannot_be_followed_is_refused_and_nothing_is_made() {
    let parent = tempfile::tempdir().expect("a temporary directory");
    let data = parent.path().join("data");
    let data = data.to_str().expect("the path is UTF-8");
    let refused = run(["api", "--store", "jsonl", "--data-dir", data]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("order-service serve"), "{said}");
    assert!(!Path::new(data).exists());

    // Nor a directory that is of that store already.
    let service = Service::start(Path::new(data), &["--store", "jsonl"]);
    assert!(service.terminate().success());
    for part in ["api", "projector"] {
        let refused = run([part, "--data-dir", data]);
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    }
}
