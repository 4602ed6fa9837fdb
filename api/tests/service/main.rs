//! The API on real rooms, within one process: what needs a look at single frames of an answer, at limits that are set
//! small, or at connections. The life of an order over a running binary is told in the workspace's `tests/`.

mod bulk;
mod connections;
mod feed;
mod guards;
mod history;
mod reads;
mod world;
