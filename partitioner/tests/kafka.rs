//! Goal: a key has the partition that Kafka's own Java client would give it, and order ids spread evenly.
//!
//! Method: hashes published by Kafka and by librdkafka in their own tests; partitions of UUID texts and of bytes above
//! 0x7f computed once by an independent implementation (kafka-python); a count over many ids for the spread.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use order_partitioner::{Partitioner, murmur2};

fn partition(key: &[u8], partitions: u16) -> u16 {
    Partitioner::new(partitions).unwrap().partition_of(key)
}

#[test]
fn hashes_what_kafkas_own_test_hashes() {
    // org.apache.kafka.common.utils.UtilsTest.testMurmur2
    for (key, hash) in [
        ("21", -973_932_308_i32),
        ("foobar", -790_332_482),
        ("a-little-bit-long-string", -985_981_536),
        ("a-little-bit-longer-string", -1_486_304_829),
        (
            "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
            -58_897_971,
        ),
        ("abc", 479_470_107),
    ] {
        assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash, "{key}");
    }
}

#[test]
fn hashes_every_length_of_tail_as_librdkafka_does() {
    // librdkafka src/rdmurmur2.c, unittest_murmur2
    for (key, hash) in [
        ("kafka", 0xd067_cf64_u32),
        ("giberish123456789", 0x8f55_2b0c),
        ("1234", 0x9fc9_7b14),
        ("234", 0xe7c0_09ca),
        ("34", 0x8739_30da),
        ("4", 0x5a4b_5ca1),
        ("PreAmbleWillBeRemoved,ThePrePartThatIs", 0x7842_4f1c),
        ("reAmbleWillBeRemoved,ThePrePartThatIs", 0x4a62_b377),
        ("eAmbleWillBeRemoved,ThePrePartThatIs", 0xe0e4_e09e),
        ("AmbleWillBeRemoved,ThePrePartThatIs", 0x62b8_b43f),
        ("", 0x106e_08d9),
    ] {
        assert_eq!(murmur2(key.as_bytes()), hash, "{key}");
    }
}

#[test]
fn takes_bytes_above_0x7f_as_unsigned() {
    for (key, hash) in [
        ("größe".as_bytes(), 588_164_084_i32),
        (&[0x80, 0xff, 0xfe], 810_766_165),
        (&[0xfa, 0xfb, 0xfc, 0xfd, 0xfe, 0xff, 0x81], -1_293_103_680),
    ] {
        assert_eq!(murmur2(key).cast_signed(), hash, "{key:?}");
    }
}

#[test]
fn order_ids_have_the_partitions_that_kafka_gives_their_text() {
    for (id, partitions) in [
        ("0199c82c-0000-7000-8000-000000000000", [0, 1, 5, 1, 213]),
        ("0199c82c-7a1b-7c3d-8e4f-5a6b7c8d9e0f", [0, 2, 6, 10, 62]),
        ("01920000-0000-7000-8000-000000000001", [0, 0, 4, 4, 916]),
        ("ffffffff-ffff-ffff-ffff-ffffffffffff", [0, 2, 2, 6, 242]),
        ("00000000-0000-0000-0000-000000000000", [0, 1, 5, 9, 893]),
    ] {
        for (count, expected) in [1, 4, 8, 12, 1024].into_iter().zip(partitions) {
            assert_eq!(partition(id.as_bytes(), count), expected, "{id} of {count}");
        }
    }
}

#[test]
fn clears_the_sign_instead_of_taking_the_absolute_value() {
    // murmur2("foobar") is negative: its absolute value modulo 7 is 2, Kafka's partition is 0.
    let hash = murmur2(b"foobar").cast_signed();
    assert_eq!(hash.unsigned_abs() % 7, 2);
    assert_eq!(partition(b"foobar", 7), 0);
}

#[test]
fn time_ordered_ids_spread_evenly() {
    const IDS: u32 = 64_000;
    for partitions in [2_u16, 3, 4, 8, 16] {
        let mut counts = vec![0_u32; usize::from(partitions)];
        for n in 0..IDS {
            // A version 7 UUID: a clock that ticks every 16 ids, then bits that look random.
            let random = u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let id = format!(
                "{:08x}-{:04x}-7{:03x}-8{:03x}-{:012x}",
                0x0199_c82c,
                n >> 4,
                random >> 52,
                (random >> 40) & 0xfff,
                random & 0xffff_ffff_ffff,
            );
            assert_eq!(id.len(), 36);
            counts[usize::from(partition(id.as_bytes(), partitions))] += 1;
        }
        let mean = IDS / u32::from(partitions);
        for (partition, count) in counts.into_iter().enumerate() {
            assert!(
                count.abs_diff(mean) * 20 <= mean,
                "partition {partition} of {partitions} has {count} ids, the mean is {mean}"
            );
        }
    }
}

#[test]
fn refuses_a_count_of_zero_and_one_above_the_limit() {
    assert_eq!(Partitioner::new(0), None);
    assert_eq!(Partitioner::new(Partitioner::PARTITIONS_MAX + 1), None);
    assert_eq!(
        Partitioner::new(Partitioner::PARTITIONS_MAX).map(|partitioner| partitioner.partitions()),
        Some(Partitioner::PARTITIONS_MAX)
    );
}
