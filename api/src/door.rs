//! What a connection may be asked, and how many connections there may be.
//!
//! Clients may fill every connection that the service takes; whoever has to look after it must still get in. So a
//! listener that clients use keeps a few connections in reserve, which answer probes, scrapers and operators alone, one
//! request each and briskly; and a listener of the operators' own counts by itself.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::connection_metrics::ConnectionMetrics;
use crate::route::Route;
use crate::serve::Endpoints;

/// Connections beyond the cap of a listener that clients use: a few probes, a scraper and an operator at once.
const RESERVED_CONNECTIONS: usize = 32;
/// Most connections of a listener of the operators' own.
const ADMIN_CONNECTIONS: usize = 256;
/// How long a connection of the reserve may take for the head of its request: nobody can hold it for long.
pub(crate) const RESERVED_HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// What may be asked through a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Door {
    pub(crate) endpoints: Endpoints,
    /// Whether it is one of the reserve.
    pub(crate) reserved: bool,
}

impl Door {
    /// Everything.
    pub(crate) const OPEN: Self = Self {
        endpoints: Endpoints::All,
        reserved: false,
    };

    /// What a listener of clients lets in while it has all the connections it takes.
    pub(crate) const RESERVE: Self = Self {
        endpoints: Endpoints::All,
        reserved: true,
    };

    /// Whether a request may come in while the service has all the connections it takes.
    pub(crate) const fn admits(self, route: Route) -> bool {
        !self.reserved || route.is_for_operators() || route.is_for_machines()
    }
}

/// The connections that a listener has left.
#[derive(Debug)]
pub(crate) struct Doorkeeper {
    endpoints: Endpoints,
    open: Arc<Semaphore>,
    reserve: Arc<Semaphore>,
    metrics: ConnectionMetrics,
}

/// The right to be a connection, until it is dropped.
#[derive(Debug)]
pub(crate) struct Admission {
    pub(crate) door: Door,
    metrics: ConnectionMetrics,
    _place: OwnedSemaphorePermit,
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.metrics.open.dec();
    }
}

impl Doorkeeper {
    /// For a listener; `shared` counts the connections of all that clients use.
    pub(crate) fn new(
        endpoints: Endpoints,
        shared: &Arc<Semaphore>,
        metrics: ConnectionMetrics,
    ) -> Self {
        let (open, reserved) = match endpoints {
            Endpoints::Admin | Endpoints::Projector => {
                (Arc::new(Semaphore::new(ADMIN_CONNECTIONS)), 0)
            }
            Endpoints::All | Endpoints::Public => (Arc::clone(shared), RESERVED_CONNECTIONS),
        };
        Self {
            endpoints,
            open,
            reserve: Arc::new(Semaphore::new(reserved)),
            metrics,
        }
    }

    /// Lets a connection in, if need be by the reserve; `None` if there is no place at all.
    pub(crate) fn admit(&self) -> Option<Admission> {
        let places = [(&self.open, false), (&self.reserve, true)];
        let admission = places.into_iter().find_map(|(places, reserved)| {
            let place = Arc::clone(places).try_acquire_owned().ok()?;
            let door = Door {
                endpoints: self.endpoints,
                reserved,
            };
            self.metrics.open.inc();
            Some(Admission {
                door,
                metrics: self.metrics.clone(),
                _place: place,
            })
        });
        if admission.is_none() {
            self.metrics.refused.inc();
        }
        admission
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics() -> ConnectionMetrics {
        ConnectionMetrics::register(&prometheus::Registry::new()).unwrap()
    }

    #[test]
    fn behind_the_cap_comes_the_reserve_and_then_nothing() {
        let shared = Arc::new(Semaphore::new(1));
        let metrics = metrics();
        let public = Doorkeeper::new(Endpoints::All, &shared, metrics.clone());
        let first = public.admit().unwrap();
        assert!(first.door.admits(Route::Orders));
        let reserve: Vec<_> = (0..RESERVED_CONNECTIONS)
            .map(|_| public.admit().unwrap())
            .collect();
        for reserved in &reserve {
            assert!(!reserved.door.admits(Route::Orders));
            assert!(reserved.door.admits(Route::Readyz));
            assert!(reserved.door.admits(Route::Projections));
        }
        let open = 1 + i64::try_from(RESERVED_CONNECTIONS).unwrap();
        assert_eq!((metrics.open.get(), metrics.refused.get()), (open, 0));
        assert!(public.admit().is_none());
        assert_eq!((metrics.open.get(), metrics.refused.get()), (open, 1));
        drop(first);
        assert_eq!(metrics.open.get(), open - 1);
        assert!(!public.admit().unwrap().door.reserved);
    }

    #[test]
    fn what_clients_take_is_not_the_operators() {
        let shared = Arc::new(Semaphore::new(0));
        let operators = Doorkeeper::new(Endpoints::Admin, &shared, metrics());
        assert!(!operators.admit().unwrap().door.reserved);
    }
}
