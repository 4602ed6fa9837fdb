//! Tokens, cursors and ids that this service never gave out, under a seal that is right: the log's identity is no secret.
//! They are refused or lead nowhere; nothing panics, and nobody else notices.

use axum::body::Body;
use axum::http::{Request, StatusCode};

use crate::world::{World, config};

/// Bytes and the checksum over `covered` under the seal of the world's log, as `api/src/sync_token.rs` makes it.
fn sealed_over(bytes: &[u8], covered: &[u8]) -> String {
    let fnv1a = |start: u64, bytes: &[u8]| {
        bytes.iter().fold(start, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
    };
    let seal = fnv1a(0xcbf2_9ce4_8422_2325, b"a log for tests");
    let hash = fnv1a(seal, covered);
    let checksum = (hash ^ (hash >> 32)).to_be_bytes();
    let all = bytes.iter().chain(&checksum[4..]);
    all.map(|byte| format!("{byte:02x}")).collect()
}

fn sealed(bytes: &[u8]) -> String {
    sealed_over(bytes, bytes)
}

fn token(partition: u16, end: u64) -> String {
    sealed(&[&partition.to_be_bytes()[..], &end.to_be_bytes()].concat())
}

#[tokio::test]
async fn a_forged_token_is_refused_or_waits_in_vain() {
    let world = World::new();
    let id = world.place().await;
    let paths = [
        "/orders".to_owned(),
        format!("/orders/{id}"),
        format!("/orders/{id}/events"),
        format!("/orders/{id}?at_version=1"),
        format!("/orders/{id}?as_of=2999-01-01T00:00:00Z"),
    ];
    let ask = async |path: &str, token: &str| {
        let request = Request::get(path).header("sync-token", token);
        let request = request.header("prefer", "wait=0");
        world.ask(request.body(Body::empty()).unwrap()).await
    };
    world
        .get(&format!("/orders/{id}"))
        .await
        .expect(StatusCode::OK);
    // Every partition there is, at a place that is written: the seal is right.
    for path in &paths {
        for partition in 0..2 {
            ask(path, &token(partition, 0)).await.expect(StatusCode::OK);
        }
    }
    for path in &paths {
        for partition in [2, 3, 1024, u16::MAX] {
            for end in [0, 1, u64::MAX] {
                let refused = ask(path, &token(partition, end)).await;
                let refused = refused.expect(StatusCode::BAD_REQUEST);
                assert_eq!(refused.json()["code"], "invalid-sync-token", "{path}");
            }
        }
    }
    // A place that is never written is one that has not been read yet.
    for partition in 0..2 {
        let behind = ask("/orders", &token(partition, u64::MAX)).await;
        let behind = behind.expect(StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(behind.json()["code"], "read-model-behind");
    }
}

#[tokio::test]
async fn a_forged_feed_id_is_refused_or_begins_a_feed() {
    let world = World::with(config());
    world.place().await;
    let open = async |id: &str| {
        let request = Request::get("/events").header("last-event-id", id);
        let request = request.body(Body::empty()).unwrap();
        world.send(request).await.status()
    };
    for known in [&[0, 0][..], &[0x7f, 0x7f]] {
        assert_eq!(open(&sealed(known)).await, StatusCode::OK, "{known:?}");
    }
    // A partition too few or too many, a number that does not end, one of more than 64 bits.
    let endless = [0xff; 30];
    for unknown in [&[][..], &[0], &[0, 0, 0], &[0x80, 0x80], &endless] {
        let status = open(&sealed(unknown)).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{unknown:?}");
    }
}

#[tokio::test]
async fn a_forged_cursor_is_refused_or_leads_to_a_page() {
    let world = World::new();
    let id = world.place().await;
    world
        .get(&format!("/orders/{id}"))
        .await
        .expect(StatusCode::OK);
    let page = async |cursor: String| world.get(&format!("/orders?cursor={cursor}")).await;
    // The query without a filter, as cursors are bound to it.
    let bound_to = b"None None None None";
    for (order, orders) in [([0xff; 16], 1), ([0; 16], 0)] {
        let cursor = sealed_over(&order, &[&order[..], bound_to].concat());
        let page = page(cursor).await.expect(StatusCode::OK).json();
        assert_eq!(page["orders"].as_array().unwrap().len(), orders, "{page}");
    }
    for text in [sealed(&[0xff; 16]), sealed(&[]), sealed(&[0; 64])] {
        let refused = page(text).await.expect(StatusCode::BAD_REQUEST);
        assert_eq!(refused.json()["code"], "invalid-query");
    }
}
