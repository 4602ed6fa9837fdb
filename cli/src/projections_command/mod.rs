//! `order-service projections …`: how they stand, and everything an operator does to them.
//!
//! With `--url` the running service is asked; without it the files of a data directory are worked on, which takes its lock
//! like a service does. `diff` alone reads the files whether a service runs or not. Both ways print the same.

mod diff;
mod offline;
mod show;
mod view;

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use order_projector_workers::{Action, Projection};

use crate::config::DataDirectoryFlags;
use crate::failure::{Failure, usage};
use crate::print;
use crate::service_client::{ServiceClient, ServiceFlags};
use offline::Offline;
use view::{Overview, ParkedOrder, Redriven, Task};

/// Between two looks at a task that runs.
const LOOK: Duration = Duration::from_millis(200);

/// Look at the projections, and pause, rebuild, compare or mend them
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show checkpoints, lag, pauses and what is being done; also asks a running service with --url
    Status(StatusArguments),
    /// Let a projection stand still, across restarts
    Pause(OneArguments),
    /// Let a paused projection go on
    Resume(OneArguments),
    /// Fold the log into new tables beside the live ones, compare, and switch; the old ones are kept
    Rebuild(TaskArguments),
    /// Bring the tables that a rebuild replaced up to date, and switch back to them
    SwitchBack(TaskArguments),
    /// Delete the tables that a rebuild replaced, and what an unfinished rebuild left
    DiscardOld(TaskArguments),
    /// Make the indexes of a projection anew; it stands still meanwhile, reads go on
    Reindex(TaskArguments),
    /// Stop what is being done to a projection's tables; the live ones stay as they are
    Cancel(CancelArguments),
    /// List the orders that were set aside because an event of theirs cannot be applied
    Parked(StatusArguments),
    /// Try the orders again that were set aside
    Redrive(OneArguments),
    Diff(diff::Arguments),
}

/// Where to work.
#[derive(Debug, Args)]
pub(crate) struct Place {
    #[command(flatten)]
    data_directory: DataDirectoryFlags,
    #[command(flatten)]
    service: ServiceFlags,
}

/// Flags of commands that show something.
#[derive(Debug, Args)]
pub(crate) struct StatusArguments {
    #[command(flatten)]
    place: Place,
    /// One JSON document instead of columns
    #[arg(long)]
    json: bool,
    /// Only this projection: orders, customer_summary or sku_demand
    #[arg(value_name = "PROJECTION", value_parser = projection)]
    projection: Option<Projection>,
}

/// Flags of commands on one projection.
#[derive(Debug, Args)]
pub(crate) struct OneArguments {
    #[command(flatten)]
    place: Place,
    /// Which: orders, customer_summary or sku_demand
    #[arg(value_name = "PROJECTION", value_parser = projection)]
    projection: Projection,
}

/// Flags of commands that take their time.
#[derive(Debug, Args)]
pub(crate) struct TaskArguments {
    #[command(flatten)]
    place: Place,
    /// With --url: come back as soon as it has begun; `projections status` shows how it goes
    #[arg(long, requires = "url")]
    no_wait: bool,
    /// Which: orders, customer_summary, sku_demand, or all of them one after the other
    #[arg(value_name = "PROJECTION|all", value_parser = projections)]
    projections: Projections,
}

/// Flags of a command that only a running service understands.
#[derive(Debug, Args)]
pub(crate) struct CancelArguments {
    /// The service to ask, for example http://127.0.0.1:8080
    #[arg(long, value_name = "URL")]
    url: String,
    /// File with a bearer token of the scope `admin`; without it, the variable ORDER_SERVICE_TOKEN
    #[arg(long, value_name = "FILE")]
    token_file: Option<std::path::PathBuf>,
    /// Which: orders, customer_summary or sku_demand
    #[arg(value_name = "PROJECTION", value_parser = projection)]
    projection: Projection,
}

/// One or all.
#[derive(Debug, Clone)]
struct Projections(Vec<Projection>);

fn projection(name: &str) -> Result<Projection, String> {
    Projection::from_name(name).ok_or_else(|| {
        let names: Vec<_> = Projection::ALL.iter().map(|it| it.name()).collect();
        format!("there are {}", names.join(", "))
    })
}

fn projections(name: &str) -> Result<Projections, String> {
    if name == "all" {
        return Ok(Projections(Projection::ALL.to_vec()));
    }
    match projection(name) {
        Ok(one) => Ok(Projections(vec![one])),
        Err(error) => Err(format!("{error}, and all")),
    }
}

/// Runs the subcommand.
///
/// # Errors
/// A usage failure for what does not fit how things stand; a failure for what was tried and did not come to its end.
pub(crate) fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Status(arguments) => {
            let overview = arguments.place.open()?.overview()?;
            show::status(&overview, arguments.projection, arguments.json)
        }
        Command::Pause(arguments) => set_paused(arguments, true),
        Command::Resume(arguments) => set_paused(arguments, false),
        Command::Parked(arguments) => parked(arguments),
        Command::Redrive(arguments) => redrive(arguments),
        Command::Rebuild(arguments) => tasks(arguments, Action::Rebuild),
        Command::SwitchBack(arguments) => tasks(arguments, Action::SwitchBack),
        Command::DiscardOld(arguments) => tasks(arguments, Action::DiscardOld),
        Command::Reindex(arguments) => tasks(arguments, Action::Reindex),
        Command::Cancel(arguments) => cancel(arguments),
        Command::Diff(arguments) => diff::run(arguments),
    }
}

/// Where a command is carried out.
enum Way {
    Service(Box<ServiceClient>),
    Offline(Box<Offline>),
}

impl Place {
    fn open(&self) -> Result<Way, Failure> {
        Ok(match ServiceClient::new(&self.service)? {
            Some(client) => Way::Service(Box::new(client)),
            None => Way::Offline(Box::new(Offline::open(&self.data_directory)?)),
        })
    }
}

fn understood<T: serde::de::DeserializeOwned>(answer: serde_json::Value) -> Result<T, Failure> {
    serde_json::from_value(answer).map_err(|error| {
        anyhow!("the service's answer does not read ({error}): is it of another version?").into()
    })
}

impl Way {
    fn overview(&self) -> Result<Overview, Failure> {
        match self {
            Self::Service(client) => understood(client.get("/projections")?),
            Self::Offline(offline) => offline.overview(),
        }
    }

    fn set_paused(&self, projection: Projection, paused: bool) -> Result<(), Failure> {
        match self {
            Self::Service(client) => {
                let step = if paused { "pause" } else { "resume" };
                client
                    .post(&format!("/projections/{}/{step}", projection.name()))
                    .map(drop)
            }
            Self::Offline(offline) => offline.set_paused(projection, paused),
        }
    }

    fn parked(&self, projection: Projection) -> Result<Vec<ParkedOrder>, Failure> {
        let client = match self {
            Self::Service(client) => client,
            Self::Offline(offline) => return offline.parked(projection),
        };
        let mut all = Vec::new();
        let mut path = format!("/projections/{}/parked?limit=1000", projection.name());
        loop {
            let page: view::ParkedOrders = understood(client.get(&path)?)?;
            all.extend(page.parked);
            let Some(after) = page.next_after else {
                return Ok(all);
            };
            path = format!(
                "/projections/{}/parked?limit=1000&after={after}",
                projection.name()
            );
        }
    }

    fn redrive(&self, projection: Projection) -> Result<Redriven, Failure> {
        match self {
            Self::Service(client) => {
                let path = format!("/projections/{}/parked/redrive", projection.name());
                understood(client.post(&path)?)
            }
            Self::Offline(offline) => offline.redrive(projection),
        }
    }

    fn start(&self, projection: Projection, action: Action) -> Result<(), Failure> {
        match self {
            Self::Service(client) => client
                .post(&format!(
                    "/projections/{}/{}",
                    projection.name(),
                    action.name()
                ))
                .map(drop),
            Self::Offline(offline) => offline.start(projection, action),
        }
    }

    fn task(&self) -> Result<Task, Failure> {
        let task = match self {
            Self::Service(_) => self.overview()?.task,
            Self::Offline(offline) => offline.task(),
        };
        task.ok_or_else(|| {
            anyhow!("the service does not know what was begun: it was started anew; begin again")
                .into()
        })
    }
}

fn set_paused(arguments: &OneArguments, paused: bool) -> Result<(), Failure> {
    let way = arguments.place.open()?;
    way.set_paused(arguments.projection, paused)?;
    let name = arguments.projection.name();
    print::line(&match (paused, &way) {
        (true, Way::Service(_)) => format!("{name} is paused, across restarts"),
        (false, Way::Service(_)) => format!("{name} goes on"),
        (true, Way::Offline(_)) => format!("{name} is paused: it stands still at the next start"),
        (false, Way::Offline(_)) => format!("{name} goes on at the next start"),
    })
}

fn parked(arguments: &StatusArguments) -> Result<(), Failure> {
    let way = arguments.place.open()?;
    let asked = arguments.projection;
    let mut found = Vec::new();
    for projection in Projection::ALL {
        if asked.is_none_or(|asked| asked == projection) {
            found.push((projection, way.parked(projection)?));
        }
    }
    show::parked(&found, arguments.json)
}

fn redrive(arguments: &OneArguments) -> Result<(), Failure> {
    let redriven = arguments.place.open()?.redrive(arguments.projection)?;
    print::line(&format!(
        "{}: {} appends were applied, {} orders are still parked",
        arguments.projection.name(),
        redriven.applied,
        redriven.parked_orders
    ))?;
    if redriven.parked_orders == 0 {
        return Ok(());
    }
    Err(anyhow!(
        "{} orders cannot be applied yet: `order-service projections parked {}` says why",
        redriven.parked_orders,
        arguments.projection.name()
    )
    .into())
}

fn tasks(arguments: &TaskArguments, action: Action) -> Result<(), Failure> {
    let way = arguments.place.open()?;
    let several = arguments.projections.0.len() > 1;
    if several && arguments.no_wait {
        return Err(usage!(
            "--no-wait: one projection is worked on at a time, so `all` has to wait for each"
        ));
    }
    for projection in &arguments.projections.0 {
        way.start(*projection, action)?;
        if arguments.no_wait {
            return print::line(&format!(
                "{} of {} has begun",
                action.name(),
                projection.name()
            ));
        }
        finish(&way)?;
    }
    Ok(())
}

/// Follows a task to its end.
fn finish(way: &Way) -> Result<(), Failure> {
    let mut progress = show::Progress::new(std::io::stderr().is_terminal());
    let task = loop {
        let task = way.task()?;
        if task.over {
            break task;
        }
        progress.at(&task);
        std::thread::sleep(LOOK);
    };
    progress.end();
    show::ended(&task)
}

fn cancel(arguments: &CancelArguments) -> Result<(), Failure> {
    let flags = ServiceFlags::of(arguments.url.clone(), arguments.token_file.clone());
    let client = ServiceClient::new(&flags)?.ok_or_else(|| usage!("--url is needed"))?;
    client.post(&format!(
        "/projections/{}/cancel",
        arguments.projection.name()
    ))?;
    print::line(&format!("{}: stopping", arguments.projection.name()))
}
