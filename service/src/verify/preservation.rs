//! That every row, every surviving value and every fact of the snapshot is still there, exactly once.

use std::collections::{BTreeMap, BTreeSet};

use tollgate_migration::Context;
use tollgate_migration::golden::tables;
use tollgate_migration::registry::golden;
use tollgate_migration::schema::{Difference, canonical, differences};

use super::{Compared, finding};
use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::history::History;
use crate::module::Module;
use crate::observer::{Event, Observer};
use crate::reconcile::SAMPLES;
use crate::report::Finding;
use crate::shutdown::ShutdownSignal;
use crate::snapshot::fact::SEPARATOR;
use crate::snapshot::file::{Section, TrackSnapshot};
use crate::snapshot::scan::{self, Walk};
use crate::snapshot::sketch::{Salted, Unpaired};
use crate::snapshot::walk_or_stop;

/// Before and now.
pub(super) struct Comparison<'a> {
    pub before: &'a TrackSnapshot,
    pub live: &'a Context,
    pub history: &'a History,
    pub salted: &'a Salted,
    /// Whether migrations went down since the snapshot.
    pub undone: bool,
    pub observer: &'a dyn Observer,
    pub stop: &'a ShutdownSignal,
}

pub(super) async fn examine(
    connection: &Connection,
    comparison: &Comparison<'_>,
    known: &[Finding],
) -> Result<(Vec<Finding>, Vec<Compared>)> {
    let mut found = schema(comparison, known);
    let mut compared = Vec::new();
    let module = Module::of(comparison.before.track);
    for (name, before) in &comparison.before.tables {
        let Some(walk) = module.section(comparison.live, name) else {
            continue;
        };
        comparison
            .observer
            .note(Event::Step(format!("read {name}")));
        let rows = Rows {
            connection,
            comparison,
            salted: comparison.salted,
            name,
            walk: &walk,
        };
        compared.push(rows.compare(before, &mut found).await?);
    }
    for fact in (module.facts)(comparison.live) {
        let Some(before) = comparison.before.facts.get(fact.name) else {
            continue;
        };
        comparison
            .observer
            .note(Event::Step(format!("read {}", fact.name)));
        let walk = scan::fact(&fact.sql);
        let rows = Rows {
            connection,
            comparison,
            salted: comparison.salted,
            name: fact.name,
            walk: &walk,
        };
        compared.push(rows.compare_facts(fact.table, before, &mut found).await?);
    }
    if comparison.before.copies == 0 {
        found.extend((module.copies)(connection, comparison.live).await?);
    }
    Ok((found, compared))
}

/// What was there and is not, or is another, without a migration that says so.
fn schema(comparison: &Comparison<'_>, known: &[Finding]) -> Vec<Finding> {
    let catalog = &comparison.live.catalog;
    let live = canonical(catalog, tables(&comparison.before.schema));
    let version = |at: Option<&String>| {
        at.and_then(|version| golden(catalog.dialect, version))
            .unwrap_or_default()
    };
    let expected_before = version(comparison.before.at.as_ref());
    let expected_now = version(comparison.history.current(comparison.before.track).as_ref());
    let dropped = dropped(comparison.history);
    let reported: BTreeSet<&str> = known
        .iter()
        .flat_map(|finding| &finding.sample_ids)
        .map(String::as_str)
        .collect();
    // Constraints without a name are numbered, and numbers move: what counts is what they say.
    let said: BTreeSet<&String> = live.values().collect();
    differences(&comparison.before.schema, &live)
        .into_iter()
        .filter(|difference| {
            let object = difference.object.as_str();
            let unnamed_but_there = object.contains(" #")
                && difference
                    .expected
                    .as_ref()
                    .is_some_and(|definition| said.contains(definition));
            // A migration up or down in between has its own golden schema.
            let moved_on = expected_before.get(object) != expected_now.get(object);
            let only_columns_change = difference.live.is_none() || object.contains(" column ");
            difference.expected.is_some()
                && only_columns_change
                && !unnamed_but_there
                && !moved_on
                && !dropped.contains(object)
                && !reported.contains(object)
        })
        .map(|difference: Difference| {
            let column = difference.object.split(" column ").nth(1);
            let mut lost = finding(
                "V101",
                difference.table(),
                column,
                1,
                vec![difference.object.clone()],
            );
            lost.effect = difference.line();
            lost
        })
        .collect()
}

/// What the applied migrations dropped here, as objects of the canonical schema.
fn dropped(history: &History) -> BTreeSet<String> {
    let mut objects = BTreeSet::new();
    for entry in history.entries.values() {
        let cut = entry.created.cut_keys.iter();
        objects.extend(
            cut.filter_map(|key| key.split_once('.'))
                .map(|(table, name)| format!("{table} foreign key {name}")),
        );
    }
    for column in history
        .entries
        .values()
        .flat_map(|entry| &entry.created.dropped)
    {
        let table = &column.table;
        objects.insert(format!("{table} column {}", column.name));
        if let Some((name, _)) = &column.foreign_key {
            let name = name.clone().unwrap_or_else(|| column.name.clone());
            objects.insert(format!("{table} foreign key {name}"));
        }
        for (name, _) in &column.indexes {
            objects.insert(format!("{table} index {name}"));
        }
        for (name, _) in &column.constraints {
            objects.insert(format!("{table} check {name}"));
            objects.insert(format!("{table} unique {name}"));
        }
    }
    objects
}

/// One walk, and what it is held against.
struct Rows<'a> {
    connection: &'a Connection,
    comparison: &'a Comparison<'a>,
    salted: &'a Salted,
    name: &'a str,
    walk: &'a Walk,
}

impl Rows<'_> {
    async fn compare(&self, before: &Section, found: &mut Vec<Finding>) -> Result<Compared> {
        let now = self.walked().await?;
        let (differing, unpaired) = before.presence()?.differing(&now.presence);
        let gone: Vec<&Unpaired> = unpaired.iter().filter(|row| !row.extra).collect();
        let added: Vec<&Unpaired> = unpaired.iter().filter(|row| row.extra).collect();
        let ids = |rows: &[&Unpaired]| {
            rows.iter()
                .take(SAMPLES)
                .map(|row| row.id.clone())
                .collect()
        };
        if differing.rows > 0 {
            let fewer = before.rows.saturating_sub(now.rows);
            let more = now.rows.saturating_sub(before.rows);
            // Where not every row can be told apart the counts say which way it went.
            let (lost, new) = if differing.exact {
                (gone.len() as u64, added.len() as u64)
            } else {
                (fewer.max(gone.len() as u64), more.max(added.len() as u64))
            };
            if lost > 0 || (new == 0 && !differing.exact) {
                found.push(finding("V102", self.name, None, lost.max(1), ids(&gone)));
            }
            if new > 0 {
                found.push(finding("V103", self.name, None, new, ids(&added)));
            }
        }
        let unpaired: BTreeSet<u64> = unpaired.iter().map(|row| row.row).collect();
        let mut changed: BTreeMap<&String, (u64, Vec<u64>)> = BTreeMap::new();
        for (column, was) in &before.columns {
            let rewritten = self.comparison.undone
                && Module::of(self.comparison.before.track)
                    .rewritten_by_down
                    .contains(&(self.name, column.as_str()));
            let Some(is) = now.columns.get(column).filter(|_| !rewritten) else {
                continue;
            };
            let differs = was.sketch()?.differing(is);
            if differs.rows == 0 {
                continue;
            }
            // A row that is gone, or new, takes its values with it: those are no second finding.
            let rows: Vec<u64> = differs
                .found
                .iter()
                .map(|(row, ..)| *row)
                .filter(|row| !unpaired.contains(row))
                .collect();
            let count = if differs.exact {
                rows.len() as u64
            } else {
                differs
                    .rows
                    .saturating_sub(differing.rows)
                    .max(rows.len() as u64)
            };
            if count > 0 {
                changed.insert(column, (count, rows));
            }
        }
        if !changed.is_empty() {
            let wanted: Vec<u64> = changed
                .values()
                .flat_map(|(_, rows)| rows.iter().take(SAMPLES * 4))
                .copied()
                .collect();
            let names = self.names(&wanted).await?;
            for (column, (count, rows)) in changed {
                let mut ids: Vec<String> = rows
                    .iter()
                    .filter_map(|row| names.get(row).cloned())
                    .collect();
                ids.sort();
                ids.truncate(SAMPLES);
                found.push(finding("V104", self.name, Some(column), count, ids));
            }
        }
        Ok(self.compared(before, &now))
    }

    async fn compare_facts(
        &self,
        table: &str,
        before: &Section,
        found: &mut Vec<Finding>,
    ) -> Result<Compared> {
        let now = self.walked().await?;
        let (differing, unpaired) = before.presence()?.differing(&now.presence);
        if differing.rows > 0 {
            // An id longer than what is kept of it is read from the rows where they still say it.
            let wanted: Vec<u64> = unpaired
                .iter()
                .filter(|fact| fact.extra)
                .map(|fact| fact.row)
                .collect();
            let names = self.names(&wanted).await?;
            let mut by_column: BTreeMap<(bool, String), Vec<(String, String)>> = BTreeMap::new();
            for fact in &unpaired {
                let text = names.get(&fact.row).unwrap_or(&fact.id);
                let mut parts = text.splitn(3, SEPARATOR).map(str::to_owned);
                let mut part = || parts.next().unwrap_or_default();
                let (id, column, value) = (part(), part(), part());
                by_column
                    .entry((fact.extra, column))
                    .or_default()
                    .push((id, value));
            }
            if by_column.is_empty() {
                by_column.insert((before.rows < now.rows, String::new()), Vec::new());
            }
            for ((extra, column), mut facts) in by_column {
                facts.sort();
                let count = if differing.exact {
                    facts.len() as u64
                } else {
                    before
                        .rows
                        .abs_diff(now.rows)
                        .max(facts.len() as u64)
                        .max(1)
                };
                let said: Vec<String> = facts
                    .iter()
                    .take(SAMPLES)
                    .map(|(id, value)| format!("{id}: {value}"))
                    .collect();
                let mut lost = finding(
                    if extra { "V106" } else { "V105" },
                    table,
                    (!column.is_empty()).then_some(column.as_str()),
                    count,
                    facts.into_iter().take(SAMPLES).map(|(id, _)| id).collect(),
                );
                if !said.is_empty() {
                    lost.effect = format!(
                        "{} {}; {}",
                        if extra { "now" } else { "was" },
                        said.join(", "),
                        lost.effect
                    );
                }
                found.push(lost);
            }
        }
        Ok(self.compared(before, &now))
    }

    async fn walked(&self) -> Result<scan::Walked> {
        walk_or_stop(
            self.connection,
            self.walk,
            self.salted,
            self.comparison.stop,
            self.name,
        )
        .await
    }

    async fn names(&self, wanted: &[u64]) -> Result<std::collections::HashMap<u64, String>> {
        if wanted.is_empty() {
            return Ok(Default::default());
        }
        scan::named(
            self.connection,
            self.walk,
            self.salted,
            wanted,
            self.comparison.stop,
        )
        .await
        .map_err(Error::database(format!("name rows of {}", self.name)))
    }

    fn compared(&self, before: &Section, now: &scan::Walked) -> Compared {
        Compared {
            name: self.name.to_owned(),
            rows_before: Some(before.rows),
            rows: now.rows,
            sums_before: before.sums.clone(),
            sums: now.sums.clone(),
        }
    }
}
