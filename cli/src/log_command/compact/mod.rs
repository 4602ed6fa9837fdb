//! `order-service log compact`: the events of orders that were closed long ago become one snapshot event each.
//!
//! The log is looked through first ([`survey`]): which orders are closed, old enough, told by the outbox and past their
//! idempotency keys, and can be told as one ([`story`]). Then it is rewritten beside itself in its own order, a snapshot
//! where the last event of such an order was and every other frame as it is ([`rewriting`]), proven, and switched into place
//! together with the outbox's store, at once ([`crate::staging`]). The read model is moved away with the old log and rebuilt
//! at the next start, to the same rows.
//!
//! `docs/adr/0008-compaction-rewrites-beside.md` says why so.

mod rewriting;
mod story;
mod survey;
#[cfg(test)]
mod tests;

use anyhow::anyhow;
use order_log::AppendTime;

use self::rewriting::Rewriting;
use self::survey::{Left, Rules, Survey};
use crate::age::{Age, now_micros};
use crate::config::{Config, DataDirectoryFlags};
use crate::data_directory::DataDirectory;
use crate::engine;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::print;
use crate::rewrite::beside;
use crate::staging::Staging;

/// Tell the events of orders that were closed long ago as one snapshot each; the service must be stopped
///
/// Delivered, cancelled and fully refunded orders are closed. Left as they are: orders with an idempotency key that is
/// still remembered, and those of which the outbox has something to tell. A compacted order keeps its version, and takes
/// a refund as before; what it was before its snapshot can be asked no more.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    data_directory: DataDirectoryFlags,
    /// Only orders whose last event is older than this: `90d`, `12h`, `30m`, `45s`
    #[arg(long, value_name = "AGE")]
    older_than: Age,
    /// Also orders of which the outbox has not told everything: it never will
    #[arg(long)]
    even_untold: bool,
    /// Delete the old log in the end instead of keeping it in `before-compact-…`
    #[arg(long)]
    discard_old: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

/// Compacts, proves, switches. Interrupted before the switch it changes nothing and can be run again; interrupted in it, the
/// next start or command finishes it.
///
/// # Errors
/// A failure naming the process that owns the directory, and one for a log that is damaged or lost events, or an outbox that
/// is not of this log. Nothing is changed then.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = arguments.data_directory.load()?.config;
    compact(&config, arguments, now_micros())
}

/// `now_us` is the present, in microseconds since the Unix epoch.
fn compact(config: &Config, arguments: &Arguments, now_us: u64) -> Result<(), Failure> {
    let directory = DataDirectory::own_existing(&config.data_dir)?;
    engine::refuse_waiting_segments(&directory.path)?;
    let interrupt = Interrupt::watch()?;
    let old = engine::open_read_only(&directory.path, &directory.manifest)?;
    if let Some(damage) = engine::damage(&*old, &directory.manifest) {
        return Err(anyhow!(
            "the log is damaged, and rewriting it would lose what is behind: {damage}; restore it from a backup first"
        )
        .into());
    }
    let ago = |micros: u64| AppendTime::from_micros(now_us.saturating_sub(micros));
    let retention_us = config.idempotency_retention().as_micros();
    let rules = Rules {
        older_than: ago(arguments.older_than.as_micros()),
        keys_since: ago(u64::try_from(retention_us).unwrap_or(u64::MAX)),
        told: if arguments.even_untold {
            None
        } else {
            let source = &config.outbox.source;
            Some(beside::told(&directory, source, &*old)?)
        },
    };
    let mut survey = Survey::make(&*old, &rules, &interrupt)?;
    let left = left_text(survey.left, arguments, config);
    let Survey { chosen, events, .. } = survey;
    if chosen == 0 {
        print::line("there is nothing to compact")?;
        return print::line(&left);
    }
    let bytes_before = beside::used_bytes(&directory.path, &directory.manifest)?;
    let told_as = format!("{chosen} orders, {events} events -> {chosen} snapshot events");
    if arguments.dry_run {
        let bytes = survey.frame_bytes;
        print::line(&format!(
            "would tell {told_as}: about {} of {} bytes of events would go",
            bytes.before.saturating_sub(bytes.after),
            bytes.before
        ))?;
        return print::line(&left);
    }
    beside::refuse_without_space(&directory, survey.frame_bytes.after)?;

    let staging = Staging::begin(&directory.path, "log compact")?;
    let rewriting = Rewriting {
        config,
        directory: &directory,
        staging: staging.path(),
        interrupt: &interrupt,
    };
    let result = rewriting
        .build(&*old, &mut survey)
        .and_then(|done| Ok((done, interrupt.check()?)))
        .and_then(|(done, ())| {
            let retire = beside::retire(&directory, "compact", arguments.discard_old)?;
            Ok((done, retire))
        });
    drop(old);
    let (done, retire) = match result {
        Ok(done) => done,
        Err(failure) => {
            staging.abandon();
            return Err(failure);
        }
    };
    let kept = retire.to.clone();
    staging.commit(Some(retire))?;
    print::line(&format!(
        "{told_as}, {bytes_before} -> {} bytes, and proven; the read model is rebuilt at the next start",
        done.bytes
    ))?;
    print::line(&left)?;
    if !arguments.discard_old {
        print::line(&format!(
            "what was there before is in {}: delete it when all is well",
            directory.path.join(kept).display()
        ))?;
    }
    Ok(())
}

fn left_text(left: Left, arguments: &Arguments, config: &Config) -> String {
    let Left {
        young,
        keyed,
        untold,
        unclear,
    } = left;
    format!(
        "closed orders left as they are: {young} not older than {}, {keyed} with an idempotency key of the last {} h, \
         {untold} that the outbox has to tell of, {unclear} that do not fold or are too long",
        arguments.older_than, config.idempotency_retention_hours
    )
}
