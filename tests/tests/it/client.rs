//! A client of the REST interface: what it sends is what a user's program sends, what it gets is kept whole.

use std::net::SocketAddr;

use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::service::Service;

/// One answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// A header that must be there.
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self
            .headers
            .get(name)
            .unwrap_or_else(|| panic!("no {name}: {self:?}"));
        value.to_str().expect("the header is ASCII")
    }

    /// The order's id.
    pub(crate) fn id(&self) -> String {
        self.json()["id"]
            .as_str()
            .unwrap_or_else(|| panic!("no id: {self:?}"))
            .to_owned()
    }

    /// The order's version.
    pub(crate) fn version(&self) -> u64 {
        self.json()["version"]
            .as_u64()
            .unwrap_or_else(|| panic!("no version: {self:?}"))
    }

    /// The code of a problem, after its shape was held against RFC 9457.
    pub(crate) fn problem(&self) -> String {
        assert_eq!(
            self.header("content-type"),
            "application/problem+json",
            "{self:?}"
        );
        let problem = self.json();
        assert_eq!(problem["status"], self.status.as_u16(), "{self:?}");
        for member in ["type", "title", "detail", "instance", "code"] {
            assert!(problem[member].is_string(), "no {member}: {self:?}");
        }
        problem["code"].as_str().unwrap_or_default().to_owned()
    }

    /// This answer, if it has the status.
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        self
    }
}

/// A client of one service.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
}

/// A request under construction.
pub(crate) struct Request {
    http: reqwest::RequestBuilder,
}

impl Request {
    pub(crate) fn header(self, name: &str, value: &str) -> Self {
        Self {
            http: self.http.header(name, value),
        }
    }

    pub(crate) fn json(self, body: &Value) -> Self {
        Self {
            http: self.http.json(body),
        }
    }

    pub(crate) fn bytes(self, kind: &str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            http: self.http.header("content-type", kind).body(body.into()),
        }
    }

    /// Sends it; `None` if no whole answer came back, because the service was killed.
    pub(crate) async fn try_send(self) -> Option<Answer> {
        let response = self.http.send().await.ok()?;
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.ok()?;
        Some(Answer {
            status,
            headers,
            text,
        })
    }

    /// Sends it; the whole lines that came back, each a JSON object, and whether the answer came to its end. It does not,
    /// if the service was killed.
    pub(crate) async fn try_send_for_lines(self) -> (Vec<Value>, bool) {
        let Ok(mut response) = self.http.send().await else {
            return (Vec::new(), false);
        };
        assert_eq!(response.status(), 200, "{response:?}");
        let mut bytes = Vec::new();
        let whole = loop {
            match response.chunk().await {
                Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
                Ok(None) => break true,
                Err(_) => break false,
            }
        };
        let lines = bytes
            .split_inclusive(|byte| *byte == b'\n')
            .filter(|line| line.ends_with(b"\n"))
            .map(|line| serde_json::from_slice(line).expect("a line is a JSON object"));
        (lines.collect(), whole)
    }

    /// Sends it to a service that lives.
    pub(crate) async fn send(self) -> Answer {
        self.try_send().await.expect("the service answers")
    }
}

impl Client {
    pub(crate) fn of(service: &Service) -> Self {
        Self::at(service.address())
    }

    /// A client of whatever listens there.
    pub(crate) fn at(address: SocketAddr) -> Self {
        let http = reqwest::Client::builder()
            .build()
            .expect("a client needs nothing");
        Self {
            http,
            base: format!("http://{address}"),
        }
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> Request {
        Request {
            http: self.http.request(method, format!("{}{path}", self.base)),
        }
    }

    pub(crate) fn get(&self, path: &str) -> Request {
        self.request(Method::GET, path)
    }

    pub(crate) fn post(&self, path: &str) -> Request {
        self.request(Method::POST, path)
    }

    /// Places an order that must be accepted.
    pub(crate) async fn place(&self, body: &Value) -> Answer {
        self.post("/orders").json(body).send().await.expect(201)
    }

    /// Places an order in whichever partition still takes it.
    pub(crate) async fn place_until_accepted(&self) -> Answer {
        const ATTEMPTS: usize = 100;
        for _ in 0..ATTEMPTS {
            let answer = self.post("/orders").json(&an_order()).send().await;
            if answer.status == 201 {
                return answer;
            }
        }
        panic!("no partition takes orders");
    }

    /// Takes a step that must be accepted.
    pub(crate) async fn step(&self, id: &str, step: &str, body: &Value) -> Answer {
        self.post(&format!("/orders/{id}/{step}"))
            .json(body)
            .send()
            .await
            .expect(200)
    }

    /// The order as the read model has it once it has caught up with `written`.
    pub(crate) async fn order_after(&self, written: &Answer) -> Answer {
        self.get(&format!("/orders/{}", written.id()))
            .header("sync-token", written.header("sync-token"))
            .header("prefer", "wait=30")
            .send()
            .await
            .expect(200)
    }

    /// The text of `/metrics`.
    pub(crate) async fn metrics(&self) -> String {
        self.get("/metrics").send().await.expect(200).text
    }
}

/// The order of the README: two pieces at 19.99.
pub(crate) fn an_order() -> Value {
    json!({
        "customer_id": "c-1042",
        "currency": "EUR",
        "lines": [{"sku": "SKU-1", "quantity": 2, "unit_price": 1999}],
        "metadata": {"channel": "web"},
    })
}
