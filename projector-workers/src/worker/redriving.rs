//! Parked orders tried again, between two batches.

use super::{Care, Redrive, Span, Worker};
use crate::projection_set::ProjectionSet;
use crate::redrive::Retry;
use crate::trouble::Trouble;
use crate::workers::Redriven;
use crate::{Projection, ReadModelError};

impl Worker {
    pub(super) fn answer(&mut self, request: &Redrive) -> Result<(), String> {
        let (answer, outcome) = match self.redrive(request.projection) {
            Ok(redriven) => (Ok(redriven), Ok(())),
            Err(trouble) => {
                let outcome = self.endure(trouble);
                let (Ok(reason) | Err(reason)) = outcome.clone();
                let answer = Err(ReadModelError::Halted {
                    partition: self.partition,
                    reason,
                });
                (answer, outcome.map(drop))
            }
        };
        // Whoever asked may have gone; what was done stays done.
        request.reply.send(answer).ok();
        outcome
    }

    /// Tries the parked orders of a projection again, each from its first parked frame on.
    pub(crate) fn redrive(&mut self, projection: Projection) -> Result<Redriven, Trouble> {
        self.notice_switches()?;
        let mut redriven = Redriven::default();
        for key in self.parked.keys(projection) {
            redriven.applied_frames += self.redrive_order(Retry::new(projection, key))?;
        }
        redriven.parked_orders = self.parked.count(projection);
        Ok(redriven)
    }

    /// Tries the parked frames of an order until there are no more, or one cannot be applied; returns how many could.
    fn redrive_order(&mut self, mut retry: Retry) -> Result<u64, Trouble> {
        let group: ProjectionSet = [retry.projection].into_iter().collect();
        let mut applied = 0;
        while retry.take_next(&self.connection, self.partition)? {
            self.batch.clear();
            for base in &retry.frames {
                self.batch.push_at(self.log.as_ref(), *base)?;
            }
            let checkpoint = self.checkpoint(retry.projection);
            let span = Span {
                group,
                from: checkpoint,
                to: checkpoint,
            };
            let others = retry.without(&self.parked);
            self.fold(group, Some(&others), Care::Careful)?;
            self.write_alone(span, Some(&retry))?;
            let still_parked = self.changes.parked.len();
            applied += (retry.frames.len() - still_parked) as u64;
            if still_parked > 0 {
                return Ok(applied);
            }
        }
        self.parked.remove(retry.projection, retry.key);
        self.tell_parked();
        Ok(applied)
    }
}
