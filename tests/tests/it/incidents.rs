//! The runbook's incidents, each played from its symptom to its end by what an operator does.
//!
//! Goal: for every symptom, check and mitigation of the runbook there is a command and a metric, and they do what
//! `docs/operations.md` says they do. Method: the trouble is made as it comes (a disk that fills, a target that hangs, a
//! projection that somebody paused); then the section's consoles are played in their order (see `playbook`): the metric
//! shows the symptom, the check names its cause, the mitigation is applied, the symptom is gone and nothing was lost.

mod damage;
mod diagnostics;
mod full_disk;
mod halted;
mod log_files;
mod old_reads;
mod outbox;
mod parked;
mod recovery;
mod releases;
mod scaling;
mod slow_reads;
mod target;

use std::collections::BTreeSet;

use crate::playbook;
use crate::projections::place_many;

/// The sections of `docs/operations.md` that a test here plays, by file.
const PLAYED: [&[&str]; 12] = [
    damage::PLAYED,
    diagnostics::PLAYED,
    full_disk::PLAYED,
    halted::PLAYED,
    log_files::PLAYED,
    old_reads::PLAYED,
    outbox::PLAYED,
    parked::PLAYED,
    recovery::PLAYED,
    releases::PLAYED,
    scaling::PLAYED,
    slow_reads::PLAYED,
];

#[test]
fn every_console_of_the_operations_document_is_played() {
    let played: BTreeSet<String> = PLAYED
        .iter()
        .copied()
        .flatten()
        .map(|heading| (*heading).to_owned())
        .collect();
    let written: BTreeSet<String> = playbook::headings().into_iter().collect();
    assert_eq!(played, written);
}
