//! Whatever is forgotten, applied, rolled back, restarted: the answers are those of a model that holds everything.

use std::collections::HashMap;

use order_command_workers::{CommandError, CommandOutcome, CommandRequest, Target};
use order_domain::{
    Amount, Command, LineId, NewLine, Order, OrderId, Quantity, Rejection, Sku, Version, decide,
    fold,
};
use proptest::prelude::*;

use crate::support::{Plan, ReadModel, Requests, Service, Setup, on, place, queue};

/// One thing that happens.
#[derive(Debug, Clone)]
enum Step {
    /// Commands that queue at once, so that several may share a batch.
    Commands(Vec<Draft>),
    /// The read model applies so many frames.
    Advance(usize),
    /// The disk is full for the next append.
    StorageFull,
    /// New workers, with a read model that has applied so many frames.
    Restart(usize),
    /// An older read model takes the place of the present one.
    GoBack(usize),
}

/// A command before it is known which orders there are.
#[derive(Debug, Clone)]
struct Draft {
    /// Which of the known orders; beyond them, a new one.
    order: usize,
    command: Command,
    /// The version to expect, relative to the right one.
    expected: Option<i8>,
    key: Option<(u8, u8)>,
}

fn command() -> impl Strategy<Value = Command> {
    let line = NewLine {
        sku: Sku::new("SKU-2").unwrap(),
        quantity: Quantity::new(1).unwrap(),
        unit_price: Amount::new(500).unwrap(),
    };
    prop_oneof![
        Just(Command::Confirm),
        Just(Command::AddLine(line)),
        Just(Command::RemoveLine(LineId::FIRST)),
        // The total of an order whose lines were never touched.
        Just(Command::Pay {
            amount: Amount::new(3998).unwrap(),
            reference: None
        }),
        Just(Command::Cancel { reason: None }),
        Just(Command::Refund {
            amount: Amount::new(100).ok(),
            reason: None
        }),
    ]
}

fn draft() -> impl Strategy<Value = Draft> {
    (
        0_usize..6,
        command(),
        proptest::option::of(-1_i8..=1),
        proptest::option::of((0_u8..3, 0_u8..2)),
    )
        .prop_map(|(order, command, expected, key)| Draft {
            order,
            command,
            expected,
            key,
        })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => proptest::collection::vec(draft(), 1..6).prop_map(Step::Commands),
        4 => (0_usize..5).prop_map(Step::Advance),
        1 => Just(Step::StorageFull),
        1 => (0_usize..40).prop_map(Step::Restart),
        1 => (0_usize..40).prop_map(Step::GoBack),
    ]
}

/// Holds everything, decides in order.
#[derive(Default)]
struct Model {
    ids: Vec<OrderId>,
    orders: HashMap<OrderId, Order>,
    keys: HashMap<(Option<OrderId>, String), ([u8; 16], Order)>,
    replays: usize,
}

impl Model {
    fn request(&self, draft: &Draft) -> CommandRequest {
        let request = match self.ids.get(draft.order) {
            None => place(),
            Some(id) => {
                let request = on(*id, draft.command.clone());
                match draft.expected {
                    None => request,
                    Some(off) => {
                        let version = self.orders[id].version.get();
                        request.at_version(version.saturating_add_signed(i32::from(off)))
                    }
                }
            }
        };
        match draft.key {
            None => request,
            Some((key, fingerprint)) => request.keyed(&format!("key-{key}"), fingerprint),
        }
    }

    /// Checks an answer, and takes over what it did.
    fn check(&mut self, request: CommandRequest, answer: Result<CommandOutcome, CommandError>) {
        if let Err(CommandError::StorageFull { .. }) = answer {
            return;
        }
        let target = match request.target {
            Target::New => None,
            Target::Existing(id) => Some(id),
        };
        let key = request.idempotency.as_ref();
        let scoped = key.map(|key| (target, key.key.clone()));
        if let Some((fingerprint, then)) = scoped.as_ref().and_then(|key| self.keys.get(key)) {
            if *fingerprint == key.unwrap().fingerprint {
                let outcome = answer.unwrap();
                assert!(outcome.replayed);
                assert_eq!(*outcome.order, *then);
                self.replays += 1;
            } else {
                assert!(
                    matches!(answer, Err(CommandError::IdempotencyMismatch)),
                    "{answer:?}"
                );
            }
            return;
        }
        let before = target.map(|id| &self.orders[&id]);
        let actual = before.map_or(Version::NONE, |order| order.version);
        if request
            .expected
            .is_some_and(|expected| !expected.contains(&actual))
        {
            let Err(CommandError::VersionMismatch { actual: told }) = answer else {
                panic!("{answer:?}");
            };
            assert_eq!(told, actual);
            return;
        }
        match decide(before, &request.command) {
            Err(rejection) => Self::check_refusal(before, &rejection, answer),
            Ok(events) => {
                let outcome = answer.unwrap();
                assert!(!outcome.replayed);
                let (id, at) = (outcome.order.id, outcome.order.updated_at);
                let mut after = before.cloned();
                for event in &events {
                    fold(&mut after, id, event, at).unwrap();
                }
                let after = after.unwrap();
                assert_eq!(*outcome.order, after);
                if target.is_none() {
                    self.ids.push(id);
                }
                if let Some(scoped) = scoped {
                    let fingerprint = key.unwrap().fingerprint;
                    self.keys.insert(scoped, (fingerprint, after.clone()));
                }
                self.orders.insert(id, after);
            }
        }
    }

    fn check_refusal(
        before: Option<&Order>,
        rejection: &Rejection,
        answer: Result<CommandOutcome, CommandError>,
    ) {
        let Err(CommandError::Rejected {
            rejection: told,
            order,
        }) = answer
        else {
            panic!("{answer:?}");
        };
        assert_eq!(told, *rejection);
        assert_eq!(order.as_deref(), before);
    }
}

async fn run(steps: Vec<Step>) -> Model {
    let mut service = Setup::default().start();
    let mut model = Model::default();
    for step in steps {
        match step {
            Step::Advance(frames) => drop(service.model.advance(0, frames)),
            Step::StorageFull => service.log.plan(0, [Plan::StorageFull]),
            Step::Restart(frames) => {
                let read_model = ReadModel::of(&service.log);
                read_model.advance(0, frames);
                service = service.restart(read_model);
            }
            Step::GoBack(frames) => {
                service.model.go_back_to(0, frames);
                served(&service).await;
            }
            Step::Commands(drafts) => submit(&service, &mut model, drafts).await,
        }
    }
    model
}

/// Waits until the worker has seen which read model there is now.
async fn served(service: &Service) {
    let nobodys = OrderId::from_bytes([0; 16]);
    for _ in 0..1_000_000 {
        match service.submit(on(nobodys, Command::Confirm)).await {
            Err(CommandError::ProjectorBehind { .. }) => {}
            _ => return,
        }
    }
    panic!("the worker did not read the log again");
}

async fn submit(service: &Service, model: &mut Model, drafts: Vec<Draft>) {
    let requests: Vec<_> = drafts.iter().map(|draft| model.request(draft)).collect();
    let queued: Vec<_> = requests
        .into_iter()
        .map(|request| (request.clone(), queue(service, request)))
        .collect();
    for (request, answer) in queued {
        model.check(request, answer.await);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn forgetting_never_loses_state(steps in proptest::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(run(steps));
    }
}

#[tokio::test]
async fn the_model_meets_replays_and_several_versions() {
    let draft = |order, command| Draft {
        order,
        command,
        expected: None,
        key: Some((0, 0)),
    };
    let steps = (0..4)
        .flat_map(|_| {
            [
                Step::Commands(vec![draft(9, Command::Confirm), draft(9, Command::Confirm)]),
                Step::Commands(vec![draft(0, Command::Confirm), draft(0, Command::Confirm)]),
                Step::Advance(1),
            ]
        })
        .collect();

    let model = run(steps).await;

    assert_eq!((model.ids.len(), model.replays), (1, 14));
}
