//! The `webhook` sink: one HTTP POST an event, to a target that may be slow, broken or hostile.
//!
//! CloudEvents 1.0 in binary mode, signed after Standard Webhooks 1.0. HTTP is hyper's own client and not a fuller one:
//! what follows redirects, obeys proxies or unpacks bodies is not here to be switched off. The target comes from the
//! configuration alone, and names are resolved, checked and connected to in one go (`resolver`).
//!
//! `deliveries` decides what is sent next and what becomes of it, without a socket or a clock of its own; `target` sends
//! one event; `dispatcher` joins the two.

mod address;
mod deliveries;
mod dispatcher;
mod outcome;
mod resolver;
mod retry_after;
mod secrets;
mod target;
#[cfg(test)]
mod test_world;

pub(crate) use dispatcher::WebhookDispatcher;
pub(crate) use resolver::SystemLookup;
pub use secrets::Secrets;
pub(crate) use target::Target;
