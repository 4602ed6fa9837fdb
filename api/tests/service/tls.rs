//! TLS: the certificate that clients see, who may hold its key, and how it is renewed.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use order_api::{ApiConfig, Tls, TlsError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::{Served, World, config};

/// A certificate and its key, in files.
struct Pair {
    directory: tempfile::TempDir,
}

impl Pair {
    /// Of this name; `None` where there is no `openssl` to make it.
    fn of(name: &str) -> Option<Self> {
        let pair = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"])
            .args(["-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj"])
            .arg(format!("/CN={name}"))
            .arg("-addext")
            .arg(format!("subjectAltName=DNS:{name}"))
            .arg("-keyout")
            .arg(pair.key())
            .arg("-out")
            .arg(pair.certificate())
            .output();
        if made.is_ok_and(|made| made.status.success()) {
            return Some(pair);
        }
        eprintln!("LEFT OUT: `openssl` is not installed, so TLS was not tried");
        None
    }

    fn certificate(&self) -> PathBuf {
        self.directory.path().join("cert.pem")
    }

    fn key(&self) -> PathBuf {
        self.directory.path().join("key.pem")
    }

    fn tls(&self) -> Result<Tls, TlsError> {
        Tls::from_pem_files(&self.certificate(), &self.key())
    }
}

/// `GET /livez` at a service that should go by `name`.
async fn curl(served: &Served, name: &str, trust: Option<&Path>) -> Output {
    let mut curl = Command::new("curl");
    curl.args(["-s", "--max-time", "20"]);
    if let Some(trust) = trust {
        curl.args(["--cacert".as_ref() as &OsStr, trust.as_ref()]);
    }
    let port = served.address.port();
    curl.arg(format!("https://{name}:{port}/livez"));
    curl.args(["--resolve", &format!("{name}:{port}:127.0.0.1")]);
    tokio::task::spawn_blocking(move || curl.output().unwrap())
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_knows_the_certificate_is_served_and_nobody_else() {
    let Some(pair) = Pair::of("localhost") else {
        return;
    };
    let world = World::with(ApiConfig {
        tls: Some(pair.tls().unwrap()),
        ..config()
    });
    let served = world.serve().await;
    let trusting = curl(&served, "localhost", Some(&pair.certificate())).await;
    let said = String::from_utf8_lossy(&trusting.stdout);
    assert_eq!(said, "ok\n", "{trusting:?}");
    let strange = curl(&served, "localhost", None).await;
    assert!(
        !strange.status.success(),
        "a stranger's certificate is believed"
    );
    let mut plain = TcpStream::connect(served.address).await.unwrap();
    plain
        .write_all(b"GET /livez HTTP/1.1\r\nhost: it\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    plain.read_to_end(&mut answer).await.unwrap();
    assert!(!answer.starts_with(b"HTTP/1.1"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_shown_without_a_restart() {
    let (Some(pair), Some(next)) = (Pair::of("localhost"), Pair::of("renewed.localhost")) else {
        return;
    };
    let world = World::with(ApiConfig {
        tls: Some(pair.tls().unwrap()),
        certificate_look_every: Duration::from_millis(10),
        ..config()
    });
    let served = world.serve().await;
    fs::rename(next.key(), pair.key()).unwrap();
    fs::copy(next.certificate(), pair.certificate()).unwrap();
    for _ in 0..200 {
        let seen = curl(&served, "renewed.localhost", Some(&next.certificate())).await;
        if seen.status.success() {
            return;
        }
    }
    panic!("the old certificate is still shown");
}

#[test]
fn half_a_renewal_changes_nothing_and_the_other_half_ends_it() {
    let (Some(pair), Some(next)) = (Pair::of("localhost"), Pair::of("renewed.localhost")) else {
        return;
    };
    let tls = pair.tls().unwrap();
    assert!(!tls.renew().unwrap(), "nothing has changed");
    fs::rename(next.certificate(), pair.certificate()).unwrap();
    assert!(matches!(tls.renew(), Err(TlsError::Unfit(_))));
    assert!(!tls.renew().unwrap(), "what does not fit is told once");
    fs::rename(next.key(), pair.key()).unwrap();
    assert!(tls.renew().unwrap());
}

#[test]
fn a_key_that_everybody_may_read_is_refused() {
    let Some(pair) = Pair::of("localhost") else {
        return;
    };
    for (mode, fits) in [(0o644, false), (0o604, false), (0o640, true), (0o400, true)] {
        fs::set_permissions(pair.key(), Permissions::from_mode(mode)).unwrap();
        let read = pair.tls();
        assert_eq!(read.is_ok(), fits, "{mode:o}: {read:?}");
        if let Err(error) = read {
            assert!(error.to_string().contains("chmod 600"), "{error}");
        }
    }
}

#[test]
fn files_that_make_no_server_are_named_with_what_they_should_hold() {
    let (Some(pair), Some(other)) = (Pair::of("localhost"), Pair::of("localhost")) else {
        return;
    };
    let swapped = Tls::from_pem_files(&pair.key(), &pair.certificate()).unwrap_err();
    assert!(swapped.to_string().contains("key.pem"), "{swapped}");
    let missing = Tls::from_pem_files(&pair.certificate(), Path::new("/nowhere/key.pem"));
    let missing = missing.unwrap_err().to_string();
    assert!(missing.contains("/nowhere/key.pem"), "{missing}");
    let strangers = Tls::from_pem_files(&pair.certificate(), &other.key());
    assert!(matches!(strangers, Err(TlsError::Unfit(_))));
}
