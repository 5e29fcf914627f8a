//! Which key answers for a model and a user (`docs/upstream/coder.md` §A4, after the cutover).
//!
//! One function, [`Resolver::resolve`], for every path: a chat names a model config, a title the default one, a subagent a
//! provider's type. Whoever asks gets one key, or the reason why there is none. What is disabled or deleted never
//! resolves, whatever the path.

mod fallback;
mod found;
mod material;
pub(crate) mod unusable;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::LazyLock;

use sea_orm::{ConnectionTrait, DbErr, Statement, Value};
use serde::Serialize;
use tollgate_migration::Dialect;
use tollgate_migration::providers::{
    CHAT_PROVIDERS, MODEL_CONFIGS, PROVIDER_KEYS, PROVIDERS, USER_KEYS, USERS, by_time,
    policy::FLAGS, text,
};
use uuid::Uuid;

pub use fallback::Fallback;
pub use material::KeyMaterial;
pub use unusable::Unusable;

use crate::database::{Access, columns_of};
use crate::error::{Error, Result};
use crate::runner::Session;
use found::{Found, Policy, Provider, told_apart};

/// The one type that may do without a key: the credentials are those of the machine.
const AMBIENT_TYPE: &str = "bedrock";

/// What is to be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The model config of that id: a chat.
    ModelConfig(String),
    /// The default model config: a title.
    DefaultModelConfig,
    /// The provider of that id.
    Provider(String),
    /// The one enabled provider of that type: a subagent.
    Type(String),
}

/// A question.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// What is to be reached.
    pub target: Target,
    /// On whose behalf, where it is somebody's.
    pub user: Option<&'a str>,
    /// Whether the deployment lets users bring keys of their own.
    pub byok: bool,
    /// The deployment's own keys, where they may stand in.
    pub fallback: Option<&'a Fallback>,
}

/// Where a key is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The user's own.
    User,
    /// The provider's oldest central key.
    Provider,
    /// The deployment's environment.
    Fallback,
    /// None: the machine's own credentials.
    Ambient,
}

/// The answer. Neither its `Debug` nor its JSON holds the key or the address, which may hold credentials of its own.
#[derive(Serialize)]
#[non_exhaustive]
pub struct Resolved {
    /// Where the key is from.
    pub source: Source,
    /// The key's row, where it has one.
    pub key_id: Option<String>,
    /// The provider.
    pub provider_id: String,
    /// The provider's type.
    pub provider_type: String,
    /// The model config, where one was named.
    pub model_config_id: Option<String>,
    /// Where the provider is reached; may be empty, and may hold credentials.
    #[serde(skip)]
    pub base_url: String,
    /// The key; `None` where the source is [`Source::Ambient`], or where the provider's settings hold it.
    #[serde(skip)]
    pub key: Option<KeyMaterial>,
}

impl fmt::Debug for Resolved {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Resolved")
            .field("source", &self.source)
            .field("key_id", &self.key_id)
            .field("provider_id", &self.provider_id)
            .field("provider_type", &self.provider_type)
            .field("model_config_id", &self.model_config_id)
            .finish_non_exhaustive()
    }
}

/// Resolves on a connection whose schema it has looked at once.
#[derive(Clone, Debug)]
pub struct Resolver {
    dialect: Dialect,
    has_family: bool,
    has_deleted_users: bool,
    /// The database takes texts of every script.
    unicode: bool,
    /// The legacy tables are there: between the copy and contract, or before the copy.
    has_legacy: bool,
    /// Their policy flags are there, which a gateway that still serves them heeds.
    has_policy: bool,
    /// Providers have settings of their own.
    has_settings: bool,
}

impl Resolver {
    /// Looks at the schema.
    ///
    /// # Errors
    /// [`Error::NotFound`] where the tables of AI providers are not there.
    pub async fn load<C: ConnectionTrait>(connection: &C, dialect: Dialect) -> Result<Self> {
        let columns = columns_of(
            connection,
            dialect,
            &[
                MODEL_CONFIGS,
                PROVIDERS,
                PROVIDER_KEYS,
                USER_KEYS,
                USERS,
                CHAT_PROVIDERS,
            ],
        )
        .await
        .map_err(Error::database("read the tables of AI providers"))?;
        let has =
            |table: &str, column: &str| columns.contains(&(table.to_owned(), column.to_owned()));
        for (table, column) in [
            (PROVIDERS, "id"),
            (PROVIDER_KEYS, "provider_id"),
            (USER_KEYS, "ai_provider_id"),
            (MODEL_CONFIGS, "ai_provider_id"),
        ] {
            if !has(table, column) {
                return Err(Error::MissingSchema {
                    what: format!(
                        "{table}.{column} here; `tollgate migrate up --track providers` makes it"
                    ),
                });
            }
        }
        let unicode = match dialect {
            Dialect::Sqlite => true,
            Dialect::Postgres => connection
                .query_one_raw(Statement::from_string(
                    dialect.backend(),
                    "SELECT pg_catalog.current_setting('server_encoding') = 'UTF8' AS unicode",
                ))
                .await
                .and_then(|row| row.map_or(Ok(false), |row| row.try_get("", "unicode")))
                .map_err(db_context())?,
        };
        Ok(Self {
            dialect,
            // A later version of the server drops it.
            has_family: has(MODEL_CONFIGS, "provider"),
            has_deleted_users: has(USERS, "deleted"),
            unicode,
            has_legacy: has(CHAT_PROVIDERS, "id") && has(CHAT_PROVIDERS, "provider"),
            has_policy: FLAGS.iter().all(|flag| has(CHAT_PROVIDERS, flag)),
            has_settings: has(PROVIDERS, "settings") && has(PROVIDERS, "settings_key_id"),
        })
    }

    /// The key for a request: one statement, and a second one for a model config without a provider.
    ///
    /// # Errors
    /// [`Error::Unusable`] with the reason why there is none; [`Error::Usage`] for a text that is no id;
    /// what the database says.
    pub async fn resolve<C: ConnectionTrait>(
        &self,
        connection: &C,
        request: &Request<'_>,
    ) -> Result<Resolved> {
        let mut found = self.find(connection, request, &request.target).await?;
        if let [only] = &found[..]
            && let (Some(config), Some(family)) = (&only.config, &only.family)
            && !only.linked
        {
            let by_type = Target::Type(family.clone());
            let (config, enabled, deleted) =
                (config.clone(), only.config_enabled, only.config_deleted);
            found = self.find(connection, request, &by_type).await?;
            for row in &mut found {
                row.config = Some(config.clone());
                (row.config_enabled, row.config_deleted) = (enabled, deleted);
            }
        }
        Ok(decide(request, found)?)
    }

    async fn find<C: ConnectionTrait>(
        &self,
        connection: &C,
        request: &Request<'_>,
        target: &Target,
    ) -> Result<Vec<Found>> {
        let (sql, values) = self.question(request, target)?;
        connection
            .query_all_raw(Statement::from_sql_and_values(
                self.dialect.backend(),
                sql,
                values,
            ))
            .await
            .map_err(db_context())?
            .iter()
            .map(Found::read)
            .collect::<std::result::Result<Vec<_>, DbErr>>()
            .map(|found| told_apart(found, target))
            .map_err(db_context())
    }

    /// What is asked for: one row with its provider's id or family.
    fn asked(&self, target: &Target, values: &mut Vec<Value>) -> Result<String> {
        let dialect = self.dialect;
        let family = if self.has_family {
            "lower(trim(c.provider))"
        } else {
            "CAST(NULL AS text)"
        };
        let config = |condition: &str| {
            format!(
                "SELECT {} AS config, {} AS enabled, {} AS deleted, c.ai_provider_id AS linked, {family} AS family \
                 FROM {MODEL_CONFIGS} c WHERE {condition}",
                text(dialect, "c.id"),
                flag(&dialect.is_true("c.enabled")),
                flag(&dialect.is_true("c.deleted")),
            )
        };
        let no_id = match dialect {
            Dialect::Postgres => "CAST(NULL AS uuid)",
            Dialect::Sqlite => "NULL",
        };
        let direct = |linked: &str, family: &str| {
            format!(
                "SELECT CAST(NULL AS text) AS config, 1 AS enabled, 0 AS deleted, {linked} AS linked, {family} AS family"
            )
        };
        Ok(match target {
            Target::ModelConfig(id) => {
                let ids = ids(dialect, id, "model config", values)?;
                config(&format!("c.id IN {ids}"))
            }
            Target::DefaultModelConfig => config(&format!(
                "{} AND NOT ({})",
                dialect.is_true("c.is_default"),
                dialect.is_true("c.deleted")
            )),
            Target::Provider(id) => {
                let ids = ids(dialect, id, "provider", values)?;
                let order = match dialect {
                    Dialect::Postgres => "",
                    Dialect::Sqlite => "ORDER BY p.id = ?1 DESC",
                };
                direct(
                    &format!(
                        "(SELECT p.id FROM {PROVIDERS} p WHERE p.id IN {ids} {order} LIMIT 1)"
                    ),
                    "CAST(NULL AS text)",
                )
            }
            Target::Type(family) => {
                values.push(family.trim().to_lowercase().into());
                direct(no_id, &format!("CAST({} AS text)", dialect.parameter(1)))
            }
        })
    }

    /// The user's own key: its columns, and the join that finds it. Where nobody's is asked for there is nothing to join: SQLite
    /// would read every user's to find none.
    fn users_key(
        &self,
        request: &Request<'_>,
        values: &mut Vec<Value>,
    ) -> Result<(String, String)> {
        let dialect = self.dialect;
        let user = match request.user {
            None => None,
            Some(user) if request.byok => Some(ids(dialect, user, "user", values)?),
            Some(user) => {
                ids(dialect, user, "user", &mut Vec::new())?;
                None
            }
        };
        Ok(match user {
            None => (
                "CAST(NULL AS text) AS user_key_id, CAST(NULL AS text) AS user_key, CAST(NULL AS text) AS user_key_lock"
                    .to_owned(),
                String::new(),
            ),
            Some(user) => {
                let present = if self.has_deleted_users {
                    // Whoever is gone opens nothing, whatever was left behind.
                    format!(
                        "AND NOT EXISTS (SELECT 1 FROM {USERS} gone WHERE gone.id = o.user_id AND {})",
                        dialect.is_true("gone.deleted")
                    )
                } else {
                    String::new()
                };
                // A database that lost its UNIQUE may hold several; the newest is the one that was stored last.
                (
                    format!(
                        "{} AS user_key_id, u.api_key AS user_key, u.api_key_key_id AS user_key_lock",
                        text(dialect, "u.id")
                    ),
                    format!(
                        " LEFT JOIN {USER_KEYS} u ON u.id = (SELECT o.id FROM {USER_KEYS} o WHERE o.ai_provider_id = n.id \
                         AND o.user_id IN {user} AND o.id IS NOT NULL AND {} {present} ORDER BY {}, o.id LIMIT 1)",
                        is_not_blank(dialect, self.unicode, "o.api_key"),
                        by_time(dialect, "o.updated_at", "DESC")
                    ),
                )
            }
        })
    }

    /// The legacy policy flags that still count, and the join that finds them.
    fn policy(&self) -> (String, String) {
        let dialect = self.dialect;
        let counts = self.has_legacy && self.has_policy;
        let flags: Vec<String> = FLAGS
            .iter()
            .map(|name| {
                if counts {
                    format!(
                        "CASE WHEN l.id IS NULL THEN NULL WHEN {} THEN 1 ELSE 0 END AS {name}",
                        dialect.is_true(&format!("l.{name}"))
                    )
                } else {
                    format!("CAST(NULL AS integer) AS {name}")
                }
            })
            .collect();
        let legacy = if counts {
            format!(" LEFT JOIN {CHAT_PROVIDERS} l ON l.id = n.id")
        } else {
            String::new()
        };
        (flags.join(", "), legacy)
    }

    /// The statement: a row for each provider that is meant, one with an empty provider where none is.
    fn question(&self, request: &Request<'_>, target: &Target) -> Result<(String, Vec<Value>)> {
        let dialect = self.dialect;
        let mut values: Vec<Value> = Vec::new();
        let asked = self.asked(target, &mut values)?;
        let (user_columns, user_key) = self.users_key(request, &mut values)?;
        let kind = text(dialect, "n.type");
        let meant = match target {
            Target::Type(_) => format!(
                "{kind} = a.family AND {} AND NOT ({})",
                dialect.is_true("n.enabled"),
                dialect.is_true("n.deleted")
            ),
            _ => "n.id = a.linked".to_owned(),
        };
        // A provider that waits for its copy is not the one that happens to be of its family.
        let waits = if self.has_legacy {
            flag(&format!(
                "EXISTS (SELECT 1 FROM {CHAT_PROVIDERS} p WHERE p.provider = a.family AND NOT EXISTS \
                 (SELECT 1 FROM {PROVIDERS} q WHERE q.id = p.id))"
            ))
        } else {
            "0".to_owned()
        };
        let (policy, legacy) = self.policy();
        // Encrypted settings say nothing of themselves but that they are there.
        let settled = if self.has_settings {
            flag(
                "n.settings LIKE '%access_key%' OR COALESCE(n.settings, '') <> '' AND n.settings_key_id IS NOT NULL",
            )
        } else {
            "0".to_owned()
        };
        let sql = format!(
            "WITH asked AS ({asked}) SELECT a.config, a.enabled AS config_enabled, a.deleted AS config_deleted, \
             CASE WHEN a.linked IS NULL THEN 0 ELSE 1 END AS linked, a.family, {id} AS provider, {kind} AS type, \
             n.base_url, {enabled} AS enabled, {deleted} AS deleted, {key_id} AS key_id, k.api_key AS key, \
             k.api_key_key_id AS key_lock, {user_columns}, {waits} AS waits, {settled} AS settled, {policy} \
             FROM asked a LEFT JOIN {PROVIDERS} n ON {meant} \
             LEFT JOIN {PROVIDER_KEYS} k ON k.id = (SELECT o.id FROM {PROVIDER_KEYS} o WHERE o.provider_id = n.id \
             AND o.id IS NOT NULL AND {not_blank} ORDER BY {oldest}, o.id LIMIT 1){user_key}{legacy} ORDER BY 6",
            id = text(dialect, "n.id"),
            enabled = flag(&dialect.is_true("n.enabled")),
            deleted = flag(&dialect.is_true("n.deleted")),
            key_id = text(dialect, "k.id"),
            not_blank = is_not_blank(dialect, self.unicode, "o.api_key"),
            oldest = by_time(dialect, "o.created_at", "ASC"),
        );
        Ok((sql, values))
    }
}

/// A condition as a number.
fn flag(condition: &str) -> String {
    format!("CASE WHEN {condition} THEN 1 ELSE 0 END")
}

/// A list of parameters that hold an id. PostgreSQL's ids are UUIDs, and asking it for another text would be an error of its
/// own; on SQLite an id is whatever text the row has, a UUID in the case that it was written in or in lower case.
fn ids(dialect: Dialect, given: &str, whose: &str, values: &mut Vec<Value>) -> Result<String> {
    let parsed = Uuid::parse_str(given);
    let refuse = |why: &str| {
        Err(Error::usage(
            format!("{given:?} is no {whose} id{why}"),
            "ids are UUIDs, such as 00000000-0000-4000-8000-000000000000",
        ))
    };
    if given.trim().is_empty() {
        return refuse(": it is empty");
    }
    if given.trim() != given {
        return refuse(": there is white space around it");
    }
    match (dialect, parsed) {
        (Dialect::Postgres, Err(_)) => refuse(""),
        (Dialect::Postgres, Ok(id)) => {
            values.push(id.to_string().into());
            Ok(format!(
                "(CAST({} AS uuid))",
                dialect.parameter(values.len())
            ))
        }
        (Dialect::Sqlite, parsed) => {
            let lower = parsed.ok().map(|id| id.to_string());
            let spellings =
                std::iter::once(given.to_owned()).chain(lower.filter(|lower| lower != given));
            let places: Vec<String> = spellings
                .map(|spelling| {
                    values.push(spelling.into());
                    dialect.parameter(values.len())
                })
                .collect();
            Ok(format!("({})", places.join(", ")))
        }
    }
}

fn db_context() -> impl FnOnce(DbErr) -> Error {
    Error::database("resolve a provider key")
}

/// Every character that is white space.
static BLANK: LazyLock<String> = LazyLock::new(|| {
    ('\u{1}'..='\u{3000}')
        .filter(|character| character.is_whitespace())
        .collect()
});

/// Those that every encoding of a database has.
static ASCII_BLANK: LazyLock<String> =
    LazyLock::new(|| BLANK.chars().filter(char::is_ascii).collect());

/// The text holds something besides white space, which is what counts as no key: what [`char::is_whitespace`] says, so that
/// no key that is chosen here turns out to be none in [`KeyMaterial::new`].
///
/// A PostgreSQL database in another encoding than UTF-8 cannot be asked for all of it; such a key is none there either, and none
/// that is younger stands in for it.
fn is_not_blank(dialect: Dialect, unicode: bool, column: &str) -> String {
    let blank: &str = if unicode { &BLANK } else { &ASCII_BLANK };
    let trim = match dialect {
        Dialect::Postgres => "btrim",
        Dialect::Sqlite => "trim",
    };
    format!("{trim}({column}, '{blank}') <> ''")
}

/// The order of §A4: the model config, its provider, the user's key, the oldest central key, the deployment's, none.
fn decide(request: &Request<'_>, found: Vec<Found>) -> std::result::Result<Resolved, Unusable> {
    let several = found.len() > 1;
    let several_configs = found.iter().any(|row| row.config != found[0].config);
    let ids: Vec<String> = found
        .iter()
        .filter_map(|row| Some(row.provider.as_ref()?.id.clone()))
        .collect();
    if several_configs {
        return Err(Unusable::SeveralDefaultModelConfigs);
    }
    let Some(row) = found.into_iter().next() else {
        return Err(match &request.target {
            Target::ModelConfig(id) => Unusable::NoModelConfig { id: id.clone() },
            _ => Unusable::NoDefaultModelConfig,
        });
    };
    if let Some(id) = &row.config {
        let id = id.clone();
        if row.config_deleted {
            return Err(Unusable::ModelConfigDeleted { id });
        }
        if !row.config_enabled {
            return Err(Unusable::ModelConfigDisabled { id });
        }
    }
    let family = row.family.unwrap_or_default();
    if row.waits && !row.linked {
        return Err(Unusable::NotCopied {
            provider_type: family,
        });
    }
    if several {
        let apart: BTreeSet<&String> = ids.iter().collect();
        return Err(if apart.len() < ids.len() {
            Unusable::SeveralRows {
                id: row.config.or(ids.into_iter().next()).unwrap_or_default(),
            }
        } else {
            Unusable::Ambiguous {
                provider_type: family,
                ids,
            }
        });
    }
    let Some(provider) = row.provider else {
        return Err(match (&request.target, row.linked) {
            (Target::Provider(id), _) => Unusable::NoProvider { id: id.clone() },
            (_, true) => Unusable::ProviderGone {
                model_config: row.config.unwrap_or_default(),
            },
            (_, false) => Unusable::NoProviderOfType {
                provider_type: family,
            },
        });
    };
    if provider.deleted {
        return Err(Unusable::ProviderDeleted { id: provider.id });
    }
    if !provider.enabled {
        return Err(Unusable::ProviderDisabled { id: provider.id });
    }
    choose(request, row.config, provider)
}

/// Which key it is, of a provider that is the one.
fn choose(
    request: &Request<'_>,
    model_config_id: Option<String>,
    provider: Provider,
) -> std::result::Result<Resolved, Unusable> {
    let fallback = request
        .fallback
        .and_then(|fallback| fallback.key(&provider.kind));
    // Without legacy flags (behind contract) users' keys go by the deployment, and a central key always steps in.
    let policy = provider.policy.unwrap_or(Policy {
        central: true,
        users: true,
        fallback: true,
    });
    let steps_in = policy.central && (!policy.users || policy.fallback);
    let (source, key_id, key) = if let Some((id, key)) = provider.users.filter(|_| policy.users) {
        (Source::User, Some(id), Some(key))
    } else if let Some((id, key)) = provider.central.filter(|_| steps_in) {
        (Source::Provider, Some(id), Some(key))
    } else if let Some(key) = fallback.filter(|_| steps_in) {
        (Source::Fallback, None, Some(key.clone()))
    } else if provider.kind == AMBIENT_TYPE && provider.settled && steps_in {
        // The provider's own settings hold the keys.
        (Source::Provider, None, None)
    } else if provider.kind == AMBIENT_TYPE && steps_in {
        (Source::Ambient, None, None)
    } else if provider.policy.is_some_and(|policy| policy.users) {
        return Err(Unusable::UserKeyRequired { id: provider.id });
    } else if provider.policy.is_some() {
        return Err(Unusable::MissingKey { id: provider.id });
    } else if request.byok && request.user.is_some() {
        return Err(Unusable::UserKeyRequired { id: provider.id });
    } else {
        return Err(Unusable::MissingKey { id: provider.id });
    };
    Ok(Resolved {
        source,
        key_id,
        provider_id: provider.id,
        provider_type: provider.kind,
        model_config_id,
        base_url: provider.base_url,
        key,
    })
}

/// The same on a session's database.
///
/// # Errors
/// Those of [`Resolver`], and what connecting says.
pub async fn resolve_in(session: &Session, request: &Request<'_>) -> Result<Resolved> {
    // A wrong call is said before anything is connected to.
    let dialect = session.dialect();
    if let Target::ModelConfig(id) = &request.target {
        ids(dialect, id, "model config", &mut Vec::new())?;
    }
    if let Target::Provider(id) = &request.target {
        ids(dialect, id, "provider", &mut Vec::new())?;
    }
    if let Some(user) = request.user {
        ids(dialect, user, "user", &mut Vec::new())?;
    }
    let connection = session.connect_at_once(Access::Read).await?;
    Resolver::load(&connection, session.dialect())
        .await?
        .resolve(&connection, request)
        .await
}
