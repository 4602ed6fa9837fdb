//! A process of its own that delivers: this test binary, asked for one test.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use order_log::disk::RealDisk;
use order_log::segmented::SegmentedLog;
use order_outbox::{Outbox, OutboxConfig, RetryConfig, Secrets, SinkKind};
use prometheus::Registry;

use crate::orders::segmented_config;

const DIRECTORY: &str = "ORDER_OUTBOX_TEST_DIRECTORY";
const URL: &str = "ORDER_OUTBOX_TEST_URL";

/// Count of partitions of every log that a child reads.
pub(crate) const PARTITIONS: u16 = 3;

/// To the file, or to a URL.
pub(crate) fn config(url: Option<String>) -> OutboxConfig {
    let mut config = OutboxConfig {
        sink: if url.is_some() {
            SinkKind::Webhook
        } else {
            SinkKind::File
        },
        retry: RetryConfig {
            attempts: 1_000_000,
            base_ms: 2,
            cap_ms: 20,
        },
        ..OutboxConfig::default()
    };
    config.webhook.url = url;
    config.webhook.secret = Secrets::new(["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned()]);
    config.webhook.allow_private = true;
    config
}

/// The child. Does nothing when it is run as a test of its own.
#[test]
fn delivers_until_it_is_killed() {
    let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) else {
        return;
    };
    let log = segmented_config(&directory, PARTITIONS);
    let log = SegmentedLog::open_read_only(log, Arc::new(RealDisk)).unwrap();
    let config = config(std::env::var(URL).ok());
    let _outbox = Outbox::start(&log, config, &directory, &Registry::new()).unwrap();
    // Until it is killed, or the parent has nothing more to say.
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

/// Starts it with `program`, which runs [`this_program`].
pub(crate) fn start(program: &mut Command, directory: &Path, url: Option<&str>) -> Child {
    program
        .args(["--exact", "child::delivers_until_it_is_killed"])
        .env(DIRECTORY, directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::null());
    if let Some(url) = url {
        program.env(URL, url);
    }
    program.spawn().unwrap()
}

pub(crate) fn this_program() -> PathBuf {
    std::env::current_exe().unwrap()
}
