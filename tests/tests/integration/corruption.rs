//! Single corruptions, planted one at a time after a migration: each is found and named. Harmless changes are not.

use rstest::rstest;
use serde_json::Value;
use tollgate_migration::Track;
use tollgate_tests::fixture::populated;
use tollgate_tests::{Backend, Template, TestDatabase, Tollgate};

use crate::tollgate;

/// What is done to the database, and what must be said of it.
struct Corruption {
    what: &'static str,
    sqlite: String,
    postgres: String,
    code: &'static str,
    table: &'static str,
    column: Option<&'static str>,
    id: &'static str,
}

const BUDGETS: &str = "governance_budgets";
const KEYS: &str = "governance_virtual_keys";
const CONFIGS: &str = "governance_virtual_key_provider_configs";
const JOIN: &str = "governance_virtual_key_provider_config_keys";
/// The copy of b-alice that vk-carol gets: UUID version 5 of (budget, kind, owner) in Tollgate's name space.
const COPY: &str = "{copy}";

/// The same statement on both backends.
fn rows(
    what: &'static str,
    sql: &str,
    code: &'static str,
    table: &'static str,
    column: &'static str,
    id: &'static str,
) -> Corruption {
    Corruption {
        what,
        sqlite: sql.to_owned(),
        postgres: sql.to_owned(),
        code,
        table,
        column: Some(column).filter(|column| !column.is_empty()),
        id,
    }
}

/// A change of the schema, said in each dialect.
fn schema(
    what: &'static str,
    sqlite: &str,
    postgres: &str,
    code: &'static str,
    table: &'static str,
    column: &'static str,
    id: &'static str,
) -> Corruption {
    Corruption {
        sqlite: sqlite.to_owned(),
        postgres: postgres.to_owned(),
        ..rows(what, "", code, table, column, id)
    }
}

/// SQLite: the stored text of a table, edited as a hand would.
fn edited(table: &str, from: &str, to: &str) -> String {
    format!(
        "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql, '{}', '{}') WHERE name = '{table}'; \
         PRAGMA writable_schema = RESET",
        from.replace('\'', "''"),
        to.replace('\'', "''")
    )
}

#[rustfmt::skip]
fn corruptions() -> Vec<Corruption> {
    let mut all = vec![
        // Owners.
        rows("an owner is swapped", "UPDATE governance_budgets SET virtual_key_id = 'vk-bob' WHERE id = 'b-alice'", "V105", BUDGETS, "virtual_key_id", "b-alice"),
        rows("two owners are exchanged", "UPDATE governance_budgets SET virtual_key_id = CASE id WHEN 'b-alice' THEN 'vk-bob' ELSE 'vk-alice' END WHERE id IN ('b-alice', 'b-bob')", "V105", BUDGETS, "virtual_key_id", "b-bob"),
        rows("an owner is lost", "UPDATE governance_budgets SET virtual_key_id = NULL WHERE id = 'b-dave'", "V105", BUDGETS, "virtual_key_id", "b-dave"),
        rows("a key's budget becomes a config's", "UPDATE governance_budgets SET virtual_key_id = NULL, provider_config_id = 1 WHERE id = 'b-dave'", "V106", BUDGETS, "provider_config_id", "b-dave"),
        rows("nobody's budget gets an owner", "UPDATE governance_budgets SET virtual_key_id = 'vk-dave' WHERE id = 'b-nobody'", "V106", BUDGETS, "virtual_key_id", "b-nobody"),
        rows("a team's budget gets an owner", "UPDATE governance_budgets SET virtual_key_id = 'vk-dave' WHERE id = 'b-team'", "V106", BUDGETS, "virtual_key_id", "b-team"),
        rows("a config's budget goes to another config", "UPDATE governance_budgets SET provider_config_id = 4 WHERE id = 'b-dave-openai'", "V105", BUDGETS, "provider_config_id", "b-dave-openai"),
        schema("two owners",
            "PRAGMA ignore_check_constraints = ON; UPDATE governance_budgets SET provider_config_id = 1 WHERE id = 'b-alice'",
            "ALTER TABLE governance_budgets DROP CONSTRAINT chk_governance_budgets_one_owner; UPDATE governance_budgets SET provider_config_id = 1 WHERE id = 'b-alice'",
            "V005", BUDGETS, "provider_config_id", "b-alice"),
        // Amounts.
        rows("usage is off in the last digit", "UPDATE governance_budgets SET current_usage = 12.345679 WHERE id = 'b-alice'", "V104", BUDGETS, "current_usage", "b-alice"),
        schema("usage is off by as little as the backend can hold",
            "UPDATE governance_budgets SET current_usage = 249.99000000000004 WHERE id = 'b-bob'",
            "UPDATE governance_budgets SET current_usage = 249.99000000000000000000001 WHERE id = 'b-bob'",
            "V104", BUDGETS, "current_usage", "b-bob"),
        rows("usage is wiped", "UPDATE governance_budgets SET current_usage = 0 WHERE id = 'b-customer'", "V104", BUDGETS, "current_usage", "b-customer"),
        rows("usage is lost", "UPDATE governance_budgets SET current_usage = NULL WHERE id = 'b-dave-bedrock'", "V104", BUDGETS, "current_usage", "b-dave-bedrock"),
        rows("a limit is 100.51", "UPDATE governance_budgets SET max_limit = 100.51 WHERE id = 'b-alice'", "V104", BUDGETS, "max_limit", "b-alice"),
        rows("two limits are exchanged", "UPDATE governance_budgets SET max_limit = CASE id WHEN 'b-team' THEN 900 ELSE 500 END WHERE id IN ('b-team', 'b-customer')", "V104", BUDGETS, "max_limit", "b-team"),
        rows("a rate limit counts one more", "UPDATE governance_rate_limits SET token_current_usage = 11 WHERE id = 'rl-1'", "V104", "governance_rate_limits", "token_current_usage", "rl-1"),
        // Windows.
        rows("a window is moved by a second", "UPDATE governance_budgets SET last_reset = '2026-03-23 00:00:01+00:00' WHERE id = 'b-carol-openai'", "V104", BUDGETS, "last_reset", "b-carol-openai"),
        schema("a window is moved by as little as the backend can hold",
            "UPDATE governance_budgets SET last_reset = '2026-03-01 00:00:00.000000001+00:00' WHERE id = 'b-bob'",
            "UPDATE governance_budgets SET last_reset = '2026-03-01 00:00:00.000001+00:00' WHERE id = 'b-bob'",
            "V104", BUDGETS, "last_reset", "b-bob"),
        rows("a window is moved to another zone", "UPDATE governance_budgets SET last_reset = '2026-03-01 00:00:00+01:00' WHERE id = 'b-bob'", "V104", BUDGETS, "last_reset", "b-bob"),
        rows("a window is lost", "UPDATE governance_budgets SET last_reset = NULL WHERE id = 'b-team'", "V104", BUDGETS, "last_reset", "b-team"),
        rows("a window appears", "UPDATE governance_budgets SET last_reset = '2026-03-29 00:00:00+00:00' WHERE id = 'b-dave-bedrock'", "V104", BUDGETS, "last_reset", "b-dave-bedrock"),
        rows("24h becomes 1d", "UPDATE governance_budgets SET reset_duration = '1d' WHERE id = 'b-dave-openai'", "V104", BUDGETS, "reset_duration", "b-dave-openai"),
        rows("a budget was changed at another time", "UPDATE governance_budgets SET updated_at = '2026-03-29 10:11:13+00:00' WHERE id = 'b-team'", "V104", BUDGETS, "updated_at", "b-team"),
        // Flags.
        rows("a calendar flag is cleared", "UPDATE governance_virtual_keys SET calendar_aligned = false WHERE id = 'vk-bob'", "V105", KEYS, "calendar_aligned", "vk-bob"),
        rows("a promoted flag is cleared", "UPDATE governance_virtual_keys SET calendar_aligned = NULL WHERE id = 'vk-carol'", "V105", KEYS, "calendar_aligned", "vk-carol"),
        rows("a calendar flag is set", "UPDATE governance_virtual_keys SET calendar_aligned = true WHERE id = 'vk-alice'", "V106", KEYS, "calendar_aligned", "vk-alice"),
        rows("a key is switched on", "UPDATE governance_virtual_keys SET is_active = true WHERE id = 'vk-carol'", "V104", KEYS, "is_active", "vk-carol"),
        rows("a switch is lost", "UPDATE governance_virtual_keys SET is_active = NULL WHERE id = 'vk-dave'", "V104", KEYS, "is_active", "vk-dave"),
        rows("all keys of a provider are allowed", "UPDATE governance_virtual_key_provider_configs SET allow_all_keys = true WHERE id = 2", "V104", CONFIGS, "allow_all_keys", "2"),
        // Values.
        rows("a secret is changed", "UPDATE governance_virtual_keys SET value = 'sk-bf-mallory' WHERE id = 'vk-alice'", "V104", KEYS, "value", "vk-alice"),
        rows("a provider's secret is changed", "UPDATE config_keys SET value = 'env.OTHER_KEY' WHERE id = 1", "V104", "config_keys", "value", "1"),
        rows("a hash is changed", "UPDATE governance_virtual_keys SET value_hash = 'vh-mallory' WHERE id = 'vk-alice'", "V104", KEYS, "value_hash", "vk-alice"),
        rows("a name is changed", "UPDATE governance_virtual_keys SET name = 'Robert' WHERE id = 'vk-bob'", "V104", KEYS, "name", "vk-bob"),
        rows("NULL becomes an empty text", "UPDATE governance_virtual_keys SET description = '' WHERE id = 'vk-bob'", "V104", KEYS, "description", "vk-bob"),
        rows("a key leaves its team", "UPDATE governance_virtual_keys SET team_id = NULL WHERE id = 'vk-alice'", "V104", KEYS, "team_id", "vk-alice"),
        rows("a key loses its rate limit", "UPDATE governance_virtual_keys SET rate_limit_id = NULL WHERE id = 'vk-alice'", "V104", KEYS, "rate_limit_id", "vk-alice"),
        rows("a config's hash is changed", "UPDATE governance_virtual_keys SET config_hash = NULL WHERE id = 'vk-carol'", "V104", KEYS, "config_hash", "vk-carol"),
        rows("a weight is changed", "UPDATE governance_virtual_key_provider_configs SET weight = 0.70000001 WHERE id = 3", "V104", CONFIGS, "weight", "3"),
        rows("a model is allowed", "UPDATE governance_virtual_key_provider_configs SET allowed_models = '[\"*\"]' WHERE id = 2", "V104", CONFIGS, "allowed_models", "2"),
        rows("a config goes to another key", "UPDATE governance_virtual_key_provider_configs SET virtual_key_id = 'vk-bob' WHERE id = 1", "V104", CONFIGS, "virtual_key_id", "1"),
        rows("a team gets another budget", "UPDATE governance_teams SET budget_id = 'b-customer' WHERE id = 't-1'", "V104", "governance_teams", "budget_id", "t-1"),
        rows("a customer is renamed", "UPDATE governance_customers SET name = 'customer one' WHERE id = 'c-1'", "V104", "governance_customers", "name", "c-1"),
        rows("a provider loses its budget", "UPDATE config_providers SET budget_id = NULL WHERE id = 1", "V104", "config_providers", "budget_id", "1"),
        // Rows.
        rows("a row is missing", "DELETE FROM governance_budgets WHERE id = 'b-nobody'", "V102", BUDGETS, "", "b-nobody"),
        rows("a join row is missing", "DELETE FROM governance_virtual_key_provider_config_keys WHERE table_virtual_key_provider_config_id = 3", "V102", JOIN, "", "3,1"),
        rows("a key is missing", "DELETE FROM governance_virtual_keys WHERE id = 'vk-bob'", "V102", KEYS, "", "vk-bob"),
        rows("a row is too many", "INSERT INTO governance_budgets (id, max_limit, reset_duration, current_usage, created_at, updated_at) VALUES ('b-new', 1, '1d', 0, '2026-03-29 10:11:12+00:00', '2026-03-29 10:11:12+00:00')", "V103", BUDGETS, "", "b-new"),
        rows("a join row is too many", "INSERT INTO governance_virtual_key_provider_config_keys VALUES (1, 2)", "V103", JOIN, "", "1,2"),
        rows("a join row has no parent", "INSERT INTO governance_virtual_key_provider_config_keys VALUES (99, 1)", "V004", JOIN, "table_virtual_key_provider_config_id", "99,1"),
        rows("a budget has an owner that is not there", "UPDATE governance_budgets SET virtual_key_id = 'vk-nobody' WHERE id = 'b-alice'", "V004", BUDGETS, "virtual_key_id", "b-alice"),
        rows("a copy has other usage", "UPDATE governance_budgets SET current_usage = 12.345677 WHERE id = '{copy}'", "V107", BUDGETS, "current_usage", COPY),
        rows("a copy has another limit", "UPDATE governance_budgets SET max_limit = 100 WHERE id = '{copy}'", "V107", BUDGETS, "max_limit", COPY),
        rows("a copy is missing", "DELETE FROM governance_budgets WHERE id = '{copy}'", "V102", BUDGETS, "", COPY),
        rows("a copy changes hands", "UPDATE governance_budgets SET virtual_key_id = 'vk-bob' WHERE id = '{copy}'", "V105", BUDGETS, "virtual_key_id", "b-alice"),
        // The schema.
        // Credentials.
        rows("a token is another", "UPDATE oauth_user_tokens SET access_token = 'at-other' WHERE id = 'tok-alice'", "V104", "oauth_user_tokens", "access_token", "tok-alice"),
        rows("an orphan is active", "UPDATE oauth_user_tokens SET status = 'active' WHERE id = 'tok-dave'", "V104", "oauth_user_tokens", "status", "tok-dave"),
        rows("a token is another key's", "UPDATE oauth_user_tokens SET virtual_key_id = 'vk-carol' WHERE id = 'tok-alice'", "V104", "oauth_user_tokens", "virtual_key_id", "tok-alice"),
        rows("a header has another value", "UPDATE mcp_per_user_header_credentials SET headers_json = '{\"x-api-key\":\"alice''s key\",\"tenant\":\"A\"}' WHERE id = 'hdr-alice'", "V104", "mcp_per_user_header_credentials", "headers_json", "hdr-alice"),
        rows("of equal headers the first won", "UPDATE mcp_per_user_header_credentials SET headers_json = '{\"tenant\":\"old\",\"x-api-key\":\"k\"}' WHERE id = 'hdr-bob'", "V104", "mcp_per_user_header_credentials", "headers_json", "hdr-bob"),
        rows("ciphertext was folded", "UPDATE mcp_per_user_header_credentials SET headers_json = 'AES:{\"x-api-key\"}' WHERE id = 'hdr-user'", "V104", "mcp_per_user_header_credentials", "headers_json", "hdr-user"),
        rows("a grant is missing", "DELETE FROM governance_virtual_key_mcp_configs WHERE id = 2", "V102", "governance_virtual_key_mcp_configs", "", "2"),
        rows("a grant without its client", "UPDATE governance_virtual_key_mcp_configs SET mcp_client_id = 99 WHERE id = 2", "V004", "governance_virtual_key_mcp_configs", "mcp_client_id", "2"),
        rows("a client is open to all", "UPDATE config_mcp_clients SET allow_on_all_virtual_keys = true WHERE client_id = 'mcp-mail'", "V104", "config_mcp_clients", "allow_on_all_virtual_keys", "3"),
        rows("a flow is missing", "DELETE FROM oauth_user_sessions WHERE id = 'flow-bob'", "V102", "oauth_user_sessions", "", "flow-bob"),
        rows("a binding may be there twice", "DROP INDEX idx_oauth_user_tokens_vk_mcp", "V001", "oauth_user_tokens", "", "oauth_user_tokens index idx_oauth_user_tokens_vk_mcp"),
        rows("an index is dropped", "DROP INDEX idx_governance_budgets_virtual_key_id", "V001", BUDGETS, "", "governance_budgets index idx_governance_budgets_virtual_key_id"),
        rows("an old index is dropped", "DROP INDEX idx_governance_budgets_last_reset", "V001", BUDGETS, "", "governance_budgets index idx_governance_budgets_last_reset"),
        rows("a unique index is no longer", "DROP INDEX idx_virtual_key_name; CREATE INDEX idx_virtual_key_name ON governance_virtual_keys (name)", "V001", KEYS, "", "governance_virtual_keys index idx_virtual_key_name"),
        schema("a foreign key is missing",
            &edited(BUDGETS, "CONSTRAINT `fk_governance_virtual_keys_budgets` FOREIGN KEY (`virtual_key_id`) REFERENCES `governance_virtual_keys`(`id`) ON DELETE CASCADE,", ""),
            "ALTER TABLE governance_budgets DROP CONSTRAINT fk_governance_virtual_keys_budgets",
            "V001", BUDGETS, "", "governance_budgets foreign key fk_governance_virtual_keys_budgets"),
        schema("a foreign key has another action",
            &edited(BUDGETS, "REFERENCES `governance_virtual_keys`(`id`) ON DELETE CASCADE", "REFERENCES `governance_virtual_keys`(`id`) ON DELETE SET NULL"),
            "ALTER TABLE governance_budgets DROP CONSTRAINT fk_governance_virtual_keys_budgets; ALTER TABLE governance_budgets ADD CONSTRAINT fk_governance_virtual_keys_budgets FOREIGN KEY (virtual_key_id) REFERENCES governance_virtual_keys (id)",
            "V001", BUDGETS, "", "governance_budgets foreign key fk_governance_virtual_keys_budgets"),
        schema("a check is missing",
            &edited(BUDGETS, "CHECK (virtual_key_id IS NULL OR provider_config_id IS NULL)", "CHECK (1 = 1)"),
            "ALTER TABLE governance_budgets DROP CONSTRAINT chk_governance_budgets_one_owner",
            "V001", BUDGETS, "", "governance_budgets check chk_governance_budgets_one_owner"),
        rows("a legacy column is left", "ALTER TABLE governance_virtual_keys ADD COLUMN budget_id varchar(255)", "V007", KEYS, "budget_id", "budget_id"),
        rows("a config's legacy column is left", "ALTER TABLE governance_virtual_key_provider_configs ADD COLUMN budget_id varchar(255)", "V007", CONFIGS, "budget_id", "budget_id"),
        rows("a legacy flag is left", "ALTER TABLE governance_budgets ADD COLUMN calendar_aligned boolean DEFAULT false", "V007", BUDGETS, "calendar_aligned", "calendar_aligned"),
        schema("a column has another type",
            &edited(BUDGETS, "`reset_duration` varchar(50)", "`reset_duration` text"),
            "ALTER TABLE governance_budgets ALTER COLUMN reset_duration TYPE text",
            "V001", BUDGETS, "reset_duration", "governance_budgets column reset_duration"),
        schema("a column may be empty",
            &edited(BUDGETS, "`reset_duration` varchar(50) NOT NULL", "`reset_duration` varchar(50)"),
            "ALTER TABLE governance_budgets ALTER COLUMN reset_duration DROP NOT NULL",
            "V001", BUDGETS, "reset_duration", "governance_budgets column reset_duration"),
        rows("a column is gone", "ALTER TABLE governance_budgets DROP COLUMN config_hash", "V001", BUDGETS, "config_hash", "governance_budgets column config_hash"),
        rows("a table is gone", "DROP TABLE governance_virtual_key_provider_config_keys", "V001", JOIN, "", "governance_virtual_key_provider_config_keys table"),
        rows("what only this database has is gone", "DROP INDEX of_our_own", "V101", KEYS, "", "governance_virtual_keys index of_our_own"),
    ];
    let only_postgres = |what, sql: &str, code, table, column, id| Corruption { sqlite: String::new(), ..rows(what, sql, code, table, column, id) };
    all.extend([
        only_postgres("an index is INVALID", "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'idx_governance_budgets_virtual_key_id'::regclass", "V002", BUDGETS, "virtual_key_id", "idx_governance_budgets_virtual_key_id"),
        only_postgres("a foreign key is NOT VALID", "ALTER TABLE governance_budgets DROP CONSTRAINT fk_governance_virtual_keys_budgets; ALTER TABLE governance_budgets ADD CONSTRAINT fk_governance_virtual_keys_budgets FOREIGN KEY (virtual_key_id) REFERENCES governance_virtual_keys (id) ON DELETE CASCADE NOT VALID", "V003", BUDGETS, "virtual_key_id", "fk_governance_virtual_keys_budgets"),
        only_postgres("a check is NOT VALID", "ALTER TABLE governance_budgets DROP CONSTRAINT chk_governance_budgets_one_owner; ALTER TABLE governance_budgets ADD CONSTRAINT chk_governance_budgets_one_owner CHECK (virtual_key_id IS NULL OR provider_config_id IS NULL) NOT VALID", "V003", BUDGETS, "", "chk_governance_budgets_one_owner"),
        only_postgres("a default is gone", "ALTER TABLE governance_virtual_keys ALTER COLUMN is_active DROP DEFAULT", "V001", KEYS, "is_active", "governance_virtual_keys column is_active"),
    ]);
    all
}

/// A database with a shared budget, snapshot, migrated; the copy's id.
async fn migrated(backend: Backend) -> (Template, tempfile::TempDir, String) {
    let database = populated(backend, Track::GOVERNANCE).await;
    database
        .execute(
            "UPDATE governance_virtual_keys SET budget_id = 'b-alice' WHERE id = 'vk-carol'; \
             CREATE INDEX of_our_own ON governance_virtual_keys (description)",
        )
        .await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("before.json").display().to_string();
    let tollgate = tollgate().on(&database.url);
    tollgate.succeed(&["snapshot", "-o", &file]);
    tollgate.succeed(&["migrate", "up", "--adopt", "--shared-budgets", "clone"]);
    let copy = database
        .one("SELECT id FROM governance_budgets WHERE virtual_key_id = 'vk-carol'")
        .await;
    (database.freeze().await, folder, copy)
}

/// Foreign keys stand aside, as they do for who corrupts a database.
async fn plant(database: &TestDatabase, sql: &str) {
    let aside = match database.backend {
        Backend::Sqlite => "PRAGMA foreign_keys = OFF",
        Backend::Postgres => "SET session_replication_role = replica",
    };
    database.execute(&format!("{aside}; {sql}")).await;
}

fn verify(database: &TestDatabase, folder: &tempfile::TempDir) -> (i32, Value) {
    let file = folder.path().join("before.json").display().to_string();
    let tollgate: Tollgate = tollgate().on(&database.url);
    tollgate.json(&["verify", "--snapshot", &file])
}

fn blocking(json: &Value) -> Vec<&Value> {
    json["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|finding| finding["severity"] == "blocking")
        .collect()
}

#[rstest]
#[tokio::test]
async fn every_single_corruption_is_found_and_named(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let (template, folder, copy) = migrated(backend).await;
    let mut planted = 0;
    let mut missed = Vec::new();
    for (place, corruption) in corruptions().into_iter().enumerate() {
        if !crate::is_tried(backend, place) {
            continue;
        }
        let sql = match backend {
            Backend::Sqlite => &corruption.sqlite,
            Backend::Postgres => &corruption.postgres,
        };
        if sql.is_empty() {
            continue;
        }
        let database = template.copy().await;
        plant(&database, &sql.replace(COPY, &copy)).await;
        planted += 1;
        let (code, json) = verify(&database, &folder);
        let id = corruption.id.replace(COPY, &copy);
        let named = blocking(&json).iter().any(|finding| {
            finding["code"] == corruption.code
                && finding["table"] == corruption.table
                && finding["column"].as_str() == corruption.column
                && finding["sample_ids"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .any(|sample| *sample == id)
        });
        if code != 4 || !named {
            missed.push(format!(
                "{}: exit {code}, wanted {} {} {:?} {id}\n  said {:#}",
                corruption.what,
                corruption.code,
                corruption.table,
                corruption.column,
                json["findings"]
            ));
        }
        let said = json.to_string();
        assert!(!said.contains("sk-bf-"), "a secret: {said}");
    }
    crate::say(&format!(
        "{backend:?}: {} of {planted} corruptions found",
        planted - missed.len()
    ));
    let all = if crate::is_tried(backend, 1) { 60 } else { 30 };
    assert!(planted >= all, "{planted}");
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

#[rstest]
#[tokio::test]
async fn harmless_changes_raise_nothing(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let (template, folder, _) = migrated(backend).await;
    let both = [
        "UPDATE governance_budgets SET id = id, max_limit = max_limit",
        "DELETE FROM governance_virtual_key_provider_config_keys; \
         INSERT INTO governance_virtual_key_provider_config_keys VALUES (4, 2), (3, 1), (2, 1), (1, 1)",
        "UPDATE governance_budgets SET max_limit = 100.50, current_usage = 12.3456780 WHERE id = 'b-alice'",
        "UPDATE governance_budgets SET max_limit = 250.00 WHERE id = 'b-bob'",
        "UPDATE governance_budgets SET last_reset = '2026-03-29T12:11:12.123456789+02:00' WHERE id = 'b-alice'",
        "UPDATE governance_budgets SET last_reset = '2026-03-01' WHERE id = 'b-team'",
        "UPDATE mcp_per_user_header_credentials SET headers_json = '{\"X-API-Key\":\"Alice''s Key\",\"tenant\":\"A\"}' WHERE id = 'hdr-alice'",
        "ANALYZE",
        "VACUUM",
        "CREATE TABLE somebody_elses (id integer PRIMARY KEY, budget_id text); INSERT INTO somebody_elses VALUES (1, 'b-alice')",
        "CREATE TABLE logs (id text, value text); INSERT INTO logs VALUES ('vk-alice', 'sk-bf-alice'); CREATE INDEX logs_id ON logs (id)",
    ];
    let own: &[&str] = match backend {
        Backend::Sqlite => &[
            "REINDEX governance_budgets",
            "UPDATE governance_budgets SET last_reset = '2026-03-01T00:00:00Z' WHERE id = 'b-bob'",
            "UPDATE governance_budgets SET last_reset = '2026-03-01 00:00:00 +0000 UTC' WHERE id = 'b-bob'",
            "UPDATE governance_budgets SET max_limit = '250.0' WHERE id = 'b-bob'",
            "UPDATE governance_virtual_keys SET is_active = 1.0 WHERE id = 'vk-alice'",
        ],
        Backend::Postgres => &[
            "VACUUM FULL governance_budgets",
            "REINDEX TABLE governance_budgets",
            "CLUSTER governance_budgets USING governance_budgets_pkey",
            "UPDATE governance_budgets SET max_limit = 250.000000000000000000000",
            "ALTER TABLE governance_budgets SET (fillfactor = 70)",
            "CREATE SCHEMA other; CREATE TABLE other.governance_budgets (id text)",
            "COMMENT ON TABLE governance_budgets IS 'limits'",
        ],
    };
    let mut alarms = Vec::new();
    for sql in both.iter().chain(own) {
        // One of them is a change, unless only the rows that have that limit are written.
        let sql = match *sql {
            "UPDATE governance_budgets SET max_limit = 250.000000000000000000000" => {
                "UPDATE governance_budgets SET max_limit = 250.000000000000000000000 WHERE id = 'b-bob'"
            }
            sql => sql,
        };
        let database = template.copy().await;
        database.execute(sql).await;
        let (code, json) = verify(&database, &folder);
        if code != 0 || !blocking(&json).is_empty() {
            alarms.push(format!("{sql}: exit {code} {:#}", json["findings"]));
        }
    }
    crate::say(&format!(
        "{backend:?}: {} false alarms of {} harmless changes",
        alarms.len(),
        both.len() + own.len()
    ));
    assert!(alarms.is_empty(), "{}", alarms.join("\n"));
}

#[rstest]
#[tokio::test]
async fn corruptions_of_billing_are_found_and_named(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = populated(backend, Track::BILLING).await;
    let first = tollgate().on(&database.url);
    first.succeed(&["migrate", "up", "--adopt"]);
    let workspace = "11111111-1111-4111-8111-111111111111".to_owned();
    let secret = "aaaaaaaa-0000-4000-8000-000000000001".to_owned();
    database
        .execute(&format!(
            "UPDATE workspaces SET llm_billing_mode = 'byok' WHERE id = '{workspace}'"
        ))
        .await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("before.json").display().to_string();
    first.succeed(&["snapshot", "-o", &file]);
    let garbled = match backend {
        Backend::Sqlite => format!(
            "PRAGMA ignore_check_constraints = ON; UPDATE workspaces SET llm_billing_mode = 'byokk' WHERE id = '{workspace}'"
        ),
        Backend::Postgres => format!(
            "ALTER TABLE workspaces DROP CONSTRAINT workspaces_llm_billing_mode_check; \
             UPDATE workspaces SET llm_billing_mode = 'byokk' WHERE id = '{workspace}'"
        ),
    };
    let template = database.freeze().await;
    for (sql, code, table, column, id) in [
        (
            garbled,
            "V008",
            "workspaces",
            Some("llm_billing_mode"),
            &workspace,
        ),
        (
            format!("UPDATE workspaces SET llm_billing_mode = 'disabled' WHERE id = '{workspace}'"),
            "V104",
            "workspaces",
            Some("llm_billing_mode"),
            &workspace,
        ),
        (
            format!("UPDATE workspaces SET llm_billing_mode = NULL WHERE id = '{workspace}'"),
            "V104",
            "workspaces",
            Some("llm_billing_mode"),
            &workspace,
        ),
        (
            format!("UPDATE workspace_secrets SET encrypted_value = 'x' WHERE id = '{secret}'"),
            "V104",
            "workspace_secrets",
            Some("encrypted_value"),
            &secret,
        ),
        (
            format!("DELETE FROM workspace_secrets WHERE id = '{secret}'"),
            "V102",
            "workspace_secrets",
            None,
            &secret,
        ),
    ] {
        let database = template.copy().await;
        plant(&database, &sql).await;
        let (exit, json) = verify(&database, &folder);
        assert_eq!(exit, 4, "{sql}: {json:#}");
        assert!(
            blocking(&json).iter().any(|finding| finding["code"] == code
                && finding["table"] == table
                && finding["column"].as_str() == column
                && finding["sample_ids"][0] == **id),
            "{sql}: {json:#}"
        );
    }
}
