//! Every combination of states, and random databases against a plain loop.

use super::*;

/// What the table says of a combination.
fn outcome<'a>(table: &'a str, combination: &[&str]) -> &'a str {
    table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<&str>>())
        .find(|words| {
            words.len() == combination.len() + 1
                && words
                    .iter()
                    .zip(combination)
                    .all(|(word, value)| *word == "*" || word == value)
        })
        .unwrap_or_else(|| panic!("the table says nothing of {combination:?}"))
        .last()
        .unwrap()
}

/// The reconcile of `docs/upstream/bifrost.md` §4.7, key by key, statement by statement.
async fn plain_loop(database: &TestDatabase, kind: &Kind, keys: &BTreeSet<String>) {
    for key in keys.iter().filter(|key| !key.is_empty()) {
        let allowlist = database
            .column(&format!(
                "SELECT c.client_id FROM governance_virtual_key_mcp_configs g \
                 JOIN config_mcp_clients c ON c.id = g.mcp_client_id WHERE g.virtual_key_id = '{key}' \
                 UNION SELECT client_id FROM config_mcp_clients WHERE {}",
                database.dialect().is_true("allow_on_all_virtual_keys")
            ))
            .await;
        let list = allowlist
            .iter()
            .map(|client| format!("'{client}'"))
            .collect::<Vec<_>>()
            .join(", ");
        let outside = if allowlist.is_empty() {
            String::new()
        } else {
            format!(" AND mcp_client_id NOT IN ({list})")
        };
        let (credentials, flows) = (kind.credentials, kind.flows);
        database
            .execute(&format!(
                "UPDATE {credentials} SET status = 'orphaned', updated_at = '2026-04-01 00:00:00+00:00' \
                 WHERE auth_mode = 'vk' AND virtual_key_id = '{key}' AND status = 'active'{outside}"
            ))
            .await;
        if !allowlist.is_empty() {
            database
                .execute(&format!(
                    "UPDATE {credentials} SET status = 'active', updated_at = '2026-04-01 00:00:00+00:00' \
                     WHERE auth_mode = 'vk' AND virtual_key_id = '{key}' AND status = 'orphaned' \
                     AND mcp_client_id IN ({list})"
                ))
                .await;
        }
        database
            .execute(&format!(
                "DELETE FROM {flows} WHERE flow_mode = 'vk' AND virtual_key_id = '{key}' \
                 AND status = 'pending'{outside}"
            ))
            .await;
    }
}

/// Every virtual key with a row of that kind, of one client or of any.
async fn holders(database: &TestDatabase, kind: &Kind, client: Option<&str>) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    for table in [kind.credentials, kind.flows] {
        let of = client.map_or_else(String::new, |client| {
            format!(" AND mcp_client_id = '{client}'")
        });
        keys.extend(
            database
                .column(&format!(
                    "SELECT DISTINCT virtual_key_id FROM {table} WHERE virtual_key_id <> ''{of}"
                ))
                .await,
        );
    }
    keys
}

#[rstest]
#[tokio::test]
async fn every_combination_ends_as_the_table_says(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(&["explicit", "none", "revoked"], &["all"])] grants: &[&str],
) {
    let database = empty(backend).await;
    let mut rows = Rows::default();
    let mut expected = Vec::new();
    let mut revoked = Vec::new();
    let mut number = 0;
    let stamp = |status: &str, after: &str| {
        if after == "same" {
            status.to_owned()
        } else {
            format!("{after} moved")
        }
    };
    let key_of = |key: &str, number: u32| {
        if key == "key" {
            format!("vk-{number:05}")
        } else {
            key.to_owned()
        }
    };
    for grant in grants {
        for other in ["empty", "other"] {
            for mode in ["vk", "user", "session", "null", "none"] {
                for key in ["key", "null", "''"] {
                    for client in ["c", "''", "null"] {
                        for (at, kind) in KINDS.iter().enumerate() {
                            let mut stand = |rows: &mut Rows| {
                                number += 1;
                                // A key of its own for each row: the bindings are unique.
                                let id = format!("vk-{number:05}");
                                rows.key(&id);
                                if other == "other" {
                                    rows.grant(&id, 2);
                                }
                                if *grant == "explicit" || *grant == "revoked" {
                                    rows.grant(&id, 1);
                                }
                                if *grant == "revoked" {
                                    revoked.push(format!("'{id}'"));
                                }
                                number
                            };
                            let statuses = ["active", "orphaned", kind.stale];
                            for status in statuses.into_iter().filter(|_| mode != "none") {
                                let number = stand(&mut rows);
                                let id = format!("row-{number:05}");
                                rows.credential(
                                    at,
                                    &id,
                                    &key_of(key, number),
                                    client,
                                    mode,
                                    status,
                                );
                                let word = if status == kind.stale {
                                    "stale"
                                } else {
                                    status
                                };
                                let after =
                                    outcome(CREDENTIALS, &[grant, other, mode, key, client, word]);
                                expected.push(format!(
                                    "{} {id} {}",
                                    kind.credentials,
                                    stamp(status, after)
                                ));
                            }
                            let statuses =
                                std::iter::once("pending").chain(kind.ended.iter().copied());
                            for status in statuses.filter(|_| mode != "null") {
                                let number = stand(&mut rows);
                                let id = format!("row-{number:05}");
                                rows.flow(at, &id, &key_of(key, number), client, mode, status);
                                let word = if status == "pending" { status } else { "ended" };
                                let after =
                                    outcome(FLOWS, &[grant, other, mode, key, client, word]);
                                if after != "gone" {
                                    expected.push(format!(
                                        "{} {id} {}",
                                        kind.flows,
                                        stamp(status, after)
                                    ));
                                }
                            }
                        }
                    }
                }
            }
        }
    }
    rows.insert(&database).await;
    if grants.contains(&"all") {
        database
            .execute("UPDATE config_mcp_clients SET allow_on_all_virtual_keys = true WHERE client_id = 'c'")
            .await;
    }
    if !revoked.is_empty() {
        database
            .execute(&format!(
                "DELETE FROM governance_virtual_key_mcp_configs WHERE mcp_client_id = 1 AND virtual_key_id IN ({})",
                revoked.join(", ")
            ))
            .await;
    }
    let order = |mut rows: Vec<String>| {
        rows.sort();
        rows
    };
    let expected = order(expected);
    assert!(expected.len() > 500, "{}", expected.len());
    let template = database.freeze().await;

    // By the command, over everything.
    let swept = template.copy().await;
    let tool = tollgate().on(&swept.url);
    let (code, planned) = tool.json(&["reconcile", "credentials", "--check"]);
    assert_eq!(code, 3, "{planned:#}");
    let (code, done) = tool.json(&["reconcile", "credentials"]);
    assert_eq!(code, 0, "{done:#}");
    assert_eq!(
        done["changes"], planned["changes"],
        "what was announced is what was done"
    );
    assert_eq!(order(state(&swept).await), expected);
    assert_eq!(tool.run(&["reconcile", "credentials", "--check"]).code, 0);

    // By the plain loop.
    let looped = template.copy().await;
    for kind in &KINDS {
        let keys = holders(&looped, kind, None).await;
        plain_loop(&looped, kind, &keys).await;
    }
    assert_eq!(order(state(&looped).await), expected);
}

/// 120 keys with whatever rows on three clients and some that are not there.
async fn random(backend: Backend, seed: u64) -> TestDatabase {
    let database = empty(backend).await;
    let mut dice = Dice(seed);
    let mut rows = Rows::default();
    for number in 0..120 {
        let key = format!("vk-{number:03}");
        rows.key(&key);
        for client in 1..=3 {
            if dice.roll(&["yes", "no", "no"]) == "yes" {
                rows.grant(&key, client);
            }
        }
        for (at, kind) in KINDS.iter().enumerate() {
            for client in ["c", "d", "e", "gone", "''", "null"] {
                let id = format!("{key}-{}", client.replace("''", "empty"));
                if dice.roll(&["yes", "no"]) == "yes" {
                    rows.credential(
                        at,
                        &id,
                        dice.roll(&[&key, &key, &key, "null", "nobody"]),
                        client,
                        dice.roll(&["vk", "vk", "vk", "user", "session"]),
                        dice.roll(&["active", "active", "orphaned", "orphaned", kind.stale]),
                    );
                }
                if dice.roll(&["yes", "no", "no"]) == "yes" {
                    let status = dice.roll(&["pending", "pending", kind.ended[0]]);
                    let key = dice.roll(&[&key, &key, "null", "nobody"]);
                    rows.flow(
                        at,
                        &id,
                        key,
                        client,
                        dice.roll(&["vk", "vk", "user"]),
                        status,
                    );
                }
            }
        }
    }
    // One binding, one credential.
    for (at, table) in rows.credentials.iter_mut().enumerate() {
        let mut seen = BTreeSet::new();
        table.retain(|row| {
            !row.contains("'nobody'")
                || seen.insert((at, row.split_once(',').unwrap().1.to_owned()))
        });
        let mut nobody = BTreeSet::new();
        table.retain(|row| {
            let parts: Vec<&str> = row.split(", ").collect();
            parts[1] != "'nobody'" || nobody.insert((parts[2].to_owned(), parts[3].to_owned()))
        });
    }
    rows.insert(&database).await;
    if dice.roll(&["yes", "no"]) == "yes" {
        database
            .execute("UPDATE config_mcp_clients SET allow_on_all_virtual_keys = true WHERE client_id = 'e'")
            .await;
    }
    database
}

#[rstest]
#[tokio::test]
async fn sets_end_row_for_row_as_the_plain_loop_does(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(1, 2, 3)] seed: u64,
) {
    let template = random(backend, seed).await.freeze().await;
    for scope in [
        None,
        Some(("--mcp-client", "c")),
        Some(("--mcp-client", "gone")),
        Some(("--virtual-key", "vk-007")),
    ] {
        let looped = template.copy().await;
        for kind in &KINDS {
            let keys = match scope {
                Some(("--virtual-key", key)) => BTreeSet::from([key.to_owned()]),
                other => holders(&looped, kind, other.map(|(_, client)| client)).await,
            };
            plain_loop(&looped, kind, &keys).await;
        }
        let expected = state(&looped).await;

        let set = template.copy().await;
        let mut arguments = vec!["reconcile", "credentials"];
        arguments.extend(scope.iter().flat_map(|(option, id)| [*option, *id]));
        tollgate().on(&set.url).succeed(&arguments);
        assert_eq!(state(&set).await, expected, "{scope:?}");

        let hooked = template.copy().await;
        let gateway = sea_orm::Database::connect(&hooked.url).await.unwrap();
        match scope {
            None => {}
            Some(("--virtual-key", key)) => {
                after_virtual_key_change(&gateway, key, Utc::now())
                    .await
                    .unwrap();
                assert_eq!(state(&hooked).await, expected, "{scope:?}");
            }
            Some((_, client)) => {
                after_mcp_client_change(&gateway, client, Utc::now())
                    .await
                    .unwrap();
                assert_eq!(state(&hooked).await, expected, "{scope:?}");
            }
        }
    }
}
