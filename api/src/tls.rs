//! TLS for the listeners: a certificate and a key from two PEM files, read at the start and again when they change.

use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{Accept, TlsAcceptor};

/// Permissions of everybody who is neither the key's owner nor of its group.
const OTHERS: u32 = 0o007;

/// What the service proves itself with: TLS 1.2 or 1.3, HTTP/1.1. Cheap to clone; all clones renew together.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    files: Arc<Files>,
    shown: Arc<Shown>,
}

impl fmt::Debug for Tls {
    /// Nothing of the key.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Tls")
            .field("certificate", &self.files.certificate)
            .finish_non_exhaustive()
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
    /// Everybody on the machine can read or change the key.
    #[error("{}: everybody on this machine may use this private key (mode {mode:03o}): chmod 600 it", path.display())]
    OpenToAll {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Certificate and key do not make a server.
    #[error("certificate and key do not fit: {0}")]
    Unfit(#[from] rustls::Error),
}

/// Where certificate and key come from.
#[derive(Debug)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
    /// What was read last, or tried.
    seen: Mutex<[Stamp; 2]>,
}

/// Tells one content of a file from the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    bytes: u64,
    changed_at: (i64, i64),
}

impl Stamp {
    fn of(file: &Metadata) -> Self {
        Self {
            inode: file.ino(),
            bytes: file.len(),
            changed_at: (file.ctime(), file.ctime_nsec()),
        }
    }
}

/// What new connections are shown.
#[derive(Debug)]
struct Shown(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let shown = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(&shown))
    }
}

impl Tls {
    /// Reads the certificate chain, the service's own first, and its private key.
    ///
    /// # Errors
    /// [`TlsError`] names the file, and what should be in it. A key that everybody on the machine can read is refused.
    pub fn from_pem_files(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let files = Files {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            seen: Mutex::new([files_stamp(certificate, CHAIN)?, files_stamp(key, KEY)?]),
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let shown = Arc::new(Shown(RwLock::new(Arc::new(files.read(&provider)?))));
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&shown) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            files: Arc::new(files),
            shown,
        })
    }

    /// Takes over what is in the files now, if they have changed since they were looked at last; says whether. Open
    /// connections go on as they are. Blocks on the disk.
    ///
    /// # Errors
    /// As [`Tls::from_pem_files`]; what was shown stays shown. A pair that does not fit, one file being written and the
    /// other not yet, is told once and looked at again when one of them changes.
    pub fn renew(&self) -> Result<bool, TlsError> {
        let Files {
            certificate, key, ..
        } = &*self.files;
        let now = [files_stamp(certificate, CHAIN)?, files_stamp(key, KEY)?];
        {
            let mut seen = self
                .files
                .seen
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if std::mem::replace(&mut *seen, now) == now {
                return Ok(false);
            }
        }
        let provider = self.acceptor.config().crypto_provider();
        let renewed = Arc::new(self.files.read(provider)?);
        *self.shown.0.write().unwrap_or_else(PoisonError::into_inner) = renewed;
        Ok(true)
    }

    /// Greets a client.
    pub(crate) fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> Accept<S> {
        self.acceptor.accept(stream)
    }
}

const CHAIN: &str = "the service's certificate and those that vouch for it";
const KEY: &str = "the certificate's private key";

impl Files {
    fn read(&self, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
        let chain = CertificateDer::pem_file_iter(&self.certificate)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| refuse(&self.certificate, CHAIN, &error))?;
        if chain.is_empty() {
            let reason = "it holds no certificate";
            return Err(refuse(&self.certificate, CHAIN, &reason));
        }
        let key = PrivateKeyDer::from_pem_file(&self.key)
            .map_err(|error| refuse(&self.key, KEY, &error))?;
        let mode = file(&self.key, KEY)?.mode() & 0o777;
        if mode & OTHERS != 0 {
            return Err(TlsError::OpenToAll {
                path: self.key.clone(),
                mode,
            });
        }
        Ok(CertifiedKey::from_der(chain, key, provider)?)
    }
}

fn refuse(path: &Path, wanted: &'static str, reason: &dyn fmt::Display) -> TlsError {
    TlsError::File {
        path: path.to_owned(),
        wanted,
        reason: reason.to_string(),
    }
}

fn file(path: &Path, wanted: &'static str) -> Result<Metadata, TlsError> {
    fs::metadata(path).map_err(|error: io::Error| refuse(path, wanted, &error))
}

fn files_stamp(path: &Path, wanted: &'static str) -> Result<Stamp, TlsError> {
    Ok(Stamp::of(&file(path, wanted)?))
}
