//! A disk that fails while the service runs: what clients are told, what goes on, and what is there after a restart.
//!
//! Method: `strace` makes a system call of the running service fail, on one file alone.

use std::path::Path;
use std::process::Command;

use crate::client::{Client, an_order};
use crate::history::History;
use crate::service::{Service, binary};
use crate::waits::caught_up;

/// Orders sent until the fault must have struck.
const ORDERS_MAX: usize = 50;

/// A command that runs the binary with `fault` injected into its calls of `call` on `path`; `None` where that is not
/// possible.
fn with_fault(call: &str, fault: &str, path: &Path) -> Option<Command> {
    let attempt = Command::new("strace")
        .args(["-D", "-f", "-o", "/dev/null", "true"])
        .status();
    if !attempt.is_ok_and(|status| status.success()) {
        eprintln!("LEFT OUT: `strace` is missing or may not trace here, so no disk failed");
        return None;
    }
    let mut command = Command::new("strace");
    command
        .args(["-D", "-f", "-qq", "-o", "/dev/null", "-e"])
        .arg(format!("trace={call}"))
        .arg("-e")
        .arg(format!("inject={call}:{fault}"))
        .arg("-P")
        .arg(path)
        .arg(binary());
    Some(command)
}

#[tokio::test]
async fn a_failed_sync_stops_its_partition_and_nothing_else() {
    let data = tempfile::tempdir().expect("a temporary directory");
    // The segment must be there for strace to know it by.
    assert!(
        Service::start(data.path(), &["--partitions", "2"])
            .terminate()
            .success()
    );
    let segment = data.path().join("log/p000/00000000000000000000.seg");
    let Some(command) = with_fault("fdatasync", "error=EIO:when=3", &segment) else {
        return;
    };

    let service = Service::start_as(command, data.path(), &[]);
    let client = Client::of(&service);
    let (mut acknowledged, mut unknown, mut unavailable) = (Vec::new(), 0, 0);
    for _ in 0..ORDERS_MAX {
        let answer = client.post("/orders").json(&an_order()).send().await;
        if answer.status == 201 {
            acknowledged.push(answer);
            continue;
        }
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(!answer.header("retry-after").is_empty());
        match answer.problem().as_str() {
            "outcome-unknown" => unknown += 1,
            "partition-unavailable" => unavailable += 1,
            other => panic!("{other}: {answer:?}"),
        }
    }
    assert_eq!(unknown, 1, "a failed sync is never tried again");
    assert!(unavailable > 0, "the partition takes no more writes");
    let after_the_fault = client.place_until_accepted().await;
    acknowledged.push(after_the_fault);
    let readiness = client.get("/readyz?verbose").send().await.expect(200).text;
    assert!(readiness.contains("degraded"), "{readiness}");
    for answer in &acknowledged {
        client.order_after(answer).await;
    }
    service.kill();

    let service = Service::start(data.path(), &[]);
    let client = Client::of(&service);
    for _ in 0..10 {
        acknowledged.push(client.place(&an_order()).await);
    }
    caught_up(&client).await;
    assert!(service.terminate().success());
    let history = History::of(data.path());
    history.assert_rows_equal_it(data.path());
    for answer in &acknowledged {
        assert_eq!(history.order_at(&answer.id(), 1), answer.json());
    }
    let beyond = history.orders.len() - acknowledged.len();
    assert!(beyond <= unknown, "{beyond} orders that nobody was told of");
}
