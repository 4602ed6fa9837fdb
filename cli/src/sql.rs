//! `order-service sql`: one question over all files of the read model, read-only.
//!
//! One file is asked as it is. Several are attached to one connection, and every table stands for the union of the
//! tables of that name, so that a count counts everything and an order by sorts everything. Rows say which partition
//! they are of where the table has that column; which file they came from is nobody's concern.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use order_projector_workers::read_model_files;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use crate::config::DataDirectoryFlags;
use crate::failure::{Failure, usage};
use crate::manifest::Manifest;
use crate::print::unless_closed;

/// Files SQLite attaches to one connection. With more of them their rows are copied into temporary tables first.
const ATTACHED_MAX: usize = 10;

/// How rows are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Columns for people; waits for the last row.
    Table,
    /// Comma-separated, with a header, as in RFC 4180.
    Csv,
    /// One JSON object a row.
    Json,
}

/// Ask the read model in SQL, over all its files, without changing anything; also while the service runs
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    data_directory: DataDirectoryFlags,
    /// How to print the rows
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: Format,
    /// One statement, for example: select status, count(1) from OrderView group by status
    statement: String,
}

/// Runs the statement and prints its rows.
///
/// # Errors
/// A usage failure for a directory without a read model; a failure with what SQLite said about the statement.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = arguments.data_directory.load()?.config;
    Manifest::read(&config.data_dir)?;
    let files = files_of(&config.data_dir)?;
    let connection = open(&files)?;
    let mut statement = connection
        .prepare(&arguments.statement)
        .context("the statement")?;
    let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let mut rows = statement.query([]).context("the statement")?;
    let mut printer = Printer::new(arguments.format, columns);
    while let Some(row) = rows.next().context("the statement")? {
        let cells = (0..printer.columns.len())
            .map(|index| row.get_ref(index).map(json_of))
            .collect::<Result<Vec<_>, _>>()
            .context("the statement")?;
        if let Err(error) = printer.row(cells) {
            return unless_closed(Err(error));
        }
    }
    unless_closed(printer.finish())
}

/// How far the read model has applied each partition: the furthest of its projections.
///
/// # Errors
/// A usage failure for a directory without a read model; a failure with what SQLite said.
pub(crate) fn checkpoints(directory: &Path) -> Result<Vec<(usize, u64)>, Failure> {
    let mut checkpoints = Vec::new();
    for file in files_of(directory)? {
        let connection = open(std::slice::from_ref(&file))?;
        let reading = || format!("read the checkpoints in {}", file.display());
        let mut statement = connection
            .prepare("select partition, max(next_offset) from Checkpoint group by partition")
            .with_context(reading)?;
        let rows = statement
            .query_map([], |row| Ok((row.get::<_, u16>(0)?, row.get::<_, i64>(1)?)))
            .with_context(reading)?;
        for row in rows {
            let (partition, offset) = row.with_context(reading)?;
            let offset = u64::try_from(offset).with_context(reading)?;
            checkpoints.push((usize::from(partition), offset));
        }
    }
    Ok(checkpoints)
}

/// `read.db`, or `read-000.db` and its siblings.
fn files_of(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let files = read_model_files(directory)?;
    if files.is_empty() {
        return Err(usage!(
            "{} has no read model yet: start `order-service serve` once",
            directory.display()
        ));
    }
    Ok(files)
}

fn open(files: &[PathBuf]) -> Result<Connection, Failure> {
    let connection = match files {
        [file] => {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            Connection::open_with_flags(file, flags)
                .with_context(|| format!("open {}", file.display()))?
        }
        several => union_of(several)?,
    };
    connection
        .pragma_update(None, "query_only", true)
        .context("make the connection read-only")?;
    Ok(connection)
}

/// A connection on which every table is the union of the files' tables of that name, and every view reads these.
fn union_of(files: &[PathBuf]) -> Result<Connection, Failure> {
    let connection = Connection::open_in_memory().context("open SQLite")?;
    let views = if files.len() <= ATTACHED_MAX {
        join(&connection, files)?
    } else {
        copy(&connection, files)?
    };
    for Named { name, sql } in views {
        let definition = sql
            .strip_prefix("CREATE VIEW")
            .ok_or_else(|| anyhow!("view {name} is not defined by CREATE VIEW"))?;
        run_batch(&connection, &format!("CREATE TEMP VIEW{definition}"), &name)?;
    }
    Ok(connection)
}

/// Attaches all files; returns their views.
fn join(connection: &Connection, files: &[PathBuf]) -> Result<Vec<Named>, Failure> {
    for (number, file) in files.iter().enumerate() {
        attach(connection, file, &format!("shard_{number}"))?;
    }
    for Named { name, .. } in schema(connection, "shard_0", "table")? {
        let parts: Vec<String> = (0..files.len())
            .map(|number| format!("select * from shard_{number}.\"{name}\""))
            .collect();
        let union = parts.join(" union all ");
        run_batch(
            connection,
            &format!("create temp view \"{name}\" as {union}"),
            &name,
        )?;
    }
    schema(connection, "shard_0", "view")
}

/// Copies all files into temporary tables, one after the other; returns their views.
fn copy(connection: &Connection, files: &[PathBuf]) -> Result<Vec<Named>, Failure> {
    let mut views = Vec::new();
    for (number, file) in files.iter().enumerate() {
        attach(connection, file, "shard")?;
        for Named { name, .. } in schema(connection, "shard", "table")? {
            let into = match number {
                0 => format!("create temp table \"{name}\" as"),
                _ => format!("insert into temp.\"{name}\""),
            };
            run_batch(
                connection,
                &format!("{into} select * from shard.\"{name}\""),
                &name,
            )?;
        }
        views = schema(connection, "shard", "view")?;
        connection
            .execute_batch("detach database shard")
            .context("close a file")?;
    }
    Ok(views)
}

fn attach(connection: &Connection, file: &Path, name: &str) -> Result<(), Failure> {
    let path = file
        .to_str()
        .ok_or_else(|| anyhow!("{} is not UTF-8", file.display()))?;
    let escaped = path
        .replace('%', "%25")
        .replace('?', "%3f")
        .replace('#', "%23");
    connection
        .execute(
            &format!("attach database ?1 as {name}"),
            [format!("file:{escaped}?mode=ro")],
        )
        .with_context(|| format!("open {}", file.display()))?;
    Ok(())
}

fn run_batch(connection: &Connection, statement: &str, about: &str) -> Result<(), Failure> {
    connection
        .execute_batch(statement)
        .with_context(|| format!("unite `{about}` of all files"))?;
    Ok(())
}

/// A table or view with the statement that made it.
struct Named {
    name: String,
    sql: String,
}

fn schema(connection: &Connection, database: &str, kind: &str) -> Result<Vec<Named>, Failure> {
    // Tables of a rebuild, and those it replaced, may be in some files only.
    let query = format!(
        "select name, sql from {database}.sqlite_schema where type = ?1 and name not like 'sqlite\\_%' escape '\\' \
         and name not like '%\\_rebuild' escape '\\' and name not like '%\\_old' escape '\\' order by rowid"
    );
    let mut statement = connection.prepare(&query).context("list the tables")?;
    let found = statement
        .query_map([kind], |row| {
            Ok(Named {
                name: row.get(0)?,
                sql: row.get(1)?,
            })
        })
        .and_then(Iterator::collect)
        .context("list the tables")?;
    Ok(found)
}

/// A cell as JSON; bytes as hexadecimal text.
fn json_of(cell: ValueRef<'_>) -> Value {
    match cell {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => number.into(),
        ValueRef::Real(number) => number.into(),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned().into(),
        ValueRef::Blob(bytes) => bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
            .into(),
    }
}

/// A cell as plain text; nothing for NULL.
fn text_of(cell: &Value) -> String {
    match cell {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Rows on their way to standard output.
struct Printer {
    format: Format,
    columns: Vec<String>,
    output: BufWriter<std::io::StdoutLock<'static>>,
    begun: bool,
    /// Rows of a table, kept until their widths are known.
    kept: Vec<Vec<String>>,
}

impl Printer {
    fn new(format: Format, columns: Vec<String>) -> Self {
        let output = BufWriter::new(std::io::stdout().lock());
        Self {
            format,
            columns,
            output,
            begun: false,
            kept: Vec::new(),
        }
    }

    fn row(&mut self, cells: Vec<Value>) -> std::io::Result<()> {
        self.begin()?;
        match self.format {
            Format::Table => {
                self.kept.push(cells.iter().map(text_of).collect());
                Ok(())
            }
            Format::Csv => self.csv(cells.iter().map(text_of)),
            Format::Json => {
                let object: serde_json::Map<_, _> =
                    self.columns.iter().cloned().zip(cells).collect();
                serde_json::to_writer(&mut self.output, &object)?;
                writeln!(self.output)
            }
        }
    }

    fn begin(&mut self) -> std::io::Result<()> {
        if !self.begun && self.format == Format::Csv {
            self.csv(self.columns.clone().into_iter())?;
        }
        self.begun = true;
        Ok(())
    }

    fn csv(&mut self, cells: impl Iterator<Item = String>) -> std::io::Result<()> {
        let quoted = cells.map(|cell| {
            if cell.contains([',', '"', '\r', '\n']) {
                format!("\"{}\"", cell.replace('"', "\"\""))
            } else {
                cell
            }
        });
        write!(self.output, "{}\r\n", quoted.collect::<Vec<_>>().join(","))
    }

    fn finish(mut self) -> std::io::Result<()> {
        self.begin()?;
        if self.format == Format::Table {
            let rows = std::mem::take(&mut self.kept);
            let width = |column: usize| {
                rows.iter()
                    .map(|row| row[column].chars().count())
                    .chain([self.columns[column].chars().count()])
                    .max()
                    .unwrap_or(0)
            };
            let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
            let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
            for row in [&self.columns, &rule].into_iter().chain(&rows) {
                let cells: Vec<String> = row
                    .iter()
                    .zip(&widths)
                    .map(|(cell, width)| format!("{cell:<width$}"))
                    .collect();
                writeln!(self.output, "{}", cells.join("  ").trim_end())?;
            }
        }
        self.output.flush()
    }
}
