//! The operating system's file system.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::OFlags;

use super::{Disk, DiskFile, Map};

/// The real disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

const OWNER_ONLY_FILE: u32 = 0o600;
const OWNER_ONLY_DIRECTORY: u32 = 0o700;

impl Disk for RealDisk {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(OWNER_ONLY_DIRECTORY)
            .create(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        Ok(names)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create_new(true)
            .mode(OWNER_ONLY_FILE);
        Ok(Arc::new(RealFile(options.open(path)?)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(RealFile(
            OpenOptions::new().read(true).write(true).open(path)?,
        )))
    }

    fn open_read_only(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(RealFile(File::open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let statistics = rustix::fs::statvfs(path)?;
        Ok(statistics.f_bavail.saturating_mul(statistics.f_frsize))
    }
}

#[derive(Debug)]
struct RealFile(File);

/// Zeros to write past the cache, which asks for a place in memory that is a multiple of the disk's blocks.
#[repr(align(4096))]
struct Zeros([u8; 512 * 1024]);
static ZEROS: Zeros = Zeros([0; 512 * 1024]);

impl RealFile {
    fn write_zeros(&self, mut position: u64, bytes: u64) -> io::Result<()> {
        let end = position + bytes;
        while position < end {
            let step = usize::try_from(end - position)
                .map_or(ZEROS.0.len(), |left| left.min(ZEROS.0.len()));
            self.0.write_all_at(&ZEROS.0[..step], position)?;
            position += step as u64;
        }
        Ok(())
    }
}

impl DiskFile for RealFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn write_all_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, position)
    }

    fn write_zeros_at(&self, position: u64, bytes: u64) -> io::Result<()> {
        // Nobody else writes through this descriptor meanwhile: what gets zeros has no content yet.
        let flags = rustix::fs::fcntl_getfl(&self.0)?;
        let direct = rustix::fs::fcntl_setfl(&self.0, flags | OFlags::DIRECT).is_ok();
        let mut written = self.write_zeros(position, bytes);
        if direct {
            rustix::fs::fcntl_setfl(&self.0, flags)?;
            // Not aligned as this file system wants it.
            if written.as_ref().err().map(io::Error::kind) == Some(io::ErrorKind::InvalidInput) {
                written = self.write_zeros(position, bytes);
            }
        }
        written
    }

    fn read_exact_at(&self, bytes: &mut [u8], position: u64) -> io::Result<()> {
        self.0.read_exact_at(bytes, position)
    }

    fn forget_cached(&self) {
        if let Err(error) = rustix::fs::fadvise(&self.0, 0, None, rustix::fs::Advice::DontNeed) {
            tracing::debug!(%error, "the cache does not take advice");
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        rustix::fs::fallocate(&self.0, rustix::fs::FallocateFlags::empty(), 0, bytes)?;
        Ok(())
    }

    fn set_length(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn map(&self) -> io::Result<Map> {
        Map::of(&self.0)
    }
}
