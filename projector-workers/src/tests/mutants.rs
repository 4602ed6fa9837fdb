//! Whether the suites of [`crashes`](super::crashes) would notice if the worker did less: each thing that keeps rows and
//! checkpoint together is taken away in turn, and one of them must fail.

use std::fmt::Write as _;

use super::crashes::{
    Outcome, crash_at_every_point, second_worker, tells_what_is_there, what_a_crash_left,
};
use crate::mutants::{Mutant, keeps, without};

type Suite = (&'static str, fn() -> Outcome);

const SUITES: [Suite; 4] = [
    ("what_a_crash_left", what_a_crash_left),
    ("tells_what_is_there", tells_what_is_there),
    ("crash_at_every_point", crash_at_every_point),
    ("second_worker", second_worker),
];

#[test]
fn every_suite_passes_as_it_is_and_every_mutant_of_the_projector_is_killed_by_one() {
    for (name, suite) in SUITES {
        suite().unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    let mut survivors = Vec::new();
    let mut table = String::from("| taken away | noticed by |\n|---|---|\n");
    for mutant in Mutant::ALL {
        let killer = without(mutant, || {
            assert!(!keeps(mutant));
            // A panic is a way to notice, too.
            SUITES
                .iter()
                .find(|(_, suite)| !matches!(std::panic::catch_unwind(suite), Ok(Ok(()))))
        });
        match killer {
            Some((name, _)) => writeln!(table, "| {} | `{name}` |", mutant.describe()).unwrap(),
            None => survivors.push(mutant),
        }
    }
    assert_eq!(survivors, [], "these can be removed and no suite notices");
    println!("{table}");
    check_table(&table);
}

/// The table in `docs/durability.md` is what this run gave.
fn check_table(table: &str) {
    const BEGIN: &str = "<!-- projector mutants -->\n";
    const END: &str = "<!-- /projector mutants -->";
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/durability.md");
    let document = std::fs::read_to_string(path).unwrap();
    let (before, rest) = document.split_once(BEGIN).unwrap();
    let (written, after) = rest.split_once(END).unwrap();
    if std::env::var_os("ORDER_PROJECTOR_WRITE_TABLE").is_some() {
        std::fs::write(path, format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
    } else {
        assert_eq!(
            written, table,
            "write it anew with ORDER_PROJECTOR_WRITE_TABLE=1"
        );
    }
}
