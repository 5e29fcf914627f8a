//! What an operator may decide where rows stand in the way of a migration.

use std::collections::BTreeSet;

/// A choice that a track offers; without it a run stops before its first write. The command line takes its flags from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The name of its flag, without the dashes. Unique among the tracks of a program.
    pub flag: &'static str,
    /// The environment variable that stands for the flag.
    pub variable: &'static str,
    /// The word that the flag takes, and what it means as one line; a plain switch takes none.
    pub word: Option<(&'static str, &'static str)>,
    /// What the flag is about, as one line of help.
    pub about: &'static str,
    /// Whether `migrate prepare` takes it too.
    pub prepares: bool,
}

/// What was chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choices(BTreeSet<&'static str>);

impl Choices {
    /// Nothing: whatever stands in the way stops the run.
    pub fn none() -> Self {
        Self::default()
    }

    /// The same and one more.
    #[must_use]
    pub fn with(mut self, choice: &Choice) -> Self {
        self.0.insert(choice.flag);
        self
    }

    /// Whether that one is among them.
    pub fn has(&self, choice: &Choice) -> bool {
        self.0.contains(choice.flag)
    }
}
