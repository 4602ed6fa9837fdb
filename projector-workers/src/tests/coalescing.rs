//! However the log is cut into batches and spread over files, the rows are the same, and they are the orders as decided.

use std::ops::Range;
use std::sync::atomic::Ordering;

use order_domain::{Amount, Command, LineId, OrderId, Quantity, Sku};
use proptest::prelude::*;

use super::world::{World, cancel, digests, line, pay, place, projector_config, remove};

/// One turn of the write side: a command on one of the first few orders, or a new order.
#[derive(Debug, Clone)]
enum Turn {
    Place {
        customer: u8,
        lines: Vec<(u8, u32, i64)>,
    },
    Run {
        order: u8,
        command: Command,
    },
    /// What was appended so far becomes visible.
    Flush,
}

fn lines() -> impl Strategy<Value = Vec<(u8, u32, i64)>> {
    prop::collection::vec((0..6_u8, 1..5_u32, 0..1_000_i64), 1..4)
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        3 => (0..6_u8, 1..5_u32, 0..1_000_i64).prop_map(|(sku, quantity, price)| {
            Command::AddLine(line(&sku_name(sku), quantity, price))
        }),
        3 => (1..5_u32).prop_map(remove),
        4 => Just(Command::Confirm),
        4 => Just(pay(0)),
        2 => Just(Command::Ship { carrier: Some("post".into()), tracking_number: None }),
        2 => Just(Command::Deliver),
        2 => Just(cancel()),
        2 => prop::option::of(1..500_i64).prop_map(|amount| Command::Refund {
            amount: amount.map(|amount| Amount::new(amount).unwrap()),
            reason: None,
        }),
    ]
}

fn turns(count: Range<usize>) -> impl Strategy<Value = Vec<Turn>> {
    let turn = prop_oneof![
        2 => (0..5_u8, lines()).prop_map(|(customer, lines)| Turn::Place { customer, lines }),
        12 => (any::<u8>(), command()).prop_map(|(order, command)| Turn::Run { order, command }),
        1 => Just(Turn::Flush),
    ];
    prop::collection::vec(turn, count)
}

fn sku_name(number: u8) -> String {
    // Needs escaping in JSON, and is longer in bytes than in characters.
    format!("sku \"{number}\" ü")
}

/// Plays the turns; commands the rules refuse are skipped.
fn play(world: &mut World, turns: &[Turn]) {
    let mut ids: Vec<OrderId> = Vec::new();
    for turn in turns {
        match turn {
            Turn::Place { customer, lines } => {
                let names: Vec<String> = lines.iter().map(|(sku, ..)| sku_name(*sku)).collect();
                let lines: Vec<(&str, u32, i64)> = lines
                    .iter()
                    .zip(&names)
                    .map(|((_, quantity, price), name)| (name.as_str(), *quantity, *price))
                    .collect();
                ids.push(world.place(&format!("customer {customer}"), &lines));
            }
            Turn::Run { order, command } => {
                let Some(id) = ids.get(usize::from(*order) % ids.len().max(1)).copied() else {
                    continue;
                };
                let command = match command {
                    // A payment is the total, which is known only now.
                    Command::Pay { reference, .. } => Command::Pay {
                        amount: world.orders[&id].order.total,
                        reference: reference.clone(),
                    },
                    other => other.clone(),
                };
                world.run(id, &command).ok();
            }
            Turn::Flush => world.flush(),
        }
    }
    world.flush();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_cut_into_batches_and_files_comes_to_the_same_rows(turns in turns(1..120)) {
        let mut world = World::new(3);
        play(&mut world, &turns);

        let one_by_one = world.folded_afresh(1, 1);
        prop_assert_eq!(&world.folded_afresh(1, u64::MAX), &one_by_one);
        prop_assert_eq!(&world.folded_afresh(3, 5), &one_by_one);

        let read_model = world.open();
        world.projector_with(&read_model, &projector_config(7)).catch_up();
        prop_assert_eq!(&digests(&read_model), &one_by_one);
        world.assert_rows_are_the_orders(&read_model);
    }

    #[test]
    fn applying_while_the_log_grows_comes_to_the_same_rows(
        parts in prop::collection::vec(turns(1..20), 2..6),
    ) {
        let mut world = World::new(2);
        let read_model = world.open();
        let mut projector = world.projector(&read_model);
        for turns in parts {
            play(&mut world, &turns);
            projector.catch_up();
            world.assert_rows_are_the_orders(&read_model);
        }
        prop_assert_eq!(digests(&read_model), world.folded_afresh(2, 3));
    }
}

#[test]
fn an_order_of_the_most_and_longest_lines_reads_back_as_it_was_decided() {
    let mut world = World::new(1);
    let skus: Vec<String> = (0..500).map(|number| format!("{number:064}")).collect();
    let lines: Vec<(&str, u32, i64)> = skus
        .iter()
        .map(|sku| (sku.as_str(), Quantity::MAX, 18_446_744))
        .collect();
    let id = world.new_id();
    world.run(id, &place(&"c".repeat(64), &lines)).unwrap();
    world.run(id, &Command::RemoveLine(LineId::FIRST)).unwrap();
    world
        .run(
            id,
            &Command::AddLine(line(&skus[0], 1, i64::from(u32::MAX))),
        )
        .unwrap();
    world.flush();

    let read_model = world.open();
    world.projector(&read_model).catch_up();

    world.assert_rows_are_the_orders(&read_model);
    assert_eq!(
        world.orders[&id].order.lines[499].sku,
        Sku::new(skus[0].clone()).unwrap()
    );
}

#[test]
fn records_that_arrive_between_the_look_at_the_end_and_the_scan_are_applied_not_taken_for_a_shorter_log()
 {
    let mut world = World::new(1);
    for number in 0..5 {
        world.place(&format!("c{number}"), &[("A", 1, 10)]);
    }
    world.flush();
    world.unseen.store(3, Ordering::SeqCst);
    let read_model = world.open();

    world.projector(&read_model).catch_up();

    assert_eq!(digests(&read_model), world.folded_afresh(1, 1));
}
