//! Where the load goes: only to this machine, unless told otherwise.

use std::net::{SocketAddr, ToSocketAddrs};

use anyhow::Context;
use hyper::Uri;
use hyper::header::HeaderValue;
use hyper::http::uri::Scheme;

/// An address that may be put under load.
#[derive(Debug, Clone)]
pub struct Target {
    /// Where to connect.
    pub address: SocketAddr,
    /// The `Host` header.
    pub host: String,
    /// What stands before `/orders`: empty, or a path without a slash at its end.
    pub base: String,
    /// The `Authorization` header, where the service wants one. Marked as a secret: nothing prints it.
    pub authorization: Option<HeaderValue>,
}

impl Target {
    /// Reads `http://host:port[/path]`. A host that is, or resolves to, anything but loopback is refused unless
    /// `allow_remote`: load is an attack on whoever did not ask for it.
    ///
    /// # Errors
    /// If the text is not such an address, does not resolve, or is refused.
    pub fn parse(url: &str, allow_remote: bool) -> anyhow::Result<Self> {
        let uri: Uri = url
            .parse()
            .with_context(|| format!("`{url}` is not a URL"))?;
        anyhow::ensure!(
            uri.scheme() == Some(&Scheme::HTTP),
            "`{url}` must start with http://: load is generated without TLS"
        );
        let authority = uri
            .authority()
            .with_context(|| format!("`{url}` has no host"))?;
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']');
        let port = authority.port_u16().unwrap_or(80);
        let addresses: Vec<SocketAddr> = (host, port)
            .to_socket_addrs()
            .with_context(|| format!("`{host}` does not resolve"))?
            .collect();
        if !allow_remote && let Some(remote) = addresses.iter().find(|at| !at.ip().is_loopback()) {
            anyhow::bail!(
                "`{host}` is {}, not this machine; add --allow-remote if its owner agreed to the load",
                remote.ip()
            );
        }
        let address = *addresses
            .first()
            .with_context(|| format!("`{host}` does not resolve"))?;
        Ok(Self {
            address,
            host: authority.as_str().to_owned(),
            base: uri.path().trim_end_matches('/').to_owned(),
            authorization: None,
        })
    }

    /// The same, with a bearer token in every request.
    ///
    /// # Errors
    /// If the token cannot be in a header.
    pub fn with_token(self, token: &str) -> anyhow::Result<Self> {
        let mut authorization = HeaderValue::try_from(format!("Bearer {token}"))
            .map_err(|_| anyhow::anyhow!("the token has characters that no header may have"))?;
        authorization.set_sensitive(true);
        Ok(Self {
            authorization: Some(authorization),
            ..self
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_accepted_with_its_path() {
        let target = Target::parse("http://127.0.0.1:8080/shop/", false).unwrap();
        assert_eq!(target.address, "127.0.0.1:8080".parse().unwrap());
        assert_eq!(
            (target.host.as_str(), target.base.as_str()),
            ("127.0.0.1:8080", "/shop")
        );
        assert_eq!(
            Target::parse("http://127.0.0.1:8080", false).unwrap().base,
            ""
        );
        assert_eq!(
            Target::parse("http://[::1]:8080", false)
                .unwrap()
                .address
                .port(),
            8080
        );
    }

    #[test]
    fn a_token_is_sent_and_not_shown() {
        let target = Target::parse("http://127.0.0.1:8080", false).unwrap();
        let target = target.with_token("secret").unwrap();
        assert_eq!(target.authorization.as_ref().unwrap(), "Bearer secret");
        assert!(!format!("{target:?}").contains("secret"), "{target:?}");
        let refusal = target.with_token("two\nlines").unwrap_err().to_string();
        assert!(!refusal.contains("lines"), "{refusal}");
    }

    #[test]
    fn another_machine_needs_a_word() {
        let refusal = Target::parse("http://192.0.2.1:8080", false)
            .unwrap_err()
            .to_string();
        assert!(refusal.contains("--allow-remote"), "{refusal}");
        assert!(Target::parse("http://192.0.2.1:8080", true).is_ok());
        assert!(Target::parse("http://0.0.0.0:8080", false).is_err());
    }

    #[test]
    fn what_is_not_plain_http_is_refused() {
        assert!(Target::parse("https://127.0.0.1", false).is_err());
        assert!(Target::parse("127.0.0.1:8080", false).is_err());
        assert!(Target::parse("/orders", false).is_err());
    }
}
