//! The report of a comparison: figures, what they say, what was proven, pictures, all in one directory.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;

use super::experiment::Experiment;
use super::origin::Origin;
use super::verdict::{Verdict, Winner};
use crate::load::{LoadReport, RampReport};
use crate::machine::{Disturbance, Machine};
use crate::plot::{Bar, Curve, Scale, Words, bars, curves};
use crate::report::Check;

/// A whole comparison: one run, on one machine, side by side.
#[derive(Debug, Serialize)]
pub struct Evidence {
    /// The command, the program and the plan.
    pub origin: Origin,
    /// The machine and the file system.
    pub machine: Machine,
    /// How much of the machine others took meanwhile.
    pub disturbance: Option<Disturbance>,
    /// What was set, by name, in order.
    pub settings: Vec<(String, String)>,
    /// The figures.
    pub experiments: Vec<Experiment>,
    /// What they say about the segmented log against JSON lines.
    pub verdicts: Vec<Verdict>,
    /// What was proven about the results, and what was not.
    pub checks: Vec<Check>,
    /// The open-loop runs that pictures show, by who.
    pub loads: Vec<(String, LoadReport)>,
    /// The ramps, by who.
    pub ramps: Vec<(String, RampReport)>,
    #[serde(skip)]
    pub(super) pictures: Vec<Picture>,
}

/// Something to be drawn.
#[derive(Debug)]
pub(super) struct Picture {
    /// Name of the file without its ending.
    pub(super) name: &'static str,
    pub(super) title: String,
    pub(super) shows: Shows,
}

#[derive(Debug)]
pub(super) enum Shows {
    Bars {
        unit: String,
        scale: Scale,
        bars: Vec<Bar>,
    },
    Curves {
        across: &'static str,
        up: &'static str,
        scales: [Scale; 2],
        curves: Vec<Curve>,
    },
}

impl Picture {
    /// One metric of an experiment, a bar a contestant that has it.
    pub(super) fn of(
        name: &'static str,
        title: impl Into<String>,
        experiment: &Experiment,
        metric: &str,
        scale: Scale,
    ) -> Self {
        let bars = experiment
            .contenders
            .iter()
            .filter_map(|contender| {
                Some(Bar {
                    name: contender.who.clone(),
                    value: experiment.figure(&contender.who, metric)?.spread,
                })
            })
            .collect();
        let unit = experiment
            .metrics
            .iter()
            .find(|it| it.name == metric)
            .map_or("", |it| it.unit);
        Self {
            name,
            title: title.into(),
            shows: Shows::Bars {
                unit: format!("{metric}, {unit}"),
                scale,
                bars,
            },
        }
    }

    fn draw(&self, path: &Path) -> anyhow::Result<()> {
        match &self.shows {
            Shows::Bars {
                unit,
                scale,
                bars: all,
            } => bars(path, &self.title, unit, *scale, all),
            Shows::Curves {
                across,
                up,
                scales: [across_scale, up_scale],
                curves: all,
            } => {
                let words = Words {
                    title: &self.title,
                    across,
                    up,
                };
                curves(path, words, *across_scale, *up_scale, all)
            }
        }
    }
}

/// Above this share of the processors' time taken by others, a report calls itself disturbed.
const DISTURBED_ABOVE: f64 = 0.05;

impl Evidence {
    /// Whether every check held.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.checks.iter().all(|check| check.holds)
    }

    /// Writes `report.json`, `report.md` and the pictures into `directory`.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn save(&self, directory: &Path) -> anyhow::Result<()> {
        fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
        let write = |name: &str, text: String| {
            let path = directory.join(name);
            fs::write(&path, text).with_context(|| format!("write {}", path.display()))
        };
        write("report.json", serde_json::to_string_pretty(self)? + "\n")?;
        write("report.md", self.markdown())?;
        for picture in &self.pictures {
            picture.draw(&directory.join(format!("{}.svg", picture.name)))?;
        }
        Ok(())
    }

    /// The report as Markdown, with the pictures beside it.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        self.write_markdown(&mut text)
            .expect("writing to a string cannot fail");
        text
    }

    fn write_markdown(&self, text: &mut String) -> std::fmt::Result {
        writeln!(
            text,
            "# Segmented log and JSON lines, side by side\n\n\
             One run of `target/release/compare` on one machine, everybody in turn (A B C A B C …). Figures are medians with \
             the lowest and highest round; ratios are taken within each round. A figure moves from machine to machine: what \
             counts is how it stands to the others of its table. Everything here, every round included, is in `report.json`.\n"
        )?;
        self.write_machine(text)?;
        self.write_verdicts(text)?;
        for experiment in &self.experiments {
            experiment.write_markdown(text)?;
        }
        if !self.pictures.is_empty() {
            writeln!(text, "\n## Pictures\n")?;
            for picture in &self.pictures {
                writeln!(text, "![{}]({}.svg)\n", picture.title, picture.name)?;
            }
        }
        writeln!(
            text,
            "## Checks\n\n| claim | holds | numbers |\n|---|---|---|"
        )?;
        for check in &self.checks {
            let holds = if check.holds { "yes" } else { "**NO**" };
            let detail = in_a_cell(&check.detail);
            writeln!(text, "| {} | {holds} | {detail} |", check.claim)?;
        }
        Ok(())
    }

    fn write_machine(&self, text: &mut String) -> std::fmt::Result {
        let unknown = || "unknown".to_owned();
        let machine = &self.machine;
        let mut rows = vec![
            (
                "processor",
                format!(
                    "{}, {} usable",
                    machine.processor.clone().unwrap_or_else(unknown),
                    machine.processors
                ),
            ),
            (
                "memory",
                machine
                    .memory_mib
                    .map_or_else(unknown, |mib| format!("{mib} MiB")),
            ),
            ("kernel", machine.kernel.clone().unwrap_or_else(unknown)),
            (
                "file system",
                machine.file_system.clone().unwrap_or_else(unknown),
            ),
            (
                "load average before",
                machine.load_average.clone().unwrap_or_else(unknown),
            ),
        ];
        if let Some(disturbance) = self.disturbance {
            rows.push((
                "processor time of others / stolen",
                format!(
                    "{:.1} % / {:.1} %{}",
                    disturbance.others * 100.0,
                    disturbance.stolen * 100.0,
                    if disturbance.others + disturbance.stolen > DISTURBED_ABOVE {
                        ": **disturbed**, figures are low and noisy"
                    } else {
                        ""
                    }
                ),
            ));
        }
        writeln!(text, "| setting | value |\n|---|---|")?;
        for (name, value) in self.origin.rows() {
            writeln!(text, "| {name} | {value} |")?;
        }
        for (name, value) in rows {
            writeln!(text, "| {name} | {value} |")?;
        }
        for (name, value) in &self.settings {
            writeln!(text, "| {name} | {value} |")?;
        }
        Ok(())
    }

    fn write_verdicts(&self, text: &mut String) -> std::fmt::Result {
        if self.verdicts.is_empty() {
            return Ok(());
        }
        writeln!(
            text,
            "\n## The segmented log against JSON lines\n\n\
             Computed from the tables below: who was better in every round (where there was only one, by a quarter at least)."
        )?;
        let mut groups: Vec<Option<&str>> = Vec::new();
        for verdict in &self.verdicts {
            if !groups.contains(&verdict.also) {
                groups.push(verdict.also);
            }
        }
        // What speaks of the engine alone stands first, whatever was asked first.
        groups.sort_by_key(Option::is_some);
        for also in groups {
            self.write_group(also, text)?;
        }
        Ok(())
    }

    /// The verdicts on pairs that differ in the engine, and in what is said besides.
    fn write_group(&self, also: Option<&str>, text: &mut String) -> std::fmt::Result {
        let verdicts: Vec<&Verdict> = self.verdicts.iter().filter(|it| it.also == also).collect();
        let count = |winner| verdicts.iter().filter(|it| it.winner == winner).count();
        match also {
            None => writeln!(text, "\n### The engine alone differs\n")?,
            Some(also) => writeln!(
                text,
                "\n### More than the engine differs\n\n\
                 Besides the engine: {also}. What of it makes which part of a difference is not told here.\n"
            )?,
        }
        writeln!(
            text,
            "Of {} figures {} speak for the segmented log, {} for JSON lines, and {} for neither.\n\n\
             | figure | both | segmented | JSON lines | times better | for whom |\n|---|---|---|---|---|---|",
            verdicts.len(),
            count(Winner::Segmented),
            count(Winner::JsonLines),
            count(Winner::Neither),
        )?;
        for verdict in &verdicts {
            writeln!(text, "{}", verdict.row())?;
        }
        let better: Vec<String> = verdicts
            .iter()
            .filter(|verdict| verdict.winner != Winner::Segmented)
            .map(|verdict| format!("{} ({})", verdict.figure, verdict.both))
            .collect();
        if better.is_empty() {
            writeln!(text, "\nIn nothing measured here JSON lines are as good.")
        } else {
            writeln!(
                text,
                "\n**Where JSON lines are as good or better:** {}.",
                better.join("; ")
            )
        }
    }
}

/// What a program said may have lines and bars, and a cell of a table neither.
fn in_a_cell(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines.join(" / ").replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::super::experiment::{Entrant, Metric};
    use super::super::plan::Plan;
    use super::super::verdict::Pair;
    use super::*;

    const RATE: Metric = Metric::higher("rate", "orders/s");

    fn evidence(segmented: f64, json_lines: f64, holds: bool) -> Evidence {
        evidence_of(segmented, json_lines, holds, None)
    }

    fn evidence_of(
        segmented: f64,
        json_lines: f64,
        holds: bool,
        also: Option<&'static str>,
    ) -> Evidence {
        let experiment = Experiment::run(
            "ingest",
            "Writing",
            "A note.",
            &[RATE],
            1,
            vec![
                Entrant::new("segmented", move || Ok(vec![Some(segmented)])),
                Entrant::new("jsonl", move || Ok(vec![Some(json_lines)])),
            ],
        )
        .unwrap();
        let pair = Pair {
            segmented: "segmented".to_owned(),
            json_lines: "jsonl".to_owned(),
            both: "always".to_owned(),
            also,
            metrics: None,
            goals: Vec::new(),
        };
        Evidence {
            origin: Origin::of(
                vec!["compare".to_owned()],
                Path::new("/nowhere/order-service"),
                Plan::quick(),
            ),
            machine: Machine::look(Path::new("/")),
            disturbance: Some(Disturbance {
                others: 0.5,
                stolen: 0.0,
            }),
            settings: vec![("rounds".to_owned(), "1".to_owned())],
            verdicts: Verdict::of(&experiment, &pair),
            pictures: vec![Picture::of(
                "ingest",
                "Writing",
                &experiment,
                "rate",
                Scale::Even,
            )],
            experiments: vec![experiment],
            checks: vec![Check {
                claim: "rows".to_owned(),
                holds,
                detail: "7".to_owned(),
            }],
            loads: Vec::new(),
            ramps: Vec::new(),
        }
    }

    #[test]
    fn the_report_says_where_json_lines_are_better() {
        let text = evidence(10.0, 20.0, true).markdown();
        assert!(
            text.contains("**Where JSON lines are as good or better:** rate, orders/s (always)."),
            "{text}"
        );
        let text = evidence(20.0, 10.0, true).markdown();
        assert!(text.contains("In nothing measured here"), "{text}");
        assert!(
            text.contains(
                "| rate, orders/s | always | 20.0 | 10.0 | 2.00 (2.00–2.00) | segmented |"
            ),
            "{text}"
        );
    }

    #[test]
    fn what_differs_in_more_than_the_engine_is_counted_apart() {
        let mut both = evidence(20.0, 10.0, true);
        let naive = evidence_of(20.0, 10.0, true, Some("no group commit"));
        both.verdicts.splice(0..0, naive.verdicts);
        let text = both.markdown();
        let (alone, more) = text
            .split_once("### More than the engine differs")
            .expect("the naive way has a section of its own");
        assert!(
            more.contains("Besides the engine: no group commit."),
            "{more}"
        );
        for part in [alone, more] {
            assert!(part.contains("Of 1 figures 1 speak for"), "{text}");
        }
        assert!(alone.contains("### The engine alone differs"), "{text}");
    }

    #[test]
    fn a_busy_machine_and_a_check_that_fails_are_told() {
        assert!(evidence(1.0, 1.0, true).holds());
        let failed = evidence(1.0, 1.0, false);
        assert!(!failed.holds());
        let text = failed.markdown();
        assert!(
            text.contains("**disturbed**") && text.contains("| rows | **NO** | 7 |"),
            "{text}"
        );
    }

    #[test]
    fn an_error_of_several_lines_stays_in_its_row() {
        let mut failed = evidence(1.0, 1.0, false);
        failed.checks[0].detail = "lag: it ended:\n  a | b\nbad".to_owned();
        let text = failed.markdown();
        assert!(
            text.contains("| rows | **NO** | lag: it ended: / a \\| b / bad |"),
            "{text}"
        );
    }

    #[test]
    fn a_saved_report_has_every_picture_it_shows() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("report");
        evidence(1.0, 2.0, true).save(&path).unwrap();
        let text = fs::read_to_string(path.join("report.md")).unwrap();
        assert!(text.contains("](ingest.svg)"), "{text}");
        assert!(path.join("ingest.svg").is_file());
        let json: serde_json::Value =
            serde_json::from_slice(&fs::read(path.join("report.json")).unwrap()).unwrap();
        assert_eq!(
            json["experiments"][0]["contenders"][1]["figures"][0]["rounds"][0],
            2.0
        );
        assert_eq!(json["verdicts"][0]["winner"], "json-lines");
    }
}
