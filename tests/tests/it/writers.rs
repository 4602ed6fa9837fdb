//! Clients that write without pause and remember every answer, in this process's memory: the ledger that a data
//! directory is held against.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::client::{Answer, Client};
use crate::history::History;
use crate::service::Service;

/// Numbers that differ from run to run, printed so that a failure can be told about.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn seeded() -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let seed = now.map_or(1, |it| u64::from(it.subsec_nanos()) + it.as_secs()) | 1;
        eprintln!("dice begin at {seed}");
        Self(seed)
    }

    /// One of the places of a list.
    fn place_of<T>(&mut self, list: &[T]) -> usize {
        usize::try_from(self.below(list.len() as u64)).expect("below the list's length")
    }

    /// A number below `bound` (xorshift64*).
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) % bound
    }
}

/// Most lines of a bulk request of theirs.
const BULK_LINES_MAX: u64 = 100;

/// What the clients know.
#[derive(Default)]
pub(crate) struct Ledger {
    /// Every acknowledged answer: order, version, the order as shown.
    pub(crate) acknowledged: HashMap<String, BTreeMap<u64, Value>>,
    pub(crate) count: u64,
    /// Keyed requests that got no answer.
    pub(crate) unanswered: Vec<(String, Value)>,
    /// Orders that were acknowledged in bulk, as they were asked for.
    in_bulk: HashMap<String, Value>,
    /// Bulk requests whose answer did not come to its end.
    pub(crate) cut_short: Vec<Bulk>,
    /// The order each answered key made.
    pub(crate) by_key: HashMap<String, String>,
    /// Orders with a command that got no answer: it may have happened.
    in_doubt: HashMap<String, u64>,
}

impl Ledger {
    pub(crate) fn acknowledge(&mut self, answer: &Answer) -> Value {
        let order = answer.json();
        let versions = self.acknowledged.entry(answer.id()).or_default();
        let before = versions.insert(answer.version(), order.clone());
        assert!(
            before.is_none_or(|before| before == order),
            "two answers for one version: {order}"
        );
        self.count += 1;
        order
    }

    /// Takes down the answers that came to a bulk request.
    pub(crate) fn acknowledge_bulk(&mut self, bulk: &Bulk, answers: &[Value]) {
        for (index, answer) in answers.iter().enumerate() {
            assert_eq!(
                answer["line"],
                index + 1,
                "answers are in the order of lines"
            );
            if answer["status"] == 503 {
                continue;
            }
            assert_eq!(answer["status"], 201, "{answer}");
            let id = answer["id"]
                .as_str()
                .expect("an order has an id")
                .to_owned();
            // As the log keeps the key of a line.
            let key = format!("{}\u{1e}{}", bulk.key, index + 1);
            let before = self.by_key.insert(key, id.clone());
            assert!(
                before.as_ref().is_none_or(|before| *before == id),
                "two orders for one line: {before:?}, {answer}"
            );
            if self
                .in_bulk
                .insert(id, bulk.orders[index].clone())
                .is_none()
            {
                self.count += 1;
            }
        }
    }

    /// What was acknowledged is in the log as it was shown, and nothing else is but commands in doubt, whole.
    pub(crate) fn assert_is_in(&self, history: &History) {
        for (id, versions) in &self.acknowledged {
            for (version, shown) in versions {
                assert_eq!(history.order_at(id, *version), *shown);
            }
            // Nobody but the clients wrote: what goes beyond the last answer is the one command in doubt, whole.
            let last = versions.last_key_value().map_or(0, |(version, _)| *version);
            let beyond = history.orders[id].len() as u64 - last;
            let allowed = self.in_doubt.get(id).copied().unwrap_or(0);
            assert!(
                beyond == 0 || beyond == allowed,
                "order {id}: {beyond} events nobody sent"
            );
        }
        for (id, asked) in &self.in_bulk {
            assert_eq!(history.orders[id].len(), 1, "nobody changed order {id}");
            let order = history.order_at(id, 1);
            let (line, wanted) = (&order["lines"][0], &asked["lines"][0]);
            for member in ["sku", "quantity", "unit_price"] {
                assert_eq!(line[member], wanted[member], "order {id}");
            }
            assert_eq!(order["customer_id"], asked["customer_id"], "order {id}");
        }
        let in_log = history.orders_by_key();
        for (key, orders) in &in_log {
            assert_eq!(orders.len(), 1, "key {key} made {orders:?}");
        }
        for (key, answered) in &self.by_key {
            let made = in_log.get(key).and_then(|orders| orders.first());
            assert_eq!(made, Some(answered), "key {key}");
        }
    }
}

/// Orders sent in one request.
pub(crate) struct Bulk {
    key: String,
    orders: Vec<Value>,
}

impl Bulk {
    /// Sends it: what was answered, and whether all of it was.
    pub(crate) async fn send(&self, client: &Client) -> (Vec<Value>, bool) {
        let lines: String = self
            .orders
            .iter()
            .map(|order| format!("{order}\n"))
            .collect();
        let request = client
            .post("/orders/bulk")
            .header("idempotency-key", &self.key);
        let (answers, whole) = request
            .bytes("application/x-ndjson", lines)
            .try_send_for_lines()
            .await;
        assert!(
            !whole || answers.len() == self.orders.len(),
            "{} answers to {} lines",
            answers.len(),
            self.orders.len()
        );
        (answers, whole)
    }
}

/// Starts so many clients that place orders in bulk until `service` is gone.
pub(crate) fn write_in_bulk_until_gone(
    count: u64,
    life: u32,
    service: &Service,
    ledger: &Arc<Mutex<Ledger>>,
    dice: &mut Dice,
) -> Vec<JoinHandle<()>> {
    (0..count)
        .map(|number| {
            let writer = Writer {
                client: Client::of(service),
                ledger: Arc::clone(ledger),
                dice: Dice(dice.below(u64::MAX) | 1),
                name: format!("{life}-bulk-{number}"),
            };
            tokio::spawn(writer.write_in_bulk_until_no_answer())
        })
        .collect()
}

/// Starts so many clients that write until `service` is gone. `life` tells the clients of one life of the service from
/// those of another.
pub(crate) fn write_until_gone(
    count: u64,
    life: u32,
    service: &Service,
    ledger: &Arc<Mutex<Ledger>>,
    dice: &mut Dice,
) -> Vec<JoinHandle<()>> {
    (0..count)
        .map(|number| {
            let writer = Writer {
                client: Client::of(service),
                ledger: Arc::clone(ledger),
                dice: Dice(dice.below(u64::MAX) | 1),
                name: format!("{life}-{number}"),
            };
            tokio::spawn(writer.write_until_no_answer())
        })
        .collect()
}

/// One client.
struct Writer {
    client: Client,
    ledger: Arc<Mutex<Ledger>>,
    dice: Dice,
    /// Told in customers and keys.
    name: String,
}

impl Writer {
    /// Places orders and moves them through their lives until the service is gone.
    async fn write_until_no_answer(mut self) {
        let mut orders: Vec<Value> = Vec::new();
        let mut placed = 0;
        loop {
            let mine = (!orders.is_empty() && self.dice.below(100) < 60)
                .then(|| orders.swap_remove(self.dice.place_of(&orders)));
            let outcome = match &mine {
                Some(order) => self.step(order).await,
                None => {
                    placed += 1;
                    self.place(placed).await
                }
            };
            match outcome {
                Outcome::Acknowledged(order) => orders.push(order),
                Outcome::Refused => orders.extend(mine),
                Outcome::Finished => {}
                Outcome::NoAnswer => return,
            }
        }
    }

    /// Places orders, many a request, until the service is gone.
    async fn write_in_bulk_until_no_answer(mut self) {
        for number in 0.. {
            let orders = (0..=self.dice.below(BULK_LINES_MAX)).map(|line| {
                let quantity = 1 + self.dice.below(9);
                json!({
                    "customer_id": format!("c-{}", self.name),
                    "currency": "EUR",
                    "lines": [{"sku": format!("SKU-{line}"), "quantity": quantity, "unit_price": 100}],
                })
            });
            let bulk = Bulk {
                orders: orders.collect(),
                key: format!("key-{}-{number}", self.name),
            };
            let (answers, whole) = bulk.send(&self.client).await;
            let mut ledger = self.ledger.lock().expect("nobody panics with it");
            ledger.acknowledge_bulk(&bulk, &answers);
            if !whole {
                ledger.cut_short.push(bulk);
                return;
            }
        }
    }

    async fn place(&mut self, number: u64) -> Outcome {
        let lines: Vec<Value> = (0..=self.dice.below(3))
            .map(|line| {
                let quantity = 1 + self.dice.below(9);
                json!({"sku": format!("SKU-{line}"), "quantity": quantity, "unit_price": 1 + self.dice.below(10_000)})
            })
            .collect();
        let body =
            json!({"customer_id": format!("c-{}", self.name), "currency": "EUR", "lines": lines});
        let key = (self.dice.below(2) == 0).then(|| format!("key-{}-{number}", self.name));
        let mut request = self.client.post("/orders").json(&body);
        if let Some(key) = &key {
            request = request.header("idempotency-key", key);
        }
        let answer = request.try_send().await;
        let mut ledger = self.ledger.lock().expect("nobody panics with it");
        match answer {
            Some(answer) if answer.status == 201 => {
                if let Some(key) = key {
                    ledger.by_key.insert(key, answer.id());
                }
                Outcome::Acknowledged(ledger.acknowledge(&answer))
            }
            Some(answer) if answer.status == 503 => Outcome::Refused,
            Some(answer) => panic!("unexpected: {answer:?}"),
            None => {
                ledger.unanswered.extend(key.map(|key| (key, body)));
                Outcome::NoAnswer
            }
        }
    }

    /// Takes one of the steps that the order's status allows.
    async fn step(&mut self, order: &Value) -> Outcome {
        let (id, total) = (order["id"].as_str().unwrap_or_default(), &order["total"]);
        let choice = self.dice.below(4);
        let (step, body, events) = match (order["status"].as_str().unwrap_or_default(), choice) {
            ("placed", 0) => (
                "lines",
                json!({"sku": "SKU-9", "quantity": 1, "unit_price": 5}),
                1,
            ),
            ("placed", 1) | ("confirmed", 0) => ("cancel", json!({}), 1),
            ("placed", _) => ("confirm", json!({}), 1),
            ("confirmed", _) => ("pay", json!({"amount": total}), 1),
            // Two events in one command: both or none.
            ("paid", 0) => ("cancel", json!({"reason": "too slow"}), 2),
            ("paid", _) => ("ship", json!({"carrier": "dhl"}), 1),
            ("shipped", _) => ("deliver", json!({}), 1),
            ("delivered", _) => ("refund", json!({}), 1),
            _ => return Outcome::Finished,
        };
        let request = self
            .client
            .post(&format!("/orders/{id}/{step}"))
            .header("if-match", &format!("\"{}\"", order["version"]))
            .json(&body);
        let answer = request.try_send().await;
        let mut ledger = self.ledger.lock().expect("nobody panics with it");
        match answer {
            Some(answer) if answer.status == 200 => {
                Outcome::Acknowledged(ledger.acknowledge(&answer))
            }
            Some(answer) if answer.status == 503 => Outcome::Refused,
            Some(answer) => panic!("unexpected: {answer:?}"),
            None => {
                ledger.in_doubt.insert(id.to_owned(), events);
                Outcome::NoAnswer
            }
        }
    }
}

/// What became of a command.
enum Outcome {
    Acknowledged(Value),
    /// 503: nothing changed, ask again.
    Refused,
    /// The order's life is over.
    Finished,
    /// The service is gone.
    NoAnswer,
}
