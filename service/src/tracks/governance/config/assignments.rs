//! Which of a provider's keys a provider config may use: `key_ids`, by the key's id or, where no key has that id, by its name
//! (`docs/upstream/bifrost.md` §5). A list that is present is complete.

use sea_orm::{ConnectionTrait, DbErr};

use super::entry::Kind;
use super::entry_writer::list_key;
use super::fields::{number, resource};
use super::staging::{ENTRIES, Staging};
use crate::tracks::governance::virtual_key::{JOIN, JOIN_COLUMN};

/// The gateway's keys for providers.
const KEYS: &str = "config_keys";
/// The other column of [`JOIN`].
const KEY_COLUMN: &str = "table_key_id";

/// What identifies a key of a provider config's list.
pub(super) fn assignment_key(config: &str, word: &str) -> String {
    format!("{word} of {config}")
}

/// No key has that name as its id: an id goes before a name.
fn is_free(name: &str) -> String {
    format!("NOT EXISTS (SELECT 1 FROM {KEYS} o WHERE o.key_id = {name})")
}

impl<C: ConnectionTrait> Staging<'_, C> {
    /// Whether this database can say which key a config may use.
    fn assigns(&self) -> bool {
        let has = |table: &str, columns: &[&str]| {
            columns
                .iter()
                .all(|column| self.catalog.has_column(table, column))
        };
        has(JOIN, &[JOIN_COLUMN, KEY_COLUMN]) && has(KEYS, &["id", "key_id", "name", "provider"])
    }

    /// The lists of the file that are new or have changed, as `l`, with their provider configs as `p`.
    fn changed_lists(&self) -> String {
        let key = self
            .dialect()
            .text(&list_key(Kind::KeyId, Kind::ProviderConfig, ""));
        format!(
            "{ENTRIES} p JOIN {ENTRIES} l ON l.kind = 'list' AND l.key = {key} || p.key \
             AND (l.unchanged = 0 OR p.row_id IS NULL OR l.meant {} p.row_id)",
            // What it said of another row, or of one that is gone, was never done to this one.
            self.dialect().is_distinct_from()
        )
    }

    /// What the file assigns, as `x`, with the key that each word means as `k`.
    fn assigned(&self) -> String {
        // A key of another provider opens nothing.
        let keys = format!(
            "(SELECT c.id AS id, c.key_id AS word, c.provider AS provider FROM {KEYS} c \
             UNION SELECT c.id, c.name, c.provider FROM {KEYS} c WHERE {})",
            is_free("c.name")
        );
        format!(
            "{} JOIN {ENTRIES} x ON x.kind = 'key_id' AND x.parent = p.key JOIN {keys} k ON k.word = x.id \
             AND COALESCE(k.provider, '') IN ('', p.provider)",
            self.changed_lists()
        )
    }

    /// What is assigned to the row of a config that is there.
    fn is_assigned(row: &str) -> String {
        format!(
            "EXISTS (SELECT 1 FROM {JOIN} j WHERE j.{JOIN_COLUMN} = {row} AND j.{KEY_COLUMN} = k.id)"
        )
    }

    /// The assignments of changed lists, `j`, that their list lacks.
    fn unlisted(&self) -> String {
        format!(
            "SELECT 1 FROM {} WHERE p.kind = 'provider_config' AND p.row_id = CAST(j.{JOIN_COLUMN} AS text) \
             AND NOT EXISTS (SELECT 1 FROM {KEYS} c CROSS JOIN {ENTRIES} x WHERE c.id = j.{KEY_COLUMN} AND x.kind = 'key_id' \
             AND x.key IN (c.key_id || ' of ' || p.key, CASE WHEN {} \
             THEN c.name || ' of ' || p.key END))",
            self.changed_lists(),
            is_free("c.name")
        )
    }

    /// Words that are no key of the config's provider, each with its place.
    pub(super) fn unknown_keys(&self) -> String {
        let among = if self.assigns() {
            format!(
                "NOT EXISTS (SELECT 1 FROM {KEYS} k WHERE (k.key_id = x.id \
                 OR k.name = x.id AND {}) \
                 AND COALESCE(k.provider, '') IN ('', p.provider))",
                is_free("k.name")
            )
        } else {
            "1 = 1".to_owned()
        };
        format!(
            "SELECT p.at AS at, 'key_ids' AS field, '\"' || x.id || '\" is neither the id nor the name of a key of ' || p.provider || \
             ' in the database' AS message FROM {} JOIN {ENTRIES} x ON x.kind = 'key_id' AND x.parent = p.key \
             WHERE p.kind = 'provider_config' AND p.gone = 0 AND {among}",
            self.changed_lists()
        )
    }

    /// What will be assigned and taken away, as the summary counts it.
    pub(super) fn reassigned(&self) -> Vec<String> {
        if !self.assigns() {
            return Vec::new();
        }
        vec![
            format!(
                "SELECT 'assignment', 'insert', '', 0 FROM (SELECT DISTINCT p.key, k.id FROM {} \
                 WHERE p.kind = 'provider_config' AND p.gone = 0 AND NOT {}) made",
                self.assigned(),
                Self::is_assigned(&number("p.row_id"))
            ),
            format!(
                "SELECT 'assignment', 'delete', '', 0 FROM {JOIN} j WHERE EXISTS ({})",
                self.unlisted()
            ),
        ]
    }

    /// Carries it out; new configs have their numbers by now.
    pub(super) async fn assign(&self) -> Result<(), DbErr> {
        if !self.assigns() {
            return Ok(());
        }
        self.run(&format!(
            "DELETE FROM {JOIN} AS j WHERE EXISTS ({})",
            self.unlisted()
        ))
        .await?;
        let row = "CAST(COALESCE(p.row_id, a.row_id) AS bigint)";
        self.run(&format!(
            "INSERT INTO {JOIN} ({JOIN_COLUMN}, {KEY_COLUMN}) SELECT DISTINCT {row}, k.id FROM {} LEFT JOIN {} a \
             ON a.action = 'insert' AND a.entry = p.key WHERE p.kind = 'provider_config' AND p.gone = 0 \
             AND COALESCE(p.row_id, a.row_id) IS NOT NULL AND NOT {}",
            self.assigned(),
            resource(Kind::ProviderConfig).actions(),
            Self::is_assigned(row)
        ))
        .await
        .map(|_| ())
    }
}
