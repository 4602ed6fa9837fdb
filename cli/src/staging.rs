//! Replacing what a data directory holds, all of it or nothing, whatever kills the process in the middle.
//!
//! A command builds its result in a directory of its own inside the data directory, `<command>.partial`. Until
//! [`Staging::commit`] that is garbage: a kill leaves the data as they were, and the next run begins anew. Commit writes
//! `switch.json`, durably, which lists what is moved away and what is moved in; from then on there is only forward. Each
//! move can be repeated, so whoever owns the directory next, a service or a command, finishes what is left.
//!
//! While `switch.json` is there nothing else looks at the data: [`crate::manifest::Manifest`] refuses.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, anyhow};
use serde::{Deserialize, Serialize};

use crate::data_directory::{LOCKS, sync_directory};
use crate::failure::{Failure, usage};
use crate::manifest;

const JOURNAL: &str = "switch.json";
const JOURNAL_DRAFT: &str = "switch.json.new";
const JOURNAL_FORMAT: u32 = 1;
const SUFFIX: &str = ".partial";
/// What to do about a switch that was decided and failed.
const TO_BE_FINISHED: &str = "the switch to the result is decided and not finished: start the service, or run `order-service log verify`";

/// What is moved where, once it is decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Journal {
    format: u32,
    /// The command that decided it.
    command: String,
    /// The directory with what is moved in.
    staging: String,
    /// The directory for what is moved away, if anything is.
    retired: Option<String>,
    /// Whether that directory is deleted in the end.
    discard: bool,
    /// Names that are moved away.
    retire: Vec<String>,
    /// Names that are moved in, in this order.
    install: Vec<String>,
}

/// What makes room for the staged files.
#[derive(Debug, Clone)]
pub(crate) struct Retire {
    /// The directory it goes to, inside the data directory.
    pub(crate) to: String,
    /// The names that go; those that are not there are passed over.
    pub(crate) names: Vec<String>,
    /// Whether it is deleted once the new files are in place.
    pub(crate) discard: bool,
}

/// A result under construction in a data directory whose lock the caller holds.
#[derive(Debug)]
pub(crate) struct Staging {
    data_dir: PathBuf,
    command: &'static str,
    path: PathBuf,
}

impl Staging {
    /// Makes the directory, without what an interrupted run left in it.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub(crate) fn begin(data_dir: &Path, command: &'static str) -> Result<Self, Failure> {
        let path = data_dir.join(name_of(command));
        remove_tree(&path)?;
        fs::create_dir(&path).with_context(|| format!("create {}", path.display()))?;
        sync_directory(data_dir)?;
        Ok(Self {
            data_dir: data_dir.to_owned(),
            command,
            path,
        })
    }

    /// Where to build.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the result up. What cannot be removed is told, and removed by the next run.
    pub(crate) fn abandon(self) {
        if let Err(failure) = remove_tree(&self.path) {
            eprintln!("order-service: {failure}");
        }
    }

    /// Puts everything that was built into the data directory, the manifest last, and what `retire` names out of it. On
    /// return it is on stable storage.
    ///
    /// # Errors
    /// Whatever the file system says. If the decision had been written down by then, the next start finishes it; otherwise
    /// nothing was changed.
    pub(crate) fn commit(self, retire: Option<Retire>) -> Result<(), Failure> {
        let decided = self.decide(retire);
        match decided {
            Ok(journal) => journal.carry_out(&self.data_dir),
            // Written down in spite of the failure: not for this process to take back.
            Err(failure) if is_pending(&self.data_dir) => Err(failure.context(TO_BE_FINISHED)),
            Err(failure) => {
                self.abandon();
                Err(failure)
            }
        }
    }

    fn decide(&self, retire: Option<Retire>) -> Result<Journal, Failure> {
        sync_tree(&self.path)?;
        let mut install = names_in(&self.path)?;
        install.sort_by_key(|name| (name == manifest::FILE_NAME, name.clone()));
        let journal = Journal {
            format: JOURNAL_FORMAT,
            command: self.command.to_owned(),
            staging: name_of(self.command),
            discard: retire.as_ref().is_some_and(|it| it.discard),
            retired: retire.as_ref().map(|it| it.to.clone()),
            retire: retire.map(|it| it.names).unwrap_or_default(),
            install,
        };
        journal.check(&self.data_dir)?;
        journal.write(&self.data_dir)?;
        Ok(journal)
    }
}

/// Finishes a switch that was interrupted, in a data directory whose lock the caller holds. Returns the command whose
/// switch it was, if there was one.
///
/// # Errors
/// A usage failure for a journal this version did not write; otherwise whatever the file system says.
pub(crate) fn finish_pending(data_dir: &Path) -> Result<Option<String>, Failure> {
    let Some(journal) = Journal::find(data_dir)? else {
        return Ok(None);
    };
    journal.carry_out(data_dir)?;
    tracing::warn!(command = %journal.command, "finished the switch of files that was interrupted");
    Ok(Some(journal.command))
}

/// Whether a switch was decided and not finished.
pub(crate) fn is_pending(data_dir: &Path) -> bool {
    data_dir.join(JOURNAL).exists()
}

/// Refuses a directory that holds anything, for a command that fills an empty one. What its own interrupted run left does
/// not count; a switch that is to be finished is met under the lock.
///
/// # Errors
/// A usage failure that names what is there.
pub(crate) fn refuse_occupied(data_dir: &Path, command: &str) -> Result<(), Failure> {
    if !data_dir.exists() || is_pending(data_dir) {
        return Ok(());
    }
    let own = name_of(command);
    let found = names_in(data_dir)?
        .into_iter()
        .find(|name| !LOCKS.contains(&name.as_str()) && *name != own);
    match found {
        None => Ok(()),
        Some(found) => Err(usage!(
            "{} is not empty, it has {found}: `order-service {command}` fills an empty directory; move what is there \
             away, or name another with --data-dir",
            data_dir.display()
        )),
    }
}

/// Tells of what an interrupted command left in a data directory that is fine without it.
pub(crate) fn tell_of_leftovers(data_dir: &Path) {
    for command in ["restore", "log import", "log repartition", "log compact"] {
        let path = data_dir.join(name_of(command));
        if path.exists() {
            tracing::warn!(
                path = %path.display(),
                "an interrupted `order-service {command}` left this and changed nothing: delete it, or run that again"
            );
        }
    }
}

/// Refuses a directory in the middle of a switch, or with the garbage of an interrupted command as its only content.
///
/// # Errors
/// A usage failure that says what to do.
pub(crate) fn refuse_unfinished(data_dir: &Path, has_manifest: bool) -> Result<(), Failure> {
    if let Some(journal) = Journal::find(data_dir)? {
        return Err(usage!(
            "{}: `order-service {}` was interrupted while it switched to its result: start the service, or run \
             `order-service log verify`; either finishes the switch, nothing is lost",
            data_dir.display(),
            journal.command
        ));
    }
    if !has_manifest {
        for command in ["restore", "log import"] {
            if data_dir.join(name_of(command)).exists() {
                return Err(usage!(
                    "{} holds an interrupted `order-service {command}`: run that again, or delete {}",
                    data_dir.display(),
                    name_of(command)
                ));
            }
        }
    }
    Ok(())
}

/// The name of a command's staging directory.
pub(crate) fn name_of(command: &str) -> String {
    command.replace(' ', "-") + SUFFIX
}

impl Journal {
    fn find(data_dir: &Path) -> Result<Option<Self>, Failure> {
        let path = data_dir.join(JOURNAL);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(anyhow::Error::new(error)
                    .context(path.display().to_string())
                    .into());
            }
        };
        let journal: Self = serde_json::from_str(&text).map_err(|error| {
            usage!(
                "{} does not read ({error}): use the version of order-service that wrote it",
                path.display()
            )
        })?;
        journal.check(data_dir)?;
        Ok(Some(journal))
    }

    /// Names from a file become paths: nothing outside the data directory may be meant.
    fn check(&self, data_dir: &Path) -> Result<(), Failure> {
        let names = [&self.staging].into_iter().chain(&self.retired);
        let names = names.chain(&self.retire).chain(&self.install);
        for name in names {
            let mut parts = Path::new(name).components();
            let plain = matches!(parts.next(), Some(Component::Normal(part)) if part == name.as_str())
                && parts.next().is_none();
            if self.format != JOURNAL_FORMAT || !plain {
                return Err(usage!(
                    "{} is not of this version of order-service: use the one that wrote it",
                    data_dir.join(JOURNAL).display()
                ));
            }
        }
        Ok(())
    }

    fn write(&self, data_dir: &Path) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(self).context("encode the switch")?;
        // Beside what it decides on: until it has its name it is as much garbage as that.
        let draft = format!("{}/{JOURNAL_DRAFT}", self.staging);
        write_durably(data_dir, &draft, JOURNAL, text.as_bytes())
    }

    /// Every step can be repeated after a kill at any point of it. If something cannot be moved away, what was is moved
    /// back: a link or a mount point in the wrong place must not keep the data from being used as they were.
    fn carry_out(&self, data_dir: &Path) -> Result<(), Failure> {
        let staging = data_dir.join(&self.staging);
        if let Err(failure) = self.move_away(data_dir, &staging) {
            let is_whole = self.install.iter().all(|name| staging.join(name).exists());
            return Err(if is_whole && self.move_back(data_dir, &staging).is_ok() {
                failure.context("the result could not be put in place, and nothing was changed")
            } else {
                failure.context(TO_BE_FINISHED)
            });
        }
        self.move_in(data_dir, &staging)
            .map_err(|failure| failure.context(TO_BE_FINISHED))
    }

    fn move_away(&self, data_dir: &Path, staging: &Path) -> Result<(), Failure> {
        let Some(retired) = self.retired.as_ref().map(|name| data_dir.join(name)) else {
            return Ok(());
        };
        fs::create_dir_all(&retired).with_context(|| format!("create {}", retired.display()))?;
        for name in &self.retire {
            // What was moved in already has that name in the data directory: its predecessor went in an earlier run.
            let moved_in = self.install.contains(name) && !exists(&staging.join(name))?;
            if !moved_in {
                rename_if_there(&data_dir.join(name), &retired.join(name))?;
            }
        }
        sync_directory(&retired)?;
        sync_directory(data_dir)
    }

    /// Takes the decision back, nothing having been moved in.
    fn move_back(&self, data_dir: &Path, staging: &Path) -> Result<(), Failure> {
        if let Some(retired) = self.retired.as_ref().map(|name| data_dir.join(name)) {
            for name in &self.retire {
                let home = data_dir.join(name);
                if !exists(&home)? {
                    rename_if_there(&retired.join(name), &home)?;
                }
            }
        }
        sync_directory(data_dir)?;
        self.end(data_dir, staging)
    }

    fn move_in(&self, data_dir: &Path, staging: &Path) -> Result<(), Failure> {
        for name in &self.install {
            rename_if_there(&staging.join(name), &data_dir.join(name))?;
        }
        sync_directory(data_dir)?;
        if let (Some(retired), true) = (&self.retired, self.discard) {
            remove_tree(&data_dir.join(retired))?;
        }
        self.end(data_dir, staging)
    }

    fn end(&self, data_dir: &Path, staging: &Path) -> Result<(), Failure> {
        let journal = data_dir.join(JOURNAL);
        fs::remove_file(&journal).with_context(|| format!("remove {}", journal.display()))?;
        sync_directory(data_dir)?;
        remove_tree(staging)?;
        sync_directory(data_dir)
    }
}

/// Writes a file under another name first, so that a crash leaves none or a whole one. On return it is on stable storage.
///
/// # Errors
/// Whatever the file system says.
pub(crate) fn write_durably(
    directory: &Path,
    draft: &str,
    name: &str,
    bytes: &[u8],
) -> Result<(), Failure> {
    let (draft, path) = (directory.join(draft), directory.join(name));
    File::create(&draft)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.write_all(b"\n")?;
            file.sync_all()
        })
        .with_context(|| format!("write {}", draft.display()))?;
    fs::rename(&draft, &path).with_context(|| format!("create {}", path.display()))?;
    sync_directory(directory)
}

/// The names in a directory, in no order.
///
/// # Errors
/// Whatever the file system says, and for a name that is no UTF-8: nothing here makes one.
pub(crate) fn names_in(directory: &Path) -> Result<Vec<String>, Failure> {
    let list = || {
        fs::read_dir(directory)?
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect::<Result<Vec<_>, _>>()
    };
    let names = list().with_context(|| format!("list {}", directory.display()))?;
    let names = names.into_iter().map(|name| {
        name.into_string()
            .map_err(|name| anyhow!("{}: {name:?} is not UTF-8", directory.display()).into())
    });
    names.collect()
}

/// Makes all files and names below a directory durable.
fn sync_tree(directory: &Path) -> Result<(), Failure> {
    for name in names_in(directory)? {
        let path = directory.join(name);
        if path.is_dir() {
            sync_tree(&path)?;
        } else {
            File::open(&path)
                .and_then(|file| file.sync_all())
                .with_context(|| format!("sync {}", path.display()))?;
        }
    }
    sync_directory(directory)
}

fn remove_tree(path: &Path) -> Result<(), Failure> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(anyhow::Error::new(error)
            .context(format!("remove {}", path.display()))
            .into()),
        _ => Ok(()),
    }
}

fn rename_if_there(from: &Path, to: &Path) -> Result<(), Failure> {
    match fs::rename(from, to) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(anyhow::Error::new(error)
            .context(format!("move {} to {}", from.display(), to.display()))
            .into()),
        _ => Ok(()),
    }
}

fn exists(path: &Path) -> Result<bool, Failure> {
    Ok(path
        .try_exists()
        .with_context(|| path.display().to_string())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A data directory with a log and rows, and a new log beside it.
    fn directory() -> (tempfile::TempDir, Staging) {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join("log")).unwrap();
        fs::write(place.path().join("log/events"), "old").unwrap();
        fs::write(place.path().join("read.db"), "rows").unwrap();
        fs::write(place.path().join(manifest::FILE_NAME), "old").unwrap();
        let staging = Staging::begin(place.path(), "log repartition").unwrap();
        fs::create_dir(staging.path().join("log")).unwrap();
        fs::write(staging.path().join("log/events"), "new").unwrap();
        fs::write(staging.path().join(manifest::FILE_NAME), "new").unwrap();
        (place, staging)
    }

    fn retire() -> Option<Retire> {
        Some(Retire {
            to: "before".to_owned(),
            names: vec!["read.db".to_owned(), "log".to_owned()],
            discard: false,
        })
    }

    fn read(place: &Path, name: &str) -> String {
        fs::read_to_string(place.join(name)).unwrap()
    }

    #[test]
    fn all_of_the_result_takes_the_place_of_all_that_was_there() {
        let (place, staging) = directory();
        let place = place.path();
        staging.commit(retire()).unwrap();
        assert_eq!(read(place, "log/events"), "new");
        assert_eq!(read(place, manifest::FILE_NAME), "new");
        assert_eq!(read(place, "before/log/events"), "old");
        assert_eq!(read(place, "before/read.db"), "rows");
        let mut names = names_in(place).unwrap();
        names.sort();
        assert_eq!(names, ["before", "log", manifest::FILE_NAME]);
    }

    #[test]
    fn what_cannot_be_moved_away_leaves_all_as_it_was() {
        let (place, staging) = directory();
        let place = place.path();
        // In the way, as a mount point would be.
        fs::create_dir_all(place.join("before/log/in the way")).unwrap();
        let failure = staging.commit(retire()).unwrap_err().to_string();
        assert!(failure.contains("nothing was changed"), "{failure}");
        assert_eq!(read(place, "log/events"), "old");
        assert_eq!(read(place, "read.db"), "rows");
        assert_eq!(read(place, manifest::FILE_NAME), "old");
        assert!(!is_pending(place) && !place.join(name_of("log repartition")).exists());
    }

    #[test]
    fn a_journal_that_names_anything_outside_the_directory_is_refused() {
        for name in ["../log", "/etc", "a/b", "..", ""] {
            let place = tempfile::tempdir().unwrap();
            let journal = Journal {
                format: JOURNAL_FORMAT,
                command: "restore".to_owned(),
                staging: "restore.partial".to_owned(),
                retired: None,
                discard: false,
                retire: Vec::new(),
                install: vec![name.to_owned()],
            };
            let text = serde_json::to_string(&journal).unwrap();
            fs::write(place.path().join(JOURNAL), text).unwrap();
            assert!(finish_pending(place.path()).is_err(), "{name:?}");
        }
    }
}
