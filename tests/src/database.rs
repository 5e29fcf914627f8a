//! An empty database of a test's own.

use std::time::Duration;

use sea_orm::{ConnectionTrait, Statement};
use tollgate_migration::{Catalog, Dialect};
use tollgate_service::Connection;

use crate::server;

/// A backend that every behaviour is tested on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// A file in a temporary folder.
    Sqlite,
    /// A database on the binary's server.
    Postgres,
}

/// A database that copies are made of; nobody is connected to it.
pub struct Template(TestDatabase);

/// An empty database, gone when dropped.
pub struct TestDatabase {
    /// Its backend.
    pub backend: Backend,
    /// Its address.
    pub url: String,
    /// A connection for looking and for what a gateway would write.
    pub connection: Connection,
    folder: Option<tempfile::TempDir>,
    name: Option<String>,
}

/// A role on the server, gone with its database.
pub struct Role {
    /// Its name.
    pub name: String,
    /// The database's address for it.
    pub url: String,
}

/// One connection of sea-orm's own, as a gateway has it: nothing of Tollgate's settings is on it.
#[expect(
    clippy::disallowed_methods,
    reason = "plays the gateway, which has sea-orm's own pool"
)]
async fn open(url: &str) -> Connection {
    let url = if url.starts_with("sqlite:") {
        format!("{url}?mode=rwc")
    } else {
        url.to_owned()
    };
    let mut options = sea_orm::ConnectOptions::new(url);
    options
        .max_connections(1)
        .sqlx_logging(false)
        .connect_timeout(Duration::from_secs(10))
        .map_sqlx_sqlite_opts(|options| options.statement_cache_capacity(0));
    Connection::try_from(
        sea_orm::Database::connect(options)
            .await
            .expect("a connection"),
    )
    .expect("SQLite")
}

impl TestDatabase {
    /// Creates one.
    pub async fn new(backend: Backend) -> Self {
        match backend {
            Backend::Sqlite => {
                let folder = tempfile::tempdir().expect("a temporary folder");
                let url = format!("sqlite://{}/gateway.db", folder.path().display());
                Self {
                    backend,
                    connection: open(&url).await,
                    url,
                    folder: Some(folder),
                    name: None,
                }
            }
            Backend::Postgres => Self::in_server("").await,
        }
    }

    /// One on PostgreSQL whose texts are in an encoding other than the server's.
    pub async fn encoded(encoding: &str) -> Self {
        Self::in_server(&format!(
            "ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
        ))
        .await
    }

    async fn in_server(how: &str) -> Self {
        let name = format!("t_{}", uuid::Uuid::new_v4().simple());
        let admin = open(server::url()).await;
        admin
            .execute_unprepared(&format!("CREATE DATABASE {name} {how}"))
            .await
            .expect("a database");
        admin.close().await.expect("closed");
        let mut url = url::Url::parse(server::url()).expect("an address");
        url.set_path(&name);
        let url = url.to_string();
        Self {
            backend: Backend::Postgres,
            connection: open(&url).await,
            url,
            folder: None,
            name: Some(name),
        }
    }

    /// The backend's dialect.
    pub fn dialect(&self) -> Dialect {
        match self.backend {
            Backend::Sqlite => Dialect::Sqlite,
            Backend::Postgres => Dialect::Postgres,
        }
    }

    /// The folder that holds a SQLite file.
    pub fn folder(&self) -> Option<&std::path::Path> {
        self.folder.as_ref().map(tempfile::TempDir::path)
    }

    /// The address for a role of this database's own, which may log in; `how` is what CREATE ROLE gets besides. It owns
    /// nothing and may do nothing.
    pub async fn role(&self, suffix: &str, how: &str) -> Role {
        let name = format!("{}_{suffix}", self.name.as_deref().expect("a server"));
        self.execute(&format!(
            "CREATE ROLE {name} LOGIN PASSWORD 'tollgate' {how}"
        ))
        .await;
        let mut url = url::Url::parse(&self.url).expect("an address");
        url.set_username(&name).expect("a user");
        url.set_password(Some("tollgate")).expect("a password");
        Role {
            name,
            url: url.to_string(),
        }
    }

    /// Makes a role the owner of every table and type of the schema `public`, with the right to create there.
    pub async fn belongs_to(&self, role: &Role) {
        let name = &role.name;
        self.execute(&format!(
            "GRANT ALL ON SCHEMA public TO {name}; DO $$ DECLARE t text; BEGIN \
             FOR t IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' LOOP \
             EXECUTE format('ALTER TABLE public.%I OWNER TO {name}', t); END LOOP; END $$"
        ))
        .await;
    }

    /// Another connection, as another process would have.
    pub async fn another(&self) -> Connection {
        open(&self.url).await
    }

    /// Runs statements.
    pub async fn execute(&self, sql: &str) {
        self.connection
            .execute_unprepared(sql)
            .await
            .unwrap_or_else(|error| panic!("{error}\nin {sql}"));
    }

    /// One column of every row, as text; NULL is `-`.
    pub async fn column(&self, sql: &str) -> Vec<String> {
        self.connection
            .query_all_raw(Statement::from_string(self.dialect().backend(), sql))
            .await
            .unwrap_or_else(|error| panic!("{error}\nin {sql}"))
            .iter()
            .map(|row| {
                row.try_get_by_index::<Option<String>>(0)
                    .expect("a text")
                    .unwrap_or_else(|| "-".to_owned())
            })
            .collect()
    }

    /// A single text.
    pub async fn one(&self, sql: &str) -> String {
        self.column(sql)
            .await
            .into_iter()
            .next()
            .unwrap_or_default()
    }

    /// A count.
    pub async fn count(&self, from: &str) -> u64 {
        self.one(&format!("SELECT CAST(count(*) AS text) FROM {from}"))
            .await
            .parse()
            .expect("a number")
    }

    /// The live schema.
    pub async fn catalog(&self) -> Catalog {
        Catalog::read(&self.connection).await.expect("the catalog")
    }

    /// Drops a column with all that hangs on it.
    pub async fn drop_column(&self, table: &str, column: &str) {
        if self.backend == Backend::Postgres {
            self.execute(&format!("ALTER TABLE {table} DROP COLUMN {column} CASCADE"))
                .await;
            return;
        }
        let catalog = self.catalog().await;
        for index in catalog.table(table).iter().flat_map(|table| &table.indexes) {
            if index.columns.iter().any(|name| name == column) && !index.definition.is_empty() {
                self.execute(&format!("DROP INDEX \"{}\"", index.name))
                    .await;
            }
        }
        let text = self
            .one(&format!(
                "SELECT sql FROM sqlite_schema WHERE name = '{table}'"
            ))
            .await;
        let kept: Vec<&str> = text
            .lines()
            .filter(|line| !(line.contains("FOREIGN KEY") && line.contains(column)))
            .collect();
        let mended = kept.join("\n").replace(",\n)", "\n)");
        self
            .execute(&format!(
                "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = '{}' WHERE name = '{table}'; PRAGMA writable_schema = RESET; \
                 ALTER TABLE {table} DROP COLUMN {column}",
                mended.replace('\'', "''")
            ))
            .await;
    }

    /// Whether a table is there.
    pub async fn has_table(&self, name: &str) -> bool {
        self.catalog().await.has_table(name)
    }

    /// A transaction of somebody else's that has run some statements, and holds what they locked until it is ended.
    ///
    /// # Panics
    /// When a statement fails.
    pub async fn somebody(&self, application: &str, sql: &str) -> Connection {
        let other = self.another().await;
        other
            .execute_unprepared(&format!(
                "SET application_name = '{application}'; BEGIN; {sql}"
            ))
            .await
            .unwrap_or_else(|error| panic!("{error}\nin {sql}"));
        other
    }

    /// Every row of a table over the given columns, each as the exact bytes that the database holds, sorted.
    pub async fn rows(&self, table: &str, columns: &[&str]) -> Vec<String> {
        let dialect = self.dialect();
        let cells: Vec<String> = columns
            .iter()
            .map(|column| match self.backend {
                Backend::Sqlite => format!("quote({})", dialect.quote(column)),
                Backend::Postgres => format!(
                    "COALESCE(quote_literal({}::text), 'NULL')",
                    dialect.quote(column)
                ),
            })
            .collect();
        self.column(&format!(
            "SELECT {} FROM {} ORDER BY 1",
            cells.join(" || '|' || "),
            dialect.quote(table)
        ))
        .await
    }

    /// Every row of every table that is not Tollgate's own, over the columns for which `keep` holds; tables without
    /// one are left out.
    pub async fn everything(
        &self,
        keep: impl Fn(&str, &str) -> bool,
    ) -> Vec<(String, Vec<String>)> {
        let catalog = self.catalog().await;
        let mut all = Vec::new();
        for (name, table) in &catalog.tables {
            if name.starts_with("tollgate_") {
                continue;
            }
            let mut columns: Vec<&str> = table
                .columns
                .iter()
                .map(|column| column.name.as_str())
                .filter(|column| keep(name, column))
                .collect();
            if columns.is_empty() {
                continue;
            }
            columns.sort_unstable();
            all.push((name.clone(), self.rows(name, &columns).await));
        }
        all
    }

    /// The schema as text, for comparing: columns, constraints, indexes, triggers and views, sorted.
    pub async fn schema(&self) -> Vec<String> {
        let catalog = self.catalog().await;
        let mut lines = Vec::new();
        for (name, table) in &catalog.tables {
            for column in &table.columns {
                lines.push(format!(
                    "{name} column {} {} {} {:?}",
                    column.name, column.kind, column.not_null, column.default
                ));
            }
            lines.push(format!("{name} key {:?}", table.primary_key));
            for key in &table.foreign_keys {
                lines.push(format!(
                    "{name} foreign key {:?} {:?} -> {} {:?} {:?} {}",
                    key.name,
                    key.columns,
                    key.parent,
                    key.parent_columns,
                    key.on_delete,
                    key.validated
                ));
            }
            for check in &table.checks {
                lines.push(format!(
                    "{name} check {:?} {}",
                    check.name, check.definition
                ));
            }
            for index in &table.indexes {
                lines.push(format!(
                    "{name} index {} {} {:?} {} {:?}",
                    index.name, index.unique, index.columns, index.valid, index.predicate
                ));
            }
            for trigger in &table.triggers {
                lines.push(format!("{name} trigger {}", trigger.definition));
            }
        }
        lines.sort();
        lines
    }
}

impl TestDatabase {
    /// Ends every connection, so that copies can be made.
    pub async fn freeze(self) -> Template {
        self.connection.clone().close().await.expect("closed");
        Template(self)
    }
}

impl Template {
    /// A copy of its own: rows, schema, statistics.
    pub async fn copy(&self) -> TestDatabase {
        let backend = self.0.backend;
        match (&self.0.folder, &self.0.name) {
            (Some(from), _) => {
                let folder = tempfile::tempdir().expect("a temporary folder");
                let file = folder.path().join("gateway.db");
                std::fs::copy(from.path().join("gateway.db"), &file).expect("a copy");
                let url = format!("sqlite://{}", file.display());
                TestDatabase {
                    backend,
                    connection: open(&url).await,
                    url,
                    folder: Some(folder),
                    name: None,
                }
            }
            (None, from) => {
                let from = from.as_deref().unwrap_or_default();
                TestDatabase::in_server(&format!("TEMPLATE {from}")).await
            }
        }
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let Some(name) = self.name.take() else {
            return;
        };
        // Drop cannot wait, and the test's runtime may be gone.
        let _ = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .ok()?;
            runtime.block_on(async {
                let admin = open(server::url()).await;
                admin
                    .execute_unprepared(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
                    .await
                    .ok()?;
                admin
                    .execute_unprepared(&format!(
                        "DO $$ DECLARE r text; BEGIN FOR r IN SELECT rolname FROM pg_roles WHERE starts_with(rolname::text, '{name}_') \
                         LOOP EXECUTE format('DROP ROLE %I', r); END LOOP; END $$"
                    ))
                    .await
                    .ok()
            })
        })
        .join();
    }
}
