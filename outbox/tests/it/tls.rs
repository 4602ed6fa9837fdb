//! A target over TLS is believed if the system's certificate authorities vouch for it, and not otherwise.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, Stream};

use crate::child::{PARTITIONS, start, this_program};
use crate::orders::{OrderLog, order, placed};
use crate::support::eventually;

/// Makes `name.pem` and `name.key` for `localhost`; `false` where there is no `openssl` to do it.
fn make_certificate(directory: &Path, name: &str) -> bool {
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
        ])
        .args([
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost",
        ])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(directory.join(name).with_extension("key"))
        .arg("-out")
        .arg(directory.join(name).with_extension("pem"))
        .stderr(Stdio::null())
        .status();
    made.is_ok_and(|status| status.success())
}

/// What came in over TLS.
#[derive(Debug, Default)]
struct Counts {
    requests: AtomicUsize,
    failed_handshakes: AtomicUsize,
}

/// Takes one request a connection and answers it with 204; runs as long as the tests do.
fn serve(directory: &Path, name: &str) -> (SocketAddr, Arc<Counts>) {
    let certificate =
        CertificateDer::from_pem_file(directory.join(name).with_extension("pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(directory.join(name).with_extension("key")).unwrap();
    let provider = rustls::crypto::ring::default_provider();
    let config = ServerConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let counts = Arc::new(Counts::default());
    let counted = Arc::clone(&counts);
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            let mut tls = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = Stream::new(&mut tls, &mut socket);
            let mut request = Vec::new();
            let mut chunk = [0; 4096];
            // The body is JSON, the last thing in it a brace; the head has none at its end.
            let read = loop {
                match stream.read(&mut chunk) {
                    Ok(0) => break Ok(()),
                    Ok(read) => request.extend_from_slice(&chunk[..read]),
                    Err(error) => break Err(error),
                }
                if request.ends_with(b"}") {
                    break Ok(());
                }
            };
            let answered = read.and_then(|()| {
                stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")?;
                stream.flush()
            });
            let counter = match answered {
                Ok(()) => &counted.requests,
                Err(_) => &counted.failed_handshakes,
            };
            counter.fetch_add(1, Ordering::SeqCst);
        }
    });
    (address, counts)
}

#[test]
fn a_target_over_tls_is_verified_before_anything_is_sent() {
    let mut log = OrderLog::new(PARTITIONS);
    log.append(order(0), &[placed()]);
    let directory = log.data();
    if !make_certificate(directory, "known") || !make_certificate(directory, "unknown") {
        eprintln!(
            "LEFT OUT: `openssl` is not installed, so no certificate was made and nothing sent over TLS"
        );
        return;
    }
    let (address, counts) = serve(directory, "known");
    let url = format!("https://localhost:{}/hook", address.port());
    let child = |trusted: &str| {
        let mut command = Command::new(this_program());
        command.env(
            "SSL_CERT_FILE",
            directory.join(trusted).with_extension("pem"),
        );
        command.env_remove("SSL_CERT_DIR");
        start(&mut command, directory, Some(&url))
    };

    let mut strangers = child("unknown");
    eventually("the child has refused the target", || {
        counts.failed_handshakes.load(Ordering::SeqCst) >= 2
    });
    strangers.kill().unwrap();
    strangers.wait().unwrap();
    assert_eq!(counts.requests.load(Ordering::SeqCst), 0);

    let mut trusting = child("known");
    eventually("the event arrives", || {
        counts.requests.load(Ordering::SeqCst) == 1
    });
    trusting.kill().unwrap();
    trusting.wait().unwrap();
}
