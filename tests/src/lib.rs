//! Whole-service tests and fault rigs. The tests themselves are in `tests/it`.

#![forbid(unsafe_code)]
