//! A busy worker lets frames come together, but neither for ever nor while somebody waits for them.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use super::world::World;
use crate::worker::{GATHERED_AT_ONCE, GATHERED_ENOUGH};
use crate::{PartitionId, Projection};

#[test]
fn frames_are_let_come_together_until_they_are_enough() {
    let mut world = World::new(1);
    let read_model = world.open();
    let projector = world.projector(&read_model);
    for _ in 1..GATHERED_ENOUGH {
        world.place("c", &[("A", 1, 1)]);
    }
    world.flush();
    assert!(!projector.workers[0].has_gathered(1));

    world.place("c", &[("A", 1, 1)]);
    world.flush();
    assert!(projector.workers[0].has_gathered(1));
}

#[test]
fn frames_that_come_slowly_are_not_waited_for_again() {
    let mut world = World::new(1);
    let read_model = world.open();
    let projector = world.projector(&read_model);
    for _ in 0..GATHERED_AT_ONCE {
        world.place("c", &[("A", 1, 1)]);
    }
    world.flush();
    assert!(!projector.workers[0].has_gathered(1));
    assert!(projector.workers[0].has_gathered(2));
}

#[test]
fn a_frame_that_somebody_waits_for_is_not_made_to_wait_for_others() {
    let mut world = World::new(1);
    let read_model = world.open();
    let projector = world.projector(&read_model);
    for _ in 0..GATHERED_AT_ONCE {
        world.place("c", &[("A", 1, 1)]);
    }
    world.flush();
    let worker = &projector.workers[0];
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let _entered = runtime.enter();
    {
        let partition = PartitionId::new(0);
        let waiting = read_model.checkpoints().wait_for(
            Projection::Orders,
            partition,
            world.end(partition),
            Duration::from_secs(60),
        );
        let mut waiting = pin!(waiting);
        assert!(!worker.has_gathered(1));
        let mut context = Context::from_waker(Waker::noop());
        assert!(waiting.as_mut().poll(&mut context).is_pending());
        assert!(worker.has_gathered(1));
    }
    assert!(!worker.has_gathered(1), "who waited has gone");
}
