//! What a resolution found: the model config that was meant, its provider, and their keys.

use sea_orm::{DbErr, QueryResult};

use tollgate_migration::providers::policy::FLAGS;

use super::{KeyMaterial, Target};

/// One row of the answer.
pub(super) struct Found {
    pub(super) config: Option<String>,
    pub(super) config_enabled: bool,
    pub(super) config_deleted: bool,
    pub(super) linked: bool,
    pub(super) family: Option<String>,
    /// A chat provider of the family has not been copied yet.
    pub(super) waits: bool,
    pub(super) provider: Option<Provider>,
}

pub(super) struct Provider {
    pub(super) id: String,
    pub(super) kind: String,
    pub(super) base_url: String,
    pub(super) enabled: bool,
    pub(super) deleted: bool,
    pub(super) central: Option<(String, KeyMaterial)>,
    pub(super) users: Option<(String, KeyMaterial)>,
    /// What the chat provider that it is the copy of allows, while that is there.
    pub(super) policy: Option<Policy>,
    /// Its settings hold keys.
    pub(super) settled: bool,
}

/// The legacy flags of a chat provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    pub(super) central: bool,
    pub(super) users: bool,
    pub(super) fallback: bool,
}

impl Found {
    /// All that an answer could come from.
    fn says(&self) -> impl PartialEq + '_ {
        let provider = self.provider.as_ref().map(|provider| {
            let texts = [&provider.id, &provider.kind, &provider.base_url];
            let keys = [&provider.central, &provider.users].map(|key| {
                key.as_ref()
                    .map(|(id, key)| (id, key.expose(), key.encrypted_with()))
            });
            (texts, provider.enabled, provider.deleted, keys)
        });
        (
            (&self.config, self.config_enabled, self.config_deleted),
            (self.linked, &self.family),
            provider,
        )
    }

    pub(super) fn read(row: &QueryResult) -> std::result::Result<Self, DbErr> {
        let flag = |name: &str| Ok::<_, DbErr>(row.try_get::<i32>("", name)? == 1);
        let key = |id: &str, key: &str, lock: &str| {
            let id: Option<String> = row.try_get("", id)?;
            let key: Option<String> = row.try_get("", key)?;
            let lock: Option<String> = row.try_get("", lock)?;
            Ok::<_, DbErr>(id.zip(key.and_then(|key| KeyMaterial::new(&key, lock))))
        };
        let id: Option<String> = row.try_get("", "provider")?;
        let provider = match id {
            None => None,
            Some(id) => Some(Provider {
                id,
                kind: row.try_get("", "type")?,
                base_url: row.try_get("", "base_url")?,
                enabled: flag("enabled")?,
                deleted: flag("deleted")?,
                central: key("key_id", "key", "key_lock")?,
                users: key("user_key_id", "user_key", "user_key_lock")?,
                policy: policy(row)?,
                settled: flag("settled")?,
            }),
        };
        Ok(Self {
            config: row.try_get("", "config")?,
            config_enabled: flag("config_enabled")?,
            config_deleted: flag("config_deleted")?,
            linked: flag("linked")?,
            family: row.try_get("", "family")?,
            waits: flag("waits")?,
            provider,
        })
    }
}

fn policy(row: &QueryResult) -> std::result::Result<Option<Policy>, DbErr> {
    let [central, users, fallback] = FLAGS.map(|name| row.try_get::<Option<i32>>("", name));
    Ok(match (central?, users?, fallback?) {
        (Some(central), Some(users), Some(fallback)) => Some(Policy {
            central: central == 1,
            users: users == 1,
            fallback: fallback == 1,
        }),
        _ => None,
    })
}

/// The rows that are meant. SQLite tells spellings of one UUID apart, and the one that was asked for counts; a table that lost its
/// key may hold a row twice, which is one where nothing tells the two apart.
pub(super) fn told_apart(mut found: Vec<Found>, target: &Target) -> Vec<Found> {
    if let Target::ModelConfig(id) = target
        && found.iter().any(|row| row.config.as_ref() == Some(id))
    {
        found.retain(|row| row.config.as_ref() == Some(id));
    }
    let mut apart: Vec<Found> = Vec::new();
    for row in found {
        if !apart.iter().any(|known| known.says() == row.says()) {
            apart.push(row);
        }
    }
    apart
}
