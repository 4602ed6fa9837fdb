//! axum and nothing behind it: the same JSON in, the same JSON out, no order kept.
//!
//! With an [`Appender`], `POST` also waits for a group commit of one record: what is left for everything else.

use std::net::SocketAddr;

use anyhow::Context;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Json, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::ListenerExt as _;
use tokio::net::TcpListener;

use super::Appender;
use crate::sample::{self, ORDER_REQUEST, OrderRequest, OrderResponse, RECORD_BYTES};

#[derive(Clone)]
struct Bare {
    /// What `GET` answers, whatever the id.
    order: Bytes,
    record: [u8; RECORD_BYTES],
    appender: Option<Appender>,
}

/// The routes: `POST /orders`, `GET /orders/{id}`, and `GET /readyz` for whoever waits for the start.
///
/// # Errors
/// If the example order does not encode, which would be a fault of this program.
pub fn router(appender: Option<Appender>) -> anyhow::Result<Router> {
    let order: OrderRequest = serde_json::from_str(ORDER_REQUEST)?;
    let state = Bare {
        order: serde_json::to_vec(&order.answer())?.into(),
        record: sample::record(1),
        appender,
    };
    Ok(Router::new()
        .route("/orders", post(place))
        .route("/orders/{id}", get(read))
        .route("/readyz", get(|| async { StatusCode::OK }))
        .with_state(state))
}

async fn place(
    State(bare): State<Bare>,
    Json(order): Json<OrderRequest>,
) -> Result<(StatusCode, Json<OrderResponse>), StatusCode> {
    if let Some(appender) = &bare.appender {
        appender
            .append(bare.record)
            .await
            .map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    }
    Ok((StatusCode::CREATED, Json(order.answer())))
}

async fn read(State(bare): State<Bare>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], bare.order).into_response()
}

/// The routes on a socket.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    router: Router,
}

impl Server {
    /// Listens on `address`.
    ///
    /// # Errors
    /// If it cannot.
    pub async fn bind(address: SocketAddr, router: Router) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("listen on {address}"))?;
        Ok(Self { listener, router })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// If the operating system cannot say.
    pub fn address(&self) -> anyhow::Result<SocketAddr> {
        self.listener.local_addr().context("ask for the address")
    }

    /// Serves until `stop` is done.
    ///
    /// # Errors
    /// If the listener fails.
    pub async fn serve_until(
        self,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> anyhow::Result<()> {
        // Small answers must not wait for an acknowledgement of the previous one.
        let listener = self
            .listener
            .tap_io(|stream| stream.set_nodelay(true).unwrap_or_default());
        axum::serve(listener, self.router)
            .with_graceful_shutdown(stop)
            .await
            .context("serve")
    }
}
