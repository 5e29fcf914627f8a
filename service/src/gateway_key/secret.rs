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
    secret.expose_secret().chars().take(SHOWN).collect()
}

/// SHA-256 of the whole secret, which is what the database holds.
pub(super) fn hash(secret: &[u8]) -> Vec<u8> {
    Sha256::digest(secret).to_vec()
}
