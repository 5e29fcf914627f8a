//! A gateway key's secret: 43 characters, of which the first eleven are shown.

use rand::CryptoRng;
use rand::distr::{Alphanumeric, SampleString};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

/// Characters of a secret, each one of 62.
const LENGTH: usize = 43;
/// How many of them are shown.
const SHOWN: usize = 11;

/// Draws a secret, each character uniformly from 0-9, A-Z and a-z.
pub(super) fn draw(rng: &mut impl CryptoRng) -> SecretString {
    Alphanumeric.sample_string(rng, LENGTH).into()
}

/// What is shown of it.
pub(super) fn prefix(secret: &SecretString) -> String {
    shown(secret.expose_secret())
}

/// Whether a text looks like a secret that somebody took for a name: as long, of letters in both cases and digits alone.
pub(super) fn is_shaped_like_one(text: &str) -> bool {
    text.len() == LENGTH
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && text.bytes().any(|byte| byte.is_ascii_uppercase())
        && text.bytes().any(|byte| byte.is_ascii_lowercase())
}

/// What of such a text may be shown.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

/// SHA-256 of the whole secret, which is what the database holds.
pub(super) fn hash(secret: &[u8]) -> Vec<u8> {
    Sha256::digest(secret).to_vec()
}
