//! What the service acknowledged, written down outside of it; and the proof, later, that it kept its word.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use hyper::{Method, StatusCode};
use serde::{Deserialize, Serialize};

use super::Target;
use super::connection::{Ask, Connection};

/// One acknowledged command: a line of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerEntry {
    /// The order.
    pub order_id: String,
    /// Its version after the command.
    pub version: u32,
    /// What was asked.
    pub operation: String,
    /// When the answer was there, in microseconds since the Unix epoch.
    pub acknowledged_at_us: u64,
}

/// A ledger that is being written.
#[derive(Debug)]
pub struct Ledger(BufWriter<File>);

impl Ledger {
    /// Starts a new ledger in place of what is there.
    ///
    /// # Errors
    /// If the file cannot be made.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self(BufWriter::new(file)))
    }

    /// Writes an entry. It is with the operating system once [`Ledger::finish`] returned, or earlier.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&mut self, entry: &LedgerEntry) -> anyhow::Result<()> {
        serde_json::to_writer(&mut self.0, entry).context("write the ledger")?;
        self.0.write_all(b"\n").context("write the ledger")
    }

    /// Hands everything to the operating system.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn finish(mut self) -> anyhow::Result<()> {
        self.0.flush().context("write the ledger")
    }

    /// The highest acknowledged version of each order in a ledger.
    ///
    /// # Errors
    /// If the file cannot be read or a line is not an entry.
    pub fn read(path: &Path) -> anyhow::Result<BTreeMap<String, u32>> {
        let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        let mut versions = BTreeMap::new();
        for (number, line) in (1..).zip(BufReader::new(file).lines()) {
            let entry: LedgerEntry = serde_json::from_str(&line?)
                .with_context(|| format!("{}, line {number}", path.display()))?;
            let version = versions.entry(entry.order_id).or_insert(0);
            *version = entry.version.max(*version);
        }
        Ok(versions)
    }
}

/// What asking the service about every order of a ledger gave.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LedgerProof {
    /// Orders in the ledger.
    pub orders: u64,
    /// Orders the service has in the acknowledged version or a later one.
    pub kept: u64,
    /// Orders it does not have.
    pub missing: Vec<String>,
    /// Orders it has in an earlier version than it acknowledged.
    pub behind: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Versioned {
    version: u32,
}

/// Asks `target` for every order of the ledger. A read model that is still catching up is asked again until `patience` is
/// used up.
///
/// # Errors
/// If the service does not answer, or answers what is neither an order nor a refusal.
pub async fn prove_ledger(
    target: &Target,
    versions: &BTreeMap<String, u32>,
    patience: Duration,
) -> anyhow::Result<LedgerProof> {
    let deadline = Instant::now() + patience;
    let mut connection = Connection::new(target.clone(), Duration::from_secs(10));
    let mut proof = LedgerProof::default();
    for (id, &version) in versions {
        proof.orders += 1;
        loop {
            let answer = connection
                .send(Ask {
                    method: Method::GET,
                    path: format!("/orders/{id}?min_version={version}"),
                    headers: vec![("prefer", "wait=1".to_owned())],
                    body: None,
                })
                .await
                .map_err(|reason| anyhow::anyhow!("ask for order {id}: {}", reason.name()))?;
            let found = match answer.status {
                StatusCode::OK => Some(serde_json::from_slice::<Versioned>(&answer.body)?.version),
                StatusCode::NOT_FOUND | StatusCode::SERVICE_UNAVAILABLE => None,
                other => anyhow::bail!("order {id} was answered with {other}"),
            };
            match found {
                Some(found) if found >= version => proof.kept += 1,
                _ if Instant::now() < deadline => {
                    // A refusal can come at once: leave the service room to catch up.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
                Some(_) => proof.behind.push(id.clone()),
                None if answer.status == StatusCode::NOT_FOUND => proof.missing.push(id.clone()),
                None => proof.behind.push(id.clone()),
            }
            break;
        }
    }
    Ok(proof)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_acknowledged_version_of_each_order_is_what_must_be_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger.jsonl");
        let mut ledger = Ledger::create(&path).unwrap();
        for (order_id, version) in [("a", 1), ("b", 1), ("a", 3), ("a", 2)] {
            let entry = LedgerEntry {
                order_id: order_id.to_owned(),
                version,
                operation: "confirm".to_owned(),
                acknowledged_at_us: 1,
            };
            ledger.write(&entry).unwrap();
        }
        ledger.finish().unwrap();
        let versions = Ledger::read(&path).unwrap();
        assert_eq!(
            versions,
            BTreeMap::from([("a".to_owned(), 3), ("b".to_owned(), 1)])
        );
    }

    #[test]
    fn a_line_that_is_no_entry_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger.jsonl");
        std::fs::write(&path, "{}\n").unwrap();
        assert!(format!("{:#}", Ledger::read(&path).unwrap_err()).contains("line 1"));
    }
}
