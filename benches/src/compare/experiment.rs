//! One question, asked of everybody in turn: which figures, who, how often, and what came of it.

use std::fmt::Write as _;

use serde::Serialize;

use crate::measure::Spread;

/// Which way a figure is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Better {
    /// The more the better: a rate.
    Higher,
    /// The less the better: a time, a size.
    Lower,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Metric {
    /// In words.
    pub name: &'static str,
    /// What it is counted in.
    pub unit: &'static str,
    /// Which way it is good.
    pub better: Better,
}

impl Metric {
    /// The more the better.
    #[must_use]
    pub const fn higher(name: &'static str, unit: &'static str) -> Self {
        Self {
            name,
            unit,
            better: Better::Higher,
        }
    }

    /// The less the better.
    #[must_use]
    pub const fn lower(name: &'static str, unit: &'static str) -> Self {
        Self {
            name,
            unit,
            better: Better::Lower,
        }
    }
}

/// What one run gave, a value a metric; `None` where this contestant has none.
pub(super) type Values = Vec<Option<f64>>;

/// Somebody with a way to run once.
pub(super) struct Entrant<'e> {
    pub(super) who: String,
    pub(super) run: Box<dyn FnMut() -> anyhow::Result<Values> + 'e>,
}

impl<'e> Entrant<'e> {
    pub(super) fn new(
        who: impl Into<String>,
        run: impl FnMut() -> anyhow::Result<Values> + 'e,
    ) -> Self {
        Self {
            who: who.into(),
            run: Box::new(run),
        }
    }
}

/// All rounds of one figure.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// Median, least and greatest of all rounds.
    pub spread: Spread,
    /// The rounds, in turn.
    pub rounds: Vec<f64>,
}

/// Everything one contestant gave.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Contender {
    /// Who.
    pub who: String,
    /// One figure a metric of the experiment.
    pub figures: Vec<Option<Figure>>,
}

/// A question with its answers.
#[derive(Debug, Clone, Serialize)]
pub struct Experiment {
    /// Its name on the command line and in file names.
    pub key: &'static str,
    /// What was asked.
    pub title: String,
    /// What a reader must know about it.
    pub note: String,
    /// What was measured.
    pub metrics: Vec<Metric>,
    /// Who took part.
    pub contenders: Vec<Contender>,
}

impl Experiment {
    /// Runs everybody once a round, in turn: whatever disturbs the machine disturbs all of them alike.
    pub(super) fn run(
        key: &'static str,
        title: impl Into<String>,
        note: impl Into<String>,
        metrics: &[Metric],
        rounds: usize,
        mut entrants: Vec<Entrant<'_>>,
    ) -> anyhow::Result<Self> {
        let mut rounds_of: Vec<Vec<Values>> = entrants.iter().map(|_| Vec::new()).collect();
        for round in 1..=rounds {
            for (entrant, results) in entrants.iter_mut().zip(&mut rounds_of) {
                eprintln!("{key}, round {round} of {rounds}: {}", entrant.who);
                let values = (entrant.run)()?;
                anyhow::ensure!(
                    values.len() == metrics.len(),
                    "{key}: {} figures for {} metrics",
                    values.len(),
                    metrics.len()
                );
                results.push(values);
            }
        }
        let contenders = entrants
            .into_iter()
            .zip(rounds_of)
            .map(|(entrant, results)| Contender {
                who: entrant.who,
                figures: (0..metrics.len())
                    .map(|metric| Figure::of(results.iter().filter_map(|it| it[metric]).collect()))
                    .collect(),
            })
            .collect();
        Ok(Self {
            key,
            title: title.into(),
            note: note.into(),
            metrics: metrics.to_vec(),
            contenders,
        })
    }

    /// The figure of somebody.
    #[must_use]
    pub fn figure(&self, who: &str, metric: &str) -> Option<&Figure> {
        let place = self.metrics.iter().position(|it| it.name == metric)?;
        let contender = self.contenders.iter().find(|it| it.who == who)?;
        contender.figures.get(place)?.as_ref()
    }

    /// A section of the report: a row a contestant, a column a metric.
    pub(super) fn write_markdown(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "\n## {}\n\n{}\n", self.title, self.note)?;
        write!(text, "| who |")?;
        for metric in &self.metrics {
            write!(text, " {}, {} |", metric.name, metric.unit)?;
        }
        writeln!(text, "\n|---|{}", "---|".repeat(self.metrics.len()))?;
        for contender in &self.contenders {
            write!(text, "| {} |", contender.who)?;
            for figure in &contender.figures {
                let cell = figure.as_ref().map_or_else(String::new, Figure::text);
                write!(text, " {cell} |")?;
            }
            writeln!(text)?;
        }
        Ok(())
    }
}

impl Figure {
    fn of(rounds: Vec<f64>) -> Option<Self> {
        (!rounds.is_empty()).then(|| Self {
            spread: Spread::of(rounds.iter().copied()),
            rounds,
        })
    }

    /// `41.2k (40.1k–43.0k)`; a single round has no spread.
    #[must_use]
    pub fn text(&self) -> String {
        let Spread { median, low, high } = self.spread;
        if self.rounds.len() == 1 {
            return short(median);
        }
        format!("{} ({}–{})", short(median), short(low), short(high))
    }
}

/// Three digits: `41.2k`, `1.05M`, `0.42`.
#[must_use]
pub fn short(value: f64) -> String {
    let (value, unit) = match value.abs() {
        size if size >= 1e9 => (value / 1e9, "G"),
        size if size >= 1e6 => (value / 1e6, "M"),
        size if size >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let digits: usize = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Metric = Metric::higher("rate", "a second");
    const TIME: Metric = Metric::lower("time", "ms");

    fn experiment() -> Experiment {
        let order = std::cell::RefCell::new(String::new());
        let mut rates = [10.0, 30.0, 20.0].into_iter();
        let turn = |name: &str| order.borrow_mut().push_str(name);
        let entrants = vec![
            Entrant::new("first", || {
                turn("a");
                Ok(vec![rates.next(), None])
            }),
            Entrant::new("second", || {
                turn("b");
                Ok(vec![Some(40_000.0), Some(0.5)])
            }),
        ];
        let experiment =
            Experiment::run("key", "Title", "Note.", &[RATE, TIME], 3, entrants).unwrap();
        assert_eq!(*order.borrow(), "ababab");
        experiment
    }

    #[test]
    fn everybody_runs_in_turn_and_every_round_is_kept() {
        let experiment = experiment();
        let figure = experiment.figure("first", "rate").unwrap();
        assert_eq!(figure.rounds, [10.0, 30.0, 20.0]);
        assert_eq!(
            figure.spread,
            Spread {
                median: 20.0,
                low: 10.0,
                high: 30.0
            }
        );
        assert_eq!(experiment.figure("first", "time"), None);
        assert_eq!(experiment.figure("nobody", "rate"), None);
    }

    #[test]
    fn a_section_has_a_row_a_contestant_and_a_column_a_metric() {
        let mut text = String::new();
        experiment().write_markdown(&mut text).unwrap();
        assert!(
            text.contains("| who | rate, a second | time, ms |\n|---|---|---|\n"),
            "{text}"
        );
        assert!(text.contains("| first | 20.0 (10.0–30.0) |  |\n"), "{text}");
        assert!(
            text.contains("| second | 40.0k (40.0k–40.0k) | 0.500 (0.500–0.500) |"),
            "{text}"
        );
    }

    #[test]
    fn as_many_figures_are_given_as_there_are_metrics() {
        let entrants = vec![Entrant::new("short", || Ok(vec![Some(1.0)]))];
        assert!(Experiment::run("key", "", "", &[RATE, TIME], 1, entrants).is_err());
    }

    #[test]
    fn figures_have_three_digits() {
        for (value, text) in [
            (41_234.0, "41.2k"),
            (9_876.0, "9876"),
            (0.0423, "0.042"),
            (2e6, "2.00M"),
        ] {
            assert_eq!(short(value), text);
        }
    }
}
