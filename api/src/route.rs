//! The paths of the service: one table for the router, the metrics and the tests.

use axum::http::Method;

macro_rules! routes {
    ($($name:ident = $path:literal, $label:literal, $methods:expr;)+) => {
        /// A path of the service, or none of them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Route {
            $(#[doc = $label] $name,)+
            /// No path of the service: one label for all of them, so that a scan of paths makes no series.
            Unmatched,
        }

        impl Route {
            /// Every path with its methods.
            pub(crate) const ALL: &'static [(Self, &'static [MethodLabel])] =
                &[$((Self::$name, &$methods),)+];

            /// The path as the router has it.
            pub(crate) const fn path(self) -> &'static str {
                match self { $(Self::$name => $path,)+ Self::Unmatched => "" }
            }

            /// The path as the metrics have it.
            pub(crate) const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)+ Self::Unmatched => "unmatched" }
            }
        }
    };
}

use MethodLabel::{Delete, Get, Post};

routes! {
    Orders = "/orders", "/orders", [Get, Post];
    Order = "/orders/{id}", "/orders/:id", [Get];
    Confirm = "/orders/{id}/confirm", "/orders/:id/confirm", [Post];
    Pay = "/orders/{id}/pay", "/orders/:id/pay", [Post];
    Ship = "/orders/{id}/ship", "/orders/:id/ship", [Post];
    Deliver = "/orders/{id}/deliver", "/orders/:id/deliver", [Post];
    Cancel = "/orders/{id}/cancel", "/orders/:id/cancel", [Post];
    Refund = "/orders/{id}/refund", "/orders/:id/refund", [Post];
    Lines = "/orders/{id}/lines", "/orders/:id/lines", [Post];
    Line = "/orders/{id}/lines/{line_id}", "/orders/:id/lines/:line_id", [Delete];
    Projections = "/projections", "/projections", [Get];
    Pause = "/projections/{name}/pause", "/projections/:name/pause", [Post];
    Resume = "/projections/{name}/resume", "/projections/:name/resume", [Post];
    Parked = "/projections/{name}/parked", "/projections/:name/parked", [Get];
    RedriveParked = "/projections/{name}/parked/redrive", "/projections/:name/parked/redrive", [Post];
    Rebuild = "/projections/{name}/rebuild", "/projections/:name/rebuild", [Post];
    SwitchBack = "/projections/{name}/switch-back", "/projections/:name/switch-back", [Post];
    DiscardOld = "/projections/{name}/discard-old", "/projections/:name/discard-old", [Post];
    Reindex = "/projections/{name}/reindex", "/projections/:name/reindex", [Post];
    CancelTask = "/projections/{name}/cancel", "/projections/:name/cancel", [Post];
    Outbox = "/outbox", "/outbox", [Get];
    DeadLetters = "/outbox/dead", "/outbox/dead", [Get];
    DeadLetter = "/outbox/dead/{id}", "/outbox/dead/:id", [Get];
    Redrive = "/outbox/dead/{id}/redrive", "/outbox/dead/:id/redrive", [Post];
    RedriveAll = "/outbox/dead/redrive", "/outbox/dead/redrive", [Post];
    EnableOutbox = "/outbox/enable", "/outbox/enable", [Post];
    RestartOutbox = "/outbox/restart", "/outbox/restart", [Post];
    LogRotate = "/log/rotate", "/log/rotate", [Post];
    OrderEvents = "/orders/{id}/events", "/orders/:id/events", [Get];
    OrdersBulk = "/orders/bulk", "/orders/bulk", [Post];
    Events = "/events", "/events", [Get];
    Livez = "/livez", "/livez", [Get];
    Readyz = "/readyz", "/readyz", [Get];
    Healthz = "/healthz", "/healthz", [Get];
    Metrics = "/metrics", "/metrics", [Get];
    OpenApi = "/openapi.json", "/openapi.json", [Get];
    Docs = "/docs", "/docs", [Get];
    DocsFile = "/docs/{file}", "/docs/:file", [Get];
}

/// How many labels of routes there are.
pub(crate) const ROUTES: usize = Route::Unmatched as usize + 1;

impl Route {
    /// Whether it is the operators': a listener of its own may serve it.
    pub(crate) const fn is_for_operators(self) -> bool {
        matches!(
            self,
            Self::Projections
                | Self::Pause
                | Self::Resume
                | Self::Parked
                | Self::RedriveParked
                | Self::Rebuild
                | Self::SwitchBack
                | Self::DiscardOld
                | Self::Reindex
                | Self::CancelTask
                | Self::Outbox
                | Self::DeadLetters
                | Self::DeadLetter
                | Self::Redrive
                | Self::RedriveAll
                | Self::EnableOutbox
                | Self::RestartOutbox
                | Self::LogRotate
        )
    }

    /// Whether it looks at projections or moves them.
    pub(crate) const fn is_of_projections(self) -> bool {
        matches!(
            self,
            Self::Projections
                | Self::Pause
                | Self::Resume
                | Self::Parked
                | Self::RedriveParked
                | Self::Rebuild
                | Self::SwitchBack
                | Self::DiscardOld
                | Self::Reindex
                | Self::CancelTask
        )
    }

    /// Whether it is for probes and scrapers: every listener serves it.
    pub(crate) const fn is_for_machines(self) -> bool {
        matches!(
            self,
            Self::Livez | Self::Readyz | Self::Healthz | Self::Metrics
        )
    }

    /// Whether a method of this route takes no query parameter, so that each is a client's mistake. Probes, scrapers and
    /// browsers add parameters of their own to what they read; a method that the route does not have is refused as such.
    pub(crate) fn takes_no_query(self, method: MethodLabel) -> bool {
        match method {
            Post | Delete => self.has(method),
            Get | MethodLabel::Head => {
                matches!(self, Self::Projections | Self::Outbox | Self::DeadLetter)
            }
            MethodLabel::Put | MethodLabel::Patch | MethodLabel::Options | MethodLabel::Other => {
                false
            }
        }
    }

    /// Whether the route has a method.
    fn has(self, method: MethodLabel) -> bool {
        Self::ALL
            .iter()
            .any(|(route, methods)| *route == self && methods.contains(&method))
    }

    /// Whether a parameter that it does not know is refused: everywhere but where programs add their own.
    pub(crate) const fn knows_its_parameters(self) -> bool {
        !self.is_for_machines() && !matches!(self, Self::OpenApi | Self::Docs | Self::DocsFile)
    }

    /// Whether every answer of its reads tells caches what to do: its handler does where all is well, and a problem does.
    pub(crate) const fn tells_caches(self) -> bool {
        matches!(self, Self::Orders | Self::Order | Self::DocsFile)
    }

    /// The route of a request's path: what the router would match, without asking it.
    pub(crate) fn of(path: &str) -> Self {
        let mut segments = path.strip_prefix('/').unwrap_or_default().split('/');
        let first = segments.next().unwrap_or_default();
        let rest = [
            segments.next(),
            segments.next(),
            segments.next(),
            segments.next(),
        ];
        match (first, rest) {
            ("orders", rest) => Self::of_orders(rest),
            ("events", [None, ..]) => Self::Events,
            ("projections", rest) => Self::of_projections(rest),
            ("outbox", rest) => Self::of_outbox(rest),
            ("log", [Some("rotate"), None, ..]) => Self::LogRotate,
            ("livez", [None, ..]) => Self::Livez,
            ("readyz", [None, ..]) => Self::Readyz,
            ("healthz", [None, ..]) => Self::Healthz,
            ("metrics", [None, ..]) => Self::Metrics,
            ("openapi.json", [None, ..]) => Self::OpenApi,
            ("docs", [None, ..]) => Self::Docs,
            ("docs", [Some(file), None, ..]) if !file.is_empty() => Self::DocsFile,
            _ => Self::Unmatched,
        }
    }

    fn of_projections(rest: [Option<&str>; 4]) -> Self {
        match rest {
            [None, ..] => Self::Projections,
            [Some(""), None, ..] => Self::Unmatched,
            [Some(_), Some("pause"), None, _] => Self::Pause,
            [Some(_), Some("resume"), None, _] => Self::Resume,
            [Some(_), Some("rebuild"), None, _] => Self::Rebuild,
            [Some(_), Some("switch-back"), None, _] => Self::SwitchBack,
            [Some(_), Some("discard-old"), None, _] => Self::DiscardOld,
            [Some(_), Some("reindex"), None, _] => Self::Reindex,
            [Some(_), Some("cancel"), None, _] => Self::CancelTask,
            [Some(_), Some("parked"), None, _] => Self::Parked,
            [Some(_), Some("parked"), Some("redrive"), None] => Self::RedriveParked,
            _ => Self::Unmatched,
        }
    }

    fn of_outbox(rest: [Option<&str>; 4]) -> Self {
        match rest {
            [None, ..] => Self::Outbox,
            [Some("dead"), None, ..] => Self::DeadLetters,
            [Some("dead"), Some("redrive"), None, _] => Self::RedriveAll,
            [Some("dead"), Some(""), None, _] => Self::Unmatched,
            [Some("dead"), Some(_), None, _] => Self::DeadLetter,
            [Some("dead"), Some(_), Some("redrive"), None] => Self::Redrive,
            [Some("enable"), None, ..] => Self::EnableOutbox,
            [Some("restart"), None, ..] => Self::RestartOutbox,
            _ => Self::Unmatched,
        }
    }

    fn of_orders(rest: [Option<&str>; 4]) -> Self {
        match rest {
            [None, ..] => Self::Orders,
            // The router takes an empty parameter anywhere but at the end.
            [Some(""), None, ..] | [_, _, Some(""), _] => Self::Unmatched,
            [Some("bulk"), None, ..] => Self::OrdersBulk,
            [Some(_), None, ..] => Self::Order,
            [Some(_), Some(step), None, _] => match step {
                "confirm" => Self::Confirm,
                "pay" => Self::Pay,
                "ship" => Self::Ship,
                "deliver" => Self::Deliver,
                "cancel" => Self::Cancel,
                "refund" => Self::Refund,
                "lines" => Self::Lines,
                "events" => Self::OrderEvents,
                _ => Self::Unmatched,
            },
            [Some(_), Some("lines"), Some(_), None] => Self::Line,
            _ => Self::Unmatched,
        }
    }
}

/// A method as the metrics have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MethodLabel {
    Get,
    Post,
    Delete,
    Head,
    Put,
    Patch,
    Options,
    /// Any other: one label, so that made-up methods make no series.
    Other,
}

/// How many labels of methods there are.
pub(crate) const METHODS: usize = MethodLabel::Other as usize + 1;

impl MethodLabel {
    /// The label of a request's method.
    pub(crate) fn of(method: &Method) -> Self {
        match *method {
            Method::GET => Self::Get,
            Method::POST => Self::Post,
            Method::DELETE => Self::Delete,
            Method::HEAD => Self::Head,
            Method::PUT => Self::Put,
            Method::PATCH => Self::Patch,
            Method::OPTIONS => Self::Options,
            _ => Self::Other,
        }
    }

    /// The label's text.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Delete => "DELETE",
            Self::Head => "HEAD",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Options => "OPTIONS",
            Self::Other => "_OTHER",
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A router that answers with the label of the route that matched.
    async fn matched(path: &str) -> Option<&'static str> {
        use axum::extract::MatchedPath;
        use tower::ServiceExt;
        let mut router = axum::Router::new().fallback(async || "");
        for (route, _) in Route::ALL {
            router = router.route(
                route.path(),
                axum::routing::any(async |path: MatchedPath| path.as_str().to_owned()),
            );
        }
        let request = axum::http::Request::get(path)
            .body(axum::body::Body::empty())
            .ok()?;
        let response = router.oneshot(request).await.ok()?;
        let body = axum::body::to_bytes(response.into_body(), 1000)
            .await
            .ok()?;
        let found = Route::ALL
            .iter()
            .find(|(route, _)| route.path().as_bytes() == body);
        Some(found.map_or(Route::Unmatched, |(route, _)| *route).label())
    }

    #[test]
    fn labels_are_the_routers_paths_with_colons() {
        for (route, _) in Route::ALL {
            let label = route.path().replace('{', ":").replace('}', "");
            assert_eq!(route.label(), label);
        }
    }

    proptest! {
        #[test]
        fn the_label_is_of_the_route_that_the_router_matches(
            segments in proptest::collection::vec(
                prop_oneof![
                    Just("orders"), Just("bulk"), Just("confirm"), Just("pay"), Just("ship"), Just("deliver"),
                    Just("cancel"), Just("refund"), Just("lines"), Just("events"), Just("livez"),
                    Just("readyz"), Just("healthz"), Just("metrics"), Just("7"), Just(""),
                    Just("projections"), Just("pause"), Just("resume"), Just("parked"), Just("rebuild"), Just("outbox"), Just("dead"),
                    Just("enable"), Just("restart"),
                    Just("redrive"), Just("log"), Just("rotate"), Just("docs"), Just("openapi.json"), Just("orders"),
                    Just("orders"),
                ],
                1..6,
            )
        ) {
            let path = format!("/{}", segments.join("/"));
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            if let Some(label) = runtime.block_on(matched(&path)) {
                prop_assert_eq!(Route::of(&path).label(), label, "{}", path);
            }
        }
    }
}
