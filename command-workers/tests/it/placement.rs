//! Which partition a command goes to.

use std::collections::HashSet;

use order_partitioner::Partitioner;

use crate::support::{Requests, Setup, place};

#[tokio::test]
async fn an_order_is_in_the_partition_of_its_id() {
    let service = Setup {
        partitions: 8,
        ..Setup::default()
    }
    .start();
    let partitioner = Partitioner::new(8).unwrap();
    let mut used = HashSet::new();
    for _ in 0..200 {
        let outcome = service.submit(place()).await.unwrap();
        let partition = partitioner.partition_of(outcome.order.id.to_string().as_bytes());
        assert_eq!(outcome.position.partition.get(), partition);
        used.insert(partition);
    }

    assert_eq!(used.len(), 8, "new orders spread over all partitions");
    for partition in 0..8 {
        for frame in service.log.frames(partition) {
            assert_eq!(
                partitioner.partition_of(frame.order.to_string().as_bytes()),
                partition
            );
        }
    }
}

#[tokio::test]
async fn a_new_order_with_a_key_is_in_the_partition_of_the_key_and_of_its_id() {
    let service = Setup {
        partitions: 8,
        ..Setup::default()
    }
    .start();
    let partitioner = Partitioner::new(8).unwrap();
    for number in 0..100 {
        let key = format!("key-{number}");
        let outcome = service.submit(place().keyed(&key, 1)).await.unwrap();

        let partition = outcome.position.partition.get();
        assert_eq!(partitioner.partition_of(key.as_bytes()), partition);
        assert_eq!(
            partitioner.partition_of(outcome.order.id.to_string().as_bytes()),
            partition
        );
    }
}
