//! Readers that walk through all orders, page by page, while others write: each page is a transaction of its own, so the
//! read model's write-ahead log starts over under them and does not grow with what is written.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};

use crate::world::{World, a_large_order};

const ORDERS_A_REQUEST: usize = 200;
/// Most requests until the WAL must have started over: each takes some 3.4 MB of it, so that one that nobody moves would
/// hold gigabytes.
const REQUESTS_MAX: usize = 400;
/// Requests that a machine with nothing to spare is not given a pause between.
const REQUESTS_IN_A_ROW: usize = 30;
const STARTS_OVER: u32 = 2;
const READERS: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn the_wal_starts_over_under_readers_that_never_end() {
    let world = Arc::new(World::new());
    let written = Arc::new(AtomicBool::new(false));
    world.place().await;
    let readers: Vec<_> = (0..READERS)
        .map(|_| {
            let (world, written) = (Arc::clone(&world), Arc::clone(&written));
            tokio::spawn(async move {
                const FIRST: &str = "/orders?limit=20";
                let (mut path, mut pages) = (FIRST.to_owned(), 0_u64);
                while !written.load(Ordering::Relaxed) {
                    let page = world.get(&path).await.expect(StatusCode::OK);
                    path = page.next().unwrap_or_else(|| FIRST.to_owned());
                    pages += 1;
                }
                pages
            })
        })
        .collect();

    let line = format!("{}\n", a_large_order());
    let first = world.wal_sequence();
    let mut starts_over = 0;
    for request in 0..REQUESTS_MAX {
        let post = Request::post("/orders/bulk").header("content-type", "application/x-ndjson");
        let body = Body::from(line.repeat(ORDERS_A_REQUEST));
        let answer = world.ask(post.body(body).unwrap()).await;
        let placed = answer.text.matches("\"status\":201").count();
        assert_eq!(placed, ORDERS_A_REQUEST, "{answer:?}");
        starts_over = world.wal_sequence().wrapping_sub(first);
        if starts_over >= STARTS_OVER {
            break;
        }
        if request >= REQUESTS_IN_A_ROW {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    written.store(true, Ordering::Relaxed);
    for reader in readers {
        assert!(reader.await.unwrap() > 0, "a reader has read nothing");
    }

    assert!(
        starts_over >= STARTS_OVER,
        "the WAL started over {starts_over} times while {REQUESTS_MAX} requests were written"
    );
}
