//! Documents that are written from the code and kept in the repository, so that a change of them is seen in review.

use std::path::Path;

/// Holds the file at `path` (from the repository's root) against what the code says now. Run with
/// `ORDER_SERVICE_WRITE_GOLDEN=1` to write it.
pub(crate) fn assert_golden(path: &str, expected: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("a room is in the root");
    let file = root.join(path);
    if std::env::var_os("ORDER_SERVICE_WRITE_GOLDEN").is_some() {
        std::fs::write(&file, expected).expect("the document can be written");
    }
    let found = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        found == expected,
        "{path} is not what the code says; look at the difference and run \
         ORDER_SERVICE_WRITE_GOLDEN=1 cargo test -p order-api"
    );
}
