//! What operators look at: the queries of the dashboard and of the alert rules, asked of a real Prometheus that scrapes
//! the real service.
//!
//! A query that misspells a metric or a label is no error to Prometheus, it is an empty answer: so every panel has to show
//! something of a service that was used.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;

use serde_json::{Value, json};

use crate::client::{Client, an_order};
use crate::service::{PATIENCE, Service};
use crate::waits::eventually;
use crate::workspace;

const DASHBOARD: &str = "deploy/grafana/order-service.json";
const RULES: &str = "deploy/prometheus/order-service.rules.yml";
/// Where the suite's setup unpacks Debian's package, if the program is not installed.
const UNPACKED: &str = "target/tools/usr/bin/prometheus";
/// What the dashboard's variables stand for in a query.
const VARIABLES: [(&str, &str); 3] = [
    ("$__rate_interval", "10s"),
    ("$partition", ".*"),
    ("$job", "order-service"),
];

/// A Prometheus that scrapes one service every second.
struct Prometheus {
    child: Child,
    address: SocketAddr,
    http: reqwest::Client,
}

impl Prometheus {
    /// `None` where the program is not installed: `./test` says so.
    fn start(directory: &Path, target: SocketAddr) -> Option<Self> {
        let program = program()?;
        let configuration = directory.join("prometheus.yml");
        let rules = workspace::root().join(RULES);
        let text = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{rules:?}]\nscrape_configs:\n  \
             - job_name: order-service\n    static_configs: [{{targets: [\"{target}\"]}}]\n"
        );
        std::fs::write(&configuration, text).expect("the temporary directory is writable");
        let mut child = Command::new(program)
            .arg(format!("--config.file={}", configuration.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                directory.join("tsdb").display()
            ))
            .arg("--web.listen-address=127.0.0.1:0")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("prometheus starts");
        let stderr = child.stderr.take().expect("standard error is piped");
        let (found, address) = channel();
        std::thread::spawn(move || {
            // Read to the end: a full pipe would stop the server.
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Some(address) = listening_address(&line) {
                    // Told once; a second listener would have nobody waiting.
                    found.send(address).ok();
                }
            }
        });
        let address = address.recv_timeout(PATIENCE);
        Some(Self {
            child,
            address: address.expect("prometheus says where it listens"),
            http: reqwest::Client::new(),
        })
    }

    async fn api(&self, path: &str) -> Result<Value, String> {
        let url = format!("http://{}/api/v1/{path}", self.address);
        let answer = self.http.get(url).send().await;
        let answer = answer.map_err(|error| error.to_string())?;
        let answer: Value = answer.json().await.map_err(|error| error.to_string())?;
        if answer["status"] == "success" {
            Ok(answer["data"].clone())
        } else {
            Err(answer.to_string())
        }
    }

    /// The series a query finds now, those without a number left out.
    async fn query(&self, expression: &str) -> Result<Vec<Value>, String> {
        let data = self
            .api(&format!("query?query={}", percent_encoded(expression)))
            .await?;
        let series = data["result"].as_array().cloned().unwrap_or_default();
        Ok(series
            .into_iter()
            .filter(|series| series["value"][1] != "NaN")
            .collect())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        if self.child.kill().is_ok() {
            let status = self.child.wait();
            assert!(
                status.is_ok() || std::thread::panicking(),
                "prometheus does not end"
            );
        }
    }
}

fn program() -> Option<PathBuf> {
    let unpacked = workspace::root().join(UNPACKED);
    [PathBuf::from("prometheus"), unpacked]
        .into_iter()
        .find(|program| {
            Command::new(program)
                .arg("--version")
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
        })
}

fn listening_address(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("\"Listening on\" address=")?;
    rest.split_whitespace().next()?.parse().ok()
}

fn percent_encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// The dashboard's queries with the titles of their panels, variables replaced.
fn queries_of(dashboard: &Value) -> Vec<(String, String)> {
    let panels = dashboard["panels"].as_array().expect("it has panels");
    panels
        .iter()
        .flat_map(|panel| {
            let title = panel["title"].as_str().unwrap_or_default();
            let targets = panel["targets"].as_array().cloned().unwrap_or_default();
            targets.into_iter().map(move |target| {
                let expression = target["expr"].as_str().expect("a target has a query");
                let expression = VARIABLES
                    .iter()
                    .fold(expression.to_owned(), |text, (name, value)| {
                        text.replace(name, value)
                    });
                (title.to_owned(), expression)
            })
        })
        .collect()
}

fn dashboard() -> Value {
    let text = std::fs::read_to_string(workspace::root().join(DASHBOARD))
        .expect("the dashboard is in the repository");
    serde_json::from_str(&text).expect("the dashboard is JSON")
}

/// Something of everything a panel shows: orders, reads, a refusal.
async fn use_service(client: &Client) {
    let placed = client.place(&an_order()).await;
    client.order_after(&placed).await;
    client.step(&placed.id(), "confirm", &json!({})).await;
    client
        .get("/orders/0199c82c-0000-7000-8000-000000000000")
        .send()
        .await
        .expect(404);
}

#[tokio::test]
async fn every_panel_shows_something_of_a_service_in_use_and_every_rule_evaluates() {
    let (data, directory) = (
        tempfile::tempdir().expect("a temporary directory"),
        tempfile::tempdir().expect("a temporary directory"),
    );
    let service = Service::start(data.path(), &[]);
    let client = Client::of(&service);
    let Some(prometheus) = Prometheus::start(directory.path(), service.address()) else {
        eprintln!(
            "LEFT OUT: `prometheus` is not installed, so the dashboard's queries were not asked"
        );
        return;
    };

    let mut unanswered = queries_of(&dashboard());
    assert!(unanswered.len() > 30, "{unanswered:?}");
    eventually("every panel shows something", async || {
        use_service(&client).await;
        let mut empty = Vec::new();
        for (title, expression) in std::mem::take(&mut unanswered) {
            match prometheus.query(&expression).await {
                Ok(series) if !series.is_empty() => {}
                Ok(_) => empty.push((title, expression)),
                // A query that cannot be: everything else is a server that is not ready yet.
                Err(error) if error.contains("\"status\":\"error\"") => {
                    panic!("{title}: {expression}: {error}")
                }
                Err(_) => empty.push((title, expression)),
            }
        }
        unanswered = empty;
        if unanswered.is_empty() {
            Ok(())
        } else {
            Err(format!("empty: {unanswered:#?}"))
        }
    })
    .await;

    eventually("every rule was evaluated", async || {
        let rules = prometheus.api("rules").await?;
        let rules: Vec<Value> = rules["groups"]
            .as_array()
            .into_iter()
            .flatten()
            .flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default())
            .collect();
        let well = rules.iter().filter(|rule| rule["health"] == "ok").count();
        if well == rules.len() && well > 10 {
            Ok(())
        } else {
            Err(format!("{well} of {}: {rules:#?}", rules.len()))
        }
    })
    .await;
}

#[test]
fn the_dashboard_imports_as_it_is() {
    let dashboard = dashboard();

    assert_eq!(dashboard["title"], "Order Service");
    // Every panel asks the data source chosen at the top, so that no name of somebody's server is in it.
    let panels = dashboard["panels"].as_array().expect("it has panels");
    let mut ids: Vec<_> = panels.iter().map(|panel| panel["id"].as_u64()).collect();
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{panel}");
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), panels.len(), "panels share an id");
    let variables: Vec<_> = dashboard["templating"]["list"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|variable| variable["name"].as_str().unwrap_or_default())
        .collect();
    assert_eq!(variables, ["datasource", "job", "partition"]);
}
