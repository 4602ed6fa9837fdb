//! The OpenAPI 3.1 document, made from the code: routes from the router's table, bodies from the parsed shapes, failures
//! from the catalogue of problems. A golden copy is in `docs/openapi.json`, so that a change is seen in review.

mod examples;
mod operations;
mod parameters;
mod schemas;

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION};
use axum::http::{HeaderValue, StatusCode, Uri};
use utoipa::openapi::path::{
    HttpMethod, OperationBuilder, ParameterBuilder, PathItem, PathsBuilder,
};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{
    ComponentsBuilder, Content, Header, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, Ref,
    RefOr, Required, ResponseBuilder, ResponsesBuilder, SecurityRequirement,
};
use utoipa_swagger_ui::Config;

use crate::answer::{self, Answer};
use crate::auth::Scope;
use crate::door::Door;
use crate::error::{Problem, ProblemKind};
use crate::route::MethodLabel;
#[cfg(test)]
use crate::route::Route;
use operations::{OPERATIONS, Operation, Outcome};
pub(crate) use schemas::{currency_ref, metadata};

/// The document as served, written once.
static DOCUMENT: LazyLock<String> = LazyLock::new(|| {
    let mut text = document()
        .to_pretty_json()
        .expect("the document is made of texts and numbers");
    text.push('\n');
    text
});

/// `GET /openapi.json`
pub(crate) async fn openapi() -> Answer {
    answer::json(StatusCode::OK, DOCUMENT.as_bytes())
}

/// `GET /docs` leads to the page.
pub(crate) async fn docs() -> Answer {
    const PAGE: &str = "/docs/index.html";
    let mut response = answer::text(StatusCode::PERMANENT_REDIRECT, PAGE);
    response
        .headers_mut()
        .insert(LOCATION, HeaderValue::from_static(PAGE));
    response
}

/// `GET /docs/:file`: the page and its files, all from within the binary.
pub(crate) async fn docs_file(uri: Uri) -> Result<Answer, Problem> {
    static CONFIG: LazyLock<Arc<Config<'static>>> =
        LazyLock::new(|| Arc::new(Config::from("/openapi.json")));
    let path = uri.path().strip_prefix("/docs/").unwrap_or_default();
    let found = utoipa_swagger_ui::serve(path, Arc::clone(&CONFIG));
    let file = found.map_err(|error| Problem::internal(format!("the docs page: {error}")))?;
    let file = file.ok_or_else(|| {
        Problem::new(
            ProblemKind::NotFound,
            format!("nothing is at {}", uri.path()),
        )
    })?;
    let mut response = answer::text(StatusCode::OK, file.bytes.into_owned());
    let kind = HeaderValue::from_str(&file.content_type)
        .map_err(|_| Problem::internal("a file of the docs page has no type"))?;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, kind);
    headers.insert(
        CACHE_CONTROL,
        HeaderValue::from_static("public, max-age=3600"),
    );
    Ok(response)
}

fn document() -> OpenApi {
    let mut paths = PathsBuilder::new();
    for operation in OPERATIONS {
        let item = PathItem::new(method_of(operation.method), operation_of(operation));
        paths = paths.path(operation.route.path(), item);
    }
    let license = LicenseBuilder::new().name("MIT OR Apache-2.0").build();
    let info = InfoBuilder::new()
        .title("Order Service")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Orders as events: commands go in, are decided by one writer a partition and kept in a log; reads come from \
             a read model that follows it. Failures are RFC 9457 problems with a stable `code`. A path that is not here is \
             404 `not-found`; a method that its path does not describe is 405 `method-not-allowed`, with those that it has \
             in `Allow`; `HEAD` is answered as `GET` is, without a body.",
        ))
        .license(Some(license))
        .build();
    let tag = |name: &str, description: &str| {
        TagBuilder::new()
            .name(name)
            .description(Some(description))
            .build()
    };
    OpenApiBuilder::new()
        .info(info)
        .paths(paths.build())
        .components(Some(components()))
        .tags(Some([
            tag("orders", "The life of an order"),
            tag("history", "What happened, from the log"),
            tag("operators", "Projections, outbox and log"),
            tag("machines", "Health, metrics and this document"),
        ]))
        .build()
}

fn components() -> utoipa::openapi::Components {
    let mut components = ComponentsBuilder::new();
    for (name, schema) in schemas::all() {
        components = components.schema(name, schema);
    }
    for (name, header) in parameters::response_headers() {
        components = components.header(name, header);
    }
    for (name, parameter) in parameters::all() {
        let example = examples::of_parameter(name);
        let parameter = ParameterBuilder::from(parameter).example(example).build();
        components = components.parameter(name, parameter);
    }
    let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    components.security_scheme("bearer", bearer).build()
}

fn operation_of(operation: &Operation) -> utoipa::openapi::path::Operation {
    let mut built = OperationBuilder::new()
        .operation_id(Some(operation.id))
        .tag(operation.tag)
        .summary(Some(operation.summary))
        .description(Some(operation.description));
    for name in operation.parameters {
        built = built.parameter_ref(Ref::new(format!("#/components/parameters/{name}")));
    }
    if let Some(body) = &operation.body {
        let mut content = Content::new(Some(schema_ref(body.schema)));
        content.example = examples::of_body(body.schema);
        let required = if body.required {
            Required::True
        } else {
            Required::False
        };
        let body = RequestBodyBuilder::new()
            .content(body.media_type, content)
            .required(Some(required));
        built = built.request_body(Some(body.build()));
    }
    if let Some(scope) = scope_of(operation) {
        // Without configured tokens nothing is asked for: the empty requirement.
        built = built
            .security(SecurityRequirement::default())
            .security(SecurityRequirement::new("bearer", [scope.name()]));
    }
    built.responses(responses_of(operation).build()).build()
}

/// Every problem that an operation can be answered with, by status and code.
fn problems_of(operation: &Operation) -> Vec<ProblemKind> {
    let mut problems = vec![ProblemKind::Internal, ProblemKind::Timeout];
    problems.extend(operation.problems);
    if !Door::RESERVE.admits(operation.route) {
        problems.push(ProblemKind::Overloaded);
    }
    if operation.route.knows_its_parameters() {
        problems.push(ProblemKind::InvalidQuery);
    }
    if scope_of(operation).is_some() {
        problems.extend([ProblemKind::Unauthenticated, ProblemKind::Forbidden]);
    }
    problems.sort_by_key(|kind| (kind.status(), kind.code()));
    problems
}

/// What a token must allow, where tokens are configured.
fn scope_of(operation: &Operation) -> Option<Scope> {
    Scope::needed(operation.route, &method_name(operation.method))
}

fn responses_of(operation: &Operation) -> ResponsesBuilder {
    let mut responses = ResponsesBuilder::new();
    for answer in operation.answers {
        responses = responses.response(answer.status.to_string(), success(answer, operation));
    }
    let problems = problems_of(operation);
    for same_status in problems.chunk_by(|one, other| one.status() == other.status()) {
        let status = same_status[0].status();
        // `/readyz` says 503 in plain text, too.
        let also = operation
            .answers
            .iter()
            .find(|answer| answer.status == status.as_u16());
        responses = responses.response(status.as_str(), failure(same_status, also, operation));
    }
    responses
}

fn success(answer: &Outcome, operation: &Operation) -> utoipa::openapi::Response {
    let mut response = ResponseBuilder::new()
        .description(answer.description)
        .header_ref("X-Request-Id", header_ref("X-Request-Id"));
    if let Some((media_type, schema)) = answer.content {
        response = response.content(media_type, Content::new(Some(schema_ref(schema))));
    }
    for name in answer.headers {
        response = response.header_ref(*name, header_ref(name));
    }
    if operation.method == MethodLabel::Get {
        response = response.header_ref("Cache-Control", header_ref("Cache-Control"));
    }
    response.build()
}

fn failure(
    kinds: &[ProblemKind],
    also: Option<&Outcome>,
    operation: &Operation,
) -> utoipa::openapi::Response {
    let codes: Vec<_> = kinds
        .iter()
        .map(|kind| format!("`{}`: {}", kind.code(), kind.title()))
        .collect();
    let told = also.map(|also| also.description.to_owned());
    let told: Vec<_> = told.into_iter().chain(codes).collect();
    let mut response = ResponseBuilder::new()
        .description(told.join("; "))
        .content(
            "application/problem+json",
            Content::new(Some(schema_ref("Problem"))),
        )
        .header_ref("X-Request-Id", header_ref("X-Request-Id"));
    for name in failure_headers(kinds, operation) {
        response = response.header_ref(name, header_ref(name));
    }
    response.build()
}

/// The headers that some of these problems have.
fn failure_headers(kinds: &[ProblemKind], operation: &Operation) -> BTreeSet<&'static str> {
    let mut headers = BTreeSet::from(["Cache-Control"]);
    for kind in kinds {
        match kind {
            ProblemKind::Unauthenticated | ProblemKind::Forbidden => {
                headers.extend(["WWW-Authenticate"])
            }
            // An order that is yet to be placed has none.
            ProblemKind::VersionMismatch if operation.parameters.contains(&"OrderId") => {
                headers.extend(["ETag"]);
            }
            ProblemKind::ReadModelBehind if operation.parameters.contains(&"Prefer") => {
                headers.extend([
                    "Read-Model-Lag-Seconds",
                    "Read-Model-Position",
                    "Preference-Applied",
                ]);
            }
            _ => {}
        }
        if Problem::new(*kind, "").retry_after().is_some() {
            headers.insert("Retry-After");
        }
    }
    headers
}

/// How every operation answers when all is well.
#[cfg(test)]
pub(crate) fn successes() -> impl Iterator<Item = (Route, MethodLabel, Vec<u16>)> {
    OPERATIONS.iter().map(|operation| {
        let statuses = operation.answers.iter().map(|answer| answer.status);
        let successes = statuses.filter(|status| *status < 400).collect();
        (operation.route, operation.method, successes)
    })
}

fn schema_ref(name: &str) -> RefOr<utoipa::openapi::Schema> {
    RefOr::Ref(Ref::from_schema_name(name))
}

fn header_ref(name: &str) -> Ref {
    Ref::new(format!("#/components/headers/{name}"))
}

fn header(schema: impl Into<RefOr<utoipa::openapi::Schema>>, description: &str) -> Header {
    let mut header = Header::new(schema);
    header.description = Some(description.to_owned());
    header
}

fn method_of(method: MethodLabel) -> HttpMethod {
    match method {
        MethodLabel::Post => HttpMethod::Post,
        MethodLabel::Delete => HttpMethod::Delete,
        _ => HttpMethod::Get,
    }
}

fn method_name(method: MethodLabel) -> axum::http::Method {
    match method {
        MethodLabel::Post => axum::http::Method::POST,
        MethodLabel::Delete => axum::http::Method::DELETE,
        _ => axum::http::Method::GET,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_in_the_repository_is_what_the_code_says() {
        crate::golden::assert_golden("docs/openapi.json", &DOCUMENT);
    }

    #[test]
    fn every_route_and_method_is_described_once() {
        let described: Vec<_> = OPERATIONS
            .iter()
            .map(|operation| (operation.route.path(), operation.method.label()))
            .collect();
        let unique: BTreeSet<_> = described.iter().copied().collect();
        assert_eq!(
            unique.len(),
            described.len(),
            "an operation is described twice"
        );
        let routed: BTreeSet<_> = Route::ALL
            .iter()
            // The page that shows the document is no part of it.
            .filter(|(route, _)| !matches!(route, Route::Docs | Route::DocsFile))
            .flat_map(|(route, methods)| {
                methods.iter().map(|method| (route.path(), method.label()))
            })
            .collect();
        assert_eq!(unique, routed);
    }

    /// Problems that no operation describes, and why.
    const OF_NO_OPERATION: &[(ProblemKind, &str)] = &[
        (
            ProblemKind::MethodNotAllowed,
            "of what is no operation; the document's description has it",
        ),
        (
            ProblemKind::AlreadyPlaced,
            "the command workers make ids that no order has",
        ),
    ];

    #[test]
    fn every_problem_is_of_some_operation_and_of_none_twice() {
        for kind in ProblemKind::ALL {
            let described = OPERATIONS
                .iter()
                .filter(|operation| problems_of(operation).contains(kind))
                .count();
            let excused = OF_NO_OPERATION.iter().any(|(of_none, _)| of_none == kind);
            assert_eq!(described == 0, excused, "{}", kind.code());
        }
        for operation in OPERATIONS {
            let problems = problems_of(operation);
            let twice = problems.windows(2).find(|two| two[0] == two[1]);
            assert_eq!(twice, None, "{}", operation.id);
        }
    }

    /// What comes of a query and of a token is asked of the service itself, by
    /// `the_document_says_which_requests_need_a_token_and_which_know_their_parameters`.
    #[test]
    fn problems_that_operations_share_are_of_each_of_them() {
        use MethodLabel::{Delete, Get, Post};
        let of_one_order = |operation: &Operation| operation.parameters.contains(&"OrderId");
        for operation in OPERATIONS {
            let problems = problems_of(operation);
            let has = |kind: ProblemKind| problems.contains(&kind);
            let id = operation.id;
            let reads_orders = operation.tag != "operators" && operation.method == Get;
            let waits = operation.parameters.contains(&"Prefer");
            let changes = matches!(operation.method, Post | Delete) && operation.tag == "orders";
            let looks_at_tags = operation.parameters.contains(&"IfMatch");
            assert_eq!(
                has(ProblemKind::OrderParked),
                of_one_order(operation),
                "{id}"
            );
            assert_eq!(
                has(ProblemKind::OrderNotFound),
                of_one_order(operation),
                "{id}"
            );
            assert_eq!(has(ProblemKind::VersionMismatch), changes, "{id}");
            assert_eq!(looks_at_tags, changes, "{id}");
            if reads_orders {
                assert_eq!(has(ProblemKind::ReadModelBehind), waits, "{id}");
            }
            if operation.parameters.contains(&"SyncToken") {
                assert!(has(ProblemKind::InvalidSyncToken), "{id}");
            }
            let refused_at_the_door = !Door::RESERVE.admits(operation.route);
            let at_work = operation.route == Route::LogRotate;
            assert_eq!(
                has(ProblemKind::Overloaded),
                refused_at_the_door || at_work,
                "{id}"
            );
        }
    }

    #[test]
    fn every_header_of_a_problem_is_described() {
        let document: serde_json::Value = serde_json::from_str(&DOCUMENT).unwrap();
        let headers = |path: &str, status: &str| {
            let pointer = format!(
                "/paths/{}/responses/{status}/headers",
                path.replace('#', "/")
            );
            let headers = document.pointer(&pointer).expect(&pointer);
            let headers = headers.as_object().unwrap();
            headers.keys().cloned().collect::<BTreeSet<_>>()
        };
        for (path, status, name) in [
            ("~1orders#post", "401", "WWW-Authenticate"),
            ("~1orders#post", "503", "Retry-After"),
            ("~1orders~1{id}~1pay#post", "412", "ETag"),
            ("~1orders~1{id}~1lines~1{line_id}#delete", "412", "ETag"),
            ("~1orders~1{id}#get", "503", "Retry-After"),
        ] {
            assert!(headers(path, status).contains(name), "{path} {status}");
        }
        for path in ["~1orders#post", "~1orders~1bulk#post"] {
            assert!(!headers(path, "412").contains("ETag"), "{path}");
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document: serde_json::Value = serde_json::from_str(&DOCUMENT).unwrap();
        let mut references = BTreeSet::new();
        fn gather(value: &serde_json::Value, into: &mut BTreeSet<String>) {
            match value {
                serde_json::Value::Object(map) => {
                    if let Some(serde_json::Value::String(to)) = map.get("$ref") {
                        into.insert(to.clone());
                    }
                    map.values().for_each(|value| gather(value, into));
                }
                serde_json::Value::Array(values) => {
                    values.iter().for_each(|value| gather(value, into));
                }
                _ => {}
            }
        }
        gather(&document, &mut references);
        assert!(references.len() > 20, "{references:?}");
        for reference in references {
            let pointer = reference
                .strip_prefix('#')
                .expect("a reference within the document");
            assert!(
                document.pointer(pointer).is_some(),
                "{reference} leads nowhere"
            );
        }
    }

    #[test]
    fn every_parameter_of_a_path_is_described() {
        let document: serde_json::Value = serde_json::from_str(&DOCUMENT).unwrap();
        for operation in OPERATIONS {
            let in_path = operation
                .route
                .path()
                .split('/')
                .filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'));
            for name in in_path {
                let described = operation.parameters.iter().any(|parameter| {
                    let pointer = format!("/components/parameters/{parameter}");
                    let parameter = document.pointer(&pointer).unwrap();
                    parameter["in"] == "path" && parameter["name"] == name
                });
                assert!(described, "{} of {}", name, operation.route.path());
            }
        }
    }
}
