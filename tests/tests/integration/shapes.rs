//! Whatever a gateway's database has been through, it is recognised or refused with the difference.

use rstest::rstest;
use tollgate_tests::fixture::{Calendar, Shape, SilentKeys, legacy, own, with_credentials};
use tollgate_tests::{Backend, TestDatabase};

use crate::tollgate;

/// What upstream's add_multi_budget_tables does, in its own words: the columns and indexes, the backfill, the flag of
/// virtual keys' own budgets only.
const UPSTREAM: [&str; 9] = [
    "ALTER TABLE governance_virtual_keys ADD COLUMN calendar_aligned {bool} DEFAULT false",
    "ALTER TABLE governance_budgets ADD COLUMN virtual_key_id varchar(255)",
    "ALTER TABLE governance_budgets ADD COLUMN provider_config_id {int}",
    "CREATE INDEX idx_governance_budgets_virtual_key_id ON governance_budgets(virtual_key_id)",
    "CREATE INDEX idx_governance_budgets_provider_config_id ON governance_budgets(provider_config_id)",
    "UPDATE governance_budgets SET virtual_key_id = (SELECT id FROM governance_virtual_keys v WHERE v.budget_id = governance_budgets.id) WHERE virtual_key_id IS NULL AND id IN (SELECT budget_id FROM governance_virtual_keys)",
    "UPDATE governance_budgets SET provider_config_id = (SELECT id FROM governance_virtual_key_provider_configs p WHERE p.budget_id = governance_budgets.id) WHERE provider_config_id IS NULL AND id IN (SELECT budget_id FROM governance_virtual_key_provider_configs)",
    "UPDATE governance_virtual_keys SET calendar_aligned = true WHERE id IN (SELECT virtual_key_id FROM governance_budgets WHERE calendar_aligned = true)",
    "INSERT INTO migrations (id) VALUES ('add_multi_budget_tables')",
];

async fn run(database: &TestDatabase, statements: &[&str]) {
    let (flag, number) = match database.backend {
        Backend::Sqlite => ("numeric", "integer"),
        Backend::Postgres => ("boolean", "bigint"),
    };
    for sql in statements {
        database
            .execute(&sql.replace("{bool}", flag).replace("{int}", number))
            .await;
    }
}

/// A database that upstream migrated; PostgreSQL dropped the legacy columns and has the keys, SQLite kept both as they
/// were.
async fn upstream_migrated(backend: Backend) -> TestDatabase {
    let database = legacy(backend, Shape::Full, Calendar::Flag).await;
    run(&database, &UPSTREAM).await;
    if backend == Backend::Postgres {
        run(
            &database,
            &[
                "ALTER TABLE governance_budgets DROP COLUMN calendar_aligned",
                "ALTER TABLE governance_virtual_keys DROP COLUMN budget_id",
                "ALTER TABLE governance_virtual_key_provider_configs DROP COLUMN budget_id",
                "ALTER TABLE governance_budgets ADD CONSTRAINT fk_governance_virtual_keys_budgets FOREIGN KEY (virtual_key_id) REFERENCES governance_virtual_keys(id) ON DELETE CASCADE",
                "ALTER TABLE governance_budgets ADD CONSTRAINT fk_governance_virtual_key_provider_configs_budgets FOREIGN KEY (provider_config_id) REFERENCES governance_virtual_key_provider_configs(id) ON DELETE CASCADE",
            ],
        )
        .await;
    }
    database
}

/// Adopts, migrates, and expects nothing but what was tolerated.
async fn ends_at_the_golden_schema(database: &TestDatabase, shape: &str) {
    let tollgate = tollgate().on(&database.url);
    let (code, dry) = tollgate.json(&["migrate", "adopt", "--dry-run"]);
    assert_eq!(code, 0, "{dry:#}");
    assert_eq!(dry["result"]["recognised"][0]["shape"], shape);
    let rows = database.everything(|_, _| true).await;
    tollgate.succeed(&["migrate", "adopt"]);
    assert_eq!(database.everything(|_, _| true).await, rows);
    let (code, up) = tollgate.json(&["migrate", "up"]);
    assert_eq!(code, 0, "{up:#}");
    let status = tollgate.run(&["migrate", "status", "--check"]);
    assert_eq!(status.code, 0, "{status:#?}");
    let diff = tollgate.run(&["schema", "diff", "--check"]);
    assert_eq!(diff.code, 0, "{diff:#?}");
    let schema = database.schema().await;
    for line in [
        "governance_budgets foreign key Some(\"fk_governance_virtual_keys_budgets\") [\"virtual_key_id\"] -> governance_virtual_keys [\"id\"] Cascade true",
        "governance_budgets foreign key Some(\"fk_governance_virtual_key_provider_configs_budgets\") [\"provider_config_id\"] -> governance_virtual_key_provider_configs [\"id\"] Cascade true",
    ] {
        assert!(
            schema.iter().any(|found| found == line),
            "{line}\nin {schema:#?}"
        );
    }
    assert!(schema.iter().any(|line| {
        line.starts_with("governance_budgets check Some(\"chk_governance_budgets_one_owner\")")
    }));
    for table in [
        "governance_virtual_keys",
        "governance_virtual_key_provider_configs",
    ] {
        assert!(
            !database.catalog().await.has_column(table, "budget_id"),
            "{table}"
        );
    }
}

const OWNERS: &str = "SELECT id || ' ' || COALESCE(virtual_key_id, CAST(provider_config_id AS text), '-') FROM governance_budgets ORDER BY 1";

const OWNED: [&str; 10] = [
    "b-alice vk-alice",
    "b-bob vk-bob",
    "b-carol-openai 2",
    "b-customer -",
    "b-dave vk-dave",
    "b-dave-bedrock 4",
    "b-dave-openai 3",
    "b-nobody -",
    "b-provider -",
    "b-team -",
];

async fn aligned(database: &TestDatabase) -> Vec<String> {
    let flag = database.dialect().is_true("calendar_aligned");
    database
        .column(&format!(
            "SELECT id FROM governance_virtual_keys WHERE {flag} ORDER BY 1"
        ))
        .await
}

#[rstest]
#[tokio::test]
async fn both_legacy_shapes(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(Shape::Full, Shape::Required)] shape: Shape,
) {
    let database = legacy(backend, shape, Calendar::None).await;
    ends_at_the_golden_schema(
        &database,
        "legacy, without a calendar flag on budgets (v1.4.0 to v1.4.17)",
    )
    .await;
    let database = legacy(backend, shape, Calendar::Flag).await;
    ends_at_the_golden_schema(
        &database,
        "legacy, with the calendar flag on budgets (v1.4.18 to v1.5.0-prerelease1)",
    )
    .await;
}

#[tokio::test]
async fn migrated_by_upstream_on_postgres() {
    let database = upstream_migrated(Backend::Postgres).await;
    ends_at_the_golden_schema(
        &database,
        "migrated by upstream (v1.5.0-prerelease2 and later)",
    )
    .await;
    assert_eq!(database.column(OWNERS).await, OWNED);
    assert_eq!(
        aligned(&database).await,
        ["vk-bob"],
        "upstream has lost carol's, and nothing here knows of it"
    );
}

#[tokio::test]
async fn migrated_by_upstream_on_sqlite_with_what_it_left_behind() {
    let database = upstream_migrated(Backend::Sqlite).await;
    for sql in [
        // Two keys had shared b-alice; upstream took one of them and left carol without a limit. Bob's reference is
        // stale, for he has a budget. The new gateway turned bob's alignment off, and a budget lost its owner.
        "UPDATE governance_virtual_keys SET budget_id = 'b-alice' WHERE id = 'vk-carol'",
        "UPDATE governance_virtual_keys SET budget_id = 'b-dave' WHERE id = 'vk-bob'",
        "UPDATE governance_virtual_keys SET calendar_aligned = false WHERE id = 'vk-bob'",
        "UPDATE governance_budgets SET provider_config_id = NULL WHERE id = 'b-dave-openai'",
    ] {
        database.execute(sql).await;
    }
    let tollgate = tollgate().on(&database.url);
    let (code, found) = tollgate.json(&["doctor"]);
    assert_eq!(code, 4, "b-alice is still referred to twice: {found:#}");
    database
        .execute("UPDATE governance_virtual_keys SET budget_id = NULL WHERE id = 'vk-carol'")
        .await;
    let (code, found) = tollgate.json(&["doctor"]);
    assert_eq!(code, 0, "{found:#}");
    let left: Vec<&str> = found["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|finding| finding["code"] == "G008")
        .map(|finding| finding["table"].as_str().unwrap())
        .collect();
    assert_eq!(
        left,
        [
            "governance_virtual_keys",
            "governance_virtual_key_provider_configs",
            "governance_budgets"
        ]
    );
    ends_at_the_golden_schema(
        &database,
        "migrated by upstream, with columns left behind (SQLite, v1.5.0-prerelease2 and 3)",
    )
    .await;
    assert_eq!(
        database.column(OWNERS).await,
        OWNED,
        "stale references take nothing away"
    );
    assert_eq!(
        aligned(&database).await,
        ["vk-carol"],
        "bob's stale flag stays off, carol's lost one is recovered from her provider config's budget"
    );
}

#[rstest]
#[tokio::test]
async fn the_flag_that_prerelease4_added_again_is_live_and_stays(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = upstream_migrated(backend).await;
    if backend == Backend::Postgres {
        run(
            &database,
            &["ALTER TABLE governance_budgets ADD COLUMN calendar_aligned {bool} DEFAULT false"],
        )
        .await;
    }
    run(
        &database,
        &[
            "ALTER TABLE governance_rate_limits ADD COLUMN calendar_aligned {bool} DEFAULT false",
            "UPDATE governance_budgets SET calendar_aligned = (id = 'b-alice')",
            "INSERT INTO migrations (id) VALUES ('migrate_calendar_aligned')",
        ],
    )
    .await;
    ends_at_the_golden_schema(
        &database,
        match backend {
            // SQLite had kept the column all along, and budget_id with it.
            Backend::Sqlite => "migrated by upstream, with columns left behind (SQLite, v1.5.0-prerelease2 and 3)",
            Backend::Postgres => "migrated by upstream, with the calendar flag on budgets added again (v1.5.0-prerelease4 and later)",
        },
    )
    .await;
    let flag = database.dialect().is_true("calendar_aligned");
    assert_eq!(
        database
            .column(&format!("SELECT id FROM governance_budgets WHERE {flag}"))
            .await,
        ["b-alice"]
    );
    assert_eq!(
        aligned(&database).await,
        ["vk-bob"],
        "no flag is read back into virtual keys"
    );
}

#[tokio::test]
async fn budgets_owned_by_teams_are_known_and_left_alone() {
    let database = upstream_migrated(Backend::Postgres).await;
    run(
        &database,
        &[
            "ALTER TABLE governance_budgets ADD COLUMN team_id varchar(255)",
            "CREATE INDEX idx_governance_budgets_team_id ON governance_budgets(team_id)",
            "UPDATE governance_budgets SET team_id = 't-1' WHERE id = 'b-team'",
            "ALTER TABLE governance_budgets ADD CONSTRAINT fk_governance_teams_budgets FOREIGN KEY (team_id) REFERENCES governance_teams(id) ON DELETE CASCADE",
            "ALTER TABLE governance_teams DROP COLUMN budget_id",
            "ALTER TABLE governance_teams ADD COLUMN calendar_aligned {bool} DEFAULT false",
            "ALTER TABLE governance_virtual_keys ADD COLUMN created_by_user_id varchar(255)",
        ],
    )
    .await;
    ends_at_the_golden_schema(
        &database,
        "migrated by upstream, with budgets owned by teams (v1.5.x)",
    )
    .await;
    assert_eq!(
        database
            .column("SELECT id FROM governance_budgets WHERE team_id = 't-1'")
            .await,
        ["b-team"]
    );
}

#[rstest]
#[tokio::test]
async fn credential_tables_are_adopted_with_and_without_their_silent_keys(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(SilentKeys::There, SilentKeys::Absent)] keys: SilentKeys,
) {
    let database = with_credentials(backend, keys).await;
    let credentials = |schema: Vec<String>| -> Vec<String> {
        schema
            .into_iter()
            .filter(|line| line.starts_with("oauth_") || line.starts_with("mcp_"))
            .collect()
    };
    let before = credentials(database.schema().await);
    assert_eq!(
        before
            .iter()
            .filter(|line| line.contains("foreign key"))
            .count(),
        if keys == SilentKeys::There { 8 } else { 0 }
    );
    ends_at_the_golden_schema(
        &database,
        "legacy, with the calendar flag on budgets (v1.4.18 to v1.5.0-prerelease1)",
    )
    .await;
    assert_eq!(
        credentials(database.schema().await),
        before,
        "nothing was missing"
    );
}

/// The tables of v1.4.x: sessions by token, no modes and no states, indexes that are not unique.
const EARLY: [&str; 4] = [
    "CREATE TABLE oauth_user_tokens (id varchar(255) PRIMARY KEY, session_token varchar(255), session_token_hash varchar(64), \
     virtual_key_id varchar(255), user_id varchar(255), mcp_client_id varchar(255) NOT NULL, oauth_config_id varchar(255) NOT NULL, \
     access_token text NOT NULL, refresh_token text, token_type varchar(50) NOT NULL, expires_at {time}, scopes text, \
     last_refreshed_at {time}, encryption_status varchar(20) DEFAULT 'plain_text', created_at {time} NOT NULL, updated_at {time} NOT NULL)",
    "CREATE INDEX idx_vk_mcp ON oauth_user_tokens(virtual_key_id, mcp_client_id)",
    "CREATE INDEX idx_user_mcp ON oauth_user_tokens(user_id, mcp_client_id)",
    "INSERT INTO oauth_user_tokens (id, session_token, virtual_key_id, user_id, mcp_client_id, oauth_config_id, access_token, token_type, created_at, updated_at) VALUES \
     ('tok-1', '', 'vk-alice', 'u-1', 'mcp-files', 'o', 'a', 'Bearer', '2026-01-01 00:00:00+00:00', '2026-01-01 00:00:00+00:00'), \
     ('tok-2', '', '', 'u-1', 'mcp-files', 'o', 'b', 'Bearer', '2026-01-01 00:00:00+00:00', '2026-01-01 00:00:00+00:00'), \
     ('tok-3', 's', NULL, NULL, 'mcp-files', 'o', 'c', 'Bearer', '2026-01-01 00:00:00+00:00', '2026-01-01 00:00:00+00:00')",
];

async fn early(backend: Backend) -> TestDatabase {
    let database = own(backend, Shape::Full, Calendar::None).await;
    let time = match backend {
        Backend::Sqlite => "datetime",
        Backend::Postgres => "timestamptz",
    };
    for sql in EARLY {
        database.execute(&sql.replace("{time}", time)).await;
    }
    database
}

#[rstest]
#[tokio::test]
async fn credential_tables_of_an_early_version_get_what_they_lack(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = early(backend).await;
    ends_at_the_golden_schema(
        &database,
        "legacy, without a calendar flag on budgets (v1.4.0 to v1.4.17)",
    )
    .await;
    assert_eq!(
        database
            .column(
                "SELECT id || ' ' || auth_mode || ' ' || status FROM oauth_user_tokens ORDER BY 1"
            )
            .await,
        [
            "tok-1 vk active",
            "tok-2 user active",
            "tok-3 session active"
        ],
        "a virtual key wins over a user over a session"
    );
    let catalog = database.catalog().await;
    let tokens = catalog.table("oauth_user_tokens").unwrap();
    for index in [
        "idx_oauth_user_tokens_vk_mcp",
        "idx_oauth_user_tokens_user_mcp",
        "idx_oauth_user_tokens_session_mcp",
    ] {
        assert!(
            tokens.index(index).is_some_and(|index| index.unique),
            "{index}"
        );
    }
    assert!(tokens.index("idx_vk_mcp").is_some(), "what was there stays");
    // And back: the modes were told from the rows, so nothing is lost with them.
    tollgate()
        .on(&database.url)
        .succeed(&["migrate", "down", "--to", "multi_budget_expand"]);
    let tokens = database.catalog().await;
    assert!(!tokens.has_column("oauth_user_tokens", "auth_mode"));
    assert_eq!(database.count("oauth_user_tokens").await, 3);
}

#[rstest]
#[tokio::test]
async fn two_credentials_of_one_binding_stop_before_the_first_write(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = early(backend).await;
    database
        .execute(
            "INSERT INTO oauth_user_tokens (id, virtual_key_id, mcp_client_id, oauth_config_id, access_token, token_type, created_at, updated_at) VALUES \
             ('tok-4', 'vk-alice', 'mcp-files', 'o', 'd', 'Bearer', '2026-01-02 00:00:00+00:00', '2026-01-02 00:00:00+00:00')",
        )
        .await;
    let (schema, rows) = (
        database.schema().await,
        database.everything(|_, _| true).await,
    );
    let (code, refused) = tollgate()
        .on(&database.url)
        .json(&["migrate", "up", "--adopt"]);
    assert_eq!(code, 4, "{refused:#}");
    let finding = refused["findings"]
        .as_array()
        .unwrap()
        .iter()
        .find(|finding| finding["code"] == "G019")
        .unwrap();
    assert_eq!(finding["table"], "oauth_user_tokens");
    assert_eq!(finding["sample_ids"], serde_json::json!(["tok-1", "tok-4"]));
    assert_eq!(database.everything(|_, _| true).await, rows);
    assert_eq!(database.schema().await, schema);
    database
        .execute("DELETE FROM oauth_user_tokens WHERE id = 'tok-1'")
        .await;
    tollgate()
        .on(&database.url)
        .succeed(&["migrate", "up", "--adopt"]);
}

#[rstest]
#[tokio::test]
async fn what_is_tolerated_is_listed_and_is_no_drift(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = own(backend, Shape::Full, Calendar::Flag).await;
    run(
        &database,
        &[
            "DROP INDEX idx_virtual_key_value_hash",
            "ALTER TABLE governance_virtual_keys ADD COLUMN cost_centre varchar(20)",
        ],
    )
    .await;
    let tollgate = tollgate().on(&database.url);
    let (_, adopted) = tollgate.json(&["migrate", "adopt", "--dry-run"]);
    let lines: Vec<&str> = adopted["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|finding| finding["table"] == "governance_virtual_keys")
        .flat_map(|finding| {
            assert_eq!(finding["severity"], "info");
            finding["sample_ids"].as_array().unwrap()
        })
        .map(|line| line.as_str().unwrap())
        .collect();
    assert_eq!(
        lines,
        [
            "governance_virtual_keys column cost_centre: varchar(20)",
            "no governance_virtual_keys index idx_virtual_key_value_hash",
        ]
    );
    tollgate.succeed(&["migrate", "up", "--adopt"]);
    assert_eq!(tollgate.run(&["migrate", "status", "--check"]).code, 0);
    // What it was then is tolerated; what it becomes is not.
    run(
        &database,
        &["ALTER TABLE governance_virtual_keys RENAME COLUMN cost_centre TO cost_center"],
    )
    .await;
    let status = tollgate.run(&["migrate", "status", "--check"]);
    assert_eq!(status.code, 3, "{status:#?}");
    assert!(
        status
            .stdout
            .contains("governance_virtual_keys column cost_center"),
        "{status:#?}"
    );
}

#[rstest]
#[case::gone("DROP TABLE governance_virtual_keys", "the legacy schema")]
#[case::half(
    "ALTER TABLE governance_budgets ADD COLUMN virtual_key_id varchar(255); ALTER TABLE governance_budgets ADD COLUMN provider_config_id integer",
    "the schema behind upstream's add_multi_budget_tables"
)]
#[tokio::test]
async fn what_is_not_known_is_refused_with_the_nearest_version(
    #[case] damage: &str,
    #[case] nearest: &str,
) {
    let database = legacy(Backend::Sqlite, Shape::Required, Calendar::None).await;
    database.execute(damage).await;
    let run = tollgate().on(&database.url).run(&["migrate", "adopt"]);
    assert_eq!(run.code, 4, "{run:#?}");
    assert!(run.stderr.contains(nearest), "{run:#?}");
}
