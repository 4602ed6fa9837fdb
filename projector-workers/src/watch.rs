//! The read side as another process sees it: checkpoints, pauses and parked orders out of the files of the projector,
//! as soon as it rings.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use order_log::{EventLog, Offset, PartitionId};
use rusqlite::Connection;

use crate::bell::Listener;
use crate::board::Board;
use crate::database::{Identity, open_followed};
use crate::followed::{FileId, Followed};
use crate::sql::from_sql;
use crate::workers::ProjectionStatus;
use crate::{Projection, ReadModel, ReadModelError};

/// How long the files are not looked at if nobody rings: pauses and parked orders ring no bell.
const LOOK_MAX: Duration = Duration::from_millis(100);

/// Page cache for a handful of rows, in KiB.
const CACHE_KIB: u32 = 64;

/// Watches the files of a projector in another process. Dropping it ends the thread.
#[derive(Debug)]
pub struct ProjectorWatch {
    board: Arc<Board>,
    trouble: Arc<Mutex<Option<String>>>,
    stop: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl ProjectorWatch {
    /// Looks at the files once, and from then on in a thread, `projector-watch`, whenever the projector has committed rows.
    ///
    /// # Errors
    /// [`ReadModelError`] if `read_model` was not opened for following, the log has no such partition, or the thread
    /// cannot be started. Files that are not there or cannot be read yet are no error: see [`ProjectorWatch::trouble`].
    pub fn start(
        log: &dyn EventLog,
        read_model: Arc<ReadModel>,
    ) -> Result<Arc<Self>, ReadModelError> {
        let board = Arc::new(Board::new(log, Arc::clone(&read_model))?);
        let mut eye = Eye::new(Arc::clone(&board), &read_model)?;
        let trouble = Arc::new(Mutex::new(eye.look()));
        let stop = Arc::new(AtomicBool::new(false));
        let listener = Listener::new(&read_model.config().directory);
        let (told, stopped) = (Arc::clone(&trouble), Arc::clone(&stop));
        let name = "projector-watch";
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                while !stopped.load(Ordering::SeqCst) {
                    let turn = listener.turn();
                    let seen = eye.look();
                    let mut trouble = told.lock().unwrap_or_else(PoisonError::into_inner);
                    if seen != *trouble {
                        match &seen {
                            Some(cause) => tracing::warn!(cause, "the read model cannot be read"),
                            None => tracing::info!("the read model can be read"),
                        }
                        *trouble = seen;
                    }
                    drop(trouble);
                    listener.wait(turn, LOOK_MAX);
                }
            })
            .map_err(|source| ReadModelError::Io {
                action: "start thread",
                path: PathBuf::from(name),
                source,
            })?;
        Ok(Arc::new(Self {
            board,
            trouble,
            stop,
            thread: Mutex::new(Some(thread)),
        }))
    }

    /// Every projection of every partition, as the files say. Why a worker stands still they do not say: its process does.
    #[must_use]
    pub fn status(&self) -> Vec<ProjectionStatus> {
        self.board.status()
    }

    /// Why a file cannot be read, if one cannot: it is not there yet, or of something else. What was read before is still
    /// served.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.clone()
    }

    /// Ends the thread. What was seen stays.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Err(_)) = thread.take().map(JoinHandle::join) {
            tracing::error!("the thread that watches the projector panicked");
        }
    }
}

impl Drop for ProjectorWatch {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What looks.
#[derive(Debug)]
struct Eye {
    board: Arc<Board>,
    followed: Arc<Followed>,
    files: Vec<WatchedFile>,
}

#[derive(Debug)]
struct WatchedFile {
    path: PathBuf,
    identity: Identity,
    /// The file of the present generation. Open, so that its number stays its own.
    open: Option<(FileId, Connection)>,
}

impl Eye {
    fn new(board: Arc<Board>, read_model: &ReadModel) -> Result<Self, ReadModelError> {
        let followed = read_model.followed();
        let followed = Arc::clone(followed.ok_or_else(|| read_model.elsewhere())?);
        let files = read_model.config().files()?.into_iter();
        let files = files.map(|(path, identity)| WatchedFile {
            path,
            identity,
            open: None,
        });
        Ok(Self {
            board,
            followed,
            files: files.collect(),
        })
    }

    /// Takes over what the files say; returns what keeps one from being read.
    fn look(&mut self) -> Option<String> {
        let config = self.board.read_model().config();
        let mut trouble = config.files().err();
        let mut paused = [false; Projection::ALL.len()];
        for shard in 0..self.files.len() {
            if let Err(error) = self.look_at(shard, &mut paused) {
                trouble.get_or_insert(error);
            }
        }
        for projection in Projection::ALL {
            let paused = paused[projection.index()];
            self.board.read_model().note_paused(projection, paused);
        }
        trouble.map(|error| error.to_string())
    }

    fn look_at(
        &mut self,
        shard: usize,
        paused: &mut [bool; Projection::ALL.len()],
    ) -> Result<(), ReadModelError> {
        let file = &mut self.files[shard];
        let there = FileId::at(&file.path);
        let known = file.open.as_ref().map(|(id, _)| *id);
        let mut trouble = Ok(());
        if let Some(id) = there.filter(|id| Some(*id) != known) {
            match open_as(id, file) {
                Ok((connection, rows)) => {
                    self.switch(shard, id, &rows);
                    let file = &mut self.files[shard];
                    file.open = Some((id, connection));
                }
                // The file before, if there was one, is still open: it is served as it is.
                Err(error) => trouble = Err(error),
            }
        } else if there.is_none() {
            trouble = Err(ReadModelError::Io {
                action: "open",
                path: file.path.clone(),
                source: std::io::ErrorKind::NotFound.into(),
            });
        }
        let file = &self.files[shard];
        let Some((_, connection)) = &file.open else {
            return trouble;
        };
        let rows = read_rows(connection, &file.identity);
        let rows = rows.map_err(ReadModelError::sqlite(&file.path))?;
        for row in &rows {
            paused[row.projection.index()] |= row.paused;
        }
        self.publish(shard, &rows);
        trouble
    }

    /// Makes another file the one that is read: see [`crate::followed`].
    fn switch(&self, shard: usize, id: FileId, rows: &[Row]) {
        let checkpoints = self.board.read_model().checkpoints();
        for row in rows {
            let known = checkpoints.load(row.projection, row.partition);
            checkpoints.replace(row.projection, row.partition, known.min(row.next));
        }
        self.followed.replace(shard, id);
    }

    fn publish(&self, shard: usize, rows: &[Row]) {
        let checkpoints = self.board.read_model().checkpoints();
        let back = |row: &Row| row.next < checkpoints.load(row.projection, row.partition);
        if let (true, Some((id, _))) = (rows.iter().any(back), &self.files[shard].open) {
            // The same file, and it went back: as if it were another.
            self.switch(shard, *id, rows);
        }
        for row in rows {
            checkpoints.replace(row.projection, row.partition, row.next);
            self.board
                .set_parked(row.projection, row.partition, row.parked);
        }
    }
}

/// One checkpoint as stored, and what is parked beside it.
#[derive(Debug)]
struct Row {
    projection: Projection,
    partition: PartitionId,
    next: Offset,
    paused: bool,
    parked: u64,
}

/// Opens the file that was seen at the path, if it is a whole read model, with what it says.
fn open_as(id: FileId, file: &WatchedFile) -> Result<(Connection, Vec<Row>), ReadModelError> {
    let connection = open_followed(&file.path, &file.identity, CACHE_KIB)?;
    let rows = read_rows(&connection, &file.identity);
    let rows = rows.map_err(ReadModelError::sqlite(&file.path))?;
    if FileId::at(&file.path) == Some(id) {
        Ok((connection, rows))
    } else {
        let path = file.path.clone();
        Err(ReadModelError::Replaced { path })
    }
}

fn read_rows(connection: &Connection, identity: &Identity) -> rusqlite::Result<Vec<Row>> {
    let mut statement = connection.prepare_cached(
        "SELECT c.projection, c.partition, c.next_offset, c.paused,
                (SELECT count(DISTINCT p.order_id) FROM ParkedEvent AS p
                 WHERE p.projection = c.projection AND p.partition = c.partition)
         FROM Checkpoint AS c",
    )?;
    let mut found = statement.query([])?;
    let mut rows = Vec::new();
    while let Some(row) = found.next()? {
        let projection = Projection::from_name(row.get_ref(0)?.as_str()?);
        let number: u16 = row.get(1)?;
        // A projection or partition that this version knows nothing of is none of its business.
        let (Some(projection), true) = (projection, number < identity.partitions) else {
            continue;
        };
        rows.push(Row {
            projection,
            partition: PartitionId::new(number),
            next: Offset::new(from_sql(row.get(2)?)),
            paused: row.get(3)?,
            parked: from_sql(row.get(4)?),
        });
    }
    Ok(rows)
}
