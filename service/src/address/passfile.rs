//! Passwords in a file, as libpq keeps them: `host:port:database:user:password`, where `*` is any.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

/// The password of the first line that fits; none where the file is not there or others may read it.
pub(super) fn password(
    named: Option<&str>,
    host: &str,
    port: u16,
    user: &str,
    database: Option<&str>,
) -> Option<String> {
    let path = named
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("PGPASSFILE").map(PathBuf::from))
        .or_else(|| std::env::home_dir().map(|home| home.join(".pgpass")))?;
    let meta = std::fs::metadata(&path).ok()?;
    if !meta.is_file() {
        tracing::warn!("password file {} is no plain file", path.display());
        return None;
    }
    if meta.permissions().mode() & 0o077 != 0 {
        tracing::warn!(
            "password file {} may be read by others and is not used; chmod 0600",
            path.display()
        );
        return None;
    }
    let text = std::fs::read_to_string(&path).ok()?;
    // A socket in a folder is `localhost` there.
    let host = if host.starts_with('/') {
        "localhost"
    } else {
        host
    };
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .find_map(|line| {
            found(
                line,
                [host, &port.to_string(), database.unwrap_or(user), user],
            )
        })
}

fn found(line: &str, wanted: [&str; 4]) -> Option<String> {
    let mut fields = vec![String::new()];
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => fields.last_mut()?.extend(characters.next()),
            // What is behind the fourth colon is the password, colons and all.
            ':' if fields.len() < 5 => fields.push(String::new()),
            other => fields.last_mut()?.push(other),
        }
    }
    let [parts @ .., password] = fields.as_slice() else {
        return None;
    };
    (parts.len() == 4
        && parts
            .iter()
            .zip(wanted)
            .all(|(part, wanted)| part == "*" || part == wanted))
    .then(|| password.clone())
}

#[cfg(test)]
mod tests {
    use super::found;

    #[test]
    fn a_line_fits_by_all_four_fields() {
        let wanted = ["h", "5432", "db", "me"];
        assert_eq!(found("h:5432:db:me:p:w", wanted), Some("p:w".to_owned()));
        assert_eq!(found(r"*:*:*:*:a\:b\\", wanted), Some(r"a:b\".to_owned()));
        assert_eq!(found("h:5433:db:me:no", wanted), None);
        assert_eq!(found("h:5432:db:me", wanted), None);
    }
}
