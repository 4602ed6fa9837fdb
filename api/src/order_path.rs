//! Ids in paths. A text that is no id names an order that cannot exist: 404, as for one that does not.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use order_domain::{LineId, OrderId};

use crate::api::Shared;
use crate::error::{Problem, ProblemKind};

/// The order of `/orders/:id/…`.
#[derive(Debug)]
pub(crate) struct OrderPath(pub(crate) OrderId);

/// The order and the line of `/orders/:id/lines/:line_id`.
#[derive(Debug)]
pub(crate) struct LinePath(pub(crate) OrderId, pub(crate) LineId);

impl FromRequestParts<Arc<Shared>> for OrderPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Shared>) -> Result<Self, Problem> {
        Self::of(parts.uri.path())
    }
}

impl OrderPath {
    /// The order that a path names.
    pub(crate) fn of(path: &str) -> Result<Self, Problem> {
        order_id(path).map(Self)
    }
}

impl FromRequestParts<Arc<Shared>> for LinePath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Shared>) -> Result<Self, Problem> {
        let path = parts.uri.path();
        let order = order_id(path)?;
        let line = path.rsplit('/').next().and_then(line_id);
        let line = line.ok_or_else(|| {
            Problem::new(
                ProblemKind::LineNotFound,
                "a line's id is a number from 1 on",
            )
        })?;
        Ok(Self(order, line))
    }
}

/// The second segment of the path, which the router has matched.
fn order_id(path: &str) -> Result<OrderId, Problem> {
    let text = path.split('/').nth(2).unwrap_or_default();
    OrderId::parse(text).map_err(|error| {
        Problem::new(
            ProblemKind::OrderNotFound,
            format!("the order's id is {error}"),
        )
    })
}

/// A line's number as we write it: no sign, no leading zero.
fn line_id(text: &str) -> Option<LineId> {
    let canonical = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    canonical.then(|| text.parse().ok().and_then(LineId::new))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_hyphenated_uuid_is_an_order() {
        assert!(order_id("/orders/0199c82c-0000-7000-8000-000000000001").is_ok());
        assert!(order_id("/orders/0199C82C-0000-7000-8000-000000000001/pay").is_ok());
        for path in [
            "/orders/7",
            "/orders/",
            "/orders",
            "/orders/0199c82c00007000800000000000000001",
        ] {
            let problem = order_id(path).expect_err(path);
            assert_eq!(problem.kind(), ProblemKind::OrderNotFound);
        }
    }

    #[test]
    fn only_a_plain_number_is_a_line() {
        assert_eq!(line_id("1"), LineId::new(1));
        assert_eq!(line_id("4294967295"), LineId::new(u32::MAX));
        for text in ["0", "01", "-1", "+1", "", "a", "4294967296", "%31"] {
            assert_eq!(line_id(text), None, "{text}");
        }
    }
}
