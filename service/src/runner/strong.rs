//! Strong locks on a live gateway's tables: all of them at once, or none, for half a second.

use std::collections::BTreeSet;

use sea_orm::{ConnectionTrait, DbErr};
use tollgate_migration::Dialect;
use tollgate_migration::plan::{Blocks, Step};

use crate::connection::{Transaction, of};
use crate::database::existing;
use crate::retry::for_rows;
use crate::statement::Touched;

/// The tables that a transaction locks against the gateway.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Strong {
    /// Against readers and writers.
    everyone: BTreeSet<String>,
    /// Against writers.
    writers: BTreeSet<String>,
}

impl Strong {
    /// Read off the transaction's own statements: of the tables that they name, those which are there already.
    pub(super) async fn of(steps: &[Step], transaction: &Transaction) -> Result<Self, DbErr> {
        let mut strong = Self::default();
        for step in steps {
            let Step::Run(statement) = step else { continue };
            let touched = Touched::by(&statement.sql);
            match statement.blocks {
                Blocks::Everyone => strong.everyone.extend(touched.altered),
                Blocks::Writers => strong.writers.extend(touched.altered),
                Blocks::Nothing | Blocks::Rows => {}
            }
            if statement.blocks >= Blocks::Writers || !touched.created.is_empty() {
                strong.writers.extend(touched.referred);
            }
        }
        if strong.is_empty() {
            return Ok(strong);
        }
        let named: Vec<String> = strong.everyone.union(&strong.writers).cloned().collect();
        let there = existing(transaction, Dialect::Postgres, &named).await?;
        strong.everyone.retain(|name| there.contains(name));
        let everyone = &strong.everyone;
        strong
            .writers
            .retain(|name| there.contains(name) && !everyone.contains(name));
        Ok(strong)
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.everyone.is_empty() && self.writers.is_empty()
    }

    /// Takes them. First a lock that no statement of a gateway's conflicts with, up to five seconds: a running autovacuum
    /// goes away only for a waiter that lasts `deadlock_timeout`, one second. Then the strong ones, under one statement
    /// timeout, since a lock timeout counts for each table.
    pub(super) async fn take(&self, transaction: &Transaction) -> Result<(), DbErr> {
        let dialect = Dialect::Postgres;
        let list = |names: &mut dyn Iterator<Item = &String>| {
            let quoted: Vec<String> = names.map(|name| dialect.quote(name)).collect();
            quoted.join(", ")
        };
        let all = list(&mut self.everyone.union(&self.writers));
        transaction
            .execute_unprepared(&format!(
                "SET LOCAL lock_timeout = '5s'; LOCK TABLE {all} IN SHARE UPDATE EXCLUSIVE MODE; \
                 SET LOCAL lock_timeout = 0; SET LOCAL statement_timeout = '500ms'"
            ))
            .await?;
        for (names, mode) in [
            (&self.everyone, "ACCESS EXCLUSIVE"),
            (&self.writers, "SHARE ROW EXCLUSIVE"),
        ] {
            if !names.is_empty() {
                transaction
                    .execute_unprepared(&format!(
                        "LOCK TABLE {} IN {mode} MODE",
                        list(&mut names.iter())
                    ))
                    .await?;
            }
        }
        // What follows is bounded by its work, and the tables that it needs are locked.
        transaction
            .execute_unprepared(&format!(
                "SET LOCAL statement_timeout TO DEFAULT; {}",
                for_rows()
            ))
            .await
            .map(|_| ())
    }
}

/// Whether the tables were not to be had in time.
pub(super) fn was_busy(error: &DbErr) -> bool {
    of(error).is_some_and(|told| told.gave_up())
}
