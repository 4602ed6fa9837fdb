//! `GET /orders`: a page of orders, newest first, with filters and an opaque cursor.

use std::fmt::Write;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header::LINK;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use order_domain::{CustomerId, OrderId, Status, Timestamp};
use order_projector_workers::{OrderFilter, OrderPage, OrderRow, Projection};
use serde::Deserialize;

use crate::answer::{self, Answer};
use crate::api::Shared;
use crate::error::Problem;
use crate::query;
use crate::reads::{Wait, catch_up, lag_header};
use crate::sync_token::{Seal, hex, unhex};
use crate::{order_json, readers};

/// Orders of a page if the client does not say.
const LIMIT_DEFAULT: usize = 50;
/// Most orders of a page.
const LIMIT_MAX: usize = 200;
/// Most bytes of a page's lines and metadata: an order may have as much as a body, and a page is made in memory.
const PAGE_BYTES_MAX: usize = 1024 * 1024;
/// What a listed order usually fits in beside its lines and metadata, in bytes.
const ORDER_HEAD_JSON_BYTES: usize = 384;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    status: Option<String>,
    customer_id: Option<String>,
    created_after: Option<String>,
    created_before: Option<String>,
    limit: Option<usize>,
    cursor: Option<String>,
}

/// `GET /orders`
pub(crate) async fn orders(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Answer, Problem> {
    let query: ListQuery = query::parse(&uri)?;
    let limit = query.limit.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(query::refuse(
            "limit",
            format!("is not between 1 and {LIMIT_MAX}"),
        ));
    }
    let mut filter = filter(&query)?;
    let bound_to = canonical(&filter);
    if let Some(cursor) = &query.cursor {
        // Pages go by the orders' ids: one from before the log was rewritten leads on as well.
        let before = [shared.seal]
            .iter()
            .chain(&shared.former_seals)
            .find_map(|seal| Cursor::parse(cursor, *seal, &bound_to));
        filter.before = Some(before.ok_or_else(|| {
            query::refuse("cursor", "is none that this query's pages have led to")
        })?);
    }
    filter.limit = limit;
    filter.bytes_max = Some(PAGE_BYTES_MAX);

    let mut wait = Wait::of(&shared, &headers);
    for token in shared.sync_tokens(&headers)? {
        catch_up(&shared, token.partition, token.end, &mut wait).await?;
    }
    let reading = Arc::clone(&shared);
    let page = shared.readers.run(move |rows| {
        let lag_ms = reading.read_model_lag_ms();
        rows.page(&filter).map(|page| (page, lag_ms))
    });
    let (OrderPage { rows, more }, lag_ms) =
        page.await?.map_err(|error| readers::unreadable(&error))?;

    let last = rows.last().filter(|_| more).map(|row| row.id);
    let cursor = last.map(|last| Cursor::text(last, shared.seal, &bound_to));
    let mut response = answer::json(StatusCode::OK, page_json(&rows, cursor.as_deref()));
    answer::put_no_cache(&mut response);
    let headers = response.headers_mut();
    headers.insert(answer::READ_MODEL_LAG, lag_header(lag_ms));
    if let Some(cursor) = cursor {
        headers.insert(LINK, next_link(&query, &cursor));
    }
    wait.put_applied(&mut response);
    Ok(response)
}

fn page_json(rows: &[OrderRow], cursor: Option<&str>) -> Vec<u8> {
    let long: usize = rows
        .iter()
        .map(|it| it.lines.len() + it.metadata.len())
        .sum();
    let mut json = Vec::with_capacity(64 + rows.len() * ORDER_HEAD_JSON_BYTES + long);
    json.extend_from_slice(b"{\"orders\":[");
    for (index, row) in rows.iter().enumerate() {
        if index > 0 {
            json.push(b',');
        }
        order_json::write_row(&row.as_row_ref(), &mut json);
    }
    json.push(b']');
    if let Some(cursor) = cursor {
        json.extend_from_slice(b",\"next_cursor\":\"");
        json.extend_from_slice(cursor.as_bytes());
        json.push(b'"');
    }
    json.push(b'}');
    json
}

fn filter(query: &ListQuery) -> Result<OrderFilter, Problem> {
    let status = query.status.as_deref().map(|name| {
        Status::parse(name).ok_or_else(|| {
            let names: Vec<_> = Status::ALL.iter().map(|status| status.name()).collect();
            query::refuse("status", format!("is none of {}", names.join(", ")))
        })
    });
    let customer_id = query.customer_id.clone().map(|id| {
        CustomerId::new(id).map_err(|error| query::refuse("customer_id", error.to_string()))
    });
    let time = |name, text: &Option<String>| {
        text.as_deref()
            .map(|text| query::time(name, text))
            .transpose()
    };
    Ok(OrderFilter {
        status: status.transpose()?,
        customer_id: customer_id.transpose()?,
        created_after: time("created_after", &query.created_after)?,
        created_before: time("created_before", &query.created_before)?,
        ..OrderFilter::default()
    })
}

/// The filter as the cursor is bound to it: equal filters, equal bytes, however the client spelled them. The page's
/// length is left out, a client may change it on the way.
fn canonical(filter: &OrderFilter) -> Vec<u8> {
    let time = |time: Option<Timestamp>| time.map(Timestamp::as_micros);
    format!(
        "{:?} {:?} {:?} {:?}",
        filter.status,
        time(filter.created_after),
        time(filter.created_before),
        filter.customer_id,
    )
    .into_bytes()
}

/// The link to the next page: the same query with the cursor.
fn next_link(query: &ListQuery, cursor: &str) -> HeaderValue {
    let mut link = String::from("</orders?");
    let mut put = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            link.push_str(name);
            link.push('=');
            query::percent_encode(value, &mut link);
            link.push('&');
        }
    };
    put("status", query.status.as_deref());
    put("customer_id", query.customer_id.as_deref());
    put("created_after", query.created_after.as_deref());
    put("created_before", query.created_before.as_deref());
    put(
        "limit",
        query.limit.map(|limit| limit.to_string()).as_deref(),
    );
    write!(link, "cursor={cursor}>; rel=\"next\"").expect("a string takes any text");
    answer::printable(link)
}

/// Where a page ended: an order's id under a seal over it and the query.
struct Cursor;

impl Cursor {
    fn text(last: OrderId, seal: Seal, bound_to: &[u8]) -> String {
        let mut bytes = last.as_bytes().to_vec();
        bytes.extend(Self::seal(last, seal, bound_to));
        hex(&bytes)
    }

    fn parse(text: &str, seal: Seal, bound_to: &[u8]) -> Option<OrderId> {
        let bytes = unhex(text)?;
        let (id, found) = bytes.split_first_chunk::<16>()?;
        let id = OrderId::from_bytes(*id);
        (Self::seal(id, seal, bound_to) == *found).then_some(id)
    }

    fn seal(last: OrderId, seal: Seal, bound_to: &[u8]) -> [u8; 4] {
        seal.over(&[last.as_bytes(), bound_to].concat())
    }
}

impl Shared {
    /// Age of the oldest event of any partition that is not in the rows, in milliseconds. Reads the log.
    fn read_model_lag_ms(&self) -> u64 {
        let behind = self.log.iter().map(|reader| {
            let position = self
                .read_model
                .checkpoints()
                .load(Projection::Orders, reader.partition());
            self.lag.look_ms(reader.as_ref(), position)
        });
        behind.max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::ProblemKind;

    fn query(text: &str) -> Result<OrderFilter, Problem> {
        let uri: Uri = format!("/orders?{text}").parse().unwrap();
        filter(&query::parse(&uri)?)
    }

    #[test]
    fn a_filter_is_what_the_query_says() {
        let filter = query(
            "status=paid&customer_id=c%2B1&created_after=2026-11-22T19:00:00Z&created_before=2026-11-22T20%3A00%3A00%2B01%3A00",
        )
        .unwrap();
        assert_eq!(filter.status, Some(Status::Paid));
        assert_eq!(filter.customer_id.unwrap().as_str(), "c+1");
        assert_eq!(
            filter.created_after,
            Some(Timestamp::from_micros(1_795_374_000_000_000))
        );
        assert_eq!(filter.created_before, filter.created_after);
        let ever = query("created_after=1900-01-01T00:00:00Z").unwrap();
        assert_eq!(ever.created_after, Some(Timestamp::from_micros(0)));
    }

    #[test]
    fn a_query_that_cannot_be_is_refused() {
        for text in [
            "status=lost",
            "customer_id=",
            "created_after=yesterday",
            "limit=a",
            "colour=red",
            "status=paid&status=paid",
            "created_after=2026-13-01T00:00:00Z",
        ] {
            let problem = query(text).expect_err(text);
            assert_eq!(problem.kind(), ProblemKind::InvalidQuery, "{text}");
        }
    }

    #[test]
    fn the_next_link_is_the_query_with_the_cursor() {
        let query = ListQuery {
            customer_id: Some("a b&c".to_owned()),
            limit: Some(2),
            ..ListQuery::default()
        };
        let link = next_link(&query, "00ff");
        assert_eq!(
            link,
            "</orders?customer_id=a%20b%26c&limit=2&cursor=00ff>; rel=\"next\""
        );
    }

    proptest! {
        #[test]
        fn a_cursor_leads_on_in_its_own_query_alone(id: [u8; 16], bound_to in ".{0,30}", other in ".{0,30}") {
            let seal = Seal::of_log("a log");
            let id = OrderId::from_bytes(id);
            let text = Cursor::text(id, seal, bound_to.as_bytes());
            prop_assert_eq!(Cursor::parse(&text, seal, bound_to.as_bytes()), Some(id));
            if other != bound_to {
                prop_assert_eq!(Cursor::parse(&text, seal, other.as_bytes()), None);
            }
        }

        #[test]
        fn any_text_is_a_cursor_or_none(text in ".{0,60}") {
            prop_assert_eq!(Cursor::parse(&text, Seal::of_log("a log"), b""), None);
        }
    }
}
