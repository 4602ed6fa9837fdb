//! `order-service backup`: a verified copy of a data directory, beside the running service.
//!
//! Order is what makes it consistent. The SQLite files are copied first, each as of one moment; then the log's ends are
//! taken, and the log is copied up to them. So no checkpoint and no cursor in the copy is ahead of its log, and every
//! order that was acknowledged before the backup began is in it. What the outbox told after its cursor was copied is told
//! again by a service that starts on the restored directory, with the same ids.
//!
//! Segments are copied, not linked: a link would share the original's bad sectors.
//!
//! Nothing here changes the data directory, and a backup has no file that a service could start on.

mod contents;
mod log_files;
mod sqlite_files;

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};

use crate::byte_progress::ByteProgress;
use crate::config::DataDirectoryFlags;
use crate::data_directory::{LOCKS, create_durably};
use crate::failure::{Failure, usage};
use crate::manifest::Manifest;
use crate::print;
use crate::staging::names_in;

use contents::UNFINISHED;
pub(crate) use contents::{Contents, FileEntry, copy_digested, is_manifest};
pub(crate) use log_files::{ends_of, prove_segments};
pub(crate) use sqlite_files::{Checkpoints, copy as copy_sqlite_file};

/// The file that the `file` sink writes by default.
const OUTBOX_LINES: &str = "outbox.jsonl";
/// What a backup consists of, besides its manifest and the read model.
const PARTS: [&str; 4] = ["log", "events.jsonl", "outbox.db", OUTBOX_LINES];

/// Copy a data directory, verified; also while the service runs
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    data_directory: DataDirectoryFlags,
    /// Directory to make the backup in; made if it is missing, refused if there is anything in it
    #[arg(long, value_name = "DIR", required_unless_present = "verify")]
    to: Option<PathBuf>,
    /// Hold an existing backup against its digests instead of making one
    #[arg(long, value_name = "DIR", conflicts_with = "to")]
    verify: Option<PathBuf>,
}

/// Makes a backup, or verifies one.
///
/// # Errors
/// A usage failure for a target that is not empty; a failure if a file cannot be copied, the log is damaged, or a backup
/// does not verify.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    if let Some(directory) = &arguments.verify {
        let contents = Contents::read(directory)?;
        contents.prove(directory)?;
        return print::line(&format!(
            "{}: {} files, {} bytes: all as they were when the backup was made, {}",
            directory.display(),
            contents.files.len(),
            contents.bytes(),
            contents.ended_at
        ));
    }
    let config = arguments.data_directory.load()?.config;
    let Some(target) = &arguments.to else {
        return Err(usage!("name the backup's directory with --to"));
    };
    let manifest = Manifest::read(&config.data_dir)?;
    claim(target, &config.data_dir)?;
    let lines = config.outbox.file.path.is_none().then_some(OUTBOX_LINES);
    let contents = Backup {
        from: &config.data_dir,
        to: target,
        files: Vec::new(),
    }
    .make(manifest, lines)?;
    print::line(&format!(
        "{}: {} files, {} bytes, {} events: copied and verified",
        target.display(),
        contents.files.len(),
        contents.bytes(),
        contents.log_ends.iter().sum::<u64>()
    ))?;
    if !contents.read_model {
        print::line("the read model is not in it: a restored service rebuilds it from the log")?;
    }
    Ok(())
}

/// Whether a backup has a file or directory of this name.
pub(crate) fn is_part(name: &str) -> bool {
    PARTS.contains(&name) || order_projector_workers::is_read_model(name)
}

/// Makes the target directory, and marks it as unfinished before anything else is in it.
fn claim(target: &Path, data_dir: &Path) -> Result<(), Failure> {
    let data_dir = data_dir
        .canonicalize()
        .with_context(|| data_dir.display().to_string())?;
    // The target itself need not be there yet; what it will be in is.
    let above = target.ancestors().find_map(|it| match it.as_os_str() {
        nothing if nothing.is_empty() => Path::new(".").canonicalize().ok(),
        _ => it.canonicalize().ok(),
    });
    if above.is_some_and(|above| above.starts_with(&data_dir)) {
        return Err(usage!(
            "{} is in the data directory: a backup belongs elsewhere, best on another disk",
            target.display()
        ));
    }
    create_durably(target)?;
    let names = names_in(target)?;
    let unfinished = names.iter().any(|name| name == UNFINISHED);
    // Locks are what a service leaves that was started on a backup by mistake.
    let ours = |name: &str| name == UNFINISHED || LOCKS.contains(&name) || is_part(name);
    if !names.is_empty() && (!unfinished || names.iter().any(|name| !ours(name))) {
        return Err(usage!(
            "{} is not empty: name a new directory for each backup",
            target.display()
        ));
    }
    // The sign goes last, so that a kill in here leaves an unfinished backup still.
    for name in names.iter().filter(|name| *name != UNFINISHED) {
        let path = target.join(name);
        let removed = if path.is_dir() {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        removed.with_context(|| format!("remove {}", path.display()))?;
    }
    let sign = target.join(UNFINISHED);
    fs::write(&sign, "a backup was begun here and is not finished\n")
        .with_context(|| format!("write {}", sign.display()))?;
    crate::data_directory::sync_directory(target)
}

/// A backup under way.
struct Backup<'a> {
    from: &'a Path,
    to: &'a Path,
    files: Vec<FileEntry>,
}

impl Backup<'_> {
    fn make(mut self, manifest: Manifest, lines: Option<&str>) -> Result<Contents, Failure> {
        let begun_at = jiff::Timestamp::now();
        let checkpoints = self.copy_sqlite(&manifest)?;
        if let Some(name) = lines {
            self.copy_lines(name)?;
        }
        let log_ends = self.copy_log(&manifest)?;
        checkpoints.check(&log_ends)?;
        // A tool may have rewritten the directory under the copy.
        if Manifest::read(self.from)? != manifest {
            return Err(anyhow!(
                "{} was rewritten while it was copied: make the backup anew",
                self.from.display()
            )
            .into());
        }
        let contents = Contents {
            backup_format: Contents::FORMAT,
            made_by: env!("CARGO_PKG_VERSION").to_owned(),
            begun_at,
            ended_at: jiff::Timestamp::now(),
            data_directory: manifest,
            log_ends,
            read_model: checkpoints.has_read_model(),
            files: self.files,
        };
        contents.write(self.to)?;
        Ok(contents)
    }

    /// The integration events of the `file` sink, whole lines of what is there now. After the cursors were copied: what
    /// they say was told is in it.
    fn copy_lines(&mut self, name: &str) -> Result<(), Failure> {
        let path = self.from.join(name);
        let mut source = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            opened => opened.with_context(|| format!("open {}", path.display()))?,
        };
        let whole =
            end_of_last_line(&mut source).with_context(|| format!("read {}", path.display()))?;
        self.copy_file(name, whole, whole)
    }

    /// Copies the first `bytes` of a file, and makes the copy `length` bytes long with zeros. Durable on return.
    fn copy_file(&mut self, path: &str, bytes: u64, length: u64) -> Result<(), Failure> {
        let (from, to) = (self.from.join(path), self.to.join(path));
        let mut progress = ByteProgress::of("copied", bytes);
        let mut copy = || {
            let source = File::open(&from)?;
            let mut source = source.take(bytes).chain(std::io::repeat(0)).take(length);
            let mut target = ZerosAsHole {
                file: File::create_new(&to)?,
                written: 0,
                zeros_from: bytes,
            };
            let copied = copy_digested(&mut source, &mut target, &mut |done| progress.at(done))?;
            target.file.set_len(length)?;
            target.file.sync_all()?;
            Ok::<_, std::io::Error>(copied)
        };
        let (bytes, sha256) =
            copy().with_context(|| format!("copy {} to {}", from.display(), to.display()))?;
        progress.end();
        self.files.push(FileEntry {
            path: path.to_owned(),
            bytes,
            sha256,
        });
        Ok(())
    }

    /// Takes up a file that was made in the backup by other means. Durable on return.
    fn take_up(&mut self, path: &str) -> Result<(), Failure> {
        let made = self.to.join(path);
        let read = || {
            let mut file = File::open(&made)?;
            file.sync_all()?;
            copy_digested(&mut file, &mut std::io::sink(), &mut |_| {})
        };
        let (bytes, sha256) = read().with_context(|| format!("read {}", made.display()))?;
        self.files.push(FileEntry {
            path: path.to_owned(),
            bytes,
            sha256,
        });
        Ok(())
    }
}

/// Writes a file whose bytes from a position on are zeros, and leaves these to the file system: a backup is not written
/// to again.
struct ZerosAsHole {
    file: File,
    written: u64,
    zeros_from: u64,
}

impl std::io::Write for ZerosAsHole {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let left =
            usize::try_from(self.zeros_from.saturating_sub(self.written)).unwrap_or(usize::MAX);
        let real = &bytes[..bytes.len().min(left)];
        self.file.write_all(real)?;
        self.written += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

/// Position after the last newline of a file.
fn end_of_last_line(file: &mut File) -> std::io::Result<u64> {
    const LOOK_BACK_BYTES: u64 = 64 * 1024;
    let mut end = file.seek(SeekFrom::End(0))?;
    let mut chunk = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(LOOK_BACK_BYTES);
        file.seek(SeekFrom::Start(start))?;
        chunk.clear();
        file.take(end - start).read_to_end(&mut chunk)?;
        if let Some(last) = chunk.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + last as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}
