//! What a backup says about itself, `manifest.json`: the data directory's manifest, how far the log goes, and a digest of
//! every file. Written last: a directory without it is no backup.

use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, anyhow};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::byte_progress::ByteProgress;
use crate::failure::{Failure, usage};
use crate::manifest::{self, Manifest};
use crate::staging::write_durably;

/// Version of the backup's layout that this binary reads and writes.
const BACKUP_FORMAT: u32 = 1;
/// What stands in the manifest's place until the backup is whole.
pub(crate) const UNFINISHED: &str = "manifest.json.unfinished";
/// Bytes read at once.
const CHUNK_BYTES: usize = 1024 * 1024;

/// One file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileEntry {
    /// Where it is, from the backup's directory and from the data directory, with `/` between the parts.
    pub(crate) path: String,
    pub(crate) bytes: u64,
    /// Hexadecimal.
    pub(crate) sha256: String,
}

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Contents {
    pub(crate) backup_format: u32,
    /// The version of order-service that made it.
    pub(crate) made_by: String,
    pub(crate) begun_at: jiff::Timestamp,
    pub(crate) ended_at: jiff::Timestamp,
    /// The manifest of the data directory; a file of its own would let a service start on the backup.
    pub(crate) data_directory: Manifest,
    /// Offset after the last record, by partition.
    pub(crate) log_ends: Vec<u64>,
    /// Whether the read model is in it; it is rebuilt otherwise.
    pub(crate) read_model: bool,
    pub(crate) files: Vec<FileEntry>,
}

/// The file: the contents, and the digest of their text.
#[derive(Serialize, Deserialize)]
struct Sealed<'a> {
    #[serde(borrow)]
    backup: &'a RawValue,
    sha256: String,
}

/// Whether the text of a `manifest.json` is a backup's.
pub(crate) fn is_manifest(text: &str) -> bool {
    serde_json::from_str::<Sealed<'_>>(text).is_ok()
}

impl Contents {
    pub(crate) const FORMAT: u32 = BACKUP_FORMAT;

    /// Reads the manifest of a backup.
    ///
    /// # Errors
    /// A usage failure for a directory that is no backup, or an unfinished, a damaged, or a newer one.
    pub(crate) fn read(directory: &Path) -> Result<Self, Failure> {
        let path = directory.join(manifest::FILE_NAME);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(_) if directory.join(UNFINISHED).exists() => {
                return Err(usage!(
                    "{} is a backup that was not finished and cannot be restored: use another one; `order-service \
                     backup --to {}` begins this one anew",
                    directory.display(),
                    directory.display()
                ));
            }
            Err(error) => {
                return Err(usage!(
                    "{} is no backup: {}: {error}",
                    directory.display(),
                    path.display()
                ));
            }
        };
        let damaged = |what: &dyn std::fmt::Display| {
            usage!(
                "{} is not the manifest of a backup, or it is damaged ({what}): use another backup",
                path.display()
            )
        };
        let sealed: Sealed<'_> = serde_json::from_str(&text).map_err(|error| damaged(&error))?;
        if hex(&Sha256::digest(sealed.backup.get())) != sealed.sha256 {
            return Err(damaged(&"its digest does not match"));
        }
        let contents: Self =
            serde_json::from_str(sealed.backup.get()).map_err(|error| damaged(&error))?;
        if contents.backup_format != BACKUP_FORMAT {
            return Err(usage!(
                "{} is of backup format {}, this binary knows {BACKUP_FORMAT}: use the version of order-service that \
                 made it ({})",
                path.display(),
                contents.backup_format,
                contents.made_by
            ));
        }
        contents.data_directory.check_readable(directory)?;
        for file in &contents.files {
            file.check().map_err(|error| damaged(&error))?;
        }
        Ok(contents)
    }

    /// Makes the backup whole: one rename puts this in the place of the sign that it is not.
    pub(crate) fn write(&self, directory: &Path) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(self).context("encode the backup's manifest")?;
        let sha256 = hex(&Sha256::digest(&text));
        let backup = RawValue::from_string(text).context("encode the backup's manifest")?;
        let sealed = Sealed {
            backup: &backup,
            sha256,
        };
        let text = serde_json::to_string(&sealed).context("encode the backup's manifest")?;
        write_durably(directory, UNFINISHED, manifest::FILE_NAME, text.as_bytes())
    }

    /// Bytes of all files.
    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Reads every file and holds it against its digest. Returns a line for each that differs.
    ///
    /// # Errors
    /// Never for what differs or is missing; only if something cannot be read that is there.
    pub(crate) fn differences(&self, directory: &Path) -> Result<Vec<String>, Failure> {
        let mut progress = ByteProgress::of("verified", self.bytes());
        let mut differences = Vec::new();
        for file in &self.files {
            let path = file.under(directory);
            let found = match File::open(&path) {
                Ok(mut opened) => copy_digested(&mut opened, &mut std::io::sink(), &mut |bytes| {
                    progress.at(bytes)
                })
                .with_context(|| format!("read {}", path.display()))?,
                Err(error) => {
                    differences.push(format!("{}: {error}", path.display()));
                    continue;
                }
            };
            if found != (file.bytes, file.sha256.clone()) {
                differences.push(format!(
                    "{}: has {} bytes with SHA-256 {}, the backup was made with {} bytes and {}",
                    path.display(),
                    found.0,
                    found.1,
                    file.bytes,
                    file.sha256
                ));
            }
            progress.part_done(file.bytes);
        }
        progress.end();
        Ok(differences)
    }

    /// As [`Contents::differences`], as a failure.
    ///
    /// # Errors
    /// A failure that names every file that differs.
    pub(crate) fn prove(&self, directory: &Path) -> Result<(), Failure> {
        let differences = self.differences(directory)?;
        if differences.is_empty() {
            return Ok(());
        }
        Err(anyhow!(
            "the backup is damaged, use another one:\n{}",
            differences.join("\n")
        )
        .into())
    }
}

impl FileEntry {
    /// Where the file is in a directory.
    pub(crate) fn under(&self, directory: &Path) -> PathBuf {
        directory.join(&self.path)
    }

    /// A path from a file must not lead out of the directory, nor to what is not a backup's to bring.
    fn check(&self) -> anyhow::Result<()> {
        let mut parts = Path::new(&self.path).components();
        let begins = match parts.next() {
            Some(Component::Normal(first)) => first.to_str().is_some_and(super::is_part),
            _ => false,
        };
        anyhow::ensure!(
            begins && parts.all(|part| matches!(part, Component::Normal(_))),
            "{:?} is no part of a backup",
            self.path
        );
        Ok(())
    }
}

/// Copies everything that `source` still has, and says how much it was and its SHA-256.
pub(crate) fn copy_digested(
    source: &mut impl Read,
    target: &mut impl std::io::Write,
    progress: &mut dyn FnMut(u64),
) -> std::io::Result<(u64, String)> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut digest = Sha256::new();
    let mut bytes = 0;
    loop {
        let read = source.read(&mut chunk)?;
        if read == 0 {
            return Ok((bytes, hex(&digest.finalize())));
        }
        digest.update(&chunk[..read]);
        target.write_all(&chunk[..read])?;
        bytes += read as u64;
        progress(bytes);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
