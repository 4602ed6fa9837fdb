//! How one try ended, as far as it matters for what happens next.

use std::time::Duration;

use crate::metrics::Attempt;

/// How one try ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The target took it: 2xx.
    Delivered,
    /// The target answered something else.
    Refused {
        reason: String,
        /// What it asked to wait, capped.
        retry_after: Option<Duration>,
        /// Whether that holds for everything sent to it, and not for this event alone: 429 and 503.
        whole_target: bool,
    },
    /// The target answered 410: it wants nothing any more, ever.
    Gone { reason: String },
    /// There was no answer.
    Failed { reason: String },
    /// The event does not decode; nothing was sent, and trying again changes nothing before an upgrade.
    Unreadable { reason: String },
}

impl Outcome {
    /// What the metric counts it as.
    pub(crate) fn attempt(&self) -> Attempt {
        match self {
            Self::Delivered => Attempt::Delivered,
            Self::Refused { .. } | Self::Gone { .. } => Attempt::Refused,
            Self::Failed { .. } => Attempt::Failed,
            Self::Unreadable { .. } => Attempt::Unreadable,
        }
    }
}
