//! What the figures say about the segmented log against JSON lines. Computed, so that nobody writes it kinder than it is.

use serde::Serialize;

use super::experiment::{Better, Experiment, short};
use crate::measure::Spread;

/// Which of the two a figure speaks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Winner {
    /// The segmented log, in every round.
    Segmented,
    /// JSON lines, in every round.
    JsonLines,
    /// Neither: in some rounds one, in some the other, or too near to each other to say.
    Neither,
}

/// Two contestants of an experiment, one on each engine.
#[derive(Debug, Clone)]
pub(super) struct Pair {
    pub(super) segmented: String,
    pub(super) json_lines: String,
    /// What is the same for both, in words.
    pub(super) both: String,
    /// What differs besides the engine, in words; `None` if nothing does.
    pub(super) also: Option<&'static str>,
    /// Which metrics say something about them; `None` for all.
    pub(super) metrics: Option<Vec<&'static str>>,
    /// By metric, how many times better the segmented log is to be.
    pub(super) goals: Vec<(&'static str, f64)>,
}

/// One figure of both.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    /// Name of the experiment.
    pub experiment: &'static str,
    /// The figure, with its unit.
    pub figure: String,
    /// What is the same for both.
    pub both: String,
    /// What differs besides the engine, so that the figure says nothing of the engine alone.
    pub also: Option<&'static str>,
    /// The segmented log's median.
    pub segmented: f64,
    /// The median of JSON lines.
    pub json_lines: f64,
    /// How many times better the segmented log is, within each round; below 1 it is worse.
    pub times_better: Spread,
    /// Whom it speaks for.
    pub winner: Winner,
    /// How many times better the segmented log is to be.
    pub goal: Option<f64>,
}

/// Nearer to 1 than this, a median ratio counts as the same.
const ALIKE: f64 = 0.02;

/// The same for what was measured once, where no spread tells chance from difference.
const ALIKE_ONCE: f64 = 0.25;

impl Verdict {
    /// The verdicts of a pair: one a metric that both have.
    pub(super) fn of(experiment: &Experiment, pair: &Pair) -> Vec<Self> {
        experiment
            .metrics
            .iter()
            .filter(|metric| {
                let wanted = pair.metrics.as_ref();
                wanted.is_none_or(|wanted| wanted.contains(&metric.name))
            })
            .filter_map(|metric| {
                let segmented = experiment.figure(&pair.segmented, metric.name)?;
                let json_lines = experiment.figure(&pair.json_lines, metric.name)?;
                let times_better = Spread::of(segmented.rounds.iter().zip(&json_lines.rounds).map(
                    |(segmented, json_lines)| match metric.better {
                        Better::Higher => segmented / json_lines,
                        Better::Lower => json_lines / segmented,
                    },
                ));
                let goal = pair
                    .goals
                    .iter()
                    .find(|(name, _)| *name == metric.name)
                    .map(|(_, goal)| *goal);
                Some(Self {
                    experiment: experiment.key,
                    figure: format!("{}, {}", metric.name, metric.unit),
                    both: pair.both.clone(),
                    also: pair.also,
                    segmented: segmented.spread.median,
                    json_lines: json_lines.spread.median,
                    winner: winner(&times_better, segmented.rounds.len()),
                    times_better,
                    goal,
                })
            })
            .collect()
    }

    /// In words, as the report has it.
    #[must_use]
    pub fn words(&self) -> String {
        let goal = match self.goal {
            Some(goal) if self.times_better.median >= goal => {
                format!("; goal ≥ {} × met", short(goal))
            }
            Some(goal) => format!("; goal ≥ {} × **missed**", short(goal)),
            None => String::new(),
        };
        match self.winner {
            Winner::Segmented => format!("segmented{goal}"),
            Winner::JsonLines => format!("**JSON lines**{goal}"),
            Winner::Neither => format!("neither: JSON lines are as good{goal}"),
        }
    }

    /// A row of the report.
    pub(super) fn row(&self) -> String {
        let Spread { median, low, high } = self.times_better;
        format!(
            "| {} | {} | {} | {} | {} ({}–{}) | {} |",
            self.figure,
            self.both,
            short(self.segmented),
            short(self.json_lines),
            short(median),
            short(low),
            short(high),
            self.words()
        )
    }
}

fn winner(times_better: &Spread, rounds: usize) -> Winner {
    let alike = if rounds > 1 { ALIKE } else { ALIKE_ONCE };
    if (1.0 - alike..=1.0 + alike).contains(&times_better.median) {
        Winner::Neither
    } else if times_better.low > 1.0 {
        Winner::Segmented
    } else if times_better.high < 1.0 {
        Winner::JsonLines
    } else {
        Winner::Neither
    }
}

#[cfg(test)]
mod tests {
    use super::super::experiment::{Entrant, Metric};
    use super::*;

    const RATE: Metric = Metric::higher("rate", "orders/s");
    const TIME: Metric = Metric::lower("start", "ms");

    /// Verdicts on a rate and a time over three rounds, segmented first.
    fn verdicts(rates: [[f64; 2]; 3], times: [[f64; 2]; 3]) -> Vec<Verdict> {
        let entrant = |who: &'static str, place: usize| {
            let mut round = 0;
            Entrant::new(who, move || {
                round += 1;
                Ok(vec![
                    Some(rates[round - 1][place]),
                    Some(times[round - 1][place]),
                ])
            })
        };
        let experiment = Experiment::run(
            "key",
            "Title",
            "",
            &[RATE, TIME],
            3,
            vec![entrant("segmented", 0), entrant("jsonl", 1)],
        )
        .unwrap();
        let pair = Pair {
            segmented: "segmented".to_owned(),
            json_lines: "jsonl".to_owned(),
            both: "always".to_owned(),
            also: None,
            metrics: None,
            goals: vec![("start", 100.0)],
        };
        Verdict::of(&experiment, &pair)
    }

    #[test]
    fn who_is_better_in_every_round_wins_and_less_time_is_better() {
        let verdicts = verdicts(
            [[10.0, 20.0], [11.0, 20.0], [12.0, 20.0]],
            [[1.0, 200.0], [1.0, 300.0], [1.0, 250.0]],
        );
        assert_eq!(verdicts[0].winner, Winner::JsonLines);
        assert!(verdicts[0].words().contains("**JSON lines**"));
        assert_eq!(verdicts[1].winner, Winner::Segmented);
        assert_eq!(verdicts[1].times_better.median, 250.0);
        assert!(verdicts[1].words().contains("met"));
    }

    #[test]
    fn who_is_better_only_now_and_then_does_not_win() {
        let verdicts = verdicts(
            [[10.0, 9.0], [9.0, 10.0], [11.0, 9.0]],
            [[100.0, 100.5], [100.0, 101.0], [100.0, 101.0]],
        );
        assert_eq!(verdicts[0].winner, Winner::Neither);
        assert!(verdicts[0].row().contains("JSON lines are as good"));
        // One in a hundred is no difference, however steady.
        assert_eq!(verdicts[1].winner, Winner::Neither);
        assert!(verdicts[1].words().contains("**missed**"));
    }
}
