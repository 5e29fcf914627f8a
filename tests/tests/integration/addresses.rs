//! Addresses as libpq reads them, against a server: what is understood works, and what is not is refused by name.

use rstest::rstest;
use tollgate_tests::fixture::{Calendar, Shape, legacy};
use tollgate_tests::{Backend, TestDatabase};

use crate::tollgate;

/// The gateway's tables in a schema of their own, and nothing in `public`.
async fn in_schema() -> TestDatabase {
    let database = legacy(Backend::Postgres, Shape::Required, Calendar::Flag).await;
    database
        .execute("ALTER SCHEMA public RENAME TO gw; CREATE SCHEMA public")
        .await;
    database
}

fn parts(database: &TestDatabase) -> (String, String, String, String) {
    let url = url::Url::parse(&database.url).unwrap();
    (
        url.host_str().unwrap().to_owned(),
        url.port().unwrap().to_string(),
        url.path().trim_start_matches('/').to_owned(),
        url.password().unwrap_or("none").to_owned(),
    )
}

#[rstest]
#[case("schema=gw")]
#[case("search_path=gw")]
#[case("options=-c%20search_path%3Dgw")]
#[tokio::test]
async fn a_schema_that_the_address_names_is_migrated(#[case] parameter: &str) {
    let database = in_schema().await;
    let url = format!("{}?{parameter}", database.url);
    let (code, json) = tollgate().on(&url).json(&["migrate", "up", "--adopt"]);
    assert_eq!(code, 0, "{json:#}");
    assert_eq!(json["result"]["schema"], "gw", "{json:#}");
    assert_eq!(json["result"]["database"], parts(&database).2, "{json:#}");
    let made = database
        .count("pg_tables WHERE schemaname = 'public'")
        .await;
    assert_eq!(made, 0);
    tollgate().on(&url).succeed(&["verify"]);
    let status = tollgate().on(&url).succeed(&["migrate", "status"]);
    assert!(status.stdout.contains("schema gw"), "{status:#?}");
}

#[rstest]
#[case("schemas=gw", "did you mean schema?")]
#[case("currentSchema=gw", "did you mean schema?")]
#[case("ssl_mode=require", "did you mean sslmode?")]
#[case("conect_timeout=1", "did you mean connect_timeout?")]
#[tokio::test]
async fn an_unknown_parameter_is_refused_with_the_nearest_one(
    #[case] parameter: &str,
    #[case] nearest: &str,
) {
    let database = in_schema().await;
    let url = format!("{}?{parameter}", database.url);
    let run = tollgate().on(&url).run(&["migrate", "up", "--adopt"]);
    assert_eq!(run.code, 2, "{run:#?}");
    assert!(run.stderr.contains(nearest), "{run:#?}");
}

#[tokio::test]
async fn the_first_of_several_hosts_that_answers_and_fits_is_used() {
    let database = legacy(Backend::Postgres, Shape::Required, Calendar::Flag).await;
    let (host, port, name, password) = parts(&database);
    let url = format!(
        "postgres://postgres:{password}@127.0.0.1:1,{host}:{port}/{name}?connect_timeout=2&target_session_attrs=read-write"
    );
    tollgate().on(&url).succeed(&["migrate", "plan", "--adopt"]);
    let url =
        format!("postgres://postgres:{password}@{host}:{port}/{name}?target_session_attrs=standby");
    let run = tollgate().on(&url).run(&["migrate", "plan", "--adopt"]);
    assert_eq!(run.code, 1, "{run:#?}");
    assert!(run.stderr.contains("standby"), "{run:#?}");
    assert!(!run.stderr.contains(&format!(":{password}@")), "{run:#?}");
}

#[tokio::test]
async fn keywords_work_as_an_address() {
    let database = legacy(Backend::Postgres, Shape::Required, Calendar::Flag).await;
    let (host, port, name, password) = parts(&database);
    let address =
        format!("host={host} port={port} dbname={name} user=postgres password='{password}'");
    tollgate()
        .on(&address)
        .succeed(&["migrate", "plan", "--adopt"]);
}

#[tokio::test]
async fn a_service_is_refused_by_name() {
    let database = legacy(Backend::Postgres, Shape::Required, Calendar::Flag).await;
    let run = tollgate()
        .on(&database.url)
        .with("PGSERVICE", "gateway")
        .run(&["migrate", "plan", "--adopt"]);
    assert_eq!(run.code, 2, "{run:#?}");
    assert!(run.stderr.contains("PGSERVICE"), "{run:#?}");
}

#[tokio::test]
async fn a_password_comes_from_a_file_of_passwords() {
    let database = legacy(Backend::Postgres, Shape::Required, Calendar::Flag).await;
    let (host, port, name, password) = parts(&database);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pgpass");
    std::fs::write(&file, format!("{host}:{port}:*:postgres:{password}\n")).unwrap();
    let mut permissions = std::fs::metadata(&file).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o600);
    std::fs::set_permissions(&file, permissions).unwrap();
    let url = format!(
        "postgres://postgres@{host}:{port}/{name}?passfile={}",
        file.display()
    );
    tollgate().on(&url).succeed(&["migrate", "plan", "--adopt"]);
}

#[rstest]
#[tokio::test]
async fn an_address_in_a_file_stays_out_of_the_process_list(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let database = legacy(backend, Shape::Required, Calendar::Flag).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("address");
    std::fs::write(&file, format!("{}\n", database.url)).unwrap();
    let path = file.to_str().unwrap();
    tollgate().succeed(&["--database-url-file", path, "migrate", "plan", "--adopt"]);
    tollgate()
        .with("TOLLGATE_DATABASE_URL_FILE", path)
        .succeed(&["migrate", "plan", "--adopt"]);
    let help = tollgate().succeed(&["migrate", "plan", "--help"]);
    assert!(help.stdout.contains("--database-url-file"), "{help:#?}");
    let run = tollgate().run(&["--database-url-file", "/nowhere", "migrate", "plan"]);
    assert_eq!(run.code, 1, "{run:#?}");
    assert!(run.stderr.contains("/nowhere"), "{run:#?}");
}

/// IPv6 needs an interface that has it; the address is tried as it is written, brackets and all.
#[test]
fn an_ipv6_address_is_tried_as_one() {
    let run = tollgate().on("postgres://postgres@[::1]:1/gateway").run(&[
        "migrate",
        "plan",
        "--connect-timeout",
        "1",
    ]);
    assert_eq!(run.code, 1, "{run:#?}");
    assert!(run.stderr.contains("[::1]:1"), "{run:#?}");
    assert!(!run.stderr.contains("resolve"), "{run:#?}");
}
