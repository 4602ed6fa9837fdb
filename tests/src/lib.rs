//! Whole-service tests and fault rigs.
