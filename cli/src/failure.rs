//! How the program ends: what went wrong, in words, and the exit code it stands for.

use std::process::ExitCode;

/// Why a command did not do what was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The flags, the configuration or the data directory do not fit what was asked: exit code 2, nothing was touched.
    Usage(anyhow::Error),
    /// It was tried and failed, or a check found something: exit code 1.
    Failed(anyhow::Error),
}

impl Failure {
    /// Puts in front what was being tried.
    pub(crate) fn context(self, what: &'static str) -> Self {
        match self {
            Self::Usage(error) => Self::Usage(error.context(what)),
            Self::Failed(error) => Self::Failed(error.context(what)),
        }
    }

    /// The code the process ends with.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::from(2),
            Self::Failed(_) => ExitCode::FAILURE,
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Usage(error) | Self::Failed(error) => write!(formatter, "{error:#}"),
        }
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// A [`Failure::Usage`] with a formatted message.
macro_rules! usage {
    ($($argument:tt)*) => {
        $crate::failure::Failure::Usage(anyhow::anyhow!($($argument)*))
    };
}
pub(crate) use usage;
