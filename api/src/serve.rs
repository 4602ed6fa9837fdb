//! The accept loop: connections capped, slow ones cut off, drained on shutdown within a bound.

use std::future::Future;

use tokio::net::TcpListener;

use crate::Api;

/// Serves `api` on every listener until `shutdown` completes; then answers "not ready", takes no new connection, lets
/// open requests finish within [`crate::ApiConfig::drain_timeout`], and returns.
///
/// # Errors
/// What the operating system said if a listener cannot accept any more.
pub async fn serve(
    listeners: Vec<TcpListener>,
    api: Api,
    shutdown: impl Future<Output = ()> + Send,
) -> std::io::Result<()> {
    let _ = (listeners, api, shutdown);
    todo!()
}
