//! Clients that want the same thing at the same moment: one key from many, one `If-Match` from many; and a kill -9 while
//! they race.
//!
//! Goal: one key makes one event, and everybody who sent it hears the same, whoever was first and whether the service was
//! killed meanwhile; of those who name one version, exactly one wins.
//!
//! `ORDER_TESTS_RACED_KEYS` and `ORDER_TESTS_RACED_ROUNDS` set how many there are.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::client::{Answer, Client, an_order};
use crate::counts::count;
use crate::history::History;
use crate::service::Service;
use crate::stores::on_both_stores;
use crate::waits::{caught_up, eventually};
use crate::writers::Dice;

on_both_stores! {
    one_key_from_many_clients_makes_one_event_across_a_kill,
    of_writers_that_name_one_version_exactly_one_wins_across_kills,
}

const KEYS: u64 = 200;
const KEYS_VARIABLE: &str = "ORDER_TESTS_RACED_KEYS";
const CLIENTS: u64 = 32;
/// Keys between two kills.
const KEYS_A_LIFE: u64 = 10;

/// What a key is sent with.
#[derive(Clone)]
struct Keyed {
    key: String,
    path: String,
    body: Value,
}

impl Keyed {
    /// Sends it once; `None` if the service is gone. Whoever comes while the first with the key is being worked on waits
    /// for that one's answer: there is no other.
    async fn send(&self, client: &Client) -> Option<Answer> {
        let request = client.post(&self.path).json(&self.body);
        request
            .header("idempotency-key", &self.key)
            .try_send()
            .await
    }
}

/// What everybody was told of each key.
#[derive(Default)]
struct Heard {
    by_key: HashMap<String, Answer>,
    /// Answers that say that the command had been done before.
    replayed: u64,
    /// The keys whose answer did not, to one client each.
    first: HashSet<String>,
}

impl Heard {
    fn hear(&mut self, key: String, answer: Answer) {
        // In particular no 409: the first with a key is never told to be still running.
        assert!(answer.status.is_success(), "{key}: {answer:?}");
        if answer.headers.contains_key("idempotency-replayed") {
            self.replayed += 1;
        } else {
            let alone = self.first.insert(key.clone());
            assert!(alone, "{key}: two clients are told to be the first");
        }
        let first = self.by_key.entry(key).or_insert_with(|| answer.clone());
        assert_eq!(
            (first.status, &first.text, first.header("etag")),
            (answer.status, &answer.text, answer.header("etag")),
            "two answers for one key"
        );
    }
}

async fn one_key_from_many_clients_makes_one_event_across_a_kill(store: &str) {
    let keys = count(KEYS_VARIABLE, KEYS);
    let data = tempfile::tempdir().expect("a temporary directory");
    let mut dice = Dice::seeded();
    let mut heard = Heard::default();
    let mut confirmed = 0;
    let mut service = Service::start(data.path(), &["--store", store]);
    for life in 0..keys.div_ceil(KEYS_A_LIFE) {
        let client = Client::of(&service);
        // New orders, and steps of orders that are there.
        let mut requests = Vec::new();
        for number in life * KEYS_A_LIFE..keys.min((life + 1) * KEYS_A_LIFE) {
            let (path, body) = if number % 2 == 0 {
                ("/orders".to_owned(), an_order())
            } else {
                confirmed += 1;
                let placed = client.place(&an_order()).await;
                (format!("/orders/{}/confirm", placed.id()), json!({}))
            };
            let key = format!("key-{number}");
            requests.push(Keyed { key, path, body });
        }
        // All of them at once, from every client; the service is killed when some were answered.
        let answered = Arc::new(AtomicU64::new(0));
        let all = CLIENTS * requests.len() as u64;
        let killed_after = dice.below(all);
        let mut racing = JoinSet::new();
        for _ in 0..CLIENTS {
            let client = Client::of(&service);
            for request in requests.clone() {
                let (client, answered) = (client.clone(), Arc::clone(&answered));
                racing.spawn(async move {
                    let answer = request.send(&client).await;
                    answered.fetch_add(1, Ordering::Relaxed);
                    (request.key, answer)
                });
            }
        }
        eventually("some are answered", async || {
            match answered.load(Ordering::Relaxed) {
                enough if enough >= killed_after => Ok(()),
                few => Err(format!("{few} of {killed_after}")),
            }
        })
        .await;
        service.kill();
        while let Some(raced) = racing.join_next().await {
            let (key, answer) = raced.expect("a client does not panic");
            if let Some(answer) = answer {
                heard.hear(key, answer);
            }
        }

        service = Service::start(data.path(), &[]);
        let mut racing = JoinSet::new();
        for _ in 0..CLIENTS {
            let client = Client::of(&service);
            for request in requests.clone() {
                let client = client.clone();
                racing.spawn(async move {
                    let answer = request.send(&client).await;
                    (request.key, answer.expect("the service answers"))
                });
            }
        }
        while let Some(raced) = racing.join_next().await {
            let (key, answer) = raced.expect("a client does not panic");
            heard.hear(key, answer);
        }
    }
    caught_up(&Client::of(&service)).await;
    assert!(service.terminate().success());

    assert_eq!(heard.by_key.len() as u64, keys);
    // At most one client a key was the first, as the kill may have taken its answer; everybody else heard that one's.
    assert!(heard.replayed >= keys * (CLIENTS - 1));
    let history = History::of(data.path());
    history.assert_rows_equal_it(data.path());
    history.assert_all_was_told(data.path());
    for (key, answer) in &heard.by_key {
        let shown = history.order_at(&answer.id(), answer.version());
        assert_eq!(shown, answer.json(), "{key}");
    }
    // One event a key, and one for each order that was there to be confirmed.
    assert_eq!(history.events as u64, keys + confirmed);
    println!("{store}: {keys} keys from {CLIENTS} clients each, one event a key");
}

const ROUNDS: u64 = 500;
const ROUNDS_VARIABLE: &str = "ORDER_TESTS_RACED_ROUNDS";
const WRITERS: u64 = 8;
/// Rounds on one order, which has a limit of lines; the service is killed in the last of them.
const ROUNDS_AN_ORDER: u64 = 50;

async fn of_writers_that_name_one_version_exactly_one_wins_across_kills(store: &str) {
    let rounds = count(ROUNDS_VARIABLE, ROUNDS);
    let data = tempfile::tempdir().expect("a temporary directory");
    let mut dice = Dice::seeded();
    let first = Service::start(data.path(), &["--store", store]);
    let mut clients = clients_of(&first);
    let mut service = Some(first);
    let mut won: Vec<Answer> = Vec::new();
    let mut order = clients[0].place(&an_order()).await;
    for round in 1..=rounds {
        let kill = round % ROUNDS_AN_ORDER == 0;
        let (id, version) = (order.id(), order.version());
        let mut racing = JoinSet::new();
        for (writer, client) in clients.iter().enumerate() {
            let line =
                json!({"sku": format!("W-{round}-{writer}"), "quantity": 1, "unit_price": 1});
            let request = client
                .post(&format!("/orders/{id}/lines"))
                .header("if-match", &format!("\"{version}\""))
                .json(&line);
            racing.spawn(request.try_send());
        }
        if kill {
            // Somewhere between the first request and the last answer: each has its time.
            let after = Duration::from_micros(dice.below(3_000));
            tokio::time::sleep(after).await;
            service.take().expect("it runs").kill();
        }
        let mut winners = Vec::new();
        let mut losers = 0;
        while let Some(raced) = racing.join_next().await {
            match raced.expect("a client does not panic") {
                Some(answer) if answer.status == 200 => winners.push(answer),
                Some(answer) => {
                    assert_eq!(answer.status, 412, "{answer:?}");
                    assert_eq!(answer.problem(), "version-mismatch");
                    assert_eq!(answer.json()["current_version"], version + 1);
                    losers += 1;
                }
                None => assert!(kill, "no answer from a service that runs"),
            }
        }
        assert!(winners.len() <= 1, "round {round}: {winners:?}");
        if kill {
            let next = Service::start(data.path(), &[]);
            clients = clients_of(&next);
            service = Some(next);
            let told = u64::from(!winners.is_empty() || losers > 0);
            let path = format!("/orders/{id}?min_version={}", version + told);
            let read = clients[0].get(&path).header("prefer", "wait=30");
            let found = read.send().await.expect(200);
            assert!(
                (version + told..=version + 1).contains(&found.version()),
                "{winners:?}, {losers} losers, and now {found:?}"
            );
            won.append(&mut winners);
            order = clients[0].place(&an_order()).await;
        } else {
            assert_eq!(losers, WRITERS - 1, "round {round}");
            order = winners.pop().expect("one writer wins");
            assert_eq!(order.version(), version + 1);
            won.push(order.clone());
        }
    }
    caught_up(&clients[0]).await;
    assert!(service.expect("it runs").terminate().success());
    let history = History::of(data.path());
    history.assert_rows_equal_it(data.path());
    for answer in &won {
        let shown = history.order_at(&answer.id(), answer.version());
        assert_eq!(shown, answer.json());
    }
    println!("{store}: {rounds} rounds of {WRITERS} writers, one winner in each");
}

fn clients_of(service: &Service) -> Vec<Client> {
    (0..WRITERS).map(|_| Client::of(service)).collect()
}
