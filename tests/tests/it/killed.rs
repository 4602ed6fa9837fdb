//! Goal: whatever was acknowledged before a kill -9 is there afterwards, once, in order; whatever was not is there whole
//! or not at all.
//!
//! Method: clients write without pause and keep every answer in this process's memory, outside the data directory. The
//! service is killed in the middle, started again, written to again, killed again; now and then it is killed while it
//! recovers. Requests with a key that got no answer are sent again after the restart. At the end, and every few cycles,
//! the service is stopped and log, rows and integration events are held against the answers.
//!
//! `ORDER_TESTS_KILL_CYCLES` sets the number of cycles: a soak is the same test with a larger one.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::client::Client;
use crate::history::History;
use crate::service::Service;
use crate::waits::{caught_up, eventually};
use crate::writers::{Dice, Ledger, write_until_gone};

/// Cycles of an ordinary run.
const CYCLES: u32 = 20;
const CYCLES_VARIABLE: &str = "ORDER_TESTS_KILL_CYCLES";
/// Clients writing at the same time.
const CLIENTS: u64 = 16;
/// A cycle's service is killed after this many acknowledgements, drawn anew each time.
const ACKNOWLEDGED_MAX: u64 = 2_000;
/// Every so many cycles the service is stopped and everything is compared.
const FULL_CHECK_EVERY: u32 = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_again_and_again_the_segmented_store_keeps_what_it_acknowledged() {
    Trial::new(&["--store", "segmented"]).run().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_again_and_again_the_jsonl_store_keeps_what_it_acknowledged() {
    Trial::new(&["--store", "jsonl"]).run().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_again_and_again_a_read_model_of_several_files_keeps_what_was_acknowledged() {
    Trial::new(&["--partitions", "3", "--read-model-shards", "2"])
        .run()
        .await;
}

struct Trial {
    data: tempfile::TempDir,
    arguments: Vec<String>,
    ledger: Arc<Mutex<Ledger>>,
    dice: Dice,
}

impl Trial {
    fn new(arguments: &[&str]) -> Self {
        Self {
            data: tempfile::tempdir().expect("a temporary directory"),
            arguments: arguments.iter().map(|it| (*it).to_owned()).collect(),
            ledger: Arc::default(),
            dice: Dice::seeded(),
        }
    }

    async fn run(mut self) {
        let cycles = std::env::var(CYCLES_VARIABLE).map_or(CYCLES, |text| {
            text.parse()
                .unwrap_or_else(|_| panic!("{CYCLES_VARIABLE} is a number"))
        });
        for cycle in 1..=cycles {
            if self.dice.below(3) == 0 {
                // Somewhere in the recovery from the last kill, or just after it.
                let after = Duration::from_micros(self.dice.below(60_000));
                Service::kill_while_starting(self.data.path(), &self.arguments(), after);
            }
            let service = self.start();
            self.send_again_what_got_no_answer(&service).await;
            self.check_the_last_cycle(&service).await;
            self.write_until_killed(service, cycle).await;
            if cycle % FULL_CHECK_EVERY == 0 || cycle == cycles {
                self.check_everything().await;
            }
        }
        let ledger = self.ledger.lock().expect("nobody panics with it");
        eprintln!(
            "{cycles} kills, {} acknowledgements, nothing lost",
            ledger.count
        );
    }

    fn arguments(&self) -> Vec<&str> {
        self.arguments.iter().map(String::as_str).collect()
    }

    fn start(&self) -> Service {
        Service::start(self.data.path(), &self.arguments())
    }

    async fn write_until_killed(&mut self, service: Service, cycle: u32) {
        let goal = 1 + self.dice.below(ACKNOWLEDGED_MAX);
        let before = self.ledger.lock().expect("nobody panics with it").count;
        let clients = write_until_gone(CLIENTS, cycle, &service, &self.ledger, &mut self.dice);
        eventually("enough is acknowledged", async || {
            let count = self.ledger.lock().expect("nobody panics with it").count;
            match count.checked_sub(before + goal) {
                Some(_) => Ok(()),
                None => Err(format!("{count} of {}", before + goal)),
            }
        })
        .await;
        service.kill();
        for client in clients {
            client.await.expect("a client ends when it gets no answer");
        }
    }

    /// A key whose request got no answer must make one order, whether the first sending made it or this one.
    async fn send_again_what_got_no_answer(&self, service: &Service) {
        let client = Client::of(service);
        let unanswered = std::mem::take(
            &mut self
                .ledger
                .lock()
                .expect("nobody panics with it")
                .unanswered,
        );
        for (key, body) in unanswered {
            let send = || {
                client
                    .post("/orders")
                    .header("idempotency-key", &key)
                    .json(&body)
                    .send()
            };
            let first = send().await.expect(201);
            let second = send().await.expect(201);
            assert_eq!(first.text, second.text, "key {key}");
            let mut ledger = self.ledger.lock().expect("nobody panics with it");
            ledger.acknowledge(&first);
            ledger.by_key.insert(key, first.id());
        }
    }

    /// What was acknowledged is read back through the front door, never older than acknowledged.
    async fn check_the_last_cycle(&self, service: &Service) {
        const SAMPLE: usize = 100;
        let client = Client::of(service);
        let newest: Vec<(String, u64)> = {
            let ledger = self.ledger.lock().expect("nobody panics with it");
            let newest = ledger.acknowledged.iter().map(|(id, versions)| {
                (
                    id.clone(),
                    versions.last_key_value().map_or(0, |(version, _)| *version),
                )
            });
            let mut newest: Vec<_> = newest.collect();
            // Ids are ordered by time: the last ones are of the last cycle.
            newest.sort();
            newest.split_off(newest.len().saturating_sub(SAMPLE))
        };
        for (id, version) in newest {
            let path = format!("/orders/{id}?min_version={version}");
            let read = client
                .get(&path)
                .header("prefer", "wait=30")
                .send()
                .await
                .expect(200);
            assert!(
                read.version() >= version,
                "order {id} is older than acknowledged: {read:?}"
            );
        }
    }

    async fn check_everything(&self) {
        let service = self.start();
        let client = Client::of(&service);
        caught_up(&client).await;
        let status = service.terminate();
        assert!(status.success(), "{status}");

        let data = self.data.path();
        let history = History::of(data);
        history.assert_rows_equal_it(data);
        history.assert_all_was_told(data);
        self.ledger
            .lock()
            .expect("nobody panics with it")
            .assert_is_in(&history);
    }
}
