//! What a worker does with a batch: folds it, and has it committed, with those of other partitions or alone.

use std::panic::{AssertUnwindSafe, catch_unwind};

use order_log::{Offset, PartitionId};
use rusqlite::Connection;

use super::{Care, SWITCHED, Span, Worker};
use crate::Projection;
use crate::apply::{self, Write};
use crate::crash::CrashPoint;
use crate::fold::{Scope, fold_batch};
use crate::joint::{FoldedBatch, Folding, Outcome};
use crate::mutants::{Mutant, keeps};
use crate::order_case::Source;
use crate::park::ParkedOrders;
use crate::projection_set::ProjectionSet;
use crate::redrive::Retry;
use crate::side::Side;
use crate::summaries::Stored;
use crate::trouble::Trouble;
use crate::workers::panic_text;

impl Worker {
    /// Folds the batch at hand into what it changes.
    pub(super) fn fold(
        &mut self,
        group: ProjectionSet,
        parked: Option<&ParkedOrders>,
        care: Care,
    ) -> Result<(), Trouble> {
        let stored = Stored {
            connection: &self.connection,
            partition: self.partition,
            side: self.side,
        };
        let rows_of = if group.contains(Projection::Orders) {
            self.side
        } else {
            Side::Live
        };
        let scope = Scope {
            projections: group,
            parked: parked.unwrap_or(&self.parked),
            source: Source {
                connection: &self.connection,
                log: self.log.as_ref(),
                side: rows_of,
            },
            stored: (care == Care::Careful).then_some(stored),
            trust_new: care == Care::Trusting,
        };
        fold_batch(&self.batch, &scope, &mut self.changes)?;
        self.crashes.here(CrashPoint::AfterFold)
    }

    /// Idempotency keys appended before this are forgotten with the batch at hand.
    fn keys_since(&self) -> u64 {
        let last = self.changes.last_appended_at;
        last.saturating_sub(self.config.idempotency_retention_us)
    }

    /// Folds the batch at hand, writes it in one transaction and tells how far it is. A projection that was paused meanwhile
    /// is left out.
    pub(super) fn write(
        &mut self,
        span: Span,
        care: Care,
        folding: Option<Folding>,
    ) -> Result<(), Trouble> {
        self.fold(span.group, None, care)?;
        let Some(folding) = folding else {
            return self.write_alone(span, None);
        };
        let batch = FoldedBatch {
            partition: self.partition,
            group: span.group,
            generations: self.generations,
            from: span.from,
            to: span.to,
            keys_since: self.keys_since(),
            bytes: self.batch.bytes(),
            changes: std::mem::take(&mut self.changes),
        };
        let (changes, outcome) = self.read_model.joint(self.partition).commit(
            folding,
            batch,
            || self.read_model.writer(self.partition),
            |writer, batches| self.commit_for_all(writer, batches),
        );
        self.changes = changes;
        self.note_parked(outcome?);
        Ok(())
    }

    /// Commits batches of the partitions of this file: all in one transaction, or each in its own if one of them does not
    /// fit its tables, or a bug shows. Tells how far they are.
    fn commit_for_all(&self, writer: &mut Connection, batches: &[FoldedBatch]) -> Vec<Outcome> {
        // What was folded before a switch is on rows of tables that are live no more.
        let generations = self.read_model.generations();
        let writes: Vec<Write<'_>> = batches
            .iter()
            .map(|batch| Write {
                partition: batch.partition,
                side: Side::Live,
                // Under the writer, because whoever pauses or holds waits for it: no checkpoint moves after a pause was
                // stored.
                projections: batch
                    .group
                    .iter()
                    .filter(|_| batch.generations == generations)
                    .filter(|member| !self.stands_still(*member))
                    .collect(),
                from: batch.from,
                to: batch.to,
                keys_since: batch.keys_since,
                changes: &batch.changes,
            })
            .collect();
        match self.try_commit(writer, &writes) {
            Ok(()) => writes.iter().map(|write| Ok(write.projections)).collect(),
            Err(Trouble::Constraint(_) | Trouble::Halt(_)) if writes.len() > 1 => writes
                .iter()
                .map(|write| {
                    self.try_commit(writer, std::slice::from_ref(write))
                        .map(|()| write.projections)
                })
                .collect(),
            Err(trouble) => writes.iter().map(|_| Err(trouble.clone())).collect(),
        }
    }

    /// [`Worker::commit`], with a panic as the trouble of these writes alone: other partitions' batches are in this worker's
    /// hands, and it must not take them with it. The transaction was rolled back while it unwound.
    fn try_commit(&self, writer: &mut Connection, writes: &[Write<'_>]) -> Result<(), Trouble> {
        catch_unwind(AssertUnwindSafe(|| self.commit(writer, writes))).unwrap_or_else(|panic| {
            let reason = format!("panicked: {}", panic_text(&*panic));
            Err(Trouble::Halt(reason))
        })
    }

    /// Commits writes to live tables in one transaction and tells how far they are.
    fn commit(&self, writer: &mut Connection, writes: &[Write<'_>]) -> Result<(), Trouble> {
        if writes.iter().all(|write| write.projections.is_empty()) {
            return Ok(());
        }
        let tell = || {
            for write in writes {
                self.tell(write.partition, write.projections, write.to);
            }
        };
        if !keeps(Mutant::ToldAfterCommit) {
            tell();
        }
        apply::commit(writes, writer, &self.crashes, |_| Ok(()))?;
        // Before anybody else gets the writer: whoever held the tables and then had it finds the checkpoints that are
        // stored. Told later, a switch would put tables in place that are behind what is told.
        tell();
        self.read_model.count_commit(self.partition);
        Ok(())
    }

    /// Writes what was folded in a transaction of its own: for tables that are not live, or frames that are tried again.
    pub(super) fn write_alone(&mut self, span: Span, retry: Option<&Retry>) -> Result<(), Trouble> {
        let mut writer = self.read_model.writer(self.partition);
        let is_switched =
            self.side == Side::Live && self.read_model.generations() != self.generations;
        let projections: ProjectionSet = span
            .group
            .iter()
            .filter(|member| !is_switched && !self.is_held(*member))
            .collect();
        if projections.is_empty() {
            return match retry {
                None => Ok(()),
                Some(_) => Err(Trouble::Passing(SWITCHED.to_owned())),
            };
        }
        let write = Write {
            partition: self.partition,
            side: self.side,
            projections,
            from: span.from,
            to: span.to,
            keys_since: self.keys_since(),
            changes: &self.changes,
        };
        apply::commit(
            std::slice::from_ref(&write),
            &mut writer,
            &self.crashes,
            |transaction| match retry {
                Some(retry) => retry.forget(transaction, self.partition),
                None => Ok(()),
            },
        )?;
        if retry.is_none() {
            self.tell(self.partition, projections, span.to);
        }
        drop(writer);
        self.read_model.count_commit(self.partition);
        self.note_parked(projections);
        Ok(())
    }

    /// Tells how far projections are.
    fn tell(&self, partition: PartitionId, projections: ProjectionSet, to: Offset) {
        for projection in projections.iter() {
            self.checkpoints.publish(projection, partition, to);
        }
    }

    /// Remembers, counts and logs what the transaction just committed set aside.
    fn note_parked(&mut self, projections: ProjectionSet) {
        let parked = self.changes.parked.iter();
        for frame in parked.filter(|frame| projections.contains(frame.projection)) {
            self.parked.insert(frame.projection, frame.key);
            let Some(reason) = &frame.reason else {
                continue;
            };
            self.metrics.errors[frame.projection.index()].inc();
            tracing::error!(
                projection = frame.projection.name(),
                partition = self.partition.get(),
                offset = frame.base.get(),
                order = %order_domain::OrderId::from_bytes(*frame.key.as_bytes()),
                %reason,
                "an event cannot be applied: its order is parked"
            );
        }
        self.tell_parked();
    }

    pub(super) fn tell_parked(&self) {
        if self.side != Side::Live {
            return;
        }
        for projection in Projection::ALL {
            self.board
                .set_parked(projection, self.partition, self.parked.count(projection));
        }
    }
}
