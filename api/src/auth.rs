//! Who may do what: bearer tokens with scopes. A token is configured by its SHA-256 alone, so that neither the file nor
//! memory gives one away; it is random and long, so that a slow hash would add nothing.

use std::net::SocketAddr;

use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, Method};
use order_domain::Caller;
use sha2::{Digest, Sha256};

use crate::answer::printable;
use crate::error::{Problem, ProblemKind};
use crate::route::Route;

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Reading orders, their history, the feed, and metrics.
    Read,
    /// Commands.
    Write,
    /// Projections, outbox and log.
    Admin,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Read, Self::Write, Self::Admin];

    /// The name in configuration: `read`, `write`, `admin`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }

    /// Reads what [`Self::name`] gives; `None` for anything else.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.name() == name)
    }

    /// What a request needs; `None` for what everybody may see: health and documentation.
    pub(crate) fn needed(route: Route, method: &Method) -> Option<Self> {
        match route {
            Route::Livez
            | Route::Readyz
            | Route::Healthz
            | Route::OpenApi
            | Route::Docs
            | Route::DocsFile
            | Route::Unmatched => None,
            Route::Metrics => Some(Self::Read),
            Route::Projections
            | Route::Pause
            | Route::Resume
            | Route::Parked
            | Route::RedriveParked
            | Route::Rebuild
            | Route::SwitchBack
            | Route::DiscardOld
            | Route::Reindex
            | Route::CancelTask
            | Route::Outbox
            | Route::DeadLetters
            | Route::DeadLetter
            | Route::Redrive
            | Route::RedriveAll
            | Route::EnableOutbox
            | Route::RestartOutbox
            | Route::LogRotate => Some(Self::Admin),
            Route::Orders
            | Route::OrdersBulk
            | Route::Events
            | Route::Order
            | Route::Confirm
            | Route::Pay
            | Route::Ship
            | Route::Deliver
            | Route::Cancel
            | Route::Refund
            | Route::Lines
            | Route::Line
            | Route::OrderEvents => Some(if matches!(*method, Method::GET | Method::HEAD) {
                Self::Read
            } else {
                Self::Write
            }),
        }
    }
}

/// A bearer token that may use the API.
#[derive(Clone, PartialEq, Eq)]
pub struct BearerToken {
    name: String,
    caller: Caller,
    sha256: [u8; 32],
    scopes: Vec<Scope>,
}

/// Why a configured token is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    /// The digest is not 64 hexadecimal digits.
    #[error(
        "token {name}: sha256 is not 64 hexadecimal digits; make it with: printf %s TOKEN | sha256sum"
    )]
    NotSha256 {
        /// The token's name.
        name: String,
    },
    /// The token allows nothing.
    #[error("token {name}: no scope; give it one of read, write, admin")]
    NoScope {
        /// The token's name.
        name: String,
    },
}

impl BearerToken {
    /// A token by the SHA-256 of its text, in hexadecimal. `name` is who it is given to: idempotency keys belong to it, so
    /// tokens of one name, an old one and its successor, are one caller.
    ///
    /// # Errors
    /// [`InvalidToken`] says what is wrong.
    pub fn new(
        name: impl Into<String>,
        sha256_hex: &str,
        scopes: &[Scope],
    ) -> Result<Self, InvalidToken> {
        let name = name.into();
        if scopes.is_empty() {
            return Err(InvalidToken::NoScope { name });
        }
        let digest = crate::sync_token::unhex(&sha256_hex.to_ascii_lowercase());
        match digest.and_then(|digest| <[u8; 32]>::try_from(digest).ok()) {
            Some(sha256) => Ok(Self {
                caller: Caller::named(&name),
                name,
                sha256,
                scopes: scopes.to_vec(),
            }),
            None => Err(InvalidToken::NotSha256 { name }),
        }
    }
}

impl std::fmt::Debug for BearerToken {
    /// Without the digest: it is nobody's business.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("BearerToken")
            .field("name", &self.name)
            .field("scopes", &self.scopes)
            .finish_non_exhaustive()
    }
}

/// Why the service does not listen on an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{address} can be reached from other machines, and no bearer token is configured: add one ([[api.tokens]] with \
     name, sha256 and scopes), listen on 127.0.0.1, or say --insecure"
)]
pub struct PublicBind {
    /// The address.
    pub address: SocketAddr,
}

/// Refuses an address that other machines can reach, unless tokens guard it or the operator insists.
///
/// # Errors
/// [`PublicBind`] with what to do.
pub fn check_listen(
    address: SocketAddr,
    tokens: &[BearerToken],
    insecure: bool,
) -> Result<(), PublicBind> {
    if address.ip().is_loopback() || !tokens.is_empty() || insecure {
        return Ok(());
    }
    Err(PublicBind { address })
}

/// Lets a request pass if one of the tokens allows it, and says whose that is. Without any token configured, everything
/// passes, and callers are not told apart.
pub(crate) fn authorize(
    tokens: &[BearerToken],
    route: Route,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Option<Caller>, Problem> {
    if tokens.is_empty() {
        return Ok(None);
    }
    let Some(needed) = Scope::needed(route, method) else {
        return Ok(None);
    };
    // RFC 6750, 3.1: who brought no token is told the scheme alone, who brought a wrong one that it is wrong.
    let refuse = |reason: &'static str, challenge: &'static str| {
        let problem = Problem::new(ProblemKind::Unauthenticated, reason);
        Err(problem.with_header(WWW_AUTHENTICATE, HeaderValue::from_static(challenge)))
    };
    let Some(value) = headers.get(AUTHORIZATION) else {
        return refuse("send Authorization: Bearer <token>", "Bearer");
    };
    let Some(token) = bearer(value.as_bytes()) else {
        return refuse("Authorization is not of the form Bearer <token>", "Bearer");
    };
    match find(tokens, token) {
        None => refuse("the token is unknown", "Bearer error=\"invalid_token\""),
        Some(found) if found.scopes.contains(&needed) => Ok(Some(found.caller)),
        Some(_) => {
            let scope = needed.name();
            let challenge = format!("Bearer error=\"insufficient_scope\", scope=\"{scope}\"");
            let problem = Problem::new(
                ProblemKind::Forbidden,
                format!("the token lacks the scope {scope}"),
            );
            Err(problem.with_header(WWW_AUTHENTICATE, printable(challenge)))
        }
    }
}

/// The token of a `Bearer` header: the scheme's name in any case.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty()).then_some(token)
}

/// The token with this text. Every one is compared in full: the time tells nothing of where a digest differs.
fn find<'a>(tokens: &'a [BearerToken], text: &[u8]) -> Option<&'a BearerToken> {
    let presented: [u8; 32] = Sha256::digest(text).into();
    let mut found = None;
    for token in tokens {
        let differing = token
            .sha256
            .iter()
            .zip(presented)
            .fold(0, |differing, (ours, theirs)| differing | (ours ^ theirs));
        if std::hint::black_box(differing) == 0 {
            found = Some(token);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    /// SHA-256 of `reader-token` and `writer-token`.
    fn tokens() -> Vec<BearerToken> {
        let hash = |text: &str| {
            let digest: [u8; 32] = Sha256::digest(text).into();
            crate::sync_token::hex(&digest)
        };
        vec![
            BearerToken::new("reader", &hash("reader-token"), &[Scope::Read]).unwrap(),
            BearerToken::new(
                "writer",
                &hash("writer-token"),
                &[Scope::Read, Scope::Write],
            )
            .unwrap(),
        ]
    }

    fn verdict(route: Route, method: Method, header: Option<&'static str>) -> Option<ProblemKind> {
        let mut headers = HeaderMap::new();
        if let Some(header) = header {
            headers.insert(AUTHORIZATION, HeaderValue::from_static(header));
        }
        authorize(&tokens(), route, &method, &headers)
            .err()
            .map(|problem| problem.kind())
    }

    #[test]
    fn a_token_opens_what_its_scopes_name() {
        let reader = Some("Bearer reader-token");
        assert_eq!(verdict(Route::Order, Method::GET, reader), None);
        assert_eq!(
            verdict(Route::Order, Method::GET, Some("bearer  reader-token")),
            None
        );
        assert_eq!(
            verdict(Route::Orders, Method::POST, reader),
            Some(ProblemKind::Forbidden)
        );
        assert_eq!(
            verdict(Route::Orders, Method::POST, Some("Bearer writer-token")),
            None
        );
    }

    #[test]
    fn without_a_known_token_only_health_is_seen() {
        for header in [
            None,
            Some("Bearer nobody"),
            Some("Basic cmVhZGVy"),
            Some("Bearer "),
            Some(""),
        ] {
            let refused = Some(ProblemKind::Unauthenticated);
            assert_eq!(
                verdict(Route::Order, Method::GET, header),
                refused,
                "{header:?}"
            );
            assert_eq!(verdict(Route::Livez, Method::GET, header), None);
        }
    }

    #[test]
    fn a_public_address_needs_tokens_or_insistence() {
        let public: SocketAddr = "0.0.0.0:8080".parse().unwrap();
        assert!(check_listen(public, &[], false).is_err());
        assert!(check_listen(public, &[], true).is_ok());
        assert!(check_listen(public, &tokens(), false).is_ok());
        for loopback in ["127.0.0.1:8080", "127.8.8.8:80", "[::1]:8080"] {
            assert!(check_listen(loopback.parse().unwrap(), &[], false).is_ok());
        }
    }

    #[test]
    fn a_token_without_digest_or_scope_is_refused() {
        assert!(BearerToken::new("t", "abc", &[Scope::Read]).is_err());
        assert!(BearerToken::new("t", &"ab".repeat(32), &[]).is_err());
        let token = BearerToken::new("t", &"AB".repeat(32), &[Scope::Read]).unwrap();
        assert!(!format!("{token:?}").contains("171"), "the digest is shown");
    }
}
