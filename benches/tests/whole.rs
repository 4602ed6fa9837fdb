//! The programs themselves, as somebody runs them: they end well, write what they say they write, and find nothing wrong.
//!
//! Small runs; nothing is asserted about how fast anything is.
//!
//! Long because every program is here, with the service that it is run against.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use order_benches::compare::{CompareConfig, Generator, Plan, Question, compare};
use order_benches::load::{Bounds, Ramp, Target, fetch};
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

/// Held by whoever measures, so that no test is the disturbance of another.
static MACHINE: Mutex<()> = Mutex::new(());

fn machine() -> MutexGuard<'static, ()> {
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
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
    let service = service();
    let _machine = machine();
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("report");
    succeeded(
        Command::new(env!("CARGO_BIN_EXE_compare"))
            .args(["--quick", "--only", "reading,replay,cold-start,recovery"])
            .args(["--events", "5000", "--connections", "4"])
            .arg("--service")
            .arg(service)
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
    // Asked to the end; reading, reading beside writes (two claims), replay (two), an empty and a cold start, kill -9.
    assert_eq!(checks.len(), 9, "{checks:#?}");
    let asked: Vec<_> = report["experiments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|experiment| experiment["key"].as_str().unwrap())
        .collect();
    let expected = [
        "reading",
        "reading-beside-writes",
        "cold-start",
        "replay",
        "cold-start",
        "recovery",
    ];
    assert_eq!(asked, expected);
    // A replay's rate and its time are one figure, and speak once.
    let spoken: Vec<_> = report["verdicts"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|verdict| verdict["experiment"] == "replay")
        .map(|verdict| verdict["figure"].as_str().unwrap())
        .collect();
    assert!(spoken.contains(&"replay, events a second"), "{spoken:?}");
    assert!(!spoken.contains(&"start to caught up, s"), "{spoken:?}");
    // The report can be made again: by whom, when, with what.
    assert_eq!(report["origin"]["command"][1], "--quick");
    assert_eq!(report["origin"]["plan"]["events"][0], 5_000);
    let version = report["origin"]["version"].as_str().unwrap();
    assert!(version.starts_with("order-service "), "{version}");
    // Memory is told of every start.
    for start in report["experiments"].as_array().unwrap() {
        if start["key"] == "cold-start" {
            for contender in start["contenders"].as_array().unwrap() {
                let memory = &contender["figures"][1]["spread"]["median"];
                assert!(memory.as_f64().unwrap() > 1.0, "{contender}");
            }
        }
    }
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

/// Everything that is asked over HTTP, by the generator that every machine has, in runs of a moment.
#[test]
fn whatever_is_written_over_http_is_proven() {
    let service = service();
    let _machine = machine();
    const MOMENT: Duration = Duration::from_millis(300);
    let directory = tempfile::tempdir().unwrap();
    let evidence = compare(&CompareConfig {
        command: vec!["whole".to_owned()],
        service,
        service_arguments: Vec::new(),
        bare: env!("CARGO_BIN_EXE_bare-http").into(),
        work_directory: directory.path().to_owned(),
        plan: Plan {
            questions: vec![
                Question::Ingest,
                Question::Partitions,
                Question::Lag,
                Question::Knee,
            ],
            rounds: 1,
            duration: MOMENT,
            warm_up: MOMENT,
            connections: vec![4],
            layouts: vec![(2, 2)],
            lag_rate: 50.0,
            lag_duration: MOMENT,
            ramp: Ramp {
                from: 20.0,
                to: 40.0,
                factor: 2.0,
                refinements: 0,
            },
            // How fast a busy machine is says nothing here.
            bounds: Bounds {
                p99_ms_max: 60_000.0,
                lag_seconds_max: 60.0,
            },
            step: MOMENT,
            ..Plan::quick()
        },
        generator: Generator::Own,
    })
    .unwrap();
    let text = evidence.markdown();
    // Which rates hold in such a moment, and whether the generator could have sent more, is a matter of who else is on this
    // machine. Whether the lag is told is none.
    let of_speed = |claim: &str| claim.starts_with("Knee: ");
    let steps: Vec<_> = evidence
        .ramps
        .iter()
        .flat_map(|(_, it)| &it.steps)
        .collect();
    assert!(
        !steps.is_empty() && steps.iter().all(|it| it.lag_seconds.is_some()),
        "{steps:#?}"
    );
    let failed: Vec<_> = evidence.checks.iter().filter(|it| !it.holds).collect();
    assert!(failed.iter().all(|it| of_speed(&it.claim)), "{failed:#?}");
    let asked: Vec<_> = evidence.experiments.iter().map(|it| it.key).collect();
    assert_eq!(asked, ["ingest", "partitions", "lag", "knee"], "{text}");
    // Orders were proven after a restart, the split service's rows were seen, the lag was told.
    for claim in [
        "Writing: every request",
        "Fixed rate: every order",
        "the projector's lag was told",
    ] {
        assert!(
            evidence.checks.iter().any(|it| it.claim.contains(claim)),
            "{claim}: {text}"
        );
    }
    assert!(text.contains(", two processes |"), "{text}");
    // The naive way differs in more than the engine, and is not counted with what does not.
    let naive = |who: &str| who.contains("the lab's way");
    let (apart, alone): (Vec<_>, Vec<_>) = evidence.verdicts.iter().partition(|it| naive(&it.both));
    assert!(
        !apart.is_empty() && apart.iter().all(|it| it.also.is_some()),
        "{text}"
    );
    assert!(
        !alone.is_empty() && alone.iter().all(|it| it.also.is_none()),
        "{text}"
    );
    // Redis takes part, or the report says that it does not.
    let redis = evidence.settings.iter().find(|(name, _)| name == "Redis");
    let left_out = redis.unwrap().1.contains("LEFT OUT");
    assert_ne!(left_out, text.contains("| redis "), "{text}");
}

#[test]
fn every_limit_is_measured_in_a_small_run() {
    let _machine = machine();
    let directory = tempfile::tempdir().unwrap();
    let json = directory.path().join("limits.json");
    succeeded(
        Command::new(env!("CARGO_BIN_EXE_limits"))
            .arg("--quick")
            .arg("--directory")
            .arg(directory.path())
            .arg("--json")
            .arg(&json),
    );
    let report = read_json(&json);
    let tables = report["tables"].as_array().unwrap();
    assert_eq!(tables.len(), 10);
    for row in tables.iter().flat_map(|it| it["rows"].as_array().unwrap()) {
        // A moment may be too short for a thousand producers: that everybody ran is all that is asked.
        let rate = row["per_second"]["median"].as_f64();
        assert!(rate.is_some_and(f64::is_finite), "{row}");
    }
}

/// A running process that is ended with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.kill().expect("the process was not waited for");
        self.0.wait().expect("it was killed");
    }
}

/// An order service that wants to know who asks.
struct Guarded {
    _process: Ended,
    url: String,
    token_file: PathBuf,
}

const TOKEN: &str = "a-token-of-the-load-test";

impl Guarded {
    fn start(service: &Path, directory: &Path) -> Self {
        use sha2::{Digest, Sha256};
        let digest: String = Sha256::digest(TOKEN)
            .iter()
            .map(|it| format!("{it:02x}"))
            .collect();
        let [configuration, token_file, log] =
            ["service.toml", "token", "service.log"].map(|name| directory.join(name));
        let text = format!(
            "[[api.tokens]]\nname = \"load\"\nsha256 = \"{digest}\"\nscopes = [\"read\", \"write\"]\n"
        );
        fs::write(&configuration, text).expect("the temporary directory is writable");
        fs::write(&token_file, format!("{TOKEN}\n")).expect("the temporary directory is writable");
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("the system has a free port")
            .port();
        let address = format!("127.0.0.1:{port}");
        let process = Command::new(service)
            .args(["serve", "--listen", &address, "--config"])
            .arg(&configuration)
            .arg("--data-dir")
            .arg(directory.join("data"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(log).expect("the temporary directory is writable"))
            .spawn()
            .expect("the service starts");
        let started = Self {
            _process: Ended(process),
            url: format!("http://{address}"),
            token_file,
        };
        started.wait_until_ready();
        started
    }

    fn wait_until_ready(&self) {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
        let target = Target::parse(&self.url, false).expect("it is loopback");
        for _ in 0..6_000 {
            if let Ok((status, _)) = runtime.block_on(fetch(&target, "/readyz"))
                && status.is_success()
            {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the service was not ready within a minute");
    }

    fn load(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
        command
            .env_remove("ORDER_SERVICE_TOKEN")
            .args(["--rate", "40", "--duration", "0.5", "--warm-up", "0.1"])
            .args(["--connections", "4", "--mix", "create=1"])
            .arg(&self.url);
        command
    }
}

#[test]
fn a_service_that_wants_a_token_is_loaded_and_read_back_and_its_lag_is_read() {
    let service = service();
    let _machine = machine();
    let directory = tempfile::tempdir().unwrap();
    let service = Guarded::start(&service, directory.path());
    let json = directory.path().join("load.json");
    let load = || {
        let mut command = service.load();
        command.arg("--json").arg(&json);
        command
    };
    succeeded(
        load()
            .arg("--read-back")
            .arg("--token-file")
            .arg(&service.token_file),
    );
    let report = read_json(&json);
    for operation in report["operations"].as_array().unwrap() {
        assert_eq!(operation["succeeded"], operation["requests"], "{operation}");
    }
    assert_eq!(
        report["operations"].as_array().unwrap().len(),
        2,
        "{report}"
    );

    // The lag is behind the same token, given in the way of the service's own commands.
    let ramp = [
        "--ramp",
        "--ramp-to",
        "40",
        "--p99-max",
        "60000",
        "--lag-max",
        "60",
    ];
    let output = succeeded(load().args(ramp).env("ORDER_SERVICE_TOKEN", TOKEN));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("requests a second kept") && text.contains("lag ≤ 60 s"),
        "{text}"
    );
    let report = read_json(&json);
    assert!(report["steps"][0]["lag_seconds"].is_number(), "{report}");

    // Nobody in particular places no order.
    let output = succeeded(load().args(ramp));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("no rate tried kept"), "{text}");
    let report = read_json(&json);
    let steps = report["steps"].as_array().unwrap();
    assert!(
        !steps.is_empty() && steps.iter().all(tells_no_lag),
        "{report}"
    );
}

/// The field is there, and empty.
fn tells_no_lag(step: &serde_json::Value) -> bool {
    step.get("lag_seconds") == Some(&serde_json::Value::Null)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lag_is_read_where_it_is_told() {
    let serve = async |router: Router| {
        let server = Server::bind("127.0.0.1:0".parse().unwrap(), router)
            .await
            .unwrap();
        let url = format!("http://{}", server.address().unwrap());
        // Ends with the test's runtime.
        tokio::spawn(server.serve_until(std::future::pending()));
        url
    };
    let orders = serve(router(None).unwrap()).await;
    let lag = "projector_event_lag_seconds{partition=\"0\",projection=\"orders\"} 0\n";
    let projector = serve(Router::new().route("/metrics", get(move || async move { lag }))).await;
    let directory = tempfile::tempdir().unwrap();
    let json = directory.path().join("load.json");
    let written = json.clone();
    let output = tokio::task::spawn_blocking(move || {
        let _machine = machine();
        succeeded(
            Command::new(env!("CARGO_BIN_EXE_loadtest"))
                .args([
                    "--ramp",
                    "--rate",
                    "20",
                    "--ramp-to",
                    "20",
                    "--duration",
                    "0.2",
                ])
                .args(["--warm-up", "0", "--mix", "create=1", "--connections", "4"])
                .args(["--p99-max", "60000", "--metrics-url", &projector])
                .arg("--json")
                .arg(written)
                .arg(&orders),
        )
    })
    .await
    .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("requests a second kept") && text.contains("lag ≤ 1 s"),
        "{text}"
    );
    let report = read_json(&json);
    assert!(report["steps"][0]["lag_seconds"].is_number(), "{report}");
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
        let _machine = machine();
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

        // The bare server tells no lag: what nobody looked at is not said to be kept, by whatever rate this machine bears.
        let output = succeeded(load().args(["--ramp", "--ramp-to", "300", "--p99-max", "60000"]));
        let text = String::from_utf8(output.stdout).unwrap();
        let report = read_json(&json);
        let steps = report["steps"].as_array().unwrap();
        let bears_one = steps
            .iter()
            .any(|step| step["objections"] == serde_json::json!([]));
        assert_eq!(text.contains("lag UNKNOWN"), bears_one, "{text}");
        assert!(
            !steps.is_empty() && steps.iter().all(tells_no_lag),
            "{report}"
        );
        assert!(plots.join("ramp.svg").is_file());
    })
    .await
    .unwrap();
    stop.send(()).unwrap();
    served.await.unwrap().unwrap();
}
