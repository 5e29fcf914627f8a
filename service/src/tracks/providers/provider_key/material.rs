//! A key on its way to whoever asked.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

/// A key as it is stored. It prints as `[REDACTED]`, has no JSON, and is wiped from memory when it is dropped.
#[derive(Clone)]
pub struct KeyMaterial {
    text: SecretString,
    encrypted_with: Option<String>,
}

impl KeyMaterial {
    /// `None` for a text of white space only, which is no key. White space is what the statements call blank too.
    pub(super) fn new(text: &str, encrypted_with: Option<String>) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Self {
            text: text.into(),
            encrypted_with,
        })
    }

    /// The key, without white space around it; ciphertext where [`KeyMaterial::encrypted_with`] names a key.
    pub fn expose(&self) -> &str {
        self.text.expose_secret()
    }

    /// The digest of the deployment's key that this one is encrypted with (`dbcrypt_keys.active_key_digest`), `None` for
    /// plain text.
    pub fn encrypted_with(&self) -> Option<&str> {
        self.encrypted_with.as_deref()
    }
}

impl fmt::Debug for KeyMaterial {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[REDACTED]")
    }
}
