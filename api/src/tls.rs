//! TLS for the listeners: a certificate and a key from two PEM files, read at the start.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// What the service proves itself with: TLS 1.2 or 1.3, HTTP/1.1.
#[derive(Clone)]
pub struct Tls(pub(crate) TlsAcceptor);

impl fmt::Debug for Tls {
    /// Nothing of the key.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Tls").finish_non_exhaustive()
    }
}

/// Why the service cannot prove itself.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file does not read, or does not hold what it should.
    #[error("{}: {reason}: give a PEM file with {wanted}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What should be in it.
        wanted: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// Certificate and key do not make a server.
    #[error("certificate and key do not fit: {0}")]
    Unfit(#[from] rustls::Error),
}

impl Tls {
    /// Reads the certificate chain, the service's own first, and its private key.
    ///
    /// # Errors
    /// [`TlsError`] names the file, and what should be in it.
    pub fn from_pem_files(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let refuse = |path: &Path, wanted, reason: &dyn fmt::Display| TlsError::File {
            path: path.to_owned(),
            wanted,
            reason: reason.to_string(),
        };
        let wanted = "the service's certificate and those that vouch for it";
        let chain = CertificateDer::pem_file_iter(certificate)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| refuse(certificate, wanted, &error))?;
        if chain.is_empty() {
            return Err(refuse(certificate, wanted, &"it holds no certificate"));
        }
        let private = PrivateKeyDer::from_pem_file(key)
            .map_err(|error| refuse(key, "the certificate's private key", &error))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, private)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }
}
