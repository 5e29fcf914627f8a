//! Where a command works: the database and the schema, so that a deploy's log says which ones were migrated.

use sea_orm::{ConnectionTrait, Statement};
use serde_json::{Value, json};
use tollgate_migration::Dialect;

use super::Session;
use crate::connection::Connection;
use crate::error::{Error, Result};

impl Session {
    /// The fields `database` and `schema` of a result. SQLite has a file and no schema.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub(crate) async fn place(&self, connection: &Connection) -> Result<Value> {
        if self.dialect() == Dialect::Sqlite {
            return Ok(
                json!({ "address": self.location.display, "database": self.location.file(), "schema": null }),
            );
        }
        let row = connection
            .query_one_raw(Statement::from_string(
                Dialect::Postgres.backend(),
                "SELECT current_database()::text AS name, current_schema()::text AS place",
            ))
            .await
            .map_err(Error::database("ask which database this is"))?;
        let text = |column: &str| {
            row.as_ref()
                .and_then(|row| row.try_get::<Option<String>>("", column).ok().flatten())
        };
        Ok(
            json!({ "address": self.location.display, "database": text("name"), "schema": text("place") }),
        )
    }
}

/// A result with the place before its own fields.
pub(crate) fn at(mut place: Value, fields: Value) -> Value {
    if let (Some(place), Value::Object(fields)) = (place.as_object_mut(), fields) {
        place.extend(fields);
    }
    place
}
