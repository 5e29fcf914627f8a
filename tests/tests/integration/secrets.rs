//! No key, token or header value that a database holds reaches an output, a log or a report, whatever is run.

use rstest::rstest;
use tollgate_tests::{Backend, Run, TestDatabase};

use crate::tollgate;

/// Runs commands with all the log there is, and keeps what they said.
struct Heard {
    url: String,
    said: String,
}

impl Heard {
    /// What filling a database says, which has secrets from then on.
    fn seeding(database: &TestDatabase, track: &str, profile: &str) -> Self {
        let mut heard = Self {
            url: database.url.clone(),
            said: String::new(),
        };
        heard.run(
            &[
                "seed",
                "--track",
                track,
                "--profile",
                profile,
                "--virtual-keys",
                "40",
            ],
            0,
        );
        heard
    }

    fn hear(&mut self, run: &Run) {
        self.said.push_str(&run.stdout);
        self.said.push_str(&run.stderr);
    }

    fn run(&mut self, arguments: &[&str], code: i32) {
        let run = tollgate()
            .on(&self.url)
            .run(&[arguments, &["-vvv"]].concat());
        assert_eq!(run.code, code, "{arguments:?}: {run:#?}");
        self.hear(&run);
    }

    /// What changes nothing, for people and for machines.
    fn ask(&mut self, arguments: &[&str], code: i32) {
        self.run(arguments, code);
        let machine = ["--output", "json", "--log-format", "json"];
        self.run(&[arguments, &machine].concat(), code);
    }

    /// The runs, their reports, and the tables that Tollgate keeps.
    async fn reports(&mut self, database: &TestDatabase) {
        self.ask(&["history"], 0);
        let runs = database
            .column("SELECT CAST(id AS text) FROM tollgate_runs ORDER BY id")
            .await;
        assert!(!runs.is_empty());
        for run in runs {
            self.ask(&["history", "--run", &run], 0);
        }
        self.said.push_str(
            &database
                .column("SELECT CAST(report AS text) FROM tollgate_runs")
                .await
                .join("\n"),
        );
    }

    fn assert_holds_none(&self, secrets: &[&str]) {
        assert!(self.said.len() > 10_000, "something was said");
        for secret in secrets {
            let at = self.said.find(secret);
            assert_eq!(
                at.map(|at| &self.said[at.saturating_sub(200)..at + secret.len()]),
                None,
                "{secret}"
            );
        }
    }
}

#[rstest]
#[tokio::test]
async fn a_cutover_says_no_key(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let database = TestDatabase::new(backend).await;
    let folder = tempfile::tempdir().unwrap();
    let snapshot = folder.path().join("snapshot.json");
    let snapshot = snapshot.to_str().unwrap();
    let mut heard = Heard::seeding(&database, "providers", "coder-legacy");
    assert_eq!(
        database
            .one("SELECT count(*) || '' FROM user_chat_provider_keys WHERE api_key LIKE 'made-up-own-%'")
            .await,
        "40",
        "there are secrets"
    );
    heard.run(&["migrate", "adopt"], 0);
    for command in [
        &["doctor", "--samples", "all"][..],
        &["migrate", "plan"],
        &["migrate", "plan", "--sql"],
        &["migrate", "status"],
        &["schema", "diff"],
    ] {
        heard.ask(command, 0);
    }
    heard.run(&["snapshot", "-o", snapshot], 0);
    heard.run(&["migrate", "up", "--phase", "backfill"], 0);
    // What an old server writes meanwhile, and a table that does not take it: the server's message has the whole row.
    database
        .execute(
            "UPDATE user_chat_provider_keys SET api_key = 'made-up-own-later', updated_at = '2099-01-01 00:00:00+00:00' \
             WHERE CAST(id AS text) = (SELECT min(CAST(id AS text)) FROM user_chat_provider_keys)",
        )
        .await;
    let (refuse, accept) = match backend {
        Backend::Postgres => (
            "ALTER TABLE user_ai_provider_keys ADD CONSTRAINT never CHECK (api_key <> 'made-up-own-later') NOT VALID",
            "ALTER TABLE user_ai_provider_keys DROP CONSTRAINT never",
        ),
        Backend::Sqlite => (
            "CREATE TRIGGER never BEFORE UPDATE ON user_ai_provider_keys BEGIN SELECT RAISE(ABORT, 'never'); END",
            "DROP TRIGGER never",
        ),
    };
    database.execute(refuse).await;
    heard.ask(&["reconcile", "provider-keys"], 1);
    heard.ask(&["migrate", "up"], 1);
    database.execute(accept).await;
    heard.ask(&["reconcile", "provider-keys", "--dry-run"], 0);
    heard.ask(&["reconcile", "all", "--check"], 3);
    heard.run(&["reconcile", "provider-keys"], 0);
    for command in [
        &["verify"][..],
        &["doctor", "--samples", "all"],
        &["provider-key", "resolve", "--model-config", "default"],
    ] {
        heard.ask(command, 0);
    }
    heard.run(&["migrate", "up"], 0);
    heard.ask(&["verify"], 0);
    // The key that was changed is a finding of the old snapshot.
    heard.ask(&["verify", "--snapshot", snapshot], 4);
    heard.run(&["migrate", "down", "--allow-data-loss"], 0);
    heard.run(&["migrate", "up"], 0);
    heard.reports(&database).await;
    heard
        .said
        .push_str(&std::fs::read_to_string(snapshot).unwrap());
    heard.assert_holds_none(&["made-up-own", "made-up-central"]);
}

#[rstest]
#[tokio::test]
async fn virtual_keys_and_credentials_stay_unsaid(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = TestDatabase::new(backend).await;
    let mut heard = Heard::seeding(&database, "governance", "bifrost-credentials");
    assert_ne!(database.count("oauth_user_tokens").await, 0);
    heard.run(
        &["migrate", "up", "--adopt", "--shared-budgets", "clone"],
        0,
    );
    for command in [
        &["doctor", "--samples", "all"][..],
        &["verify"],
        &["reconcile", "all", "--dry-run"],
        &["virtual-key", "delete", "vk-0000001", "--dry-run"],
        &["budget", "list", "--virtual-key", "vk-0000001"],
    ] {
        heard.ask(command, 0);
    }
    heard.run(&["reconcile", "all"], 0);
    heard.run(&["virtual-key", "delete", "vk-0000001"], 0);
    heard.reports(&database).await;
    heard.assert_holds_none(&["sk-bf-demo", "made up "]);
}
