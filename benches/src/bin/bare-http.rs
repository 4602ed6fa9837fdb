//! Serves the bare reference: axum with the order's JSON and nothing behind it, or with a group commit of one record.

#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use order_benches::reference::{BareFile, GroupCommit, Server, router};
use tokio::signal::unix::{SignalKind, signal};

/// That of the service, so that their ratio is not that of two allocators.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The bare HTTP reference; ends at SIGTERM.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:8081")]
    listen: SocketAddr,
    /// Let every POST wait until one record is synced to this file, which is replaced.
    #[arg(long, value_name = "FILE")]
    commit_to: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    anyhow::ensure!(
        arguments.listen.ip().is_loopback(),
        "the reference is for this machine alone: listen on a loopback address"
    );
    let group_commit = match &arguments.commit_to {
        Some(path) => Some(GroupCommit::start(Box::new(BareFile::durable(path)?))?),
        None => None,
    };
    let router = router(group_commit.as_ref().map(GroupCommit::appender))?;
    let server = Server::bind(arguments.listen, router).await?;
    println!("bare reference on http://{}", server.address()?);
    let mut terminated = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    server
        .serve_until(async move {
            tokio::select! {
                _ = terminated.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        })
        .await?;
    group_commit.map_or(Ok(()), GroupCommit::stop)
}
