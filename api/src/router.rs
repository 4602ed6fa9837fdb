//! Which handler answers which path.

use std::sync::Arc;

use axum::Router;
use axum::http::{Method, Uri};
use axum::routing::{delete, get, post};

use crate::api::Shared;
use crate::error::{Problem, ProblemKind};
use crate::route::Route;
use crate::{admin, bulk, feed, health, history, list, openapi, projections, reads, writes};

pub(crate) fn router(shared: Arc<Shared>) -> Router {
    let routes = [
        (Route::Orders, post(writes::place).get(list::orders)),
        (Route::Order, get(reads::order)),
        (Route::Confirm, post(writes::confirm)),
        (Route::Pay, post(writes::pay)),
        (Route::Ship, post(writes::ship)),
        (Route::Deliver, post(writes::deliver)),
        (Route::Cancel, post(writes::cancel)),
        (Route::Refund, post(writes::refund)),
        (Route::Lines, post(writes::add_line)),
        (Route::Line, delete(writes::remove_line)),
        (Route::OrderEvents, get(history::events)),
        (Route::OrdersBulk, post(bulk::orders)),
        (Route::Events, get(feed::events)),
        (Route::Projections, get(projections::projections)),
        (Route::Pause, post(projections::pause)),
        (Route::Resume, post(projections::resume)),
        (Route::Parked, get(projections::parked)),
        (Route::RedriveParked, post(projections::redrive_parked)),
        (Route::Rebuild, post(projections::rebuild)),
        (Route::SwitchBack, post(projections::switch_back)),
        (Route::DiscardOld, post(projections::discard_old)),
        (Route::Reindex, post(projections::reindex)),
        (Route::CancelTask, post(projections::cancel_task)),
        (Route::Outbox, get(admin::outbox)),
        (Route::DeadLetters, get(admin::dead_letters)),
        (Route::DeadLetter, get(admin::dead_letter)),
        (Route::Redrive, post(admin::redrive)),
        (Route::RedriveAll, post(admin::redrive_all)),
        (Route::EnableOutbox, post(admin::enable_outbox)),
        (Route::RestartOutbox, post(admin::restart_outbox)),
        (Route::LogRotate, post(admin::rotate_log)),
        (Route::Livez, get(health::livez)),
        (Route::Healthz, get(health::livez)),
        (Route::Readyz, get(health::readyz)),
        (Route::Metrics, get(health::metrics)),
        (Route::OpenApi, get(openapi::openapi)),
        (Route::Docs, get(openapi::docs)),
        (Route::DocsFile, get(openapi::docs_file)),
    ];
    let mut router = Router::new();
    for (route, handlers) in routes {
        router = router.route(route.path(), handlers);
    }
    router
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(shared)
}

/// The answer for a path where nothing is.
pub(crate) async fn not_found(uri: Uri) -> Problem {
    Problem::new(
        ProblemKind::NotFound,
        format!("nothing is at {}", uri.path()),
    )
}

async fn method_not_allowed(method: Method) -> Problem {
    Problem::new(
        ProblemKind::MethodNotAllowed,
        format!("{method} is not allowed here"),
    )
}
