//! File systems of a test's own: a small one that fills up, and one on a disk that fails when it is told to.
//!
//! What is refused: pretending. Where the machine does not allow a mount or lacks a program, whoever asked is told why, and
//! says loudly what is left out. Everything is taken down on drop, in the order it was put up, after a failed test too.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::service::PATIENCE;

/// Between two looks at something that takes a moment.
const MOMENT: Duration = Duration::from_millis(10);
/// Bytes of the disk that can fail: an ext4 of this size has room for segments of the smallest kind.
const FAILING_DISK_BYTES: u64 = 48 << 20;

/// Runs a program to its end: what it printed, or what kept it from doing its work.
fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("`{program}` does not run: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("`{program}` failed: {}", said.trim()))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary path is UTF-8")
}

/// Only root may mount.
fn may_mount() -> Result<(), String> {
    if rustix::process::geteuid().is_root() {
        Ok(())
    } else {
        Err("only root may mount one".to_owned())
    }
}

/// A mounted file system; unmounted on drop.
#[derive(Debug)]
struct Mount {
    at: PathBuf,
    mounted: bool,
}

impl Mount {
    fn new(at: &Path, arguments: &[&str]) -> Result<Self, String> {
        std::fs::create_dir_all(at).expect("a directory to mount at");
        run("mount", &[arguments, &[text(at)]].concat())?;
        Ok(Self {
            at: at.to_owned(),
            mounted: true,
        })
    }

    /// Unmounts, once whoever was just killed has let go of its files.
    fn unmount(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match run("umount", &[text(&self.at)]) {
                Ok(_) => {
                    self.mounted = false;
                    return Ok(());
                }
                Err(said) if Instant::now() > deadline => return Err(said),
                Err(_) => std::thread::sleep(MOMENT),
            }
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.mounted
            && let Err(said) = self.unmount()
        {
            // Nothing may stay behind: out of sight now, gone with its last user.
            let detached = run("umount", &["--lazy", text(&self.at)]);
            eprintln!("{said}; detached instead: {detached:?}");
        }
    }
}

/// Attaches a file to a free loop device, makes an ext4 on it if asked to, and mounts that. The device goes with the mount.
fn mount_file(file: &Path, at: &Path, make: bool, direct: bool) -> Result<Mount, String> {
    let direct = if direct {
        "--direct-io=on"
    } else {
        "--direct-io=off"
    };
    let device = run("losetup", &["--find", "--show", direct, text(file)])?;
    let made = if make {
        // Without a journal: one failed write of a journal would end the file system, not one file's sync.
        let options = [
            "-q",
            "-F",
            "-m",
            "0",
            "-O",
            "^has_journal",
            "-E",
            "nodiscard",
        ];
        run("mkfs.ext4", &[&options[..], &[&device]].concat())
    } else {
        Ok(String::new())
    };
    let mounted = made.and_then(|_| Mount::new(at, &["-o", "errors=continue", &device]));
    // A device in use is detached when its last user lets go.
    let detached = run("losetup", &["--detach", &device]);
    let mount = mounted?;
    detached?;
    Ok(mount)
}

/// A file system of few bytes. `None`, and loudly, where none can be mounted.
#[derive(Debug)]
pub(crate) struct SmallFileSystem {
    mount: Mount,
    kind: &'static str,
    _directory: tempfile::TempDir,
}

impl SmallFileSystem {
    /// In memory.
    pub(crate) fn tmpfs(bytes: u64) -> Option<Self> {
        Self::made("tmpfs", |directory| {
            let size = format!("size={bytes}");
            let options = ["-t", "tmpfs", "-o", &size, "order-service-test"];
            Mount::new(&directory.join("mount"), &options)
        })
    }

    /// An ext4 in a file.
    pub(crate) fn ext4(bytes: u64) -> Option<Self> {
        Self::made("ext4", |directory| {
            let file = directory.join("disk");
            let made = std::fs::File::create(&file).and_then(|file| file.set_len(bytes));
            made.map_err(|error| error.to_string())?;
            mount_file(&file, &directory.join("mount"), true, false)
        })
    }

    fn made(kind: &'static str, make: impl FnOnce(&Path) -> Result<Mount, String>) -> Option<Self> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        match may_mount().and_then(|()| make(directory.path())) {
            Ok(mount) => Some(Self {
                mount,
                kind,
                _directory: directory,
            }),
            Err(why) => {
                eprintln!("LEFT OUT: no disk of type {kind} was filled, because {why}");
                None
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.mount.at
    }

    pub(crate) const fn kind(&self) -> &'static str {
        self.kind
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }

    /// Takes all space but `bytes`, or as near to that as the file system allows.
    pub(crate) fn leave(&self, bytes: u64) {
        self.give_back();
        let filler = std::fs::File::create(self.filler()).expect("a file to fill the disk with");
        let statistics = rustix::fs::statvfs(self.path()).expect("the file system answers");
        let free = statistics.f_bavail * statistics.f_frsize;
        let mut wanted = free.saturating_sub(bytes);
        // The space that the file's own bookkeeping takes is not known beforehand.
        while wanted > 0 {
            let flags = rustix::fs::FallocateFlags::empty();
            match rustix::fs::fallocate(&filler, flags, 0, wanted) {
                Ok(()) => return,
                Err(rustix::io::Errno::NOSPC) => {
                    wanted = wanted.saturating_sub(statistics.f_frsize);
                }
                Err(error) => panic!("the disk cannot be filled: {error}"),
            }
        }
    }

    /// Gives back what [`Self::leave`] took.
    pub(crate) fn give_back(&self) {
        match std::fs::remove_file(self.filler()) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => panic!("the disk cannot be emptied: {error}"),
        }
    }
}

/// An ext4 on a disk whose writes fail with EIO as long as it is told so: nbdkit's error filter, nbdfuse, a loop device.
#[derive(Debug)]
pub(crate) struct FailingDisk {
    mount: Option<Mount>,
    disk: NbdFile,
    directory: tempfile::TempDir,
}

impl FailingDisk {
    /// What stands between the file system and the memory it is kept in.
    pub(crate) const MECHANISM: &'static str = "nbdkit error filter, nbdfuse, losetup, ext4";

    /// Puts it up, or says what is missing here.
    pub(crate) fn new() -> Result<Self, String> {
        may_mount()?;
        let directory = tempfile::tempdir().expect("a temporary directory");
        let disk = NbdFile::serve(directory.path())?;
        let at = directory.path().join("mount");
        let mount = Some(mount_file(&disk.file, &at, true, true)?);
        Ok(Self {
            mount,
            disk,
            directory,
        })
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("mount")
    }

    /// From now on, every write to the disk fails.
    pub(crate) fn fail(&self) {
        std::fs::write(&self.disk.switch, "").expect("the switch is written");
    }

    /// The disk is whole again; what it did not take, it does not have.
    pub(crate) fn mend(&self) {
        std::fs::remove_file(&self.disk.switch).expect("the switch is there");
    }

    /// What a power loss would leave: the file system is mounted anew, so that nothing is known but what the disk has.
    pub(crate) fn forget_cache(&mut self) {
        if let Some(mut mount) = self.mount.take() {
            mount.unmount().expect("nobody uses the file system");
        }
        let mounted = mount_file(&self.disk.file, &self.path(), false, true);
        self.mount = Some(mounted.expect("it is mounted once more"));
    }
}

/// A file whose bytes are a disk of nbdkit's.
#[derive(Debug)]
struct NbdFile {
    file: PathBuf,
    /// While this file is there, writes fail.
    switch: PathBuf,
    server: Child,
}

impl NbdFile {
    fn serve(directory: &Path) -> Result<Self, String> {
        let file = directory.join("disk");
        let switch = directory.join("fail");
        std::fs::write(&file, "").expect("a file to serve the disk at");
        let mut command = Command::new("nbdfuse");
        command.arg(&file).arg("--command");
        command.args(["nbdkit", "--single", "--exit-with-parent", "--filter=error"]);
        command.args(["memory", &FAILING_DISK_BYTES.to_string(), "error=EIO"]);
        command.arg("error-pwrite-rate=100%");
        command.arg(format!("error-pwrite-file={}", text(&switch)));
        let server = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("`nbdfuse` does not run: {error}"))?;
        // From here on it is taken down, whatever comes.
        let mut served = Self {
            file,
            switch,
            server,
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let length = std::fs::metadata(&served.file).map_or(0, |metadata| metadata.len());
            if length == FAILING_DISK_BYTES {
                return Ok(served);
            }
            match served.server.try_wait() {
                Ok(None) if Instant::now() < deadline => std::thread::sleep(MOMENT),
                other => return Err(format!("`nbdfuse` serves no disk: {other:?}")),
            }
        }
    }
}

impl Drop for NbdFile {
    fn drop(&mut self) {
        // It ends by itself when its file system is unmounted.
        let unmounted = run("umount", &[text(&self.file)]);
        if let Err(said) = &unmounted {
            eprintln!("{said}");
            let detached = run("umount", &["--lazy", text(&self.file)]);
            let killed = self.server.kill();
            eprintln!("detached instead: {detached:?}, {killed:?}");
        }
        let ended = self.server.wait();
        assert!(ended.is_ok() || std::thread::panicking(), "{ended:?}");
    }
}

/// Copies a directory with all that is in it.
pub(crate) fn copy_directory(from: &Path, to: &Path) {
    std::fs::create_dir(to).expect("a directory for the copy");
    for entry in std::fs::read_dir(from).expect("the directory reads") {
        let entry = entry.expect("an entry reads");
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy_directory(&from, &to);
        } else {
            std::fs::copy(&from, &to).expect("the file is copied");
        }
    }
}

/// Moves a directory to another file system and leaves a link in its place.
pub(crate) fn move_to(directory: &Path, target: &Path) {
    copy_directory(directory, target);
    std::fs::remove_dir_all(directory).expect("the directory is moved");
    std::os::unix::fs::symlink(target, directory).expect("a link in its place");
}
