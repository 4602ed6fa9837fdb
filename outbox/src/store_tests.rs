//! The store refuses what it does not know, and forgets what was not committed.

use super::*;

fn next_offsets(store: &Store) -> Vec<Offset> {
    let cursors = store.cursors().unwrap();
    cursors.iter().map(|cursor| cursor.next).collect()
}

#[test]
fn a_store_of_another_log_is_refused_with_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    drop(Store::open(directory.path(), 4).unwrap());
    let error = Store::open(directory.path(), 8).unwrap_err().to_string();
    assert!(
        error.contains("knows 4 partitions, the log has 8"),
        "{error}"
    );
}

#[test]
fn a_store_of_a_newer_version_and_a_file_of_another_program_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE_NAME);
    drop(Store::open(directory.path(), 1).unwrap());
    let raw = Connection::open(&path).unwrap();
    raw.pragma_update(None, "user_version", LAYOUT + 1).unwrap();
    let error = Store::open(directory.path(), 1).unwrap_err().to_string();
    assert!(
        error.contains("has layout 2, this version reads 1"),
        "{error}"
    );
    raw.pragma_update(None, "application_id", 1).unwrap();
    let error = Store::open(directory.path(), 1).unwrap_err().to_string();
    assert!(error.contains("is not an outbox store"), "{error}");
    drop(raw);
    std::fs::write(
        &path,
        "not SQLite at all, but long enough to look like a header",
    )
    .unwrap();
    let error = Store::open(directory.path(), 1).unwrap_err();
    assert!(matches!(error, OutboxError::Store { .. }), "{error}");
}

#[test]
fn cursors_and_what_is_kept_aside_move_together_or_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let partition = PartitionId::new(1);
    let id = EventId::new(OrderId::from_bytes([9; 16]), Version::new(3));
    let event = LogEvent {
        id,
        partition,
        offset: Offset::new(41),
        appended_at: AppendTime::from_micros(5),
        tag: RecordTag {
            event_type: 2,
            schema: 1,
            codec: 1,
        },
        bytes: Cow::Borrowed(b"bytes"),
        frame_traceparent: Some(Cow::Borrowed("context")),
    };
    let order = HeldOrder {
        order: id.order(),
        state: HeldState::Dead,
        attempts: 7,
        due_at_us: 8,
        error: "refused".to_owned(),
    };
    let record = |store: &mut Store| {
        store.set_cursor(partition, Offset::new(42)).unwrap();
        assert!(store.hold_event(&event).unwrap());
        store.set_order(&order).unwrap();
    };

    let mut store = Store::open(directory.path(), 2).unwrap();
    record(&mut store);
    drop(store);
    let mut store = Store::open(directory.path(), 2).unwrap();
    assert_eq!(next_offsets(&store), [Offset::ZERO, Offset::ZERO]);
    assert_eq!(store.held().unwrap(), []);

    record(&mut store);
    store.commit().unwrap();
    drop(store);
    let store = Store::open(directory.path(), 2).unwrap();
    assert_eq!(next_offsets(&store), [Offset::ZERO, Offset::new(42)]);
    let queue = Queue {
        events: 1,
        oldest: AppendTime::from_micros(5),
    };
    assert_eq!(store.held().unwrap(), [(order, queue)]);
    assert_eq!(
        store.first_event(id.order(), Version::NONE).unwrap(),
        Some(event)
    );
}
