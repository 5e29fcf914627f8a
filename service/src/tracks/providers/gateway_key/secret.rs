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

/// Whether a text holds what looks like a secret that somebody took for a name: as long, of letters in both cases; with
/// something before or behind it, of digits too.
pub(super) fn is_in(text: &str) -> bool {
    text.split(|character: char| !character.is_ascii_alphanumeric())
        .any(|run| {
            let has = |is: fn(&u8) -> bool| run.as_bytes().iter().any(is);
            run.len() >= LENGTH
                && has(u8::is_ascii_uppercase)
                && has(u8::is_ascii_lowercase)
                && (run.len() == LENGTH || has(u8::is_ascii_digit))
        })
}

/// What of a secret may be shown.
fn shown(secret: &str) -> String {
    secret.chars().take(SHOWN).collect()
}

/// A text as it may be repeated to whoever typed it: letters and digits in a row that are as many as a secret has, or more, are
/// cut to as many as are shown of one.
pub fn without_secrets(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for part in text.split_inclusive(|character: char| !character.is_ascii_alphanumeric()) {
        let run = part.trim_end_matches(|character: char| !character.is_ascii_alphanumeric());
        if run.len() >= LENGTH {
            out.push_str(&shown(run));
            out.push('…');
        } else {
            out.push_str(run);
        }
        out.push_str(&part[run.len()..]);
    }
    out
}

/// SHA-256 of the whole secret, which is what the database holds.
pub(super) fn hash(secret: &[u8]) -> Vec<u8> {
    Sha256::digest(secret).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "0eWVabcdefgh1234567890ABCDEFGHijklmnopqStQA";

    #[test]
    fn a_secret_is_cut_wherever_it_stands() {
        for (text, cut) in [
            (SECRET.to_owned(), "0eWVabcdefg…"),
            (format!("key='{SECRET}'\n"), "key='0eWVabcdefg…'\n"),
            (format!("{SECRET}x"), "0eWVabcdefg…"),
            (format!("é{SECRET} {SECRET}"), "é0eWVabcdefg… 0eWVabcdefg…"),
            ("no secret, é".to_owned(), "no secret, é"),
            (String::new(), ""),
        ] {
            assert_eq!(without_secrets(&text), cut);
        }
    }

    #[test]
    fn a_long_name_is_no_secret() {
        assert!(is_in(SECRET));
        assert!(is_in(&format!("{SECRET}x")));
        assert!(is_in(&format!(" {SECRET}\n")));
        assert!(!is_in(&"a".repeat(64)));
        assert!(!is_in(&"A".repeat(43)));
        assert!(!is_in(&format!("A{}", "a".repeat(63))));
        assert!(!is_in("us-east-1"));
    }
}
