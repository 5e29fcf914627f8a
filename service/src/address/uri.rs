//! `postgres://user:password@host:port,host:port/database?name=value`.

use percent_encoding::percent_decode_str;

use super::Parameters;
use crate::error::{Error, Result};

const HINT: &str = "use postgres://user@host:5432/database or sqlite://path/to/file.db";

fn decode(text: &str) -> Result<String> {
    percent_decode_str(text)
        .decode_utf8()
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| {
            Error::usage(
                "the database URL has percent-encoded bytes that are no UTF-8",
                HINT,
            )
        })
}

/// Reads the parts into parameters.
pub(super) fn parse(text: &str) -> Result<Parameters> {
    let rest = text
        .strip_prefix("postgresql://")
        .or_else(|| text.strip_prefix("postgres://"))
        .ok_or_else(|| Error::usage("the database URL is not one that PostgreSQL knows", HINT))?;
    let (before, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = before.split_once('/').unwrap_or((before, ""));
    if text.contains('#') || path.contains('@') {
        // Such a password was cut in two, and half of it would be shown as host or database.
        return Err(Error::usage(
            "the database URL has a # or / before its @",
            "write special characters of a password percent-encoded: # as %23, / as %2F, @ as %40",
        ));
    }
    let mut parameters = Parameters::default();
    let (user, hosts) = match authority.rsplit_once('@') {
        Some((user, hosts)) => (user, hosts),
        None => ("", authority),
    };
    if let Some((name, password)) = user.split_once(':') {
        parameters.push("user", decode(name)?);
        parameters.push("password", decode(password)?);
    } else if !user.is_empty() {
        parameters.push("user", decode(user)?);
    }
    if !hosts.is_empty() {
        let mut names = Vec::new();
        let mut ports = Vec::new();
        for place in hosts.split(',') {
            let (name, port) = host(place)?;
            names.push(decode(name)?);
            ports.push(port.to_owned());
        }
        parameters.push("host", names.join(","));
        if ports.iter().any(|port| !port.is_empty()) {
            parameters.push("port", ports.join(","));
        }
    }
    if !path.is_empty() {
        parameters.push("dbname", decode(path)?);
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        parameters.push(&decode(name)?, decode(value)?);
    }
    Ok(parameters)
}

/// A host and its port; an IPv6 address stands in brackets.
fn host(place: &str) -> Result<(&str, &str)> {
    if let Some(inner) = place.strip_prefix('[') {
        let (address, rest) = inner
            .split_once(']')
            .ok_or_else(|| Error::usage("the database URL has a [ without its ]", HINT))?;
        return Ok((address, rest.strip_prefix(':').unwrap_or_default()));
    }
    Ok(place.split_once(':').unwrap_or((place, "")))
}
