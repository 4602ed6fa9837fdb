//! `order-service outbox …`: how it stands, what is dead, and everything an operator does about it.
//!
//! With `--url` the running service is asked; without it the files of a data directory are worked on, which takes the
//! lock on its log like a service does. Both ways print the same. `enable` and `restart` move a dispatcher that runs, so
//! there is only the one way for them.

mod offline;
mod view;

use anyhow::anyhow;
use clap::{Args, Subcommand};

use crate::config::DataDirectoryFlags;
use crate::failure::{Failure, usage};
use crate::print;
use crate::service_client::{ServiceClient, ServiceFlags};
use offline::Offline;
use view::{Letter, Letters, Redriven, Standing};

/// Look at the outbox, and inspect and redrive what it could not tell
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show what waits, what backs off, what is dead, and why nothing is delivered
    Status(ShowArguments),
    /// List the dead letters: events that wait for an operator
    List(ShowArguments),
    /// Show one event that is dead or being retried, as its receiver would see it
    Inspect(EventArguments),
    /// Give dead events all their tries again: one, with the dead ones of its order before it, or all
    Redrive(RedriveArguments),
    /// Send again to a target that had answered 410 Gone
    Enable(RunningArguments),
    /// Restart the dispatcher of a running service, whatever stopped it
    Restart(RunningArguments),
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
pub(crate) struct ShowArguments {
    #[command(flatten)]
    place: Place,
    /// JSON instead of lines for people
    #[arg(long)]
    json: bool,
}

/// Flags of `inspect`.
#[derive(Debug, Args)]
pub(crate) struct EventArguments {
    #[command(flatten)]
    place: Place,
    /// The event's id: `<order id>-<version>`, as `list` shows it
    #[arg(value_name = "EVENT")]
    event: String,
}

/// Flags of `redrive`.
#[derive(Debug, Args)]
pub(crate) struct RedriveArguments {
    #[command(flatten)]
    place: Place,
    /// The event's id: `<order id>-<version>`, as `list` shows it; or all of them
    #[arg(value_name = "EVENT|all")]
    event: String,
}

/// Flags of commands that only a running service understands.
#[derive(Debug, Args)]
pub(crate) struct RunningArguments {
    /// The service to ask, for example http://127.0.0.1:8080
    #[arg(long, value_name = "URL")]
    url: String,
    /// File with a bearer token of the scope `admin`; without it, the variable ORDER_SERVICE_TOKEN
    #[arg(long, value_name = "FILE")]
    token_file: Option<std::path::PathBuf>,
}

/// Runs the subcommand.
///
/// # Errors
/// A usage failure for what does not fit how things stand; a failure for what was tried and did not come to its end.
pub(crate) fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Status(arguments) => {
            let standing = arguments.place.open()?.standing()?;
            show(&standing, arguments.json)
        }
        Command::List(arguments) => list(&arguments.place.open()?, arguments.json),
        Command::Inspect(arguments) => {
            let letter = arguments.place.open()?.inspect(&arguments.event)?;
            print::line(&serde_json::to_string_pretty(&letter)?)
        }
        Command::Redrive(arguments) => redrive(arguments),
        Command::Enable(arguments) => moved(arguments, "enable"),
        Command::Restart(arguments) => moved(arguments, "restart"),
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
    fn standing(&self) -> Result<Standing, Failure> {
        match self {
            Self::Service(client) => understood(client.get("/outbox")?),
            Self::Offline(offline) => offline.standing(),
        }
    }

    /// A page of dead letters, and where the next one begins, if there may be one.
    fn dead(&self, after: Option<&str>) -> Result<(Vec<Letter>, Option<String>), Failure> {
        match self {
            Self::Service(client) => {
                let after = after.map_or_else(String::new, |after| format!("&after={after}"));
                let page: Letters =
                    understood(client.get(&format!("/outbox/dead?limit=1000{after}"))?)?;
                Ok((page.dead, page.next_after))
            }
            Self::Offline(offline) => offline.dead(after),
        }
    }

    fn inspect(&self, event: &str) -> Result<Letter, Failure> {
        match self {
            Self::Service(client) => understood(client.get(&letter_path(event)?)?),
            Self::Offline(offline) => offline.inspect(event),
        }
    }

    fn redrive(&mut self, event: Option<&str>) -> Result<u64, Failure> {
        match self {
            Self::Service(client) => {
                let path = match event {
                    Some(event) => format!("{}/redrive", letter_path(event)?),
                    None => "/outbox/dead/redrive".to_owned(),
                };
                let redriven: Redriven = understood(client.post(&path)?)?;
                Ok(redriven.redriven)
            }
            Self::Offline(offline) => offline.redrive(event),
        }
    }
}

/// The path of an event, which must not lead anywhere else.
fn letter_path(event: &str) -> Result<String, Failure> {
    let plain = |byte: u8| byte.is_ascii_hexdigit() || byte == b'-';
    if event.is_empty() || !event.bytes().all(plain) {
        return Err(usage!(
            "`{event}` is not an event's id: it is <order id>-<version>"
        ));
    }
    Ok(format!("/outbox/dead/{event}"))
}

/// Prints how the outbox stands.
fn show(standing: &Standing, as_json: bool) -> Result<(), Failure> {
    if as_json {
        return print::line(&serde_json::to_string_pretty(standing)?);
    }
    let running = if standing.running {
        "running"
    } else {
        "not running"
    };
    print::line(&format!("sink {}: {running}", standing.sink))?;
    if let Some(trouble) = &standing.trouble {
        print::line(&format!("TROUBLE: {trouble}"))?;
    }
    print::line(&format!(
        "pending {}, of which backing off {}{}; dead {}",
        standing.pending,
        standing.backing_off,
        ages(standing),
        standing.dead
    ))?;
    if let Some(failure) = &standing.last_failure {
        print::line(&format!("last failure: {failure}"))?;
    }
    print::line("partition  cursor        end           behind      state")?;
    for it in &standing.partitions {
        print::line(&format!(
            "{:<9}  {:<12}  {:<12}  {:<10}  {}",
            it.partition,
            it.cursor,
            it.end,
            it.end.saturating_sub(it.cursor),
            it.trouble.as_deref().unwrap_or("ok")
        ))?;
    }
    Ok(())
}

/// How old the oldest of each kind is, where somebody knows.
fn ages(standing: &Standing) -> String {
    let oldest = standing
        .oldest_waiting_seconds
        .zip(standing.oldest_backing_off_seconds);
    oldest.map_or_else(String::new, |(waiting, backing_off)| {
        format!("; oldest waiting {waiting:.1} s, oldest backing off {backing_off:.1} s")
    })
}

/// Prints the dead letters, page by page; as JSON, one object a line.
fn list(way: &Way, as_json: bool) -> Result<(), Failure> {
    let mut count = 0;
    let mut after: Option<String> = None;
    loop {
        let (page, next) = way.dead(after.as_deref())?;
        count += page.len();
        for letter in &page {
            print::line(&if as_json {
                serde_json::to_string(letter)?
            } else {
                letter_line(letter)
            })?;
        }
        let Some(next) = next else { break };
        after = Some(next);
    }
    if as_json {
        return Ok(());
    }
    print::line(&format!("{count} dead"))
}

fn letter_line(letter: &Letter) -> String {
    let kind = letter.r#type.as_deref().unwrap_or("of no known type");
    match &letter.behind {
        Some(first) => format!("{} {kind}: waits behind {first}", letter.id),
        None => format!(
            "{} {kind}: dead after {} tries: {}",
            letter.id, letter.attempts, letter.error
        ),
    }
}

fn redrive(arguments: &RedriveArguments) -> Result<(), Failure> {
    let mut way = arguments.place.open()?;
    let event = (arguments.event != "all").then_some(arguments.event.as_str());
    let events = way.redrive(event)?;
    print::line(&match way {
        Way::Service(_) => format!("{events} events are tried again"),
        Way::Offline(_) => format!("{events} events are tried again at the next start"),
    })
}

/// Has a running service do something to its dispatcher, and shows how the outbox stands then.
fn moved(arguments: &RunningArguments, step: &str) -> Result<(), Failure> {
    let flags = ServiceFlags::of(arguments.url.clone(), arguments.token_file.clone());
    let client = ServiceClient::new(&flags)?.ok_or_else(|| usage!("--url is needed"))?;
    let standing: Standing = understood(client.post(&format!("/outbox/{step}"))?)?;
    show(&standing, false)
}
