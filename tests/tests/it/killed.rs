//! Goal: whatever was acknowledged before a kill -9 is there afterwards, once, in order; whatever was not is there whole
//! or not at all.
//!
//! Method: clients write without pause, one order a request and many, and keep every answer in this process's memory,
//! outside the data directory. The service is killed in the middle, started again, written to again, killed again; now
//! and then it is killed while it recovers. Requests with a key that got no answer, or a part of one, are sent again after
//! the restart. At the end, and every few cycles, the service is stopped and log, rows and integration events are held
//! against the answers.
//!
//! Together the three tests kill a hundred times, with a hundred thousand acknowledgements. `ORDER_TESTS_KILL_CYCLES` sets
//! the number of cycles of each: a soak is the same tests with a larger one.

use std::ffi::OsStr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::client::Client;
use crate::counts::count;
use crate::history::History;
use crate::service::{Service, run};
use crate::waits::{caught_up, eventually};
use crate::writers::{Dice, Ledger, write_in_bulk_until_gone, write_until_gone};

const CYCLES_VARIABLE: &str = "ORDER_TESTS_KILL_CYCLES";
/// Clients writing at the same time, an order a request and many.
const CLIENTS: u64 = 12;
const BULK_CLIENTS: u64 = 1;
/// Acknowledgements a cycle, on the whole: each cycle's service is killed after a number drawn anew, and the last one makes
/// up for what is missing.
const ACKNOWLEDGED_A_CYCLE: u64 = 1_000;
/// Every so many cycles the service is stopped and everything is compared.
const FULL_CHECK_EVERY: u32 = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_again_and_again_the_segmented_store_keeps_what_it_acknowledged() {
    Trial::new(&["--store", "segmented"]).run(60).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_again_and_again_the_jsonl_store_keeps_what_it_acknowledged() {
    Trial::new(&["--store", "jsonl"]).run(20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_again_and_again_a_read_model_of_several_files_keeps_what_was_acknowledged() {
    Trial::new(&["--partitions", "3", "--read-model-shards", "2"])
        .run(20)
        .await;
}

struct Trial {
    data: tempfile::TempDir,
    arguments: Vec<String>,
    ledger: Arc<Mutex<Ledger>>,
    dice: Dice,
    /// Acknowledgements that the whole trial is to have at least.
    wanted: u64,
}

impl Trial {
    fn new(arguments: &[&str]) -> Self {
        Self {
            data: tempfile::tempdir().expect("a temporary directory"),
            arguments: arguments.iter().map(|it| (*it).to_owned()).collect(),
            ledger: Arc::default(),
            dice: Dice::seeded(),
            wanted: 0,
        }
    }

    /// So many cycles in an ordinary run.
    async fn run(mut self, ordinary: u64) {
        let cycles = u32::try_from(count(CYCLES_VARIABLE, ordinary)).expect("a test ends some day");
        self.wanted = u64::from(cycles) * ACKNOWLEDGED_A_CYCLE;
        for cycle in 1..=cycles {
            if self.dice.below(3) == 0 {
                // Somewhere in the recovery from the last kill, or just after it.
                let after = Duration::from_micros(self.dice.below(60_000));
                Service::kill_while_starting(self.data.path(), &self.arguments(), after);
            }
            let service = self.start();
            self.send_again_what_got_no_answer(&service).await;
            self.check_the_last_cycle(&service).await;
            let goal = self.goal(cycles - cycle);
            self.write_until_killed(service, cycle, goal).await;
            if cycle % FULL_CHECK_EVERY == 0 || cycle == cycles {
                self.check_everything().await;
            }
        }
        self.prove_the_rows();
        let acknowledged = self.acknowledged();
        assert!(acknowledged >= u64::from(cycles) * ACKNOWLEDGED_A_CYCLE);
        println!(
            "{:?}: {cycles} kills under load, {acknowledged} acknowledgements, nothing lost",
            self.arguments
        );
    }

    fn arguments(&self) -> Vec<&str> {
        self.arguments.iter().map(String::as_str).collect()
    }

    fn start(&self) -> Service {
        Service::start(self.data.path(), &self.arguments())
    }

    fn acknowledged(&self) -> u64 {
        self.ledger.lock().expect("nobody panics with it").count
    }

    /// How many acknowledgements there are to be when the service is killed, `left` cycles before the end.
    fn goal(&mut self, left: u32) -> u64 {
        let drawn = self.acknowledged() + 1 + self.dice.below(2 * ACKNOWLEDGED_A_CYCLE);
        if left > 0 {
            return drawn;
        }
        self.wanted = self.wanted.max(drawn);
        self.wanted
    }

    async fn write_until_killed(&mut self, service: Service, cycle: u32, goal: u64) {
        let (ledger, dice) = (&self.ledger, &mut self.dice);
        let mut clients = write_until_gone(CLIENTS, cycle, &service, ledger, dice);
        let bulk = write_in_bulk_until_gone(BULK_CLIENTS, cycle, &service, ledger, dice);
        clients.extend(bulk);
        eventually("enough is acknowledged", async || {
            match self.acknowledged() {
                enough if enough >= goal => Ok(()),
                few => Err(format!("{few} of {goal}")),
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
        let (unanswered, cut_short) = {
            let mut ledger = self.ledger.lock().expect("nobody panics with it");
            (
                std::mem::take(&mut ledger.unanswered),
                std::mem::take(&mut ledger.cut_short),
            )
        };
        for bulk in cut_short {
            let (answers, whole) = bulk.send(&client).await;
            assert!(whole, "the service answers");
            let mut ledger = self.ledger.lock().expect("nobody panics with it");
            ledger.acknowledge_bulk(&bulk, &answers);
        }
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

    /// The service's own proof, beside the one of these tests.
    fn prove_the_rows(&self) {
        let diff = ["projections", "diff", "--data-dir"].map(OsStr::new);
        let proof = run([&diff[..], &[self.data.path().as_os_str()]].concat());
        assert!(proof.status.success(), "{proof:?}");
    }
}
