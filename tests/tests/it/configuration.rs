//! The configuration as `order-service config` shows it: what wins over what, and what is refused.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::service::binary;

/// `config` with a file, variables and flags.
fn config(file: Option<&Path>, variables: &[(&str, &str)], flags: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command
        .arg("config")
        .args(flags)
        .envs(variables.iter().copied());
    if let Some(file) = file {
        command.arg("--config").arg(file);
    }
    command.output().expect("the binary runs")
}

fn effective(file: Option<&Path>, variables: &[(&str, &str)], flags: &[&str]) -> Value {
    let flags = [flags, &["--format", "json"]].concat();
    let output = config(file, variables, &flags);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("the output is JSON")
}

fn assert_refused(output: &Output, words: &[&str]) {
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let message = String::from_utf8_lossy(&output.stderr);
    for word in words {
        assert!(message.contains(word), "`{word}` is not in: {message}");
    }
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::Builder::new()
        .suffix(".toml")
        .tempfile()
        .expect("a temporary file");
    std::fs::write(file.path(), text).expect("the file can be written");
    file
}

#[test]
fn a_first_run_needs_no_setting() {
    let config = effective(None, &[], &[]);
    assert_eq!(config["data_dir"], "data");
    assert_eq!(config["listen"], "127.0.0.1:8080");
    assert_eq!(config["durability"], "always");
    assert_eq!(config["group_commit"], "on");
    assert_eq!(config["read_model_shards"], 1);
    assert_eq!(config["outbox"]["sink"], "file");
}

#[test]
fn flags_win_over_the_environment_over_the_file_over_defaults() {
    let file = file("durability = \"os\"\nlisten = \"127.0.0.1:1\"\n[commands]\nqueue_max = 7\n");
    let variables = [
        ("ORDER_SERVICE__DURABILITY", "interval=5"),
        ("ORDER_SERVICE__COMMANDS__BATCH_MAX", "9"),
        ("ORDER_SERVICE__OUTBOX__SINK", "none"),
    ];
    let config = effective(
        Some(file.path()),
        &variables,
        &["--durability", "interval=6"],
    );
    assert_eq!(config["durability"], "interval=6", "the flag");
    assert_eq!(config["commands"]["batch_max"], 9, "the environment");
    assert_eq!(
        config["outbox"]["sink"], "none",
        "the environment, in a table"
    );
    assert_eq!(config["commands"]["queue_max"], 7, "the file");
    assert_eq!(config["listen"], "127.0.0.1:1", "the file");
    assert_eq!(config["group_commit"], "on", "the default");
}

#[test]
fn what_it_prints_is_a_file_it_reads_to_the_same_effect() {
    let flags = [
        "--partitions",
        "3",
        "--durability",
        "interval=5",
        "--data-dir",
        "a \"b\" \\c",
    ];
    let printed = config(None, &[], &flags);
    let file = file(&String::from_utf8(printed.stdout).expect("the output is UTF-8"));
    assert_eq!(
        effective(Some(file.path()), &[], &[]),
        effective(None, &[], &flags)
    );
}

#[test]
fn every_line_says_where_its_value_came_from() {
    let file = file("durability = \"os\"\n");
    let variables = [("ORDER_SERVICE__LISTEN", "127.0.0.1:2")];
    let output = config(Some(file.path()), &variables, &["--partitions", "3"]);
    let text = String::from_utf8(output.stdout).expect("the output is UTF-8");
    let source_of = |setting: &str| {
        let line = text.lines().find(|line| line.starts_with(setting));
        line.unwrap_or_else(|| panic!("{setting} is not in {text}"))
            .to_owned()
    };
    assert!(source_of("durability").ends_with(&format!("# file {}", file.path().display())));
    assert!(source_of("listen").ends_with("# environment variable `ORDER_SERVICE__LISTEN`"));
    assert!(source_of("partitions").ends_with("# flag `--partitions`"));
    assert!(source_of("group_commit").ends_with("# default"));
}

#[test]
fn a_setting_nobody_knows_is_refused_wherever_it_stands() {
    let in_file = file("durabilty = \"os\"\n");
    assert_refused(
        &config(Some(in_file.path()), &[], &[]),
        &[
            "`durabilty` is unknown",
            &in_file.path().display().to_string(),
            "durability",
        ],
    );
    let in_table = file("[commands]\nqueue = 1\n");
    assert_refused(
        &config(Some(in_table.path()), &[], &[]),
        &["`commands.queue` is unknown", "queue_max"],
    );
    assert_refused(
        &config(None, &[("ORDER_SERVICE__DURABILTY", "os")], &[]),
        &["`durabilty` is unknown", "ORDER_SERVICE__DURABILTY"],
    );
    assert_refused(&config(None, &[], &["--durabilty", "os"]), &["--durabilty"]);
}

#[test]
fn a_value_that_cannot_be_is_refused_with_its_source() {
    let no_toml = file("durability = os\n");
    assert_refused(
        &config(Some(no_toml.path()), &[], &[]),
        &["line 1", &no_toml.path().display().to_string()],
    );
    assert_refused(
        &config(Some(Path::new("/nowhere.toml")), &[], &[]),
        &["/nowhere.toml"],
    );
    assert_refused(
        &config(None, &[], &["--durability", "sometimes"]),
        &["`durability`", "sometimes", "interval=<", "--durability"],
    );
    assert_refused(
        &config(None, &[("ORDER_SERVICE__COMMANDS__QUEUE_MAX", "many")], &[]),
        &[
            "`commands.queue_max`",
            "many",
            "ORDER_SERVICE__COMMANDS__QUEUE_MAX",
        ],
    );
    assert_refused(
        &config(None, &[("ORDER_SERVICE__PARTITIONS", "0")], &[]),
        &["`partitions` is 0", "ORDER_SERVICE__PARTITIONS"],
    );
    assert_refused(
        &config(
            None,
            &[("ORDER_SERVICE__OUTBOX__RETRY__ATTEMPTS", "0")],
            &[],
        ),
        &["outbox.retry.attempts"],
    );
    for (url, secret, setting) in [
        ("ftp://there", "", "outbox.webhook.url"),
        ("https://user:word@there.example/", "", "outbox.webhook.url"),
        ("https://there.example/", "short", "outbox.webhook.secret"),
    ] {
        let variables = [
            ("ORDER_SERVICE__OUTBOX__SINK", "webhook"),
            ("ORDER_SERVICE__OUTBOX__WEBHOOK__URL", url),
            ("ORDER_SERVICE__OUTBOX__WEBHOOK__SECRET", secret),
        ];
        assert_refused(&config(None, &variables, &[]), &[setting]);
    }
    // A wait that ends behind the request's own time.
    assert_refused(
        &config(
            None,
            &[("ORDER_SERVICE__API__REQUEST_TIMEOUT_MS", "600")],
            &[],
        ),
        &[
            "`api.read_patience_ms` is 1000",
            "at most 500",
            "ORDER_SERVICE__API__REQUEST_TIMEOUT_MS",
        ],
    );
    assert_refused(
        &config(None, &[("ORDER_SERVICE__LISTEN", "nowhere")], &[]),
        &["`listen`", "ORDER_SERVICE__LISTEN"],
    );
}

#[test]
fn other_machines_are_served_only_on_explicit_demand() {
    let everywhere = ["--listen", "0.0.0.0:8080"];
    assert_refused(
        &config(None, &[], &everywhere),
        &["0.0.0.0:8080", "--insecure"],
    );
    let config = effective(None, &[], &["--listen", "0.0.0.0:8080", "--insecure"]);
    assert_eq!(config["listen"], "0.0.0.0:8080");
}

#[test]
fn tokens_open_a_public_address_and_are_never_shown() {
    let digest = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    let table =
        format!("[[api.tokens]]\nname = \"ci\"\nsha256 = \"{digest}\"\nscopes = [\"read\"]\n");
    let good = file(&format!("listen = \"0.0.0.0:8080\"\n{table}"));
    for format in ["toml", "json"] {
        let output = config(Some(good.path()), &[], &["--format", format]);
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            text.contains("<redacted>") && !text.contains(digest),
            "{text}"
        );
    }
    let short = file(&table.replace(digest, "abc"));
    assert_refused(
        &config(Some(short.path()), &[], &[]),
        &["api.tokens", "ci", "sha256"],
    );
    let lofty = file(&table.replace("\"read\"", "\"root\""));
    assert_refused(
        &config(Some(lofty.path()), &[], &[]),
        &["`root`", "read, write and admin"],
    );
}

#[test]
fn a_webhooks_secret_comes_from_the_environment_and_is_never_shown() {
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let variables = [
        ("ORDER_SERVICE__OUTBOX__SINK", "webhook"),
        (
            "ORDER_SERVICE__OUTBOX__WEBHOOK__URL",
            "https://example.com/orders",
        ),
        ("ORDER_SERVICE__OUTBOX__WEBHOOK__SECRET", secret),
        ("ORDER_SERVICE__OUTBOX__RETRY__BASE_MS", "250"),
    ];
    for format in ["toml", "json"] {
        let output = config(None, &variables, &["--format", format]);
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            text.contains("<redacted>") && !text.contains(secret),
            "{text}"
        );
        assert!(
            text.contains("https://example.com/orders") && text.contains("250"),
            "{text}"
        );
    }
}
