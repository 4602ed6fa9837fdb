//! Commands that ask a running service: one small HTTP client, with a bearer token if there is one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use crate::failure::{Failure, usage};

/// The variable a token is taken from, so that it stands in no list of processes.
const TOKEN_VARIABLE: &str = "ORDER_SERVICE_TOKEN";

/// How long an answer may take: what is long runs on in the service and is asked for again.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// Most of an answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Where a running service is, and who asks.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ServiceFlags {
    /// Ask the service at this URL instead of opening its files, for example http://127.0.0.1:8080
    #[arg(long, value_name = "URL", conflicts_with_all = ["data_dir", "config"])]
    pub(crate) url: Option<String>,
    /// File with a bearer token of the scope `admin`; without it, the variable ORDER_SERVICE_TOKEN
    #[arg(long, value_name = "FILE", requires = "url")]
    token_file: Option<PathBuf>,
}

impl ServiceFlags {
    /// A service that has to be named.
    pub(crate) fn of(url: String, token_file: Option<PathBuf>) -> Self {
        Self {
            url: Some(url),
            token_file,
        }
    }
}

/// A client of one service.
pub(crate) struct ServiceClient {
    runtime: tokio::runtime::Runtime,
    http: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    base: String,
    authorization: Option<HeaderValue>,
}

impl ServiceClient {
    /// A client as the flags say; `None` if they name no service.
    ///
    /// # Errors
    /// A usage failure for a URL or token that cannot be one.
    pub(crate) fn new(flags: &ServiceFlags) -> Result<Option<Self>, Failure> {
        let Some(url) = &flags.url else {
            return Ok(None);
        };
        let uri: Uri = url
            .parse()
            .map_err(|error| usage!("--url {url}: {error}"))?;
        let (Some(scheme @ ("http" | "https")), Some(_)) = (uri.scheme_str(), uri.host()) else {
            return Err(usage!("--url {url}: is no http:// or https:// URL"));
        };
        let secure = scheme == "https";
        let token = match &flags.token_file {
            Some(path) => Some(read_token(path)?),
            None => std::env::var(TOKEN_VARIABLE).ok(),
        };
        let authorization = token
            .map(|token| {
                let mut value = HeaderValue::try_from(format!("Bearer {}", token.trim()))
                    .map_err(|_| usage!("the token has characters that no token has"))?;
                value.set_sensitive(true);
                Ok::<_, Failure>(value)
            })
            .transpose()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("start the HTTP client")?;
        Ok(Some(Self {
            runtime,
            http: Client::builder(TokioExecutor::new()).build(connector(secure)?),
            base: url.trim_end_matches('/').to_owned(),
            authorization,
        }))
    }

    /// The JSON at a path.
    ///
    /// # Errors
    /// A failure with the service's own words if it refuses, or with what kept it from answering.
    pub(crate) fn get(&self, path: &str) -> Result<Value, Failure> {
        self.ask(Method::GET, path)
    }

    /// Asks for something to be done.
    ///
    /// # Errors
    /// As [`ServiceClient::get`].
    pub(crate) fn post(&self, path: &str) -> Result<Value, Failure> {
        self.ask(Method::POST, path)
    }

    fn ask(&self, method: Method, path: &str) -> Result<Value, Failure> {
        let url = format!("{}{path}", self.base);
        let mut request = Request::builder().method(method).uri(&url);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request
            .body(Full::default())
            .map_err(|error| usage!("--url: {error}"))?;
        let asked = async {
            let response = self.http.request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
            let body = body.collect().await.map_err(|error| anyhow!(error))?;
            Ok::<_, anyhow::Error>((status, body.to_bytes()))
        };
        let (status, body) = self
            .runtime
            .block_on(async { tokio::time::timeout(ANSWER_WITHIN, asked).await })
            .with_context(|| format!("{url} does not answer"))?
            .with_context(|| format!("ask {url}"))?;
        read_answer(&url, status, &body)
    }
}

fn read_answer(url: &str, status: StatusCode, body: &[u8]) -> Result<Value, Failure> {
    let json: Option<Value> = serde_json::from_slice(body).ok();
    if status.is_success() {
        return json.ok_or_else(|| {
            anyhow!("{url} answered {status} without JSON: is it an order-service?").into()
        });
    }
    let problem = json.filter(|json| json["code"].is_string());
    let Some(problem) = problem else {
        return Err(anyhow!("{url} answered {status}").into());
    };
    let text = |member: &str| problem[member].as_str().unwrap_or_default().to_owned();
    let refusal = anyhow!(
        "the service refused: {} ({}, {})",
        text("detail"),
        status.as_u16(),
        text("code")
    );
    // What does not fit how things stand was not tried.
    Err(match status {
        StatusCode::CONFLICT | StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST => {
            Failure::Usage(refusal)
        }
        StatusCode::UNAUTHORIZED => Failure::Usage(refusal.context(format!(
            "a bearer token is needed: give --token-file, or set {TOKEN_VARIABLE}"
        ))),
        _ => Failure::Failed(refusal),
    })
}

fn read_token(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path)
        .map_err(|error| usage!("--token-file {}: {error}", path.display()))
}

fn connector(secure: bool) -> Result<HttpsConnector<HttpConnector>, Failure> {
    let provider = rustls::crypto::ring::default_provider();
    let builder = HttpsConnectorBuilder::new();
    let builder = if secure {
        builder.with_provider_and_native_roots(provider).context(
            "read the system's certificate authorities; install them or set SSL_CERT_FILE",
        )?
    } else {
        // Nobody is trusted: this connector never meets TLS.
        let tls = rustls::ClientConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()
            .context("prepare TLS")?
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        builder.with_tls_config(tls)
    };
    Ok(builder.https_or_http().enable_http1().build())
}
