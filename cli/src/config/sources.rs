//! Where settings come from: the TOML file, the environment and the flags, each value with a name to blame.

use std::ffi::OsString;
use std::path::Path;

use figment::providers::{Format, Serialized, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::Config;
use crate::failure::{Failure, usage};

/// What every environment variable of a setting begins with. Tables are joined by [`SEPARATOR`]:
/// `ORDER_SERVICE__OUTBOX__SINK` is `sink` of the table `outbox`.
const PREFIX: &str = "ORDER_SERVICE__";
const SEPARATOR: &str = "__";

/// One value with where it came from. Values are texts; the setting's type says how a text is read.
#[derive(Debug, Clone)]
pub(crate) struct Setting {
    source: String,
    path: Vec<String>,
    value: Value,
}

impl Setting {
    /// A setting by its dotted path, given by a flag.
    pub(crate) fn from_flag(flag: &str, path: &str, value: impl Into<Value>) -> Self {
        Self {
            source: format!("flag `--{flag}`"),
            path: path.split('.').map(str::to_owned).collect(),
            value: value.into(),
        }
    }
}

impl Provider for Setting {
    fn metadata(&self) -> Metadata {
        // Without this, figment would show the path in capitals of its own invention.
        Metadata::named(self.source.clone())
            .interpolater(|_: &Profile, keys: &[&str]| keys.join("."))
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let mut path = self.path.iter().rev();
        let last = path.next().ok_or("a setting has a name")?;
        let innermost = Dict::from([(last.clone(), self.value.clone())]);
        let dict = path.fold(innermost, |inner, table| {
            Dict::from([(table.clone(), Value::from(inner))])
        });
        Ok(Map::from([(Profile::Default, dict)]))
    }
}

/// The settings among the environment's variables.
///
/// # Errors
/// A usage failure naming the variable if it is not UTF-8 or names no setting.
pub(crate) fn from_environment(
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Vec<Setting>, Failure> {
    let mut settings = Vec::new();
    for (name, value) in variables {
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else {
            continue;
        };
        let value = value
            .into_string()
            .map_err(|_| usage!("environment variable `{name}` is not UTF-8"))?;
        let path: Vec<String> = name[PREFIX.len()..]
            .to_lowercase()
            .split(SEPARATOR)
            .map(str::to_owned)
            .collect();
        if path.iter().any(String::is_empty) {
            return Err(usage!("environment variable `{name}` names no setting"));
        }
        settings.push(Setting {
            source: format!("environment variable `{name}`"),
            path,
            value: Value::from(value),
        });
    }
    // The environment has no order of its own; errors should not come in a random one.
    settings.sort_by(|left, right| left.source.cmp(&right.source));
    Ok(settings)
}

/// Lays the sources over each other: defaults, file, environment, flags.
///
/// # Errors
/// A usage failure if the file cannot be read.
pub(crate) fn layered(
    file: Option<&Path>,
    environment: Vec<Setting>,
    flags: Vec<Setting>,
) -> Result<Figment, Failure> {
    let mut figment = Figment::from(Serialized::defaults(Config::default()));
    if let Some(file) = file {
        std::fs::metadata(file)
            .map_err(|error| usage!("configuration file {}: {error}", file.display()))?;
        figment = figment.merge(Toml::file_exact(file));
    }
    for setting in environment.into_iter().chain(flags) {
        figment = figment.merge(setting);
    }
    Ok(figment)
}

/// Reads the configuration out of the layers, or says for every wrong value which it is and where it came from.
///
/// # Errors
/// A usage failure with a line for each fault.
pub(crate) fn extract(figment: &Figment) -> Result<Config, Failure> {
    figment.extract_lossy().map_err(|errors| {
        let faults: Vec<_> = errors
            .into_iter()
            .map(|error| describe(figment, &error))
            .collect();
        usage!("configuration: {}", faults.join("\n  "))
    })
}

fn describe(figment: &Figment, error: &figment::Error) -> String {
    let mut path = error.path.clone();
    let complaint = match &error.kind {
        figment::error::Kind::UnknownField(name, known) => {
            if path.last() != Some(name) {
                path.push(name.clone());
            }
            format!("is unknown; known here: {}", known.join(", "))
        }
        kind => kind.to_string(),
    };
    let path = path.join(".");
    let subject = if path.is_empty() {
        String::new()
    } else {
        format!("`{path}` ")
    };
    match figment.find_metadata(&path).or(error.metadata.as_ref()) {
        Some(metadata) => format!("{subject}{} ({})", complaint.trim_end(), origin(metadata)),
        None => format!("{subject}{complaint}"),
    }
}

/// A source's name for people.
pub(crate) fn origin(metadata: &Metadata) -> String {
    match &metadata.source {
        Some(figment::Source::File(path)) => format!("file {}", path.display()),
        Some(figment::Source::Code(_)) => "default".to_owned(),
        _ => metadata.name.to_string(),
    }
}
