//! Reads where a PostgreSQL database is, as libpq reads it: hosts, parameters, files and the environment. What libpq knows and
//! Tollgate does not is refused by name, for an address that is read wrongly leads to another database.

mod conninfo;
mod passfile;
mod target;
mod tls;
mod uri;

use std::time::Duration;

use sqlx::postgres::PgConnectOptions;

use crate::error::{Error, Result};
use crate::nearest::nearest;

pub(crate) use target::Target;

/// The parameters that an address may have.
const KNOWN: &[&str] = &[
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "passfile",
    "connect_timeout",
    "application_name",
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "target_session_attrs",
    "search_path",
    "schema",
    "options",
];

/// An address as it is written, read into parameters; hosts and ports are lists with commas.
#[derive(Clone, Default)]
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// The last one of that name, for a later one overrides an earlier one. An empty one counts as absent.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .rev()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }

    pub(super) fn push(&mut self, name: &str, value: impl Into<String>) {
        self.0.push((name.to_owned(), value.into()));
    }

    /// A parameter, or the variable that stands for it.
    fn or_variable(&self, name: &str, variable: &str) -> Option<String> {
        self.get(name).map(str::to_owned).or_else(|| {
            std::env::var(variable)
                .ok()
                .filter(|value| !value.is_empty())
        })
    }

    fn check(&self) -> Result<()> {
        for (name, value) in &self.0 {
            if KNOWN.contains(&name.as_str()) {
                continue;
            }
            if name == "service" {
                return Err(service());
            }
            let hint = match nearest(name, KNOWN.iter().copied()).or_else(|| another_drivers(name))
            {
                Some(near) => format!("did you mean {near}? "),
                None => String::new(),
            };
            let _ = value;
            return Err(Error::usage(
                format!(
                    "the database address has a parameter {name:?} that Tollgate does not know"
                ),
                format!("{hint}the parameters are {}", KNOWN.join(", ")),
            ));
        }
        Ok(())
    }
}

/// What other drivers call a parameter.
fn another_drivers(name: &str) -> Option<&'static str> {
    match name.to_ascii_lowercase().as_str() {
        "currentschema" | "default_schema" => Some("schema"),
        "ssl" | "usessl" => Some("sslmode"),
        "connecttimeout" | "logintimeout" | "timeout" => Some("connect_timeout"),
        "applicationname" => Some("application_name"),
        "targetservertype" => Some("target_session_attrs"),
        _ => None,
    }
}

fn service() -> Error {
    Error::usage(
        "connection services (PGSERVICE, service=) are not read",
        "write the address itself: postgres://user@host:5432/database",
    )
}

/// A PostgreSQL database: the servers that may answer for it, and how a session there is set.
#[derive(Clone)]
pub(crate) struct Address {
    /// One for each host, in the order in which they are tried.
    pub hosts: Vec<Host>,
    /// Which of them will do.
    pub target: Target,
    /// The schemas that the address names.
    pub search_path: Option<String>,
    /// How long one host may take, where the address says so.
    pub connect_timeout: Option<Duration>,
    /// The address without its password.
    pub display: String,
}

/// One server that may answer.
#[derive(Clone)]
pub(crate) struct Host {
    /// What the driver is told.
    pub options: PgConnectOptions,
    /// Where that is, for messages.
    pub place: String,
}

/// Whether a text is libpq's other form, `host=… dbname=…`.
pub(crate) fn is_conninfo(text: &str) -> bool {
    !text.contains("://") && conninfo::looks_like(text)
}

impl Address {
    /// Reads an address of either form.
    ///
    /// # Errors
    /// [`Error::Usage`]. The message never repeats a password.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let parameters = if is_conninfo(text) {
            conninfo::parse(text)?
        } else {
            uri::parse(text)?
        };
        parameters.check()?;
        refuse_environment()?;
        Self::of(&parameters)
    }

    /// Where a pool of sea-orm's connects to.
    pub(crate) fn of_pool(options: &PgConnectOptions) -> Self {
        let place = format!("{}:{}", options.get_host(), options.get_port());
        let database = options
            .get_database()
            .unwrap_or_else(|| options.get_username());
        Self {
            display: format!("postgres://{}@{place}/{database}", options.get_username()),
            hosts: vec![Host {
                options: options
                    .clone()
                    .application_name(&crate::process::application_name())
                    .extra_float_digits(None)
                    .statement_cache_capacity(0),
                place,
            }],
            target: Target::Any,
            search_path: None,
            connect_timeout: None,
        }
    }

    fn of(parameters: &Parameters) -> Result<Self> {
        let hosts: Vec<String> = parameters
            .get("hostaddr")
            .or_else(|| parameters.get("host"))
            .map(str::to_owned)
            .or_else(|| {
                // One host is what the driver reads by itself, with its own default.
                std::env::var("PGHOST")
                    .ok()
                    .filter(|hosts| hosts.contains(','))
            })
            .map(|hosts| hosts.split(',').map(str::to_owned).collect())
            .unwrap_or_default();
        let ports: Vec<u16> = match parameters.get("port") {
            None => Vec::new(),
            Some(ports) => ports
                .split(',')
                .map(|port| match port {
                    "" => Ok(5432),
                    port => port.parse().ok().filter(|port| *port > 0).ok_or_else(|| {
                        Error::usage(
                            format!("the port {port:?} is no number from 1 to 65535"),
                            "write it as in postgres://user@host:5432/database",
                        )
                    }),
                })
                .collect::<Result<_>>()?,
        };
        if ports.len() > 1 && ports.len() != hosts.len() {
            return Err(Error::usage(
                format!(
                    "the address has {} ports for {} hosts",
                    ports.len(),
                    hosts.len()
                ),
                "give one port for all, or one for each",
            ));
        }
        let target = match parameters.or_variable("target_session_attrs", "PGTARGETSESSIONATTRS") {
            None => Target::Any,
            Some(word) => word.parse()?,
        };
        let connect_timeout = match parameters.or_variable("connect_timeout", "PGCONNECT_TIMEOUT") {
            None => None,
            Some(text) => {
                let seconds: i64 = text.trim().parse().map_err(|_| {
                    Error::usage(
                        format!("connect_timeout={text} is no number of seconds"),
                        "write it as connect_timeout=10",
                    )
                })?;
                // As in libpq: none where it is not positive, and no less than two seconds.
                u64::try_from(seconds)
                    .ok()
                    .filter(|seconds| *seconds > 0)
                    .map(|seconds| Duration::from_secs(seconds.max(2)))
            }
        };
        let base = base(parameters)?;
        let count = hosts.len().max(1);
        let built = (0..count)
            .map(|position| {
                let host = hosts.get(position).map(String::as_str);
                let port = ports.get(position).or_else(|| ports.first()).copied();
                one(parameters, base.clone(), host, port)
            })
            .collect::<Result<Vec<Host>>>()?;
        Ok(Self {
            display: display(parameters, &hosts, &ports),
            hosts: built,
            target,
            search_path: search_path(parameters)?,
            connect_timeout,
        })
    }
}

/// What the driver would send at startup, where a pooler refuses it.
fn refuse_environment() -> Result<()> {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    if set("PGSERVICE") {
        return Err(service());
    }
    if set("PGOPTIONS") {
        return Err(Error::usage(
            "PGOPTIONS is set, and a pooler refuses what it sends when a session starts",
            "unset it; ?search_path=NAME in the address chooses the schema",
        ));
    }
    Ok(())
}

/// What is the same for every host.
fn base(parameters: &Parameters) -> Result<PgConnectOptions> {
    let own = crate::process::application_name();
    let name = match parameters.or_variable("application_name", "PGAPPNAME") {
        None => own,
        Some(name) => format!("{own} {name}"),
    };
    let mut options = PgConnectOptions::new_without_pgpass()
        .application_name(&name)
        // A pooler refuses it at startup; each transaction sets it.
        .extra_float_digits(None)
        .statement_cache_capacity(0);
    if let Some(user) = parameters.get("user") {
        options = options.username(user);
    }
    if let Some(database) = parameters.get("dbname") {
        options = options.database(database);
    }
    tls::apply(parameters, options)
}

fn one(
    parameters: &Parameters,
    mut options: PgConnectOptions,
    host: Option<&str>,
    port: Option<u16>,
) -> Result<Host> {
    if let Some(port) = port {
        options = options.port(port);
    }
    match host {
        None | Some("") => {}
        Some(folder) if folder.starts_with('/') => options = options.socket(folder),
        Some(name) if name.starts_with('@') => {
            return Err(Error::usage(
                "a socket in the abstract name space is not supported",
                "name its folder, or a host",
            ));
        }
        Some(name) => options = options.host(name),
    }
    let shown = host
        .filter(|host| !host.is_empty())
        .map_or_else(|| options.get_host().to_owned(), str::to_owned);
    let port = options.get_port();
    let database = options.get_database().map(str::to_owned);
    options = match parameters.get("password") {
        Some(password) => options.password(password),
        None if std::env::var_os("PGPASSWORD").is_some() => options,
        None => {
            let found = passfile::password(
                parameters.get("passfile"),
                &shown,
                port,
                options.get_username(),
                database.as_deref(),
            );
            match found {
                Some(password) => options.password(&password),
                None => options,
            }
        }
    };
    Ok(Host {
        options,
        place: format!("{shown}:{port}"),
    })
}

/// The schemas that are named, in whichever way.
fn search_path(parameters: &Parameters) -> Result<Option<String>> {
    let named = [
        parameters.get("search_path").map(str::to_owned),
        parameters.get("schema").map(quoted),
        parameters
            .get("options")
            .map(of_options)
            .transpose()?
            .flatten(),
    ];
    let mut named = named.into_iter().flatten();
    let first = named.next();
    if let (Some(one), Some(other)) = (&first, named.next())
        && *one != other
    {
        return Err(Error::usage(
            "the address names its schema in two ways",
            "give one of search_path and schema",
        ));
    }
    Ok(first)
}

/// One schema's name, whatever is in it.
fn quoted(schema: &str) -> String {
    tollgate_migration::Dialect::Postgres.quote(schema)
}

/// The search path in `options=-c search_path=…`; anything else there is refused.
fn of_options(options: &str) -> Result<Option<String>> {
    let mut path = None;
    let mut words = options.split_whitespace();
    while let Some(word) = words.next() {
        let setting = match word {
            "-c" => words.next().unwrap_or_default(),
            word => word
                .strip_prefix("-c")
                .or_else(|| word.strip_prefix("--"))
                .unwrap_or_default(),
        };
        match setting.split_once('=') {
            Some(("search_path", value)) => path = Some(value.to_owned()),
            _ => {
                return Err(Error::usage(
                    format!("options={word} in the address is not supported"),
                    "of options only -c search_path=NAME is; a pooler refuses the rest",
                ));
            }
        }
    }
    Ok(path)
}

/// The address as it is shown: user, hosts, database.
fn display(parameters: &Parameters, hosts: &[String], ports: &[u16]) -> String {
    let places: Vec<String> = hosts
        .iter()
        .enumerate()
        .map(|(position, host)| {
            let host = if host.contains(':') {
                format!("[{host}]")
            } else {
                host.clone()
            };
            match ports.get(position).or_else(|| ports.first()) {
                Some(port) => format!("{host}:{port}"),
                None => host,
            }
        })
        .collect();
    let user = parameters
        .get("user")
        .map(|user| format!("{user}@"))
        .unwrap_or_default();
    let database = parameters
        .get("dbname")
        .map(|database| format!("/{database}"))
        .unwrap_or_default();
    format!("postgres://{user}{}{database}", places.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> String {
        match Address::parse(text) {
            Ok(_) => panic!("{text} is read"),
            Err(error) => format!("{error}; {}", error.hint()),
        }
    }

    #[test]
    fn several_hosts_brackets_and_sockets_are_read() {
        let address = Address::parse(
            "postgres://me:se%2Fcret@[::1]:6000,b.example,c:7000/db?target_session_attrs=primary",
        )
        .unwrap();
        let places: Vec<&str> = address
            .hosts
            .iter()
            .map(|host| host.place.as_str())
            .collect();
        assert_eq!(places, ["::1:6000", "b.example:5432", "c:7000"]);
        assert_eq!(address.target, Target::Primary);
        assert_eq!(
            address.display,
            "postgres://me@[::1]:6000,b.example:5432,c:7000/db"
        );
        let socket = Address::parse("postgres:///db?host=/run/pg&port=6432").unwrap();
        assert_eq!(
            socket.hosts[0]
                .options
                .get_socket()
                .map(|path| path.display().to_string()),
            Some("/run/pg".to_owned())
        );
        assert_eq!(socket.hosts[0].place, "/run/pg:6432");
    }

    #[test]
    fn schemas_are_named_in_three_ways_and_one_at_a_time() {
        let path = |text: &str| Address::parse(text).unwrap().search_path;
        assert_eq!(path("postgres://h/d"), None);
        assert_eq!(
            path("postgres://h/d?search_path=a,public"),
            Some("a,public".to_owned())
        );
        assert_eq!(
            path("postgres://h/d?schema=My%20own"),
            Some("\"My own\"".to_owned())
        );
        assert_eq!(
            path("postgres://h/d?options=-c%20search_path%3Da"),
            Some("a".to_owned())
        );
        assert!(message("postgres://h/d?schema=a&search_path=b").contains("two ways"));
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        assert!(message("postgres://h/d?currentSchema=a").contains("\"currentSchema\""));
        assert!(message("postgres://h/d?serch_path=a").contains("did you mean search_path?"));
        assert!(message("postgres://h/d?options=-c%20geqo%3Doff").contains("only -c search_path"));
        assert!(message("service=gateway dbname=d").contains("PGSERVICE"));
        assert!(message("postgres://h:0/d").contains("65535"));
        assert!(message("postgres://a,b:1,c:2/d?port=1,2").contains("ports"));
    }

    #[test]
    fn no_message_repeats_a_password() {
        for text in [
            "postgres://u:hunter2@h/d?x=1",
            "postgres://u:hunter2#x@h/d",
            "postgres://u:hun/ter2@h/d",
            "postgres://u:hunter2@h:port/d",
            "host=h password=hunter2 colour=red",
            "host=h password='hunter2",
        ] {
            assert!(!message(text).contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn the_other_form_is_read_too() {
        let address =
            Address::parse(r"host=h1,h2 port = 5433 user=me dbname='it\'s' connect_timeout=1")
                .unwrap();
        assert_eq!(address.hosts.len(), 2);
        assert_eq!(address.hosts[1].place, "h2:5433");
        assert_eq!(address.hosts[0].options.get_database(), Some("it's"));
        assert_eq!(address.connect_timeout, Some(Duration::from_secs(2)));
    }
}
