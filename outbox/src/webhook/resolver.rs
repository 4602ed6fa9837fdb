//! Names to addresses, and no address that must not be reached.
//!
//! The check sits between the lookup and the connection: what passes it is what is connected to. A name that answers with
//! a public address first and a private one a moment later (DNS rebinding) is checked both times, because there is no
//! second lookup behind the check.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::dns::Name;
use tower_service::Service;

use crate::webhook::address::not_public;

/// The answer to come of a lookup.
pub(crate) type Answer = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// Who knows the addresses of names.
pub(crate) trait Lookup: Send + Sync + fmt::Debug {
    /// All addresses of a name, of any kind; the port means nothing.
    fn lookup(&self, name: String) -> Answer;
}

/// The operating system's resolver.
#[derive(Debug)]
pub(crate) struct SystemLookup;

impl Lookup for SystemLookup {
    fn lookup(&self, name: String) -> Answer {
        Box::pin(async move { Ok(tokio::net::lookup_host((name, 0)).await?.collect()) })
    }
}

/// Looks up and lets through what may be connected to.
#[derive(Debug, Clone)]
pub(crate) struct GuardedResolver {
    lookup: Arc<dyn Lookup>,
    allow_private: bool,
}

impl GuardedResolver {
    pub(crate) fn new(lookup: Arc<dyn Lookup>, allow_private: bool) -> Self {
        Self {
            lookup,
            allow_private,
        }
    }
}

impl Service<Name> for GuardedResolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let allow_private = self.allow_private;
        let answer = self.lookup.lookup(name.as_str().to_owned());
        Box::pin(async move {
            let mut addresses = answer.await?;
            if !allow_private {
                let first = addresses.first().copied();
                addresses.retain(|address| not_public(address.ip()).is_none());
                if let (Some(first), true) = (first, addresses.is_empty()) {
                    return Err(refused(name.as_str(), first));
                }
            }
            Ok(addresses.into_iter())
        })
    }
}

fn refused(name: &str, address: SocketAddr) -> io::Error {
    let why = not_public(address.ip()).unwrap_or("not of the public internet");
    io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!(
            "{name} is at {}, which is {why}; set outbox.webhook.allow_private to allow it",
            address.ip()
        ),
    )
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use super::*;

    /// Answers with what it was told to, one answer a lookup, and the last one for ever.
    #[derive(Debug)]
    pub(crate) struct Script(Mutex<VecDeque<Vec<SocketAddr>>>);

    impl Script {
        pub(crate) fn new(answers: &[&[&str]]) -> Arc<Self> {
            let parse = |answer: &&[&str]| {
                answer
                    .iter()
                    .map(|address| address.parse().unwrap())
                    .collect()
            };
            Arc::new(Self(Mutex::new(answers.iter().map(parse).collect())))
        }
    }

    impl Lookup for Script {
        fn lookup(&self, _: String) -> Answer {
            let mut answers = self.0.lock().unwrap();
            let answer = if answers.len() > 1 {
                answers.pop_front().unwrap()
            } else {
                answers[0].clone()
            };
            Box::pin(async move { Ok(answer) })
        }
    }

    async fn resolve(resolver: &mut GuardedResolver) -> Result<Vec<String>, String> {
        let answer = resolver.call("receiver.example".parse().unwrap()).await;
        let addresses = answer.map_err(|error| error.to_string())?;
        Ok(addresses.map(|address| address.ip().to_string()).collect())
    }

    #[tokio::test]
    async fn a_name_that_turns_private_is_refused_the_moment_it_does() {
        let script = Script::new(&[&["8.8.8.8:0"], &["127.0.0.1:0"]]);
        let mut resolver = GuardedResolver::new(script, false);
        assert_eq!(resolve(&mut resolver).await.unwrap(), ["8.8.8.8"]);
        let error = resolve(&mut resolver).await.unwrap_err();
        assert!(
            error.contains("receiver.example is at 127.0.0.1, which is loopback"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn of_a_mixed_answer_only_public_addresses_can_be_connected_to() {
        let script = Script::new(&[&[
            "10.0.0.1:0",
            "8.8.8.8:0",
            "[::1]:0",
            "[2606:4700:4700::1111]:0",
        ]]);
        let mut resolver = GuardedResolver::new(script, false);
        assert_eq!(
            resolve(&mut resolver).await.unwrap(),
            ["8.8.8.8", "2606:4700:4700::1111"]
        );
    }

    #[tokio::test]
    async fn where_private_is_allowed_every_address_is() {
        let script = Script::new(&[&["10.0.0.1:0", "[::1]:0"]]);
        let mut resolver = GuardedResolver::new(script, true);
        assert_eq!(resolve(&mut resolver).await.unwrap(), ["10.0.0.1", "::1"]);
    }
}
