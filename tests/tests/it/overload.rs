//! Twice as many orders a second as the service can take, by a clock and not by its answers: it takes what it can, refuses
//! the rest at once, and is as it was when the load ends.
//!
//! Method: `strace` makes every sync last some milliseconds, and each command has one of its own (`--group-commit off`), so
//! that the most the service can take is known, whatever machine this is. First its peak is measured, with clients that
//! wait for their answers; then orders arrive at twice the known limit. Times are told, and nothing is concluded from them.
//!
//! `ORDER_TESTS_OVERLOAD_SECONDS` sets how long.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::client::{Answer, Client, an_order};
use crate::counts::count;
use crate::history::History;
use crate::metrics::Metrics;
use crate::service::Service;
use crate::traced;
use crate::waits::{caught_up, eventually};

const SECONDS: u64 = 30;
const SECONDS_VARIABLE: &str = "ORDER_TESTS_OVERLOAD_SECONDS";
/// How long a sync lasts at least.
const SYNC_MS: u64 = 5;
/// What the service takes at most, in orders a second: a sync each, one at a time.
const CAPACITY: u64 = 1_000 / SYNC_MS;
/// Commands that may wait.
const QUEUE_MAX: &str = "64";
/// Between two groups of arrivals.
const TICK: Duration = Duration::from_millis(20);
/// Most requests on their way, several times the queue: a machine that stands still must not exhaust this process's files.
const ON_THEIR_WAY_MAX: usize = 400;
/// Orders placed one after the other by each client to measure the peak.
const PEAK_CLIENTS: u64 = 8;
const PEAK_ORDERS: u64 = 60;
/// More memory than the queue, the connections and the caches of so many orders need, and less than what would be kept of
/// every refused request.
const GROWTH_BYTES_MAX: u64 = 64 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_twice_its_capacity_it_takes_what_it_can_and_refuses_the_rest_at_once() {
    if !traced::can_trace("nothing was overloaded") {
        return;
    }
    let seconds = count(SECONDS_VARIABLE, SECONDS);
    let data = tempfile::tempdir().expect("a temporary directory");
    let delay = format!("fdatasync:delay_enter={}", SYNC_MS * 1_000);
    let mut command = traced::with(&[delay], None);
    command.env("ORDER_SERVICE__COMMANDS__QUEUE_MAX", QUEUE_MAX);
    let arguments = ["--partitions", "1", "--group-commit", "off"];
    let service = Service::start_as(command, data.path(), &arguments);
    let client = Client::of(&service);
    let mut taken = BTreeSet::new();

    let peak = measure_peak(&client, &mut taken).await;
    let first = taken.first().expect("the peak was of something").clone();
    let mut arrivals = JoinSet::new();
    let (mut sent, mut refused, mut looks) = (0, 0, 0);
    let mut memory: Vec<u64> = Vec::new();
    let in_time = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let load = Duration::from_secs(seconds);
    let mut clock = tokio::time::interval(TICK);
    while began.elapsed() < load {
        clock.tick().await;
        let due = u64::try_from(began.elapsed().as_millis()).expect("a load lasts hours at most")
            * 2
            * CAPACITY
            / 1_000;
        while sent < due && arrivals.len() < ON_THEIR_WAY_MAX {
            sent += 1;
            let (request, in_time) = (
                client.post("/orders").json(&an_order()),
                Arc::clone(&in_time),
            );
            arrivals.spawn(async move {
                let answer = request.send().await;
                if answer.status == 201 && began.elapsed() < load {
                    in_time.fetch_add(1, Ordering::Relaxed);
                }
                answer
            });
        }
        while let Some(answered) = arrivals.try_join_next() {
            refused += note(answered.expect("a client does not panic"), &mut taken);
        }
        if began.elapsed().as_secs() > looks {
            looks += 1;
            // Whoever looks or reads is not refused.
            for path in ["/livez", "/readyz", &format!("/orders/{first}")] {
                client.get(path).send().await.expect(200);
            }
            let metrics = Metrics::of(&client).await;
            memory.push(metrics.sum("process_resident_memory_bytes"));
        }
    }
    while let Some(answered) = arrivals.join_next().await {
        refused += note(answered.expect("a client does not panic"), &mut taken);
    }
    assert!(refused > 0, "{sent} orders were no overload");

    // As before.
    eventually("orders are taken again", async || {
        let answer = client.post("/orders").json(&an_order()).send().await;
        let text = answer.text.clone();
        match note(answer, &mut taken) {
            0 => Ok(()),
            _ => Err(text),
        }
    })
    .await;
    caught_up(&client).await;
    memory.push(
        Metrics::of(&client)
            .await
            .sum("process_resident_memory_bytes"),
    );
    // What a service needs under load it needs from the first seconds on.
    let early = memory.iter().take(memory.len() / 3 + 1).max();
    let early = *early.expect("memory was looked at");
    let most = *memory.iter().max().expect("memory was looked at");
    assert!(most <= early + GROWTH_BYTES_MAX, "memory grows: {memory:?}");
    assert!(service.terminate().success());
    let history = History::of(data.path());
    history.assert_rows_equal_it(data.path());
    let kept: BTreeSet<String> = history.orders.keys().cloned().collect();
    assert!(kept == taken, "what was taken and what is there differ");

    let goodput = in_time.load(Ordering::Relaxed) / seconds.max(1);
    println!(
        "overload: {sent} orders in {seconds} s, {refused} refused, each with Retry-After; peak {peak}/s, under load \
         {goodput}/s ({} %); memory {} to {} MiB",
        100 * goodput / peak.max(1),
        early >> 20,
        most >> 20
    );
}

/// Orders a second when clients wait for their answers.
async fn measure_peak(client: &Client, taken: &mut BTreeSet<String>) -> u64 {
    let began = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..PEAK_CLIENTS {
        let client = client.clone();
        clients.spawn(async move {
            let mut placed = Vec::new();
            for _ in 0..PEAK_ORDERS {
                placed.push(client.place(&an_order()).await.id());
            }
            placed
        });
    }
    while let Some(placed) = clients.join_next().await {
        taken.extend(placed.expect("a client does not panic"));
    }
    let millis = u64::try_from(began.elapsed().as_millis()).expect("it lasts seconds");
    PEAK_CLIENTS * PEAK_ORDERS * 1_000 / millis.max(1)
}

/// Takes an answer down; 1 if it refuses, which it does with a time to come back.
fn note(answer: Answer, taken: &mut BTreeSet<String>) -> u64 {
    if answer.status == 201 {
        taken.insert(answer.id());
        return 0;
    }
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(answer.problem(), "overloaded");
    let after: u64 = answer
        .header("retry-after")
        .parse()
        .expect("Retry-After is a number of seconds");
    assert!(after > 0);
    1
}
