//! Projections in words.

use std::time::{Duration, Instant};

use anyhow::anyhow;
use order_projector_workers::Projection;
use serde_json::json;

use super::view::{OneProjection, Overview, ParkedOrder, RowDifference, Task};
use crate::failure::Failure;
use crate::print;

/// How often a terminal is told how far a task is, and how often anything else.
const TERMINAL_INTERVAL: Duration = Duration::from_millis(200);
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Prints how the projections stand.
pub(super) fn status(
    overview: &Overview,
    only: Option<Projection>,
    as_json: bool,
) -> Result<(), Failure> {
    if as_json {
        return print::line(&serde_json::to_string_pretty(overview)?);
    }
    print::line(
        "projection        partition  checkpoint    end           behind      lag         state",
    )?;
    let asked = |one: &&OneProjection| only.is_none_or(|only| only.name() == one.name);
    for one in overview.projections.iter().filter(asked) {
        for it in &one.partitions {
            let bound = if it.log_unreadable.is_some() {
                "≤ "
            } else {
                ""
            };
            print::line(&format!(
                "{:<16}  {:<9}  {:<12}  {:<12}  {:<10}  {:<10}  {}",
                one.name,
                it.partition,
                it.checkpoint,
                it.end,
                it.lag_events,
                format!("{bound}{:.3} s", it.lag_seconds),
                state(
                    one,
                    it.parked_orders,
                    it.halted.as_deref(),
                    it.log_unreadable.as_deref()
                )
            ))?;
        }
        let name = &one.name;
        if one.old_tables {
            print::line(&format!(
                "{name}: the tables before its rebuild are kept: `projections discard-old {name}` deletes them, \
                 `projections switch-back {name}` makes them live again"
            ))?;
        }
        if one.unfinished_rebuild && overview.task.as_ref().is_none_or(|task| task.over) {
            print::line(&format!(
                "{name}: a rebuild did not come to its end: `projections rebuild {name}` begins anew, \
                 `projections discard-old {name}` clears away what is left of it"
            ))?;
        }
    }
    overview
        .task
        .as_ref()
        .map_or(Ok(()), |task| print::line(&task_line(task)))
}

fn state(
    one: &OneProjection,
    parked: u64,
    halted: Option<&str>,
    unreadable: Option<&str>,
) -> String {
    let mut words = Vec::new();
    if let Some(reason) = halted {
        words.push(format!("HALTED: {reason}"));
    } else if one.paused {
        words.push("paused".to_owned());
    } else {
        words.push("running".to_owned());
    }
    if let Some(error) = unreadable {
        words.push(format!("the log cannot be read: {error}"));
    }
    if parked > 0 {
        words.push(format!("{parked} orders parked"));
    }
    words.join("; ")
}

fn task_line(task: &Task) -> String {
    let Task {
        action,
        projection,
        phase,
        done,
        total,
        elapsed_seconds,
        ..
    } = task;
    let share = if task.over || *total == 0 {
        String::new()
    } else {
        format!(" {done} of {total}")
    };
    format!("{action} of {projection}: {phase}{share}, {elapsed_seconds:.1} s")
}

/// Tells how a task goes.
pub(super) struct Progress {
    terminal: bool,
    told: Option<(Instant, String)>,
}

impl Progress {
    pub(super) fn new(terminal: bool) -> Self {
        Self {
            terminal,
            told: None,
        }
    }

    pub(super) fn at(&mut self, task: &Task) {
        self.say(&task.phase, &task_line(task));
    }

    /// Says a line if it is time to; at once when a new phase has begun.
    pub(super) fn say(&mut self, phase: &str, line: &str) {
        let interval = if self.terminal {
            TERMINAL_INTERVAL
        } else {
            LINE_INTERVAL
        };
        let due = self
            .told
            .as_ref()
            .is_none_or(|(at, of)| of != phase || at.elapsed() >= interval);
        if !due {
            return;
        }
        self.told = Some((Instant::now(), phase.to_owned()));
        if self.terminal {
            eprint!("\r\u{1b}[K{line}");
        } else {
            eprintln!("{line}");
        }
    }

    pub(super) fn end(&self) {
        if self.terminal && self.told.is_some() {
            eprint!("\r\u{1b}[K");
        }
    }
}

/// Prints what a task came to.
pub(super) fn ended(task: &Task) -> Result<(), Failure> {
    let Task {
        action, projection, ..
    } = task;
    if let Some(error) = &task.error {
        return Err(anyhow!("{action} of {projection} failed: {error}").into());
    }
    if task.phase != "done" {
        return Err(anyhow!(
            "{action} of {projection} was stopped before its end; the live tables are as they were"
        )
        .into());
    }
    for difference in &task.first_differences {
        print::line(&difference_line(difference))?;
    }
    let (Some(rows), Some(differences)) = (task.rows_compared, task.differences) else {
        return print::line(&format!(
            "{action} of {projection}: done in {:.1} s",
            task.elapsed_seconds
        ));
    };
    let more = differences.saturating_sub(task.first_differences.len() as u64);
    if more > 0 {
        print::line(&format!("… and {more} more"))?;
    }
    print::line(&format!(
        "{action} of {projection}: done in {:.1} s; of {rows} rows {differences} differed from those that were live; \
         these are kept until `order-service projections discard-old {projection}`",
        task.elapsed_seconds
    ))
}

/// One difference.
pub(super) fn difference_line(difference: &RowDifference) -> String {
    let RowDifference {
        table,
        key,
        partition,
        order_id,
        offset,
        kind,
        columns,
    } = difference;
    let order = order_id
        .as_ref()
        .map_or_else(String::new, |order| format!("order {order}, "));
    let offset = offset.map_or_else(String::new, |offset| format!(", offset {offset}"));
    let what = match kind.as_str() {
        "missing" => "the row is missing".to_owned(),
        "unexpected" => "there should be no such row".to_owned(),
        _ => format!("{} differ", columns.join(", ")),
    };
    format!("{table} {key}: {order}partition {partition}{offset}: {what}")
}

/// Prints the orders that were set aside.
pub(super) fn parked(
    found: &[(Projection, Vec<ParkedOrder>)],
    as_json: bool,
) -> Result<(), Failure> {
    if as_json {
        let all: serde_json::Map<_, _> = found
            .iter()
            .map(|(projection, orders)| (projection.name().to_owned(), json!(orders)))
            .collect();
        return print::line(&serde_json::to_string_pretty(&all)?);
    }
    for (projection, orders) in found {
        for order in orders {
            print::line(&format!(
                "{} order {}: partition {}, offset {}, {} events wait: {}",
                projection.name(),
                order.order_id,
                order.partition,
                order.offset,
                order.events,
                order.reason
            ))?;
        }
    }
    let count: usize = found.iter().map(|(_, orders)| orders.len()).sum();
    print::line(&format!("{count} parked"))
}
