//! Reads what a migration may know.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use sea_orm::{ConnectionTrait, DbErr};

use crate::catalog::Catalog;
use crate::choice::Choices;
use crate::context::Context;
use crate::ledger::{Ledger, Ledgers};
use crate::track::Track;

impl Context {
    /// Reads the schema and upstream's record of its own migrations.
    ///
    /// # Errors
    /// Whatever the database answers; nothing is written.
    pub async fn read<C: ConnectionTrait>(connection: &C) -> Result<Self, DbErr> {
        let catalog = Catalog::read(connection).await?;
        let ledgers = Ledgers::read(connection, &catalog).await?;
        let mut answers = BTreeSet::new();
        // As many as the tracks declare.
        for (name, ask) in Track::all().iter().flat_map(|track| track.asks()) {
            let Some(sql) = ask(&catalog) else { continue };
            let sql = sea_orm::Statement::from_string(catalog.dialect.backend(), sql);
            if connection.query_one_raw(sql).await?.is_some() {
                answers.insert(*name);
            }
        }
        Ok(Self {
            upstream: ledgers.ids.clone().unwrap_or_default(),
            ledgers: Track::all()
                .iter()
                .map(|&track| (track.name(), ledgers.of(track, &catalog)))
                .collect(),
            catalog,
            history: BTreeMap::new(),
            choices: Choices::none(),
            applied: BTreeMap::new(),
            last_runs: BTreeMap::new(),
            answers,
        })
    }

    /// What a track's gateway has recorded of its own migrations.
    pub fn ledger(&self, track: Track) -> &Ledger {
        self.ledgers.get(track.name()).unwrap_or(&Ledger::None)
    }
}
