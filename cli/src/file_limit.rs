//! Room for descriptors: every connection is one, and so is every file of the log.

use rustix::process::{Resource, getrlimit, setrlimit};
use tracing::warn;

/// Descriptors beside those of connections: segments and their indexes, the read model, the outbox, the process's own.
const OTHER_FILES: u64 = 512;

/// Takes as many descriptors as the machine lets the process have: the customary soft limit of 1,024 is below the
/// connections that the service takes. Warns if even that is too few.
pub(crate) fn raise(connections_max: usize) {
    let mut limit = getrlimit(Resource::Nofile);
    let wanted = u64::try_from(connections_max)
        .unwrap_or(u64::MAX)
        .saturating_add(OTHER_FILES);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        warn!(%error, "the limit of open files cannot be raised");
    }
    // `None` is no limit.
    if let Some(allowed) = getrlimit(Resource::Nofile).current
        && allowed < wanted
    {
        warn!(
            allowed,
            wanted,
            "fewer files may be open than `api.connections_max` needs: raise the limit (ulimit -n, LimitNOFILE)"
        );
    }
}
