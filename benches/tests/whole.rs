//! The programs themselves, as somebody runs them: they end well, write what they say they write, and find nothing wrong.
//!
//! Small runs; nothing is asserted about how fast anything is.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use order_benches::reference::{Server, router};
use tokio::sync::oneshot;

/// Builds the service in the profile of these tests, and asks Cargo where it is.
fn service() -> PathBuf {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(env!("CARGO_MANIFEST_DIR")).args([
        "build",
        "--locked",
        "--package",
        "order-cli",
        "--message-format",
        "json",
    ]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let output = succeeded(&mut command);
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == "order-service")
        .find_map(|message| Some(PathBuf::from(message["executable"].as_str()?)))
        .expect("Cargo says where the service is")
}

fn succeeded(command: &mut Command) -> Output {
    let output = command.output().expect("the program starts");
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

fn read_json(path: &Path) -> serde_json::Value {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn a_comparison_finds_the_same_rows_everywhere_and_draws_what_it_shows() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("report");
    succeeded(
        Command::new(env!("CARGO_BIN_EXE_compare"))
            .args(["--quick", "--only", "reading,replay,cold-start,recovery"])
            .args(["--events", "5000", "--connections", "4"])
            .arg("--service")
            .arg(service())
            .arg("--work-directory")
            .arg(directory.path().join("work"))
            .arg("--out")
            .arg(&out),
    );
    let report = read_json(&out.join("report.json"));
    let checks = report["checks"].as_array().unwrap();
    assert!(
        checks.iter().all(|check| check["holds"] == true),
        "{checks:#?}"
    );
    // Reading, replay (two claims), cold start, kill -9.
    assert_eq!(checks.len(), 5, "{checks:#?}");
    let asked: Vec<_> = report["experiments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|experiment| experiment["key"].as_str().unwrap())
        .collect();
    assert_eq!(asked, ["reading", "replay", "cold-start", "recovery"]);
    let text = std::fs::read_to_string(out.join("report.md")).unwrap();
    for picture in ["replay", "log-bytes", "cold-start", "recovery"] {
        assert!(
            text.contains(&format!("]({picture}.svg)")),
            "{picture}: {text}"
        );
        assert!(out.join(format!("{picture}.svg")).is_file(), "{picture}");
    }
    // Everybody read the same log.
    assert!(
        text.contains("the digest of all rows is the same"),
        "{text}"
    );
}

#[test]
fn a_plan_is_told_before_anything_is_done() {
    let output = succeeded(Command::new(env!("CARGO_BIN_EXE_compare")).arg("--dry-run"));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.starts_with("asking ingest, partitions, reading,"),
        "{text}"
    );
    assert!(text.contains("min on two processors"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_test_tells_its_own_ceiling_and_draws_its_run() {
    let server = Server::bind("127.0.0.1:0".parse().unwrap(), router(None).unwrap())
        .await
        .unwrap();
    let url = format!("http://{}", server.address().unwrap());
    let (stop, stopped) = oneshot::channel();
    let served = tokio::spawn(server.serve_until(async move { stopped.await.unwrap() }));
    tokio::task::spawn_blocking(move || {
        let directory = tempfile::tempdir().unwrap();
        let [json, plots] = ["load.json", "plots"].map(|name| directory.path().join(name));
        let load = || {
            let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
            command
                .args(["--rate", "200", "--duration", "1", "--warm-up", "0.2"])
                .args(["--connections", "4", "--mix", "create=1,get=1"])
                .arg("--json")
                .arg(&json)
                .arg("--plots")
                .arg(&plots)
                .arg(&url);
            command
        };
        let output = succeeded(load().arg("--ceiling"));
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("the generator's own ceiling"), "{text}");
        let report = read_json(&json);
        assert!(report["ceiling"]["per_second"].as_f64().unwrap() > 0.0);
        assert!(report["over_time"][0]["requests"].as_u64().unwrap() > 0);
        for picture in ["latency-over-time.svg", "percentiles.svg"] {
            assert!(plots.join(picture).is_file(), "{picture}");
        }

        // The bare server tells no lag, and bears this.
        let output = succeeded(load().args(["--ramp", "--ramp-to", "300", "--p99-max", "60000"]));
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("the knee lies above it"), "{text}");
        assert_eq!(read_json(&json)["steps"].as_array().unwrap().len(), 2);
        assert!(plots.join("ramp.svg").is_file());
    })
    .await
    .unwrap();
    stop.send(()).unwrap();
    served.await.unwrap().unwrap();
}
