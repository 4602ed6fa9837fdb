//! What each operation sends, and what of its answer a run needs to go on.

use anyhow::Context;
use hyper::Method;
use serde::Deserialize;

use super::Operation;
use super::connection::{Answer, Ask};
use super::orders::OpenOrder;
use crate::sample::Chance;

/// How long the service may let a read wait for the order just made.
const READ_BACK_WAIT_SECONDS: u32 = 5;

/// Customers and goods that orders are drawn from: enough that none is hot, few enough that all come again.
const CUSTOMERS: usize = 10_000;
const GOODS: usize = 1_000;

/// Orders of a page.
const PAGE_ORDERS: usize = 20;

/// An order a request is about: to be read, or to be taken a step further.
#[derive(Debug)]
pub(super) enum Subject {
    Read(String),
    Step(OpenOrder),
}

/// What the generator understands of an answer about one order.
#[derive(Debug, Deserialize)]
pub(super) struct Acknowledged {
    pub(super) id: String,
    pub(super) version: u32,
    pub(super) total: i64,
}

/// A line of the answer to a bulk request.
#[derive(Debug, Deserialize)]
pub(super) struct BulkLine {
    pub(super) status: u16,
    pub(super) id: Option<String>,
    pub(super) version: Option<u32>,
}

/// The request of an operation.
pub(super) fn ask(
    operation: Operation,
    subject: Option<&Subject>,
    idempotency_keys: bool,
    bulk_lines: usize,
    chance: &mut Chance,
) -> Ask {
    let mut headers = Vec::new();
    if idempotency_keys && operation.is_command() {
        headers.push((
            "idempotency-key",
            format!("{:016x}{:016x}", chance.draw(), chance.draw()),
        ));
    }
    match (operation, subject) {
        (_, Some(Subject::Read(id))) => Ask {
            method: Method::GET,
            path: format!("/orders/{id}"),
            headers,
            body: None,
        },
        (_, Some(Subject::Step(order))) => {
            headers.push(("if-match", format!("\"{}\"", order.version)));
            let body = match operation {
                Operation::Pay => format!("{{\"amount\":{}}}", order.total),
                _ => "{}".to_owned(),
            };
            Ask {
                method: Method::POST,
                path: format!("/orders/{}/{}", order.id, operation.name()),
                headers,
                body: Some(body.into_bytes()),
            }
        }
        (Operation::List, None) => Ask {
            method: Method::GET,
            path: format!(
                "/orders?customer_id={}&limit={PAGE_ORDERS}",
                customer(chance)
            ),
            headers,
            body: None,
        },
        (Operation::Bulk, None) => {
            headers.push(("content-type", "application/x-ndjson".to_owned()));
            let mut body = Vec::new();
            for _ in 0..bulk_lines {
                body.extend_from_slice(&new_order(chance));
                body.push(b'\n');
            }
            Ask {
                method: Method::POST,
                path: "/orders/bulk".to_owned(),
                headers,
                body: Some(body),
            }
        }
        (_, None) => Ask {
            method: Method::POST,
            path: "/orders".to_owned(),
            headers,
            body: Some(new_order(chance)),
        },
    }
}

/// Reads the order that was just made, with the token of its acknowledgement; `None` if that says too little. `base` is
/// what stands before the service's paths.
pub(super) fn read_back(answer: &Answer, base: &str) -> Option<Ask> {
    let header = |name| Some(answer.headers.get(name)?.to_str().ok()?.to_owned());
    let location = header("location")?;
    Some(Ask {
        method: Method::GET,
        path: location.strip_prefix(base).unwrap_or(&location).to_owned(),
        headers: vec![
            ("sync-token", header("sync-token")?),
            ("prefer", format!("wait={READ_BACK_WAIT_SECONDS}")),
        ],
        body: None,
    })
}

/// The order an acknowledgement tells of.
pub(super) fn acknowledged(operation: Operation, answer: &Answer) -> anyhow::Result<Acknowledged> {
    serde_json::from_slice(&answer.body)
        .with_context(|| format!("the answer to `{}` is not an order", operation.name()))
}

/// The lines of the answer to a bulk request, one for each line that was sent.
pub(super) fn bulk_lines(answer: &Answer, sent: usize) -> anyhow::Result<Vec<BulkLine>> {
    let lines = answer
        .body
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(serde_json::from_slice)
        .collect::<Result<Vec<BulkLine>, _>>()
        .context("a line of the answer to `bulk` does not read")?;
    anyhow::ensure!(
        lines.len() == sent,
        "{} lines were sent in bulk, {} answered",
        sent,
        lines.len()
    );
    Ok(lines)
}

fn customer(chance: &mut Chance) -> String {
    format!("c-{:04}", chance.below(CUSTOMERS))
}

/// An order of the size of the documented one.
fn new_order(chance: &mut Chance) -> Vec<u8> {
    format!(
        "{{\"customer_id\":\"{}\",\"currency\":\"EUR\",\"lines\":[{{\"sku\":\"SKU-{}\",\"quantity\":{},\
         \"unit_price\":{}}}],\"metadata\":{{\"channel\":\"web\"}}}}",
        customer(chance),
        chance.below(GOODS),
        chance.below(9) + 1,
        chance.below(9_000) + 1_000,
    )
    .into_bytes()
}
