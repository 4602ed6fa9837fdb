//! A disk that fills up while the service runs: writes are refused before anything is written, everything else goes on, and
//! writing resumes by itself when space is back.
//!
//! Method: the log, or all of the data directory, is on a small file system of its own, a tmpfs and an ext4 by turns. A
//! file takes all its space but some bytes, a different number each time; orders of random sizes are placed until they are
//! refused, so that the disk is full at a different place of the log each time. Now and then the service is killed and
//! started while the disk is full. Refused is refused: in the end the rows are the acknowledged orders and no others.
//!
//! `ORDER_TESTS_FULL_DISKS` sets how often the disk fills up.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::client::{Answer, Client, an_order};
use crate::counts::count;
use crate::file_systems::{SmallFileSystem, move_to};
use crate::metrics::Metrics;
use crate::service::{Service, binary, run, stdout_of};
use crate::waits::{caught_up, eventually};
use crate::writers::Dice;

const CASES: u64 = 50;
const CASES_VARIABLE: &str = "ORDER_TESTS_FULL_DISKS";
/// Cases a file system: each takes up to three segments of the smallest kind for good.
const CASES_A_DISK: u64 = 25;
const DISK_BYTES: u64 = 128 << 20;
/// The disk is left with up to this much, so that the next segment fits in some cases and in others not.
const LEFT_BYTES_MAX: u64 = 3 << 20;
/// Every so many cases the service is killed while the disk is full.
const KILL_EVERY: u64 = 5;
/// More orders than fit into what is left of a segment, the one made ahead and the space left over.
const ORDERS_MAX: usize = 4_000;

type Disk = fn(u64) -> Option<SmallFileSystem>;
const DISKS: [Disk; 2] = [SmallFileSystem::tmpfs, SmallFileSystem::ext4];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_writes_wherever_it_strikes_and_they_resume_by_themselves() {
    let cases = count(CASES_VARIABLE, CASES);
    let mut done = 0;
    let mut filled = BTreeSet::new();
    for disk in DISKS.into_iter().cycle() {
        if done == cases {
            break;
        }
        let here = CASES_A_DISK.min(cases - done);
        let Some(disk) = disk(DISK_BYTES) else {
            return;
        };
        filled.insert(disk.kind());
        let mut bench = Bench::with_the_log_on(disk);
        for case in 0..here {
            bench.fill_up(case * LEFT_BYTES_MAX / here).await;
            bench.while_full_all_else_goes_on().await;
            if case % KILL_EVERY == KILL_EVERY - 1 {
                bench.kill_and_start();
                bench.while_full_all_else_goes_on().await;
            }
            bench.empty().await;
        }
        bench.check().await;
        done += here;
    }
    println!("full disks: {cases} cases on {filled:?}, 0 deaths, writes resumed in each");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_rows_and_cursors_on_the_full_disk_too_nothing_dies_and_all_of_it_resumes() {
    const CASES: u64 = 6;
    for disk in DISKS {
        let Some(disk) = disk(DISK_BYTES) else {
            return;
        };
        let mut bench = Bench::with_everything_on(disk);
        for case in 0..CASES {
            bench.fill_up(case * LEFT_BYTES_MAX / CASES).await;
            // Rows may be behind now, for want of space: reads and metrics say so, and do not fail.
            let metrics = Metrics::of(&bench.client).await;
            assert!(metrics.sum("log_end_offset") > 0);
            bench.client.get("/livez").send().await.expect(200);
            bench.client.get("/orders").send().await.expect(200);
            if case == CASES / 2 {
                bench.kill_while_full_and_start_when_there_is_space();
            }
            bench.empty().await;
        }
        bench.check().await;
    }
}

/// A service on a disk that can be filled, and the orders that were acknowledged.
struct Bench {
    data: PathBuf,
    service: Option<Service>,
    client: Client,
    acknowledged: Vec<Answer>,
    dice: Dice,
    // After the service, which has its files open.
    disk: SmallFileSystem,
    _directory: Option<tempfile::TempDir>,
}

fn command() -> Command {
    let mut command = Command::new(binary());
    command.env("ORDER_SERVICE__LOG__SEGMENT_BYTES_MAX", "1048576");
    command
}

fn start(data: &Path) -> Service {
    Service::start_as(command(), data, &["--partitions", "1"])
}

/// An order of up to 16 KiB.
fn an_order_of_some_size(dice: &mut Dice) -> Value {
    let mut order = an_order();
    let entries = dice.below(33);
    let metadata = (0..entries).map(|entry| (format!("note {entry}"), json!("n".repeat(512))));
    order["metadata"] = Value::Object(metadata.collect());
    order
}

impl Bench {
    fn with_the_log_on(disk: SmallFileSystem) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let data = directory.path().to_owned();
        assert!(start(&data).terminate().success());
        move_to(&data.join("log"), &disk.path().join("log"));
        Self::new(data, disk, Some(directory))
    }

    fn with_everything_on(disk: SmallFileSystem) -> Self {
        let data = disk.path().join("data");
        Self::new(data, disk, None)
    }

    fn new(data: PathBuf, disk: SmallFileSystem, directory: Option<tempfile::TempDir>) -> Self {
        let service = start(&data);
        Self {
            client: Client::of(&service),
            service: Some(service),
            data,
            acknowledged: Vec::new(),
            dice: Dice::seeded(),
            disk,
            _directory: directory,
        }
    }

    fn service(&self) -> &Service {
        self.service.as_ref().expect("it is taken in `check` alone")
    }

    /// Leaves the disk so many bytes, and places orders until they are refused.
    async fn fill_up(&mut self, bytes: u64) {
        self.disk.leave(bytes);
        for _ in 0..ORDERS_MAX {
            let order = an_order_of_some_size(&mut self.dice);
            let answer = self.client.post("/orders").json(&order).send().await;
            if answer.status == 201 {
                self.acknowledged.push(answer);
            } else {
                assert_refused_for_space(&answer);
                return;
            }
        }
        panic!("with {bytes} bytes left, {ORDERS_MAX} orders found space");
    }

    /// Of a disk that has only the log on it.
    async fn while_full_all_else_goes_on(&self) {
        let ready = self.client.get("/readyz").send().await;
        assert_eq!(ready.status, 200, "{ready:?}");
        let last = self.acknowledged.last().expect("some orders found space");
        let path = format!("/orders/{}?min_version=1", last.id());
        let read = self.client.get(&path).header("prefer", "wait=30");
        assert_eq!(read.send().await.expect(200).text, last.text);
        caught_up(&self.client).await;
    }

    fn kill_and_start(&mut self) {
        self.service.take().expect("it runs").kill();
        let service = start(&self.data);
        self.client = Client::of(&service);
        self.service = Some(service);
    }

    fn kill_while_full_and_start_when_there_is_space(&mut self) {
        self.service.take().expect("it runs").kill();
        self.disk.give_back();
        let service = start(&self.data);
        self.client = Client::of(&service);
        self.service = Some(service);
    }

    /// Gives the space back: writing resumes, in the same process.
    async fn empty(&mut self) {
        let before = self.service().pid();
        self.disk.give_back();
        let resumed = eventually("writes are taken again", async || {
            let answer = self.client.post("/orders").json(&an_order()).send().await;
            if answer.status == 201 {
                return Ok(answer);
            }
            assert_refused_for_space(&answer);
            Err(answer.text)
        })
        .await;
        self.acknowledged.push(resumed);
        caught_up(&self.client).await;
        assert_eq!(self.service().pid(), before);
    }

    /// The rows are the acknowledged orders and no others, and they are what the log says.
    async fn check(mut self) {
        caught_up(&self.client).await;
        let service = self.service.take().expect("it runs");
        let messages = service.messages();
        assert!(!messages.contains("panicked"), "{messages}");
        assert!(service.terminate().success());

        let data = self.data.to_str().expect("the path is UTF-8");
        let statement = "select order_id from OrderView";
        let rows = stdout_of(["sql", "--format", "json", "--data-dir", data, statement]);
        let rows: BTreeSet<String> = rows.lines().map(order_id).collect();
        let told: BTreeSet<String> = self.acknowledged.iter().map(Answer::id).collect();
        let lost: Vec<_> = told.difference(&rows).collect();
        let unasked: Vec<_> = rows.difference(&told).collect();
        assert!(
            lost.is_empty() && unasked.is_empty(),
            "lost: {lost:?}; refused, and there: {unasked:?}"
        );
        for arguments in [["log", "verify"], ["projections", "diff"]] {
            let proof = run([&arguments[..], &["--data-dir", data]].concat());
            assert!(proof.status.success(), "{arguments:?}: {proof:?}");
        }
    }
}

fn order_id(row: &str) -> String {
    let row: Value = serde_json::from_str(row).expect("a row is a JSON object");
    row["order_id"]
        .as_str()
        .expect("an order has an id")
        .to_owned()
}

fn assert_refused_for_space(answer: &Answer) {
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(answer.problem(), "storage-full");
    let after: u64 = answer
        .header("retry-after")
        .parse()
        .expect("Retry-After is a number of seconds");
    assert!(after > 0);
}
