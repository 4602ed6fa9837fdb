//! A service that other machines may reach: TLS by two files, tokens that open and never show.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::client::{Client, an_order};
use crate::service::Service;

/// A certificate for `localhost` and its key; `None` where there is no `openssl` to make them.
fn certificate(directory: &Path) -> Option<(PathBuf, PathBuf)> {
    let (certificate, key) = (directory.join("cert.pem"), directory.join("key.pem"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"])
        .args([
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-subj",
            "/CN=localhost",
        ])
        .args([
            "-addext",
            "subjectAltName=DNS:localhost,IP:127.0.0.1",
            "-keyout",
        ])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output();
    if made.is_ok_and(|made| made.status.success()) {
        return Some((certificate, key));
    }
    eprintln!("LEFT OUT: `openssl` is not installed, so TLS was not tried");
    None
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary path is UTF-8")
}

#[test]
fn an_order_is_placed_and_read_over_tls() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let files = tempfile::tempdir().expect("a temporary directory");
    let Some((certificate, key)) = certificate(files.path()) else {
        return;
    };
    let service = Service::start(
        data.path(),
        &[
            "--tls-certificate",
            text(&certificate),
            "--tls-key",
            text(&key),
        ],
    );
    let curl = |path: &str, more: &[&str]| {
        let output = Command::new("curl")
            .args(["-s", "--max-time", "60", "--cacert"])
            .arg(&certificate)
            .arg(format!("https://{}{path}", service.address()))
            .args(more)
            .output()
            .expect("curl runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("answers are UTF-8")
    };
    let body = an_order().to_string();
    let json = "content-type: application/json";
    let placed = curl("/orders", &["-H", json, "-d", &body]);
    let order: Value = serde_json::from_str(&placed).expect("the answer is JSON");
    let id = order["id"]
        .as_str()
        .unwrap_or_else(|| panic!("no id: {placed}"));
    assert_eq!(curl(&format!("/orders/{id}"), &[]), placed);

    let plain = Command::new("curl")
        .args(["-s", "--max-time", "60", &service.url("/livez")])
        .output()
        .expect("curl runs");
    assert!(!plain.status.success(), "plain HTTP is served: {plain:?}");
    assert!(service.terminate().success());
}

#[test]
fn a_start_without_a_usable_certificate_says_why_and_leaves_nothing_behind() {
    let parent = tempfile::tempdir().expect("a temporary directory");
    let Some((certificate, key)) = certificate(parent.path()) else {
        return;
    };
    let data = parent.path().join("data");
    let refused = |flags: &[&str], word: &str| {
        let refusal = Service::try_start(&data, flags)
            .map(drop)
            .expect_err("the service does not start");
        assert_eq!(refusal.status.code(), Some(2), "{refusal:?}");
        assert!(refusal.message.contains(word), "{word}: {refusal:?}");
        assert!(!data.exists(), "the start left something behind");
    };
    let (shown, hidden) = (text(&certificate), text(&key));
    refused(&["--tls-certificate", shown], "--tls-key");
    refused(
        &["--tls-certificate", hidden, "--tls-key", hidden],
        "key.pem",
    );
    refused(
        &["--tls-certificate", shown, "--tls-key", "/nowhere.pem"],
        "/nowhere.pem",
    );
    fs::set_permissions(&key, Permissions::from_mode(0o644)).expect("the key is ours");
    refused(
        &["--tls-certificate", shown, "--tls-key", hidden],
        "chmod 600",
    );
}

#[test]
fn an_open_address_is_refused_before_anything_is_made() {
    let parent = tempfile::tempdir().expect("a temporary directory");
    let data = parent.path().join("data");
    for flags in [
        ["--listen", "0.0.0.0:0"].as_slice(),
        &["--listen", "127.0.0.1:0", "--admin-listen", "[::]:0"],
    ] {
        let refusal = Service::try_start(&data, flags)
            .map(drop)
            .expect_err("the service does not start");
        assert_eq!(refusal.status.code(), Some(2), "{refusal:?}");
        assert!(refusal.message.contains("--insecure"), "{refusal:?}");
        assert!(!data.exists(), "the start left something behind");
    }
}

#[tokio::test]
async fn tokens_open_what_they_should_and_no_message_shows_one() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let settings = data.path().join("settings.toml");
    // printf %s reads-only | sha256sum, and so on.
    let tokens = [
        (
            "reads-only",
            "2663fb23eb31b4ea4642f608eb455da743498fb171b310dd22c7b289a920f32d",
            "read",
        ),
        (
            "writes-only",
            "4f0e918e330170eb1e62ffcb369150d46dec678bbc4e1d680d2d5a9db381be1b",
            "write",
        ),
        (
            "operates-only",
            "c01501e3c42114d8ae029ed04f486e744a92c29ead85c177d444db39f1cb2b31",
            "admin",
        ),
    ];
    let tables = tokens.map(|(token, digest, scope)| {
        let name = token.replace("-only", "");
        format!(
            "[[api.tokens]]\nname = \"{name}\"\nsha256 = \"{digest}\"\nscopes = [\"{scope}\"]\n"
        )
    });
    fs::write(&settings, tables.concat()).expect("the file can be written");
    let directory = data.path().join("data");
    let flags = ["--config", text(&settings), "--log-filter", "trace"];
    let service = Service::start(&directory, &flags);
    let client = Client::of(&service);
    let bearer = |token: &str| format!("Bearer {token}");

    let placed = client
        .post("/orders")
        .header("authorization", &bearer("writes-only"))
        .header("idempotency-key", "checkout-17")
        .json(&an_order())
        .send()
        .await
        .expect(201);
    let order = format!("/orders/{}", placed.id());
    for (path, token, status) in [
        (order.as_str(), "reads-only", 200),
        (&order, "writes-only", 403),
        (&order, "guessed-only", 401),
        ("/outbox", "operates-only", 200),
        ("/outbox", "reads-only", 403),
        ("/metrics", "reads-only", 200),
        ("/metrics", "guessed-only", 401),
    ] {
        let request = client.get(path).header("authorization", &bearer(token));
        request.send().await.expect(status);
    }
    client.get(&order).send().await.expect(401);
    client.get("/readyz").send().await.expect(200);

    let messages = service.messages();
    assert!(service.terminate().success());
    for (token, digest, _) in tokens {
        for secret in [token, digest] {
            assert!(!messages.contains(secret), "{secret} is in the messages");
        }
    }
    assert!(!messages.contains("guessed-only"));
}

#[tokio::test]
async fn with_a_listener_of_their_own_the_operators_endpoints_are_nowhere_else() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let arguments = ["--admin-listen", "127.0.0.1:0"];
    let service = Service::start(data.path(), &arguments);
    let public = Client::of(&service);
    let admin = Client::at(service.admin_address());
    let placed = public.place(&an_order()).await;
    let order = format!("/orders/{}", placed.id());

    for path in [
        "/projections",
        "/projections/orders/parked",
        "/outbox",
        "/outbox/dead",
    ] {
        let nowhere = public.get(path).send().await.expect(404);
        assert_eq!(nowhere.problem(), "not-found", "{path}");
        admin.get(path).send().await.expect(200);
    }
    for path in [
        "/projections/sku_demand/pause",
        "/projections/sku_demand/resume",
        "/projections/sku_demand/parked/redrive",
        "/outbox/dead/redrive",
        "/outbox/enable",
        "/log/rotate",
    ] {
        let nowhere = public.post(path).send().await.expect(404);
        assert_eq!(nowhere.problem(), "not-found", "{path}");
        admin.post(path).send().await.expect(200);
    }
    // Clients are served here, operators there, and whoever only looks at both.
    public.order_after(&placed).await;
    for path in [order.as_str(), "/orders", "/events", "/openapi.json"] {
        let nowhere = admin.get(path).send().await.expect(404);
        assert_eq!(nowhere.problem(), "not-found", "{path}");
    }
    let refused = admin.post("/orders").json(&an_order()).send().await;
    assert_eq!(refused.expect(404).problem(), "not-found");
    for client in [&public, &admin] {
        for path in ["/livez", "/readyz", "/healthz", "/metrics"] {
            client.get(path).send().await.expect(200);
        }
    }
    assert!(service.terminate().success());
}
