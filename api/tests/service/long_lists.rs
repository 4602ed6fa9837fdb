//! Readers that walk through all orders, page by page, while others write: each page is a transaction of its own, so the
//! read model's write-ahead log is drained under them and does not grow with what is written.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use axum::http::{Request, StatusCode};

use crate::world::{World, a_large_order};

/// Orders written meanwhile: each takes some 17 KiB of the read model's write-ahead log.
const ORDERS: usize = 6_000;
const ORDERS_A_REQUEST: usize = 200;
const READERS: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn the_wal_stays_bounded_under_readers_that_never_end() {
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
    let mut wal_bytes_max = 0;
    for _ in 0..ORDERS / ORDERS_A_REQUEST {
        let request = Request::post("/orders/bulk").header("content-type", "application/x-ndjson");
        let body = Body::from(line.repeat(ORDERS_A_REQUEST));
        let answer = world.ask(request.body(body).unwrap()).await;
        let placed = answer.text.matches("\"status\":201").count();
        assert_eq!(placed, ORDERS_A_REQUEST, "{answer:?}");
        wal_bytes_max = wal_bytes_max.max(world.wal_bytes());
    }
    written.store(true, Ordering::Relaxed);
    for reader in readers {
        assert!(reader.await.unwrap() > 0, "a reader has read nothing");
    }

    let rows_bytes = (ORDERS * line.len()) as u64;
    assert!(
        wal_bytes_max < rows_bytes * 3 / 4,
        "the WAL has grown to {wal_bytes_max} bytes while {rows_bytes} were written"
    );
}
