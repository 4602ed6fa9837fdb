//! `order-service config`: the effective settings, and where each came from.

use figment::Figment;
use serde_json::Value;

use crate::config::{ServiceFlags, origin};
use crate::failure::Failure;

/// Names of settings whose values are not shown.
const SECRETS: [&str; 2] = ["secret", "sha256"];

/// How the settings are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// A file `--config` reads, each line with its source.
    Toml,
    /// One JSON object.
    Json,
}

/// Show the effective configuration: defaults, file, environment and flags laid over each other
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    service: ServiceFlags,
    /// How to print it
    #[arg(long, value_name = "FORMAT", default_value = "toml")]
    format: Format,
}

/// Prints the configuration to standard output.
///
/// # Errors
/// A usage failure if it does not read.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let loaded = arguments.service.load()?;
    let mut settings = serde_json::to_value(&loaded.config)?;
    redact(&mut settings);
    let text = match arguments.format {
        Format::Toml => as_toml(&settings, &loaded.layers),
        Format::Json => serde_json::to_string_pretty(&settings)?,
    };
    crate::print::line(&text)
}

/// Takes out what would let a reader of the output act as somebody else.
fn redact(value: &mut Value) {
    match value {
        Value::Object(table) => {
            for (name, value) in table {
                let is_set = !value.is_null() && value.as_array().is_none_or(|it| !it.is_empty());
                if SECRETS.contains(&name.as_str()) && is_set {
                    *value = "<redacted>".into();
                } else {
                    redact(value);
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(redact),
        _ => {}
    }
}

/// One dotted key a line: every line can be copied into a file by itself.
fn as_toml(settings: &Value, layers: &Figment) -> String {
    let mut lines = Vec::new();
    leaves(String::new(), settings, &mut |path, value| {
        let source = layers
            .find_metadata(path)
            .map_or_else(|| "default".to_owned(), origin);
        lines.push(match value {
            Value::Null => format!("# {path} is not set"),
            value => format!("{path} = {}  # {source}", toml(value)),
        });
    });
    lines.join("\n")
}

fn leaves(path: String, value: &Value, visit: &mut impl FnMut(&str, &Value)) {
    match value {
        Value::Object(table) => {
            for (name, value) in table {
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                leaves(path, value, visit);
            }
        }
        leaf => visit(&path, leaf),
    }
}

/// A value as TOML writes it: JSON but for tables, and for the one character that JSON leaves as it is.
fn toml(value: &Value) -> String {
    match value {
        Value::Object(table) => {
            let entries: Vec<_> = table
                .iter()
                .map(|(name, it)| format!("{name} = {}", toml(it)))
                .collect();
            format!("{{ {} }}", entries.join(", "))
        }
        Value::Array(values) => {
            format!(
                "[{}]",
                values.iter().map(toml).collect::<Vec<_>>().join(", ")
            )
        }
        other => other.to_string().replace('\u{7f}', "\\u007f"),
    }
}
