//! Where `env.NAME` in a config file is looked up.

use std::fmt;
use std::sync::Arc;

type Get = dyn Fn(&str) -> Option<String> + Send + Sync;

/// Looks a variable up. By default the process's own environment does. It does not print what it finds.
#[derive(Clone)]
pub struct Variables(Arc<Get>);

impl Variables {
    /// Those that a function knows.
    pub fn new(get: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(get))
    }

    /// The value of one; `None` where it is not set.
    pub fn get(&self, name: &str) -> Option<String> {
        (self.0)(name)
    }
}

impl Default for Variables {
    fn default() -> Self {
        Self::new(|name| std::env::var(name).ok())
    }
}

impl fmt::Debug for Variables {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Variables")
    }
}
