//! `order-service restore`: a data directory from a backup, proven before it says done.
//!
//! Everything is held against its digest before anything is written, copied into a staging directory, proven there, and
//! switched into place at once: a kill leaves an empty directory or a restored one.
//!
//! The restored log keeps its identity, so that clients' tokens, the outbox and the read model go on where they were. The
//! original may live on elsewhere with the same identity: the copy's next epoch is put far beyond any the original can
//! reach, so that segments of the one never pass for segments of the other.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use order_log::segmented::SegmentedLog;

use crate::backup::{Checkpoints, Contents, FileEntry, copy_digested, ends_of, prove_segments};
use crate::byte_progress::ByteProgress;
use crate::config::{DataDirectoryFlags, Store};
use crate::data_directory::{WholeDirectory, create_durably};
use crate::engine;
use crate::failure::Failure;
use crate::print;
use crate::staging::{self, Staging};

/// Openings of the original that a restored log's epochs stay ahead of. A log can be restored from a restored one 65,535
/// times before they run out.
const EPOCHS_AHEAD: u32 = 65_536;

/// The name this command is told by.
const COMMAND: &str = "restore";

/// Make a data directory from a backup
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    data_directory: DataDirectoryFlags,
    /// The backup
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
}

/// Restores a backup into an empty data directory.
///
/// # Errors
/// A usage failure for something that is no backup, or a directory that is not empty; a failure naming the process that
/// owns the directory, and for a backup that does not verify. Nothing is kept then.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = arguments.data_directory.load()?.config;
    let contents = Contents::read(&arguments.from)?;
    let target = &config.data_dir;
    staging::refuse_occupied(target, COMMAND)?;
    contents.prove(&arguments.from)?;
    create_durably(target)?;
    let _lock = WholeDirectory::lock(target)?;
    if staging::finish_pending(target)?.as_deref() == Some(COMMAND) {
        return print::line(&format!(
            "{}: the restore that was interrupted is finished",
            target.display()
        ));
    }
    staging::refuse_occupied(target, COMMAND)?;

    let staging = Staging::begin(target, COMMAND)?;
    let result = fill(staging.path(), &arguments.from, &contents);
    let has_read_model = match result {
        Ok(has_read_model) => has_read_model,
        Err(failure) => {
            staging.abandon();
            return Err(failure);
        }
    };
    staging.commit(None)?;
    print::line(&format!(
        "{}: restored the backup of {}: {} events in {} partitions, every frame proven",
        target.display(),
        contents.begun_at,
        contents.log_ends.iter().sum::<u64>(),
        contents.log_ends.len()
    ))?;
    print::line(if has_read_model {
        "the read model is not ahead of the log: it goes on from its checkpoints at the next start"
    } else {
        "the read model is rebuilt from the log at the next start"
    })
}

/// Copies and proves; returns whether there is a read model.
fn fill(to: &Path, from: &Path, contents: &Contents) -> Result<bool, Failure> {
    let mut progress = ByteProgress::of("restored", contents.bytes());
    for file in &contents.files {
        copy(file, from, to, &mut progress)?;
        progress.part_done(file.bytes);
    }
    progress.end();
    let manifest = &contents.data_directory;
    if manifest.store == Store::Segmented {
        prove_segments(to, manifest)?;
    }
    let ends = ends_of(&*engine::open_read_only(to, manifest)?);
    if ends != contents.log_ends {
        return Err(anyhow!(
            "the restored log ends at {ends:?}, the backup's at {:?}",
            contents.log_ends
        )
        .into());
    }
    let checkpoints = Checkpoints::read(to)?;
    let mut has_read_model = checkpoints.has_read_model();
    if let Some(ahead) = checkpoints.ahead(&ends) {
        print::line(&format!(
            "{ahead}, the log ends at {ends:?}: the read model is left out"
        ))?;
        for file in order_projector_workers::read_model_files(to)? {
            std::fs::remove_file(&file).with_context(|| format!("remove {}", file.display()))?;
        }
        has_read_model = false;
    }
    Checkpoints::read(to)?.check(&ends)?;
    if manifest.store == Store::Segmented {
        let config = engine::segmented_config(to, manifest);
        SegmentedLog::skip_epochs(&config, &*engine::disk(), EPOCHS_AHEAD)?;
    }
    manifest.write(to)?;
    Ok(has_read_model)
}

/// Copies one file, every byte really written: the log writes on in its last segment, and must not meet a full disk there.
fn copy(
    file: &FileEntry,
    from: &Path,
    to: &Path,
    progress: &mut ByteProgress,
) -> Result<(), Failure> {
    let (source, target) = (file.under(from), file.under(to));
    if let Some(parent) = target.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    }
    let mut run = || {
        let mut written = File::create_new(&target)?;
        let copied = copy_digested(&mut File::open(&source)?, &mut written, &mut |done| {
            progress.at(done);
        })?;
        written.flush()?;
        written.sync_all()?;
        Ok::<_, std::io::Error>(copied)
    };
    let copied =
        run().with_context(|| format!("copy {} to {}", source.display(), target.display()))?;
    if copied != (file.bytes, file.sha256.clone()) {
        return Err(anyhow!(
            "{} changed while it was restored: nothing was kept",
            source.display()
        )
        .into());
    }
    Ok(())
}
