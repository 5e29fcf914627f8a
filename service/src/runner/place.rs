//! Where a command works: the database and the schema.

use sea_orm::{FromQueryResult, Statement};
use tollgate_migration::Dialect;

use super::Session;
use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::report::result::Place;

/// What the server says.
#[derive(FromQueryResult)]
struct Here {
    name: Option<String>,
    place: Option<String>,
}

impl Session {
    /// The place of a result. SQLite has a file and no schema.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub(crate) async fn place(&self, connection: &Connection) -> Result<Place> {
        let address = self.location.display.clone();
        if self.dialect() == Dialect::Sqlite {
            return Ok(Place {
                address,
                database: self.location.file().map(|file| file.display().to_string()),
                schema: None,
            });
        }
        let here = Here::find_by_statement(Statement::from_string(
            Dialect::Postgres.backend(),
            "SELECT current_database()::text AS name, current_schema()::text AS place",
        ))
        .one(connection)
        .await
        .map_err(Error::database("ask which database this is"))?;
        let (database, schema) = here.map_or((None, None), |here| (here.name, here.place));
        Ok(Place {
            address,
            database,
            schema,
        })
    }
}
