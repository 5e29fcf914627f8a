//! Flows that ran out, and the names and number of headers.

use super::*;

#[rstest]
#[tokio::test]
async fn flows_that_ran_out_go_and_orphans_by_their_age(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = empty(backend).await;
    let mut rows = Rows::default();
    for kind in [0, 1] {
        for status in [
            "pending",
            "claiming",
            "authorized",
            "completed",
            "failed",
            "expired",
        ] {
            for mode in ["vk", "user", "session"] {
                for when in ["past", "future"] {
                    rows.flow(
                        kind,
                        &format!("{when}-{mode}-{status}"),
                        "null",
                        "c",
                        mode,
                        status,
                    );
                }
            }
        }
        for status in ["active", "orphaned", "needs_reauth", "needs_update"] {
            for when in ["old", "new"] {
                rows.credential(
                    kind,
                    &format!("{when}-{status}"),
                    "null",
                    "c",
                    "user",
                    status,
                );
            }
        }
    }
    rows.insert(&database).await;
    for table in ["oauth_user_sessions", "mcp_per_user_header_flows"] {
        // As text of another shape on SQLite: an instant is what counts.
        database
            .execute(&format!(
                "UPDATE {table} SET expires_at = '2026-03-29T10:11:12Z' WHERE id LIKE 'past-%'"
            ))
            .await;
    }
    for table in ["oauth_user_tokens", "mcp_per_user_header_credentials"] {
        database
            .execute(&format!(
                "UPDATE {table} SET updated_at = '2099-01-01 00:00:00+00:00' WHERE id LIKE 'new-%'"
            ))
            .await;
    }
    let tool = tollgate().on(&database.url);
    let before = database.everything(|_, _| true).await;
    let (code, planned) = tool.json(&["reconcile", "flows", "--orphan-ttl", "30d", "--check"]);
    assert_eq!(code, 3, "{planned:#}");
    assert_eq!(database.everything(|_, _| true).await, before);
    tool.succeed(&["reconcile", "flows"]);
    let gone = |table: &'static str, of: &'static str| {
        let database = &database;
        async move {
            database
                .column(&format!(
                    "SELECT id FROM {table} WHERE id LIKE '{of}-%' ORDER BY 1"
                ))
                .await
        }
    };
    let left = |dead: &[&str]| -> Vec<String> {
        let mut left = Vec::new();
        for mode in ["session", "user", "vk"] {
            for status in [
                "authorized",
                "claiming",
                "completed",
                "expired",
                "failed",
                "pending",
            ] {
                if !dead.contains(&status) {
                    left.push(format!("past-{mode}-{status}"));
                }
            }
        }
        left
    };
    assert_eq!(
        gone("oauth_user_sessions", "past").await,
        left(&["claiming", "pending"])
    );
    assert_eq!(
        gone("mcp_per_user_header_flows", "past").await,
        left(&["pending"])
    );
    assert_eq!(
        database
            .count("oauth_user_sessions WHERE id LIKE 'future-%'")
            .await,
        18
    );
    assert_eq!(
        database
            .count("mcp_per_user_header_flows WHERE id LIKE 'future-%'")
            .await,
        18
    );
    for table in ["oauth_user_tokens", "mcp_per_user_header_credentials"] {
        assert_eq!(database.count(table).await, 8, "without a TTL orphans stay");
    }
    let (code, done) = tool.json(&["reconcile", "flows", "--orphan-ttl", "30d"]);
    assert_eq!(code, 0, "{done:#}");
    for table in ["oauth_user_tokens", "mcp_per_user_header_credentials"] {
        assert_eq!(
            database
                .column(&format!("SELECT id FROM {table} WHERE status = 'orphaned'"))
                .await,
            ["new-orphaned"]
        );
        assert_eq!(database.count(table).await, 7);
    }
    assert_eq!(
        tool.run(&["reconcile", "flows", "--orphan-ttl", "30d", "--check"])
            .code,
        0
    );
}

#[tokio::test]
async fn a_time_that_nobody_can_read_is_not_past() {
    let database = empty(Backend::Sqlite).await;
    let mut rows = Rows::default();
    rows.flow(0, "flow-1", "vk-1", "c", "vk", "pending");
    rows.insert(&database).await;
    database
        .execute("UPDATE oauth_user_sessions SET expires_at = 'soon'")
        .await;
    let (code, json) = tollgate().on(&database.url).json(&["reconcile", "flows"]);
    assert_eq!(code, 0, "{json:#}");
    assert_eq!(json["findings"][0]["code"], "R001");
    assert_eq!(
        json["findings"][0]["sample_ids"],
        serde_json::json!(["flow-1"])
    );
    assert_eq!(database.count("oauth_user_sessions").await, 1);
}

#[rstest]
#[tokio::test]
async fn header_keys_written_since_the_migration_are_folded(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = with_credentials(backend, SilentKeys::Absent).await;
    let tool = tollgate().on(&database.url);
    let (_, up) = tool.json(&["migrate", "up", "--adopt"]);
    let said = |json: &serde_json::Value, table: &str| -> Vec<String> {
        json["findings"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|finding| finding["code"] == "G012" && finding["table"] == table)
            .map(|finding| {
                format!(
                    "{} {}",
                    finding["title"].as_str().unwrap(),
                    finding["sample_ids"]
                )
            })
            .collect()
    };
    let headers = "mcp_per_user_header_credentials";
    let reported = [
        "header keys that fold to the same name [\"hdr-bob\"]",
        "header keys that are no JSON [\"hdr-dave\"]",
        "encrypted header keys, which cannot be folded [\"hdr-user\"]",
    ];
    assert_eq!(
        said(&up, headers),
        reported,
        "the migration reports them: {up:#}"
    );
    assert_eq!(
        said(&up, "config_mcp_clients"),
        ["header keys that fold to the same name [\"2\"]"]
    );
    assert_eq!(tool.run(&["reconcile", "header-keys", "--check"]).code, 0);
    database
        .execute("UPDATE mcp_per_user_header_credentials SET headers_json = '{\"A\":\"1\", \"b \":2.50, \"a\":\"3\"}' WHERE id = 'hdr-alice'")
        .await;
    let updated = "SELECT CAST(updated_at AS text) FROM mcp_per_user_header_credentials WHERE id = 'hdr-alice'";
    let at = database.one(updated).await;
    let (code, planned) = tool.json(&["reconcile", "header-keys", "--check"]);
    assert_eq!(code, 3, "{planned:#}");
    let (code, done) = tool.json(&["reconcile", "header-keys"]);
    assert_eq!(code, 0, "{done:#}");
    assert_eq!(done["changes"], planned["changes"]);
    assert_eq!(
        said(&done, headers)[0],
        "header keys that fold to the same name [\"hdr-alice\"]"
    );
    assert_eq!(
        database
            .one("SELECT headers_json FROM mcp_per_user_header_credentials WHERE id = 'hdr-alice'")
            .await,
        "{\"a\":\"3\",\"b\":2.50}"
    );
    assert_eq!(database.one(updated).await, at, "orphans age on it");
    assert_eq!(tool.run(&["reconcile", "header-keys", "--check"]).code, 0);
}

#[rstest]
#[tokio::test]
async fn a_header_more_asks_for_an_update(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = with_credentials(backend, SilentKeys::There).await;
    let tool = tollgate().on(&database.url);
    tool.succeed(&["migrate", "up", "--adopt"]);
    let route = [
        "reconcile",
        "header-requirements",
        "--mcp-client",
        "mcp-wide",
    ];
    // hdr-alice and hdr-bob have both headers.
    let (code, none) = tool.json(&route);
    assert_eq!(code, 0, "{none:#}");
    assert_eq!(none["changes"], serde_json::json!([]));
    // One fewer asks nobody for anything, one more does, whatever its case.
    for (keys, lacking) in [
        (r#"["tenant"]"#, &[][..]),
        (r#"["tenant", "X-Region"]"#, &["hdr-alice", "hdr-bob"]),
    ] {
        database
            .execute(&format!(
                "UPDATE config_mcp_clients SET per_user_header_keys_json = '{keys}' WHERE client_id = 'mcp-wide'"
            ))
            .await;
        tool.succeed(&route);
        assert_eq!(
            database
                .column("SELECT id FROM mcp_per_user_header_credentials WHERE status = 'needs_update' AND id <> 'hdr-user' ORDER BY 1")
                .await,
            lacking
        );
    }
    assert_eq!(
        database
            .count("mcp_per_user_header_credentials WHERE updated_at <> created_at")
            .await,
        2,
        "updated_at moves on the rows that change"
    );
    let (code, missing) = tool.json(&[
        "reconcile",
        "header-requirements",
        "--mcp-client",
        "mcp-none",
    ]);
    assert_eq!(code, 1, "{missing:#}");
    // Encrypted ones are counted and left.
    database
        .execute(
            "UPDATE mcp_per_user_header_credentials SET status = 'active' WHERE id = 'hdr-user'",
        )
        .await;
    let (_, left) = tool.json(&route);
    assert_eq!(
        left["findings"][0]["sample_ids"],
        serde_json::json!(["hdr-user"])
    );
    assert_eq!(left["changes"], serde_json::json!([]));
}
