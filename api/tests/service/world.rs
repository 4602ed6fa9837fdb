//! A whole service in a directory that goes away: log, workers, read model, API.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use axum::response::Response;
use http_body_util::BodyExt;
use order_api::{Api, ApiConfig, ApiParts, Endpoints, Listener, Projector};
use order_command_workers::{
    CommandWorkers, CommandWorkersConfig, IdempotencyEntry, OrderSnapshot, SnapshotError, Snapshots,
};
use order_domain::OrderId;
use order_log::segmented::{SegmentedConfig, SegmentedLog};
use order_log::{Durability, EventLog, Offset, PartitionId};
use order_partitioner::Partitioner;
use order_projector_workers::{
    Projection, ProjectorConfig, ProjectorWorkers, ReadModel, ReadModelConfig, ReadModelReader,
};
use prometheus::Registry;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tower::ServiceExt;

use crate::gate::{Gate, GatedDisk, GatedReader};

const PARTITIONS: u16 = 2;
const RETENTION: Duration = Duration::from_secs(3600);

/// The default configuration, for a machine that may have much else to do: waits end when they have what they wait for.
pub(crate) fn config() -> ApiConfig {
    ApiConfig {
        read_patience: Duration::from_secs(30),
        ..ApiConfig::default()
    }
}

/// What a service is made of.
pub(crate) struct Setup {
    pub(crate) config: ApiConfig,
    /// When a write counts as done.
    pub(crate) durability: Durability,
    pub(crate) disk: Arc<GatedDisk>,
    pub(crate) queue_commands_max: usize,
    /// What the API's readers of the log have to pass.
    pub(crate) readers: Option<Gate>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            config: config(),
            durability: Durability::Always,
            disk: Arc::default(),
            queue_commands_max: 4096,
            readers: None,
        }
    }
}

/// A running service without a socket.
pub(crate) struct World {
    pub(crate) api: Api,
    pub(crate) projector: Arc<ProjectorWorkers>,
    commands: CommandWorkers,
    directory: tempfile::TempDir,
}

/// The read model as the command workers see it.
struct Rows {
    partition: PartitionId,
    read_model: Arc<ReadModel>,
    reader: ReadModelReader,
}

impl Snapshots for Rows {
    fn checkpoint(&self) -> Offset {
        self.read_model
            .checkpoints()
            .load(Projection::Orders, self.partition)
    }

    fn order(&mut self, id: OrderId) -> Result<Option<OrderSnapshot>, SnapshotError> {
        let unreadable = |error: &dyn std::fmt::Display| SnapshotError(error.to_string());
        let row = self
            .reader
            .order(self.partition, id)
            .map_err(|error| unreadable(&error))?;
        let snapshot = row.map(|row| {
            Ok(OrderSnapshot {
                order: row.to_order().map_err(|error| unreadable(&error))?,
                last_frame: row.last_frame,
            })
        });
        snapshot.transpose()
    }

    fn idempotency(&mut self, digest: [u8; 16]) -> Result<Option<IdempotencyEntry>, SnapshotError> {
        let row = self.reader.idempotency(self.partition, digest);
        let row = row.map_err(|error| SnapshotError(error.to_string()))?;
        Ok(row.map(|row| IdempotencyEntry {
            fingerprint: row.fingerprint,
            order_id: row.order_id,
            version: row.version,
            frame: row.frame,
        }))
    }
}

impl Setup {
    pub(crate) fn start(self) -> World {
        World::of(self)
    }
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(config())
    }

    pub(crate) fn with(config: ApiConfig) -> Self {
        let setup = Setup {
            config,
            ..Setup::default()
        };
        setup.start()
    }

    /// With another idea of when a write counts as done.
    pub(crate) fn lasting(config: ApiConfig, durability: Durability) -> Self {
        let setup = Setup {
            config,
            durability,
            ..Setup::default()
        };
        setup.start()
    }

    fn of(setup: Setup) -> Self {
        let Setup {
            config,
            durability,
            disk,
            queue_commands_max,
            readers: gate,
        } = setup;
        let directory = tempfile::tempdir().unwrap();
        let log_config = SegmentedConfig::new(
            directory.path().join("log"),
            *b"a log for tests!",
            PARTITIONS,
            durability,
        );
        let log = SegmentedLog::open(log_config, disk).unwrap();
        let registry = Registry::new();
        let read_model = ReadModel::open(ReadModelConfig {
            directory: directory.path().to_owned(),
            partitions: PARTITIONS,
            shards: 1,
            log_id: "a log for tests".to_owned(),
        })
        .unwrap();
        let projector = ProjectorWorkers::start(
            &log,
            Arc::clone(&read_model),
            ProjectorConfig {
                batch_records_max: 1000,
                idempotency_retention_us: u64::try_from(RETENTION.as_micros()).unwrap(),
            },
            &registry,
        )
        .unwrap();
        let partitioner = Partitioner::new(PARTITIONS).unwrap();
        let mut snapshots = |partition| -> Box<dyn Snapshots> {
            Box::new(Rows {
                partition,
                read_model: Arc::clone(&read_model),
                reader: read_model.reader().unwrap(),
            })
        };
        let commands = CommandWorkers::start(
            &log,
            partitioner,
            &mut snapshots,
            CommandWorkersConfig {
                queue_commands_max,
                batch_commands_max: 1024,
                lag_events_max: 1_000_000,
                group_commit: true,
                idempotency_retention: RETENTION,
            },
            &registry,
        )
        .unwrap();
        let readers = (0..PARTITIONS).map(|number| {
            let reader = log.reader(PartitionId::new(number)).unwrap();
            match gate.clone() {
                None => reader,
                Some(gate) => Box::new(GatedReader { reader, gate }),
            }
        });
        let parts = ApiParts {
            commands: Some(commands.clone()),
            read_model,
            projector: Projector::Here(Arc::clone(&projector)),
            outbox: None,
            log: readers.collect(),
            log_id: "a log for tests".to_owned(),
            partition_of: Box::new(move |id| {
                let text = &mut [0; 36];
                PartitionId::new(partitioner.partition_of(id.text(text).as_bytes()))
            }),
            registry,
            facts: Vec::new(),
            checks: Box::new(Vec::new),
        };
        Self {
            api: Api::new(parts, config).unwrap(),
            projector,
            commands,
            directory,
        }
    }

    /// Serves on a loopback socket until the stop is sent or dropped.
    pub(crate) async fn serve(&self) -> Served {
        self.serve_on(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    /// Serves on a socket until the stop is sent or dropped.
    pub(crate) fn serve_on(&self, listener: TcpListener) -> Served {
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let api = self.api.clone();
        let ended = tokio::spawn(async move {
            order_api::serve(vec![listener], api, async {
                let _dropped = stopped.await;
            })
            .await
        });
        Served {
            address,
            stop,
            ended,
        }
    }

    /// Serves clients and operators on a socket each, until it is dropped.
    pub(crate) async fn serve_apart(&self) -> ServedApart {
        let mut sockets = Vec::new();
        for endpoints in [Endpoints::Public, Endpoints::Admin] {
            let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
            sockets.push(Listener { socket, endpoints });
        }
        let [public, admin] = [0, 1].map(|at: usize| sockets[at].socket.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let api = self.api.clone();
        tokio::spawn(async move {
            order_api::serve(sockets, api, async {
                let _dropped = stopped.await;
            })
            .await
        });
        ServedApart {
            public,
            admin,
            _stop: stop,
        }
    }

    /// How often the read model's write-ahead log has started over: a number in the file's header, after the magic, the
    /// version and the page size.
    pub(crate) fn wal_sequence(&self) -> u32 {
        const AT: std::ops::Range<usize> = 12..16;
        let path = self.directory.path().join("read.db-wal");
        let mut header = [0; AT.end];
        let mut file = std::fs::File::open(path).unwrap();
        match std::io::Read::read_exact(&mut file, &mut header) {
            Ok(()) => u32::from_be_bytes(header[AT].try_into().unwrap()),
            // Nothing was ever written to it.
            Err(_) => 0,
        }
    }

    /// The answer as it comes, its body unread.
    pub(crate) async fn send(&self, request: Request<Body>) -> Response {
        self.api.clone().oneshot(request).await.unwrap()
    }

    /// The whole answer.
    pub(crate) async fn ask(&self, request: Request<Body>) -> Answer {
        let (parts, body) = self.send(request).await.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer {
            status: parts.status,
            headers: parts.headers,
            text: String::from_utf8(body.to_vec()).unwrap(),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(Request::get(path).body(Body::empty()).unwrap())
            .await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        let request = Request::post(path).header("content-type", "application/json");
        self.ask(request.body(Body::from(body.to_string())).unwrap())
            .await
    }

    /// Waits for the end of what was begun on a projection's tables.
    pub(crate) async fn until_the_task_is_over(&self) {
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        loop {
            let all = self.get("/projections").await.expect(StatusCode::OK).json();
            if all["task"]["over"] == true {
                return;
            }
            assert!(std::time::Instant::now() < deadline, "{all}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Places an order and gives its id.
    pub(crate) async fn place(&self) -> String {
        let placed = self
            .post("/orders", &an_order())
            .await
            .expect(StatusCode::CREATED);
        placed.json()["id"].as_str().unwrap().to_owned()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.commands.stop();
        self.projector.stop();
    }
}

/// A service that listens for clients here and for operators there.
pub(crate) struct ServedApart {
    pub(crate) public: SocketAddr,
    pub(crate) admin: SocketAddr,
    _stop: oneshot::Sender<()>,
}

/// A service that listens.
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    pub(crate) stop: oneshot::Sender<()>,
    pub(crate) ended: tokio::task::JoinHandle<std::io::Result<()>>,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn expect(self, status: StatusCode) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self
            .headers
            .get(name)
            .unwrap_or_else(|| panic!("no {name}: {self:?}"));
        value.to_str().unwrap()
    }

    /// The path of the next page, if there is one.
    pub(crate) fn next(&self) -> Option<String> {
        let link = self.headers.get("link")?.to_str().unwrap();
        let (path, rest) = link.strip_prefix('<').unwrap().split_once('>').unwrap();
        assert_eq!(rest, "; rel=\"next\"");
        Some(path.to_owned())
    }
}

pub(crate) fn an_order() -> Value {
    json!({
        "customer_id": "c-1042", "currency": "EUR",
        "lines": [{"sku": "SKU-1", "quantity": 2, "unit_price": 1999}],
        "metadata": {"channel": "web"}
    })
}

/// An order whose event fills a good part of a connection's buffers.
pub(crate) fn a_large_order() -> Value {
    let mut order = an_order();
    for number in 0..32 {
        order["metadata"][format!("note-{number}")] = "x".repeat(512).into();
    }
    order["metadata"].as_object_mut().unwrap().remove("channel");
    order
}
