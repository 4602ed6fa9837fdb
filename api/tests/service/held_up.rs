//! What goes on while something else stands still: a read that the log does not answer, a command that the disk does not.

use axum::http::StatusCode;
use order_api::ApiConfig;

use crate::gate::Gate;
use crate::raw::{exchange, strict};
use crate::world::{Setup, an_order, config};

/// The service has this test's one thread.
#[tokio::test(flavor = "current_thread")]
async fn a_read_that_waits_for_the_log_holds_up_nobody_but_reads() {
    let gate = Gate::default();
    let world = Setup {
        config: ApiConfig {
            reader_threads: 1,
            ..config()
        },
        readers: Some(gate.clone()),
        ..Setup::default()
    }
    .start();
    let id = world.place().await;
    let closed = gate.close();
    let path = format!("/orders/{id}/events");
    let read = world.get(&path);
    let others = async {
        closed.until_somebody_waits().await;
        for path in ["/livez", "/metrics", "/openapi.json"] {
            world.get(path).await.expect(StatusCode::OK);
        }
        world.place().await;
        drop(closed);
    };
    let (read, ()) = tokio::join!(read, others);
    let history = read.expect(StatusCode::OK).json();
    assert_eq!(history["events"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_command_that_takes_too_long_is_told_so_and_may_have_been_kept() {
    let setup = Setup {
        config: strict(),
        ..Setup::default()
    };
    let gate = setup.disk.gate.clone();
    let world = setup.start();
    let served = world.serve().await;
    let body = an_order().to_string();
    let request = format!(
        "POST /orders HTTP/1.1\r\nhost: it\r\ncontent-type: application/json\r\nidempotency-key: k\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let closed = gate.close();
    let answer = exchange(&served, request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains("\"code\":\"timeout\""), "{answer}");
    assert!(answer.contains("retry-after: "), "{answer}");

    drop(closed);
    let answer = exchange(&served, request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    assert!(answer.contains("idempotency-replayed: true"), "{answer}");
}
