//! Bytes that are no request, or hardly one: each gets the right refusal or a closed connection, and nobody else notices.

use axum::http::StatusCode;
use tokio::io::AsyncWriteExt;

use crate::raw::{assert_alive, connect, get, read_to_end, strict};
use crate::world::World;

/// What becomes of a connection.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// It is answered with this status, and closed.
    Refused(u16),
    /// It is answered with these, and closed as it asked.
    Served(&'static [u16]),
    /// It is closed without a word.
    Closed,
}

#[tokio::test]
async fn what_is_not_http_is_refused_and_costs_nobody_anything() {
    use Fate::{Closed, Refused, Served};
    let world = World::with(strict());
    let served = world.serve().await;
    let json = "POST /orders HTTP/1.1\r\nhost: it\r\ncontent-type: application/json\r\n";
    let with_body = |head: &str| format!("{json}{head}").into_bytes();
    let text = |text: &str| text.as_bytes().to_vec();
    let cases: Vec<(&str, Vec<u8>, Fate)> = vec![
        ("nothing at all", vec![], Closed),
        ("line ends alone", text("\r\n\r\n\r\n"), Closed),
        ("half a request line", text("GET /live"), Closed),
        (
            "half a head",
            text("GET /livez HTTP/1.1\r\nhost: it\r\nx"),
            Closed,
        ),
        ("no request line", text("\0\0\0\0\r\n\r\n"), Refused(400)),
        (
            "TLS to a port without",
            vec![0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0],
            Refused(400),
        ),
        ("a method alone", text("GET\r\n\r\n"), Refused(400)),
        ("no version", text("GET /livez\r\n\r\n"), Refused(400)),
        (
            "a version of no year",
            text("GET /livez HTTP/9.9\r\n\r\n"),
            Refused(400),
        ),
        ("HTTP/2", text("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Closed),
        (
            "a method with a space before it",
            text(" GET /livez HTTP/1.1\r\nhost: it\r\n\r\n"),
            Refused(400),
        ),
        (
            "a NUL in the path",
            text("GET /li\0vez HTTP/1.1\r\nhost: it\r\n\r\n"),
            Refused(400),
        ),
        (
            "a NUL in a header",
            text("GET /livez HTTP/1.1\r\nhost: it\r\nx: a\0b\r\n\r\n"),
            Refused(400),
        ),
        (
            "a header without a colon",
            text("GET /livez HTTP/1.1\r\nhost it\r\n\r\n"),
            Refused(400),
        ),
        (
            "a space before the colon",
            text("GET /livez HTTP/1.1\r\nhost : it\r\n\r\n"),
            Refused(400),
        ),
        (
            "a folded header",
            text("GET /livez HTTP/1.1\r\nhost: it\r\nx: a\r\n b\r\n\r\n"),
            Refused(400),
        ),
        (
            "a long path",
            text(&format!("GET /{} HTTP/1.1\r\n\r\n", "p".repeat(100_000))),
            Refused(414),
        ),
        (
            "a huge header",
            text(&format!(
                "GET / HTTP/1.1\r\nx: {}\r\n\r\n",
                "y".repeat(200_000)
            )),
            Refused(431),
        ),
        (
            "a thousand headers",
            text(&format!(
                "GET / HTTP/1.1\r\n{}\r\n",
                "a: b\r\n".repeat(1000)
            )),
            Refused(431),
        ),
        (
            "a negative length",
            with_body("content-length: -1\r\n\r\n"),
            Refused(400),
        ),
        (
            "a signed length",
            with_body("content-length: +5\r\n\r\nhello"),
            Refused(400),
        ),
        (
            "a length beyond 64 bits",
            with_body("content-length: 99999999999999999999\r\n\r\n"),
            Refused(400),
        ),
        (
            "two lengths",
            with_body("content-length: 5\r\ncontent-length: 6\r\n\r\nhello"),
            Refused(400),
        ),
        (
            "a list of lengths",
            with_body("content-length: 5, 6\r\n\r\nhello"),
            Refused(400),
        ),
        (
            "a length over the limit",
            with_body("content-length: 999999999\r\n\r\n"),
            Refused(413),
        ),
        (
            "a body that ends early",
            with_body("content-length: 100\r\n\r\n{"),
            Refused(400),
        ),
        (
            "an unknown coding",
            with_body("transfer-encoding: gzip\r\n\r\n"),
            Refused(400),
        ),
        (
            "a coding behind chunked",
            with_body("transfer-encoding: chunked, gzip\r\n\r\n"),
            Refused(400),
        ),
        (
            "a chunk without a size",
            with_body("transfer-encoding: chunked\r\n\r\nzz\r\n"),
            Refused(400),
        ),
        (
            "a chunk beyond 64 bits",
            with_body("transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n"),
            Refused(400),
        ),
        (
            "a chunk over the limit",
            with_body("transfer-encoding: chunked\r\n\r\n7fffffff\r\nx"),
            Refused(400),
        ),
        (
            "a chunk longer than its size",
            with_body("transfer-encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n"),
            Refused(400),
        ),
        // RFC 9112, 6.1: the coding counts, the length does not.
        (
            "a length beside a coding",
            with_body(
                "content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /livez HTTP/1.1\r\nhost: it\r\n\r\n",
            ),
            Refused(400),
        ),
        (
            "line feeds alone",
            text("GET /livez HTTP/1.1\nhost: it\nconnection: close\n\n"),
            Served(&[200]),
        ),
        (
            "HTTP/1.0",
            text("GET /livez HTTP/1.0\r\n\r\n"),
            Served(&[200]),
        ),
        (
            "three requests at once",
            [
                get("/livez", "keep-alive"),
                get("/nowhere", "keep-alive"),
                get("/livez", "close"),
            ]
            .concat(),
            Served(&[200, 404, 200]),
        ),
        (
            "a good request before a bad one",
            [get("/livez", "keep-alive"), text("\0\r\n\r\n")].concat(),
            Served(&[200, 400]),
        ),
    ];
    for (what, bytes, fate) in cases {
        let mut stream = connect(&served).await;
        stream.write_all(&bytes).await.unwrap();
        // Nothing more comes: whatever waits for it has to see that.
        stream.shutdown().await.unwrap();
        let answer = read_to_end(&mut stream).await;
        let statuses: Vec<u16> = answer
            .split("HTTP/1.")
            .skip(1)
            .map(|answer| answer[2..5].parse().unwrap())
            .collect();
        match fate {
            Refused(status) => {
                assert_eq!(statuses, [status], "{what}: {answer}");
                // As `docs/problems.md` says: what is refused before it is a request has no problem in it.
                let is_problem = answer.contains("problem+json");
                let has_none = answer.contains("content-length: 0\r\n");
                assert_eq!(is_problem, !has_none, "{what}: {answer}");
                assert!(
                    !is_problem || !matches!(status, 414 | 431),
                    "{what}: {answer}"
                );
            }
            Served(expected) => assert_eq!(statuses, expected, "{what}: {answer}"),
            Closed => assert_eq!(answer, "", "{what}"),
        }
        assert_alive(&served).await;
    }
    // Every thread that works for requests still does.
    let id = world.place().await;
    world
        .get(&format!("/orders/{id}"))
        .await
        .expect(StatusCode::OK);
}
