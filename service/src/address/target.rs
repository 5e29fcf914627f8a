//! Which of several servers will do.

use std::str::FromStr;

use crate::error::Error;

/// libpq's `target_session_attrs`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Target {
    /// Whichever answers.
    #[default]
    Any,
    /// One whose transactions may write.
    ReadWrite,
    /// One whose transactions may not.
    ReadOnly,
    /// One that is no standby.
    Primary,
    /// A standby.
    Standby,
    /// A standby, or whichever answers where there is none.
    PreferStandby,
}

impl Target {
    /// Whether a server of that state will do.
    pub(crate) fn accepts(self, in_recovery: bool, read_only: bool) -> bool {
        match self {
            Self::Any | Self::PreferStandby => true,
            Self::ReadWrite => !read_only && !in_recovery,
            Self::ReadOnly => read_only || in_recovery,
            Self::Primary => !in_recovery,
            Self::Standby => in_recovery,
        }
    }

    /// The word on the address.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::ReadWrite => "read-write",
            Self::ReadOnly => "read-only",
            Self::Primary => "primary",
            Self::Standby => "standby",
            Self::PreferStandby => "prefer-standby",
        }
    }
}

impl FromStr for Target {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self, Error> {
        [
            Self::Any,
            Self::ReadWrite,
            Self::ReadOnly,
            Self::Primary,
            Self::Standby,
            Self::PreferStandby,
        ]
        .into_iter()
        .find(|target| target.word() == word)
        .ok_or_else(|| {
            Error::usage(
                format!("target_session_attrs={word} is not known"),
                "it is any, read-write, read-only, primary, standby or prefer-standby",
            )
        })
    }
}
