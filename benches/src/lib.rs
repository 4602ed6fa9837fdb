//! Bare references and load.
