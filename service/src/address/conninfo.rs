//! libpq's other form: `host=… port=… dbname='…'`.

use super::Parameters;
use crate::error::{Error, Result};

/// Whether it begins as one does.
pub(super) fn looks_like(text: &str) -> bool {
    text.split_once('=').is_some_and(|(name, _)| {
        let name = name.trim();
        !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c == '_')
    })
}

/// Reads the pairs. A value in quotes may hold spaces; a backslash takes the next character as it is.
pub(super) fn parse(text: &str) -> Result<Parameters> {
    let mut parameters = Parameters::default();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (name, value) = rest.split_once('=').ok_or_else(|| {
            Error::usage(
                "the database address has a word without =",
                "write it as host=NAME dbname=NAME, or as postgres://user@host:5432/database",
            )
        })?;
        let (value, behind) = self::value(value.trim_start())?;
        parameters.push(name.trim(), value);
        rest = behind.trim_start();
    }
    Ok(parameters)
}

fn value(text: &str) -> Result<(String, &str)> {
    let quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut characters = text.char_indices().skip(usize::from(quoted));
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => value.extend(characters.next().map(|(_, next)| next)),
            '\'' if quoted => return Ok((value, &text[at + 1..])),
            space if space.is_whitespace() && !quoted => return Ok((value, &text[at..])),
            other => value.push(other),
        }
    }
    if quoted {
        return Err(Error::usage(
            "the database address has a quotation mark that is not closed",
            "close it, or write the address as postgres://user@host:5432/database",
        ));
    }
    Ok((value, ""))
}
