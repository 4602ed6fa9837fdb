//! What every long-lived command has in front: sockets taken early, signals watched, HTTP served until one comes.

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use anyhow::Context;
use order_api::{Api, ApiConfig, Endpoints, Listener};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use crate::config::Config;
use crate::failure::Failure;

/// How long the rooms below the API may take to stop, after the API has drained: the queues are bounded, a sync takes
/// milliseconds. Past it the process ends with a failure; what was acknowledged is safe either way.
const STOP_LIMIT: Duration = Duration::from_secs(15);

/// Taken sockets, with what each serves.
#[derive(Debug)]
pub(crate) struct Sockets(Vec<(TcpListener, Endpoints)>);

impl Sockets {
    /// Takes the addresses of a whole service.
    ///
    /// # Errors
    /// A failure naming the flag of an address that cannot be taken.
    pub(crate) fn of_service(config: &Config) -> Result<Self, Failure> {
        let public = bind(config.listen, "listen")?;
        let Some(address) = config.admin_listen else {
            return Ok(Self(vec![(public, Endpoints::All)]));
        };
        let admin = bind(address, "admin-listen")?;
        Ok(Self(vec![
            (public, Endpoints::Public),
            (admin, Endpoints::Admin),
        ]))
    }

    /// Takes the address of a projector in a process of its own.
    ///
    /// # Errors
    /// As [`Sockets::of_service`].
    pub(crate) fn of_projector(config: &Config) -> Result<Self, Failure> {
        let socket = bind(config.projector.listen, "listen")?;
        Ok(Self(vec![(socket, Endpoints::Projector)]))
    }

    /// The address of the first socket.
    ///
    /// # Errors
    /// Whatever the operating system says.
    pub(crate) fn first_address(&self) -> Result<SocketAddr, Failure> {
        let (socket, _) = self.0.first().context("no socket was taken")?;
        Ok(socket.local_addr()?)
    }

    fn listeners(self) -> std::io::Result<Vec<Listener>> {
        let listener = |(socket, endpoints)| {
            Ok(Listener {
                socket: tokio::net::TcpListener::from_std(socket)?,
                endpoints,
            })
        };
        self.0.into_iter().map(listener).collect()
    }
}

/// Takes an address early: what is taken by another process should be told before a log is recovered.
fn bind(address: SocketAddr, flag: &str) -> Result<TcpListener, Failure> {
    let listener = TcpListener::bind(address)
        .with_context(|| format!("listen on {address}: choose another with --{flag}"))?;
    listener
        .set_nonblocking(true)
        .context("prepare the listening socket")?;
    Ok(listener)
}

/// The threads that serve HTTP.
///
/// # Errors
/// A failure if they cannot be started.
pub(crate) fn runtime() -> Result<Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("http")
        .build()
        .context("start the HTTP threads")?;
    Ok(runtime)
}

/// What addresses begin with.
pub(crate) fn scheme(api: &ApiConfig) -> &'static str {
    if api.tls.is_some() { "https" } else { "http" }
}

/// Watches for signals from now on.
///
/// # Errors
/// Whatever the operating system says.
pub(crate) fn signals(runtime: &Runtime) -> Result<StopSignals, Failure> {
    let watched = runtime.block_on(async { StopSignals::watch() });
    Ok(watched.context("watch for signals")?)
}

/// Serves until one of `signals`, then drains. `begun` is when the process began, for the line that says it is ready.
///
/// # Errors
/// A failure if the sockets cannot be served.
pub(crate) fn serve(
    runtime: &Runtime,
    signals: StopSignals,
    sockets: Sockets,
    api: Api,
    config: &Config,
    scheme: &str,
    begun: Instant,
) -> Result<(), Failure> {
    runtime.block_on(async {
        let listeners = sockets.listeners().context("listen")?;
        for Listener { socket, endpoints } in &listeners {
            let address = socket.local_addr().context("listen")?;
            match endpoints {
                Endpoints::Admin => info!("operators' endpoints on {scheme}://{address}"),
                Endpoints::All | Endpoints::Public | Endpoints::Projector => {
                    info!(
                        elapsed_ms = millis(begun.elapsed()),
                        "listening on {scheme}://{address}"
                    );
                }
            }
        }
        let stopping = signals.stopping(
            api.clone(),
            config.shutdown_pause(),
            config.drain_timeout() + STOP_LIMIT,
        );
        order_api::serve(listeners, api, stopping)
            .await
            .context("accept connections")
    })?;
    Ok(())
}

/// SIGTERM and SIGINT.
#[derive(Debug)]
pub(crate) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Neither signal ends the process by itself any more.
    fn watch() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// The next signal.
    pub(crate) async fn next(&mut self) -> (&'static str, SignalKind) {
        tokio::select! {
            _ = self.terminate.recv() => ("SIGTERM", SignalKind::terminate()),
            _ = self.interrupt.recv() => ("SIGINT", SignalKind::interrupt()),
        }
    }

    /// Completes when the service is to drain: at the first signal, or after the pause that follows it, or at the signal
    /// that ends the pause. From then on the process ends by force at the next signal, or after `limit`.
    async fn stopping(mut self, api: Api, pause: Duration, limit: Duration) {
        let (name, _) = self.next().await;
        api.turn_traffic_away();
        if !pause.is_zero() {
            info!(
                pause_ms = millis(pause),
                "{name}: not ready any more, serving on for a while; a second signal ends the pause"
            );
            tokio::select! {
                _ = self.next() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        info!("{name}: not ready any more, draining; another signal ends at once");
        tokio::spawn(async move {
            tokio::select! {
                (name, kind) = self.next() => {
                    warn!("{name} again: ending at once; what was acknowledged is in the log");
                    end_by_force(128 + kind.as_raw_value());
                }
                () = tokio::time::sleep(limit) => {
                    warn!(limit_ms = millis(limit), "stopping took too long: ending by force");
                    end_by_force(1);
                }
            }
        });
    }
}

fn end_by_force(code: i32) -> ! {
    std::process::exit(code)
}

/// Whole milliseconds.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
