//! What was measured, for people (Markdown) and for programs (JSON), with everything needed to judge it.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;

use crate::machine::{Disturbance, Machine};
use crate::measure::{Row, Spread};

/// A whole report: one run, on one machine, side by side.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What the report is about.
    pub title: String,
    /// The machine and the file system.
    pub machine: Machine,
    /// How much of the machine others took meanwhile.
    pub disturbance: Option<Disturbance>,
    /// What was set, by name, in order.
    pub settings: Vec<(String, String)>,
    /// The figures.
    pub tables: Vec<Table>,
    /// What was proven about the results, and what was not.
    pub checks: Vec<Check>,
}

/// Figures that belong together.
#[derive(Debug, Clone, Serialize)]
pub struct Table {
    /// What the figures are about.
    pub title: String,
    /// What a reader must know about them.
    pub note: String,
    /// One row a contestant.
    pub rows: Vec<Row>,
}

/// A statement about the results that was tested.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// What should hold.
    pub claim: String,
    /// Whether it does.
    pub holds: bool,
    /// The numbers behind it.
    pub detail: String,
}

/// Above this share of the processors' time taken by others, a report calls itself disturbed.
const DISTURBED_ABOVE: f64 = 0.05;

impl Report {
    /// Whether every check held.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.checks.iter().all(|check| check.holds)
    }

    /// The report as Markdown.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        self.write_markdown(&mut text)
            .expect("writing to a string cannot fail");
        text
    }

    fn write_markdown(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "# {}\n", self.title)?;
        writeln!(
            text,
            "Measured side by side, in turn, in one run. What counts is the ratio.\n"
        )?;
        let unknown = || "unknown".to_owned();
        let machine = &self.machine;
        writeln!(text, "| setting | value |\n|---|---|")?;
        writeln!(
            text,
            "| processor | {}, {} usable |",
            machine.processor.clone().unwrap_or_else(unknown),
            machine.processors
        )?;
        if let Some(memory) = machine.memory_mib {
            writeln!(text, "| memory | {memory} MiB |")?;
        }
        writeln!(
            text,
            "| kernel | {} |",
            machine.kernel.clone().unwrap_or_else(unknown)
        )?;
        writeln!(
            text,
            "| file system | {} |",
            machine.file_system.clone().unwrap_or_else(unknown)
        )?;
        writeln!(
            text,
            "| load average before | {} |",
            machine.load_average.clone().unwrap_or_else(unknown)
        )?;
        if let Some(disturbance) = self.disturbance {
            writeln!(
                text,
                "| processor time of others / stolen | {:.1} % / {:.1} %{} |",
                disturbance.others * 100.0,
                disturbance.stolen * 100.0,
                if disturbance.others + disturbance.stolen > DISTURBED_ABOVE {
                    ": **disturbed**, figures are low and noisy"
                } else {
                    ""
                }
            )?;
        }
        for (name, value) in &self.settings {
            writeln!(text, "| {name} | {value} |")?;
        }
        for table in &self.tables {
            table.write_markdown(text)?;
        }
        if !self.checks.is_empty() {
            writeln!(
                text,
                "\n## Checks\n\n| claim | holds | numbers |\n|---|---|---|"
            )?;
            for check in &self.checks {
                let holds = if check.holds { "yes" } else { "**NO**" };
                writeln!(text, "| {} | {holds} | {} |", check.claim, check.detail)?;
            }
        }
        Ok(())
    }

    /// Writes the report to the files asked for.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn save(&self, json: Option<&Path>, markdown: Option<&Path>) -> anyhow::Result<()> {
        if let Some(path) = json {
            let mut text = serde_json::to_string_pretty(self)?;
            text.push('\n');
            fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
        }
        if let Some(path) = markdown {
            fs::write(path, self.markdown())
                .with_context(|| format!("write {}", path.display()))?;
        }
        Ok(())
    }
}

impl Table {
    fn write_markdown(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "\n## {}\n", self.title)?;
        if !self.note.is_empty() {
            writeln!(text, "{}\n", self.note)?;
        }
        writeln!(
            text,
            "| work | who | a second (low–high) | p50 / p99 | of reference (low–high) | goal |"
        )?;
        writeln!(text, "|---|---|---|---|---|---|")?;
        for row in &self.rows {
            writeln!(
                text,
                "| {} | {} | {} {} | {} | {} | {} |",
                row.work,
                row.who,
                spread(&row.per_second, quantity),
                row.unit,
                match (&row.p50_us, &row.p99_us) {
                    (Some(p50), Some(p99)) =>
                        format!("{} / {}", time(p50.median), time(p99.median)),
                    _ => String::new(),
                },
                row.ratio
                    .as_ref()
                    .map_or_else(|| "1".to_owned(), |ratio| spread(ratio, ratio_text)),
                row.goal.as_deref().unwrap_or(""),
            )?;
        }
        Ok(())
    }
}

fn spread(spread: &Spread, show: fn(f64) -> String) -> String {
    format!(
        "{} ({}–{})",
        show(spread.median),
        show(spread.low),
        show(spread.high)
    )
}

fn ratio_text(ratio: f64) -> String {
    format!("{ratio:.2}")
}

/// Three digits with a unit: `838 k`, `1.84 M`.
fn quantity(value: f64) -> String {
    match value {
        value if value >= 1e9 => format!("{} G", three_digits(value / 1e9)),
        value if value >= 1e6 => format!("{} M", three_digits(value / 1e6)),
        value if value >= 1e3 => format!("{} k", three_digits(value / 1e3)),
        value => three_digits(value),
    }
}

/// Three digits of a time given in microseconds: `85 µs`, `1.20 ms`.
fn time(micros: f64) -> String {
    match micros {
        micros if micros >= 1e6 => format!("{} s", three_digits(micros / 1e6)),
        micros if micros >= 1e3 => format!("{} ms", three_digits(micros / 1e3)),
        micros => format!("{} µs", three_digits(micros)),
    }
}

fn three_digits(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::{Contest, Sample};

    fn report(checks: Vec<Check>) -> Report {
        let rows = Contest::new("append", "records")
            .against("reference", || {
                Ok(Sample {
                    per_second: 838_000.0,
                    latency: None,
                })
            })
            .with_goal("segmented", "≥ 0.90", || {
                Ok(Sample {
                    per_second: 419_000.0,
                    latency: None,
                })
            })
            .run(1)
            .unwrap();
        Report {
            title: "Figures".to_owned(),
            machine: Machine::look(Path::new("/")),
            disturbance: Some(Disturbance {
                others: 0.5,
                stolen: 0.0,
            }),
            settings: vec![("rounds".to_owned(), "1".to_owned())],
            tables: vec![Table {
                title: "Log".to_owned(),
                note: String::new(),
                rows,
            }],
            checks,
        }
    }

    #[test]
    fn a_row_shows_figure_ratio_and_goal() {
        let text = report(Vec::new()).markdown();
        assert!(
            text.contains("| append | segmented | 419 k (419 k–419 k) records |  | 0.50 (0.50–0.50) | ≥ 0.90 |"),
            "{text}"
        );
    }

    #[test]
    fn a_report_made_on_a_busy_machine_says_so() {
        assert!(report(Vec::new()).markdown().contains("**disturbed**"));
    }

    #[test]
    fn one_check_that_fails_fails_the_report() {
        let check = |holds| Check {
            claim: "rows".to_owned(),
            holds,
            detail: String::new(),
        };
        assert!(report(vec![check(true)]).holds());
        let failed = report(vec![check(true), check(false)]);
        assert!(!failed.holds());
        assert!(failed.markdown().contains("| rows | **NO** |"));
    }

    #[test]
    fn the_report_is_valid_json_with_the_same_figures() {
        let json: serde_json::Value =
            serde_json::from_str(&serde_json::to_string(&report(Vec::new())).unwrap()).unwrap();
        assert_eq!(json["tables"][0]["rows"][1]["ratio"]["median"], 0.5);
    }

    #[test]
    fn figures_have_three_digits() {
        assert_eq!(quantity(1_840_000.0), "1.84 M");
        assert_eq!(quantity(838_400.0), "838 k");
        assert_eq!(quantity(33.0), "33.0");
        assert_eq!(time(450.0), "450 µs");
        assert_eq!(time(1_200.0), "1.20 ms");
    }
}
