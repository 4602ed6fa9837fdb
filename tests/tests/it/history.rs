//! What a data directory holds once its service has stopped: the events as `log dump` prints them, the rows as `sql`
//! prints them, the integration events as the file sink wrote them. And an order folded from its events by rules written
//! here once more, so that the service's own fold is not its own judge.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use serde_json::{Value, json};

use crate::service::stdout_of;

/// One event, as dumped.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) partition: u64,
    pub(crate) offset: u64,
    pub(crate) order_id: String,
    pub(crate) version: u64,
    pub(crate) kind: String,
    pub(crate) time: String,
    pub(crate) data: Value,
}

/// All events of a stopped service, by order.
#[derive(Debug)]
pub(crate) struct History {
    pub(crate) orders: HashMap<String, Vec<Event>>,
    pub(crate) events: usize,
}

impl History {
    /// Reads the log with `log dump`, and holds its laws: offsets without gaps in every partition, an order in one
    /// partition alone, its versions 1, 2, 3, … in the order of its offsets.
    pub(crate) fn of(data: &Path) -> Self {
        let dump = stdout_of([
            "log".as_ref(),
            "dump".as_ref(),
            "--data-dir".as_ref(),
            data.as_os_str(),
        ]);
        let mut next_offset: BTreeMap<u64, u64> = BTreeMap::new();
        let mut history = Self {
            orders: HashMap::new(),
            events: 0,
        };
        for line in dump.lines() {
            let event = event(line);
            let expected = next_offset.entry(event.partition).or_default();
            assert_eq!(
                event.offset, *expected,
                "a gap or a repetition in the log: {event:?}"
            );
            *expected += 1;
            let order = history.orders.entry(event.order_id.clone()).or_default();
            assert_eq!(
                event.version,
                order.len() as u64 + 1,
                "versions have a gap: {event:?}"
            );
            assert!(
                order
                    .iter()
                    .all(|earlier| earlier.partition == event.partition),
                "an order in two partitions: {event:?}"
            );
            order.push(event);
            history.events += 1;
        }
        history
    }

    /// The order as it was at a version, in the shape of the REST interface.
    pub(crate) fn order_at(&self, id: &str, version: u64) -> Value {
        let events = self
            .orders
            .get(id)
            .unwrap_or_else(|| panic!("order {id} is not in the log"));
        let version = usize::try_from(version).expect("versions are small");
        assert!(
            events.len() >= version,
            "order {id} has {} events, not {version}",
            events.len()
        );
        fold(&events[..version])
    }

    /// Every key with the orders that were placed with it.
    pub(crate) fn orders_by_key(&self) -> HashMap<String, Vec<String>> {
        let mut found: HashMap<String, Vec<String>> = HashMap::new();
        for (id, events) in &self.orders {
            if let Some(key) = events[0].data["context"]["idempotency"]["key"].as_str() {
                found.entry(key.to_owned()).or_default().push(id.clone());
            }
        }
        found
    }

    /// The rows must show every order as its events left it, and no other order.
    pub(crate) fn assert_rows_equal_it(&self, data: &Path) {
        let rows = rows(data);
        assert_eq!(
            rows.len(),
            self.orders.len(),
            "orders in OrderView and in the log"
        );
        for (id, events) in &self.orders {
            let row = rows
                .get(id)
                .unwrap_or_else(|| panic!("order {id} has no row"));
            assert_eq!(*row, without_times(fold(events)), "the row of order {id}");
        }
    }

    /// Every event must have been told at least once, and each order's events in their order.
    pub(crate) fn assert_all_was_told(&self, data: &Path) {
        let text = std::fs::read_to_string(data.join("outbox.jsonl")).expect("there is an outbox");
        let mut told: HashSet<(String, u64)> = HashSet::new();
        for line in text.lines() {
            let event: Value = serde_json::from_str(line).expect("the outbox holds JSON lines");
            let id = event["id"].as_str().expect("an event has an id");
            let (order, version) = id.rsplit_once('-').expect("<order id>-<version>");
            let version: u64 = version.parse().expect("<order id>-<version>");
            assert!(
                version == 1 || told.contains(&(order.to_owned(), version - 1)),
                "{id} was told before the event ahead of it"
            );
            told.insert((order.to_owned(), version));
        }
        assert_eq!(
            told.len(),
            self.events,
            "distinct events told and events in the log"
        );
    }
}

fn event(line: &str) -> Event {
    let event: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    let number = |name: &str| {
        event[name]
            .as_u64()
            .unwrap_or_else(|| panic!("no {name}: {line}"))
    };
    let text = |name: &str| {
        event[name]
            .as_str()
            .unwrap_or_else(|| panic!("no {name}: {line}"))
            .to_owned()
    };
    Event {
        partition: number("partition"),
        offset: number("offset"),
        order_id: text("order_id"),
        version: number("version"),
        kind: text("type"),
        time: text("time"),
        data: event["data"].clone(),
    }
}

/// An order as its events left it, in the shape of the REST interface.
fn fold(events: &[Event]) -> Value {
    let placed = &events[0];
    assert_eq!(placed.kind, "OrderPlaced", "{placed:?}");
    let mut lines = placed.data["lines"].as_array().cloned().unwrap_or_default();
    let (mut status, mut paid, mut refunded) = ("placed", 0, 0);
    for event in &events[1..] {
        let amount = event.data["amount"].as_i64().unwrap_or(0);
        match event.kind.as_str() {
            "LineAdded" => lines.push(event.data["line"].clone()),
            "LineRemoved" => {
                lines.retain(|line| line["line_id"] != event.data["line"]["line_id"]);
            }
            "OrderConfirmed" => status = "confirmed",
            "OrderPaid" => (status, paid) = ("paid", amount),
            "OrderShipped" => status = "shipped",
            "OrderDelivered" => status = "delivered",
            "OrderCancelled" => status = "cancelled",
            "OrderRefunded" => {
                refunded += amount;
                if refunded == paid {
                    status = "refunded";
                }
            }
            other => panic!("an event of kind {other}: {event:?}"),
        }
    }
    let total: i64 = lines
        .iter()
        .map(|line| {
            line["quantity"].as_i64().unwrap_or(0) * line["unit_price"].as_i64().unwrap_or(0)
        })
        .sum();
    let mut order = json!({
        "id": placed.order_id,
        "status": status,
        "version": events.len(),
        "customer_id": placed.data["customer_id"],
        "currency": placed.data["currency"],
        "total": total,
        "lines": lines,
        "metadata": placed.data.get("metadata").cloned().unwrap_or(json!({})),
        "placed_at": placed.time,
        "updated_at": events[events.len() - 1].time,
    });
    // The interface leaves these out while they are nothing.
    if paid != 0 {
        order["paid"] = json!(paid);
    }
    if refunded != 0 {
        order["refunded"] = json!(refunded);
    }
    order
}

fn without_times(mut order: Value) -> Value {
    if let Some(order) = order.as_object_mut() {
        order.remove("placed_at");
        order.remove("updated_at");
    }
    order
}

/// The rows of `OrderView` over all files, by order, in the shape of the REST interface without times.
fn rows(data: &Path) -> HashMap<String, Value> {
    let statement = "select * from OrderView";
    let arguments = [
        "sql".as_ref(),
        "--format".as_ref(),
        "json".as_ref(),
        "--data-dir".as_ref(),
    ];
    let printed = stdout_of([&arguments[..], &[data.as_os_str(), statement.as_ref()]].concat());
    let parsed = |text: &Value| -> Value {
        serde_json::from_str(text.as_str().unwrap_or_default()).expect("the column holds JSON")
    };
    printed
        .lines()
        .map(|line| {
            let row: Value = serde_json::from_str(line).expect("a row is a JSON object");
            let mut order = json!({
                "id": row["order_id"],
                "status": row["status"],
                "version": row["version"],
                "customer_id": row["customer_id"],
                "currency": row["currency"],
                "total": row["total"],
                "lines": parsed(&row["lines"]),
                "metadata": parsed(&row["metadata"]),
            });
            for amount in ["paid", "refunded"] {
                if row[amount] != 0 {
                    order[amount] = row[amount].clone();
                }
            }
            (
                row["order_id"].as_str().unwrap_or_default().to_owned(),
                order,
            )
        })
        .collect()
}
