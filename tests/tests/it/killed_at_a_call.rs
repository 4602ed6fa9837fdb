//! Killed at exactly one system call: at the N-th write, sync or rename of a recovery, and at the N-th write or sync of a
//! running service.
//!
//! Method: `strace` sends SIGKILL as the call is entered. For recoveries, the last life was killed under load and a torn
//! frame stands behind its end; N goes up from one recovery to the next until one comes through, so that every call of
//! it is the last one once; every third recovery is killed twice. After each the service starts, has every acknowledged
//! order, is written to and is killed again. A ledger of what clients were told is kept outside the data directory.
//!
//! `ORDER_TESTS_RECOVERY_KILLS` and `ORDER_TESTS_CALL_KILLS` set how many kills of each kind there are.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::client::{Client, an_order};
use crate::counts::count;
use crate::history::History;
use crate::service::{PATIENCE, Refusal, Service};
use crate::traced;
use crate::waits::{caught_up, eventually};
use crate::writers::{Dice, Ledger, write_until_gone};

const RECOVERY_KILLS: u64 = 50;
const RECOVERY_KILLS_VARIABLE: &str = "ORDER_TESTS_RECOVERY_KILLS";
const CALL_KILLS: u64 = 20;
const CALL_KILLS_VARIABLE: &str = "ORDER_TESTS_CALL_KILLS";
/// Calls that change what is on the disk.
const CHANGING_CALLS: &str = "pwrite64,fdatasync,fsync,rename,ftruncate,fallocate,unlink,mkdir";
/// Fewer than any recovery has.
const CALLS_LEAST: u64 = 10;
const PARTITIONS: &str = "2";
const CLIENTS: u64 = 8;
/// A life between two kills has so many acknowledgements, drawn anew each time.
const ACKNOWLEDGED_MAX: u64 = 100;
/// Everything is compared after so many kills.
const CHECK_EVERY: u64 = 10;
const SIGKILL: i32 = 9;

/// A data directory, and what clients were told of it.
struct Trial {
    data: tempfile::TempDir,
    ledger: Arc<Mutex<Ledger>>,
    dice: Dice,
    lives: u32,
}

impl Trial {
    fn new() -> Self {
        Self {
            data: tempfile::tempdir().expect("a temporary directory"),
            ledger: Arc::default(),
            dice: Dice::seeded(),
            lives: 0,
        }
    }

    fn start(&self) -> Service {
        Service::start(self.data.path(), &["--partitions", PARTITIONS])
    }

    /// A start that is killed at a call; the service, if it came through.
    fn start_killed_at(&self, calls: &str, number: u64) -> Option<Service> {
        let command = traced::with(&[format!("{calls}:signal=KILL:when={number}")], None);
        match Service::try_start_as(command, self.data.path(), &["--partitions", PARTITIONS]) {
            Ok(service) => Some(service),
            Err(Refusal { status, message }) => {
                assert_eq!(status.signal(), Some(SIGKILL), "{status}: {message}");
                None
            }
        }
    }

    fn acknowledged(&self) -> u64 {
        self.ledger.lock().expect("nobody panics with it").count
    }

    /// Clients write until some more is acknowledged, then the service is killed.
    async fn write_and_kill(&mut self, service: Service) {
        let goal = self.acknowledged() + 1 + self.dice.below(ACKNOWLEDGED_MAX);
        let clients = self.write(&service);
        eventually("enough is acknowledged", async || {
            let seen = self.acknowledged();
            (seen >= goal)
                .then_some(())
                .ok_or_else(|| format!("{seen} of {goal}"))
        })
        .await;
        service.kill();
        for client in clients {
            client.await.expect("a client ends when it gets no answer");
        }
    }

    fn write(&mut self, service: &Service) -> Vec<tokio::task::JoinHandle<()>> {
        self.lives += 1;
        write_until_gone(CLIENTS, self.lives, service, &self.ledger, &mut self.dice)
    }

    /// Everything acknowledged is there, rows and integration events are what the log says.
    async fn check(&self) {
        let service = self.start();
        caught_up(&Client::of(&service)).await;
        assert!(service.terminate().success());
        let data = self.data.path();
        let history = History::of(data);
        history.assert_rows_equal_it(data);
        history.assert_all_was_told(data);
        let ledger = self.ledger.lock().expect("nobody panics with it");
        ledger.assert_is_in(&history);
    }
}

/// The segment of a partition that is being written.
fn active_segment(partition: &Path) -> PathBuf {
    let entries = fs::read_dir(partition).expect("the partition's directory reads");
    entries
        .map(|entry| entry.expect("an entry reads").path())
        .filter(|path| path.extension().is_some_and(|it| it == "seg"))
        .max()
        .expect("a partition has a segment")
}

/// Leaves the later sectors of a write behind the end of each partition, as a power loss does that came before the first.
fn tear_the_tails(data: &Path) {
    const SECTOR_BYTES: usize = 512;
    for entry in fs::read_dir(data.join("log")).expect("the log's directory reads") {
        let partition = entry.expect("an entry reads").path();
        if !partition.is_dir() {
            continue;
        }
        let path = active_segment(&partition);
        let bytes = fs::read(&path).expect("the segment reads");
        let last = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0);
        // The last frame may end in zeros; not in a sector of them, with orders as small as these.
        let at = (last + SECTOR_BYTES).next_multiple_of(SECTOR_BYTES);
        let torn = [0xa5; SECTOR_BYTES];
        if at + 2 * torn.len() < bytes.len() {
            let file = File::options().write(true).open(&path);
            let written = file.and_then(|file| file.write_all_at(&torn, at as u64));
            written.expect("the segment is written");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_call_of_a_recovery_it_loses_nothing() {
    if !traced::can_trace("no recovery was killed") {
        return;
    }
    let kills = count(RECOVERY_KILLS_VARIABLE, RECOVERY_KILLS);
    let mut trial = Trial::new();
    let service = trial.start();
    trial.write_and_kill(service).await;
    let (mut killed, mut number, mut calls_max) = (0, 0, 0);
    while killed < kills {
        tear_the_tails(trial.data.path());
        number += 1;
        if let Some(service) = trial.start_killed_at(CHANGING_CALLS, number) {
            // It came through: its recovery has fewer calls. From the first one again.
            assert!(number > CALLS_LEAST, "a recovery has only {number} calls");
            service.kill();
            number = 0;
        } else {
            killed += 1;
            calls_max = calls_max.max(number);
            if killed % 3 == 0 && killed < kills {
                let again = 1 + trial.dice.below(number);
                match trial.start_killed_at(CHANGING_CALLS, again) {
                    Some(service) => service.kill(),
                    None => killed += 1,
                }
            }
        }
        let service = trial.start();
        let client = Client::of(&service);
        let readiness = client.get("/readyz?verbose").send().await.expect(200).text;
        assert!(!readiness.contains("[-]log-partition"), "{readiness}");
        let placed = client.place(&an_order()).await;
        assert_eq!(client.order_after(&placed).await.text, placed.text);
        {
            let mut ledger = trial.ledger.lock().expect("nobody panics with it");
            ledger.acknowledge(&placed);
        }
        trial.write_and_kill(service).await;
        if killed % CHECK_EVERY == 0 {
            trial.check().await;
        }
    }
    trial.check().await;
    println!(
        "{killed} kills inside recovery, up to its call {calls_max}; {} acknowledgements, nothing lost",
        trial.acknowledged()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_write_or_sync_under_load_it_loses_nothing() {
    if !traced::can_trace("no running service was killed at a call") {
        return;
    }
    const CALLS_MAX: u64 = 150;
    let kills = count(CALL_KILLS_VARIABLE, CALL_KILLS);
    let mut trial = Trial::new();
    // The first start makes files, with calls of its own.
    assert!(trial.start().terminate().success());
    let (mut killed, mut starting) = (0, 0);
    while killed < kills {
        let call = ["fdatasync", "pwrite64"][usize::from(killed % 2 == 1)];
        let number = 1 + trial.dice.below(CALLS_MAX);
        let Some(mut service) = trial.start_killed_at(call, number) else {
            // The call was one of the start's.
            starting += 1;
            assert!(starting < 10 * kills, "the service never comes to run");
            continue;
        };
        for client in trial.write(&service) {
            let ended = tokio::time::timeout(PATIENCE, client).await;
            ended
                .expect("the call comes")
                .expect("a client ends when it gets no answer");
        }
        let status = service.wait();
        assert_eq!(status.signal(), Some(SIGKILL), "{status}");
        killed += 1;
        if killed % CHECK_EVERY == 0 {
            trial.check().await;
        }
    }
    trial.check().await;
    println!(
        "{killed} kills at a write or a sync under load, {starting} more at a start; {} acknowledgements, nothing lost",
        trial.acknowledged()
    );
}
