//! What a database without history is recognised as.

use crate::plan::Created;

/// What a database was recognised as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recognised {
    /// The shape in words.
    pub shape: &'static str,
    /// The slugs of the migrations it already stands behind.
    pub applied: Vec<&'static str>,
    /// What an earlier Tollgate has made for one of them, where its own tables are gone (a restored backup) and later steps
    /// need to know it.
    pub created: Option<(&'static str, Created)>,
}

/// A database at no version that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    /// The version it comes nearest to.
    pub nearest: &'static str,
    /// How it differs from that, one line each.
    pub differences: Vec<String>,
}
