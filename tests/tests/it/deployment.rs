//! What is deployed names flags and settings of the binary: the binary is asked whether it knows them.

use std::fs;

use crate::service::{run, stdout_of};
use crate::workspace;

/// The effective configuration of the Kubernetes objects, in a format that `config` knows.
fn configured(format: &str) -> String {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("order-service.toml");
    let objects =
        fs::read_to_string(workspace::root().join("deploy/kubernetes/configuration.yaml"))
            .expect("the object is in the repository");
    let (_, block) = objects
        .split_once("order-service.toml: |\n")
        .expect("the object holds the file");
    let text: Vec<_> = block
        .lines()
        .map(|line| line.strip_prefix("    ").unwrap_or(line))
        .collect();
    fs::write(&file, text.join("\n")).expect("the temporary directory is writable");

    stdout_of([
        "config".as_ref(),
        "--format".as_ref(),
        format.as_ref(),
        "--config".as_ref(),
        file.as_os_str(),
    ])
}

#[test]
fn the_service_takes_the_configuration_of_the_kubernetes_objects() {
    let effective = configured("toml");
    assert!(effective.contains("data_dir = \"/data\""), "{effective}");
    assert!(effective.contains("operators"), "{effective}");
}

#[test]
fn a_pod_serves_on_while_it_leaves_and_stops_within_its_grace_period() {
    /// `STOP_LIMIT` of `cli/src/front.rs`, as `docs/operations.md` tells it.
    const FLUSHED_WITHIN_MS: u64 = 15_000;
    let effective: serde_json::Value =
        serde_json::from_str(&configured("json")).expect("the output is JSON");
    let setting = |name: &str| effective["api"][name].as_u64().expect("it is a number");
    let pause_ms = setting("shutdown_pause_ms");
    assert!(pause_ms > 0, "connections are refused at once");
    let stopped_within_ms = pause_ms + setting("drain_timeout_ms") + FLUSHED_WITHIN_MS;
    for object in ["api.yaml", "projector.yaml"] {
        let path = workspace::root().join("deploy/kubernetes").join(object);
        let text = fs::read_to_string(path).expect("the object is in the repository");
        let grace = text
            .lines()
            .find_map(|line| line.trim().strip_prefix("terminationGracePeriodSeconds: "));
        let grace: u64 = grace
            .and_then(|seconds| seconds.parse().ok())
            .expect("the object says how long it waits");
        assert!(grace * 1_000 > stopped_within_ms, "{object}: {grace} s");
    }
}

#[test]
fn the_service_has_every_subcommand_and_flag_that_deployments_name() {
    let folder = workspace::root().join("deploy");
    let mut calls = 0;
    for path in workspace::files(&folder, &[".yaml", ".service", "Containerfile"]) {
        let text = fs::read_to_string(&path).expect("the file reads");
        for words in text.lines().filter_map(arguments_of) {
            calls += 1;
            let (subcommand, flags) = words.split_first().expect("a call has a subcommand");
            let help = run([subcommand.as_str(), "--help"]);
            assert!(help.status.success(), "{}: {subcommand}", path.display());
            let help = String::from_utf8_lossy(&help.stdout);
            for flag in flags.iter().filter(|word| word.starts_with("--")) {
                assert!(help.contains(flag), "{}: {flag}", path.display());
            }
        }
    }
    assert!(calls >= 4, "{calls} calls were found");
}

/// The part of a link that leads to a heading, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let heading = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = heading
        .chars()
        .filter(|letter| letter.is_alphanumeric() || [' ', '-', '_'].contains(letter));
    kept.map(|letter| if letter == ' ' { '-' } else { letter })
        .collect()
}

#[test]
fn every_alert_links_to_the_section_of_the_operations_document_that_says_what_to_do() {
    let read = |path: &str| fs::read_to_string(workspace::root().join(path)).expect("it is there");
    let rules = read("deploy/prometheus/order-service.rules.yml");
    let sections: Vec<String> = read("docs/operations.md")
        .lines()
        .filter(|line| line.starts_with("##"))
        .map(|heading| format!("\"docs/operations.md#{}\"", anchor(heading)))
        .collect();
    let alerts: Vec<&str> = rules.split("- alert: ").skip(1).collect();
    assert!(alerts.len() > 10, "{} alerts were found", alerts.len());
    for alert in alerts {
        let name = alert.lines().next().unwrap_or_default();
        let link = alert
            .lines()
            .find_map(|line| line.trim().strip_prefix("runbook_url: "));
        let link = link.unwrap_or_else(|| panic!("{name} has no runbook_url"));
        assert!(sections.iter().any(|it| it == link), "{name}: {link}");
        assert!(
            read("docs/operations.md").contains(&format!("`{name}`")),
            "{name} is not in the document"
        );
    }
}

#[test]
fn every_alert_fires_in_a_case_and_is_silent_in_another() {
    let read = |path: &str| fs::read_to_string(workspace::root().join(path)).expect("it is there");
    let rules = read("deploy/prometheus/order-service.rules.yml");
    let cases = read("deploy/prometheus/order-service.test.yml");
    let first_word = |text: &str| text.split_whitespace().next().map(str::to_owned);
    // What is expected of an alert stands behind its name, until the next of them.
    let expected: Vec<(String, bool)> = cases
        .split("alertname: ")
        .skip(1)
        .filter_map(|case| {
            let is_silent = case.lines().nth(1)?.trim() == "exp_alerts: []";
            Some((first_word(case)?, !is_silent))
        })
        .collect();
    for alert in rules.split("- alert: ").skip(1).filter_map(first_word) {
        let case = |fires: bool| expected.contains(&(alert.clone(), fires));
        assert!(case(true), "no case in which {alert} fires");
        assert!(case(false), "no case in which {alert} is silent");
    }
}

#[test]
fn what_the_runbook_selects_by_label_is_deployed_under_that_label() {
    let read = |path: &str| fs::read_to_string(workspace::root().join(path)).expect("it is there");
    let objects = ["api", "projector"].map(|it| read(&format!("deploy/kubernetes/{it}.yaml")));
    let pods: Vec<&str> = objects
        .iter()
        .filter_map(|object| object.split_once("  template:\n    metadata:\n      labels:\n"))
        .filter_map(|(_, labels)| {
            labels
                .lines()
                .find_map(|line| line.trim().strip_prefix("app: "))
        })
        .collect();
    let mut selected = Vec::new();
    for document in ["docs/operations.md", "deploy/README.md"] {
        let text = read(document);
        for rest in text.split(" -l app=").skip(1) {
            let name: String = rest
                .chars()
                .take_while(|it| it.is_ascii_alphanumeric() || *it == '-')
                .collect();
            assert!(
                pods.contains(&name.as_str()),
                "{document}: app={name}, of {pods:?}"
            );
            selected.push(name);
        }
    }
    for name in ["order-api", "order-projector"] {
        assert!(
            selected.iter().any(|it| it == name),
            "nobody selects app={name}"
        );
    }
}

/// The words after the program's name, where a line of a unit, an image or an object calls it.
fn arguments_of(line: &str) -> Option<Vec<String>> {
    let rest = ["ExecStart=/usr/local/bin/order-service ", "args: ", "CMD "]
        .iter()
        .find_map(|prefix| line.trim_start().strip_prefix(prefix))?;
    let separators = [' ', ',', '[', ']', '"'];
    let words = rest.split(separators).filter(|word| !word.is_empty());
    Some(words.map(str::to_owned).collect())
}
