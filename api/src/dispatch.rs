//! From a request to its handler.
//!
//! The router knows every path. The two that carry nearly all of the load are called directly, with the very handlers
//! that the router has for them: on the way through the router a request pays for a boxed service, a boxed future, a map
//! of extensions and two boxed bodies, which together cost as much as finding the order.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use bytes::Bytes;
use tower::Service;

use crate::answer::{Answer, AnswerBody};
use crate::api::Shared;
use crate::body::JsonBody;
use crate::connection_clock::ConnectionClock;
use crate::error::Problem;
use crate::order_path::OrderPath;
use crate::route::{MethodLabel, Route};
use crate::writes::CommandHeaders;
use crate::{reads, writes};

/// Answers a request that may be answered.
pub(crate) async fn dispatch<B>(
    shared: &Arc<Shared>,
    router: &mut Router,
    clock: &Arc<ConnectionClock>,
    (route, method): (Route, MethodLabel),
    request: axum::http::Request<B>,
) -> Result<Answer, Problem>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError> + std::fmt::Display,
{
    match (route, method) {
        (Route::Orders, MethodLabel::Post) => {
            let (parts, body) = request.into_parts();
            let headers = CommandHeaders::of(&parts)?;
            let limit = shared.config.body_bytes_max;
            let body = JsonBody::read(&parts.headers, body, limit, Some(clock)).await?;
            writes::place(State(Arc::clone(shared)), headers, body).await
        }
        (Route::Order, MethodLabel::Get) => {
            let (parts, _) = request.into_parts();
            let id = OrderPath::of(parts.uri.path())?;
            reads::order(State(Arc::clone(shared)), id, parts.uri, parts.headers).await
        }
        _ => Ok(route_by_table(router, clock, request.map(Body::new)).await),
    }
}

async fn route_by_table(
    router: &mut Router,
    clock: &Arc<ConnectionClock>,
    mut request: Request,
) -> Answer {
    request.extensions_mut().insert(Arc::clone(clock));
    match router.call(request).await {
        Ok(response) => response.map(AnswerBody::Stream),
        Err(never) => match never {},
    }
}
