//! What the load generator can do at most on this machine: itself, in a closed loop, against a server that does nothing.
//!
//! A figure near its ceiling says as much about the generator as about the service.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use tokio::runtime::Runtime;

use super::Contestant;
use super::contestant::Programs;
use super::process::Process;
use crate::load::{LoadConfig, Mix, run};

/// How long the ceiling is measured at most, after as long a warm-up.
const DURATION: Duration = Duration::from_secs(3);

/// Above this part of its ceiling a generator may be what limits a figure.
const NEAR: f64 = 0.8;

/// The most that the generator can send and take.
#[derive(Debug, Clone, Serialize)]
pub struct Ceiling {
    /// Requests a second against bare axum on the same processors.
    pub per_second: f64,
    /// Connections, the same as against the service.
    pub connections: usize,
    /// New orders and reads in the proportion of the service's mix; whatever else is in that counts as either.
    pub mix: String,
}

impl Ceiling {
    /// Whether `per_second` is so near that the generator may be what limits it.
    #[must_use]
    pub fn may_limit(&self, per_second: f64) -> bool {
        per_second > NEAR * self.per_second
    }

    /// In a sentence, beside what a service reached.
    #[must_use]
    pub fn beside(&self, per_second: f64) -> String {
        format!(
            "the generator's own ceiling, against bare axum on the same processors: {:.0} a second ({} connections, {}); \
             {:.0} is {:.0} % of it{}",
            self.per_second,
            self.connections,
            self.mix,
            per_second,
            100.0 * per_second / self.per_second,
            if self.may_limit(per_second) {
                ": THE GENERATOR MAY BE WHAT LIMITS IT"
            } else {
                ""
            }
        )
    }
}

/// What of `mix` the bare server can answer.
fn bare_mix(mix: &Mix) -> Mix {
    Mix {
        create: mix.create + mix.advance + mix.cancel + mix.bulk,
        get: mix.get + mix.list,
        ..Mix::default()
    }
}

/// Measures the ceiling of a run as `config` says, with the bare server's program.
///
/// # Errors
/// If the server does not start or does not answer every request.
pub fn ceiling(bare: &Path, config: &LoadConfig, runtime: &Runtime) -> anyhow::Result<Ceiling> {
    let directory = tempfile::tempdir()?;
    let programs = Programs {
        service: bare.to_owned(),
        service_arguments: Vec::new(),
        bare: bare.to_owned(),
    };
    let server = Process::start(&Contestant::Bare, &programs, directory.path(), runtime)?;
    let mix = bare_mix(&config.mix);
    let report = runtime.block_on(run(
        LoadConfig {
            rate: 0.0,
            warm_up: DURATION.min(config.duration),
            duration: DURATION.min(config.duration),
            requests_max: u64::MAX,
            mix,
            read_back: false,
            target: server.target.clone(),
            ..config.clone()
        },
        None,
    ))?;
    let status = server.stop()?;
    anyhow::ensure!(
        status.success() && report.succeeded_per_second >= report.answered_per_second,
        "the bare server ended with {status} and did not answer everything:\n{report}"
    );
    Ok(Ceiling {
        per_second: report.succeeded_per_second,
        connections: config.connections,
        mix: mix.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_near_the_ceiling_is_doubted() {
        let ceiling = Ceiling {
            per_second: 10_000.0,
            connections: 64,
            mix: "create=1".to_owned(),
        };
        assert!(!ceiling.beside(5_000.0).contains("MAY BE"));
        assert!(ceiling.beside(9_000.0).contains("MAY BE"));
    }

    #[test]
    fn the_bare_server_is_asked_only_what_it_answers() {
        let mix: Mix = "create=1,advance=2,cancel=3,get=4,list=5,bulk=6"
            .parse()
            .unwrap();
        assert_eq!(bare_mix(&mix).to_string(), "create=12,get=9");
    }
}
