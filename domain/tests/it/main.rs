//! What the domain promises, as one binary: examples of the rules, laws over random lives, and bytes kept for ever.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod any;
mod given;
mod golden;
mod laws;
mod limits;
mod misfits;
mod rules;
mod snapshots;
mod values;
