//! `/metrics`, read as Prometheus reads it.

use std::collections::BTreeMap;

use crate::client::Client;

/// One sample.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

/// One scrape.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) samples: Vec<Sample>,
    /// Name of a metric and its type.
    pub(crate) types: BTreeMap<String, String>,
}

impl Metrics {
    pub(crate) async fn of(client: &Client) -> Self {
        Self::parse(&client.metrics().await)
    }

    fn parse(text: &str) -> Self {
        let mut metrics = Self {
            samples: Vec::new(),
            types: BTreeMap::new(),
        };
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest
                    .split_once(' ')
                    .expect("TYPE names a metric and a type");
                metrics.types.insert(name.to_owned(), kind.to_owned());
            } else if !line.starts_with('#') && !line.is_empty() {
                metrics.samples.push(sample(line));
            }
        }
        metrics
    }

    /// The samples of a name that have these labels, others beside them allowed.
    pub(crate) fn with(&self, name: &str, labels: &[(&str, &str)]) -> Vec<&Sample> {
        let matches = |sample: &&Sample| {
            sample.name == name
                && labels
                    .iter()
                    .all(|(label, value)| sample.labels.get(*label).is_some_and(|it| it == value))
        };
        self.samples.iter().filter(matches).collect()
    }

    /// The sum over all labels of a counter or gauge of whole numbers.
    pub(crate) fn sum(&self, name: &str) -> u64 {
        let found = self.with(name, &[]);
        assert!(!found.is_empty(), "no metric {name}");
        found.iter().map(|sample| whole(sample.value)).sum()
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked: the value is whole, not negative and small"
)]
fn whole(value: f64) -> u64 {
    assert!(
        value >= 0.0 && value.fract() == 0.0 && value < 9e15,
        "{value} is no count"
    );
    value as u64
}

fn sample(line: &str) -> Sample {
    let (series, value) = line
        .rsplit_once(' ')
        .unwrap_or_else(|| panic!("no value: {line}"));
    let (name, labels) = match series.split_once('{') {
        None => (series, ""),
        Some((name, rest)) => (
            name,
            rest.strip_suffix('}')
                .unwrap_or_else(|| panic!("labels do not end: {line}")),
        ),
    };
    // No label of this service holds a comma or a quote.
    let labels = labels
        .split(',')
        .filter(|label| !label.is_empty())
        .map(|label| {
            let (name, value) = label.split_once('=').unwrap_or_else(|| panic!("{line}"));
            (name.to_owned(), value.trim_matches('"').to_owned())
        })
        .collect();
    let value = value
        .parse()
        .unwrap_or_else(|error| panic!("{error}: {line}"));
    Sample {
        name: name.to_owned(),
        labels,
        value,
    }
}
