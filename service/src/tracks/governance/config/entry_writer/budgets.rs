//! Budgets of an owner, in every form that the gateway reads.

use super::super::batch::Batch;
use super::super::entry::{Entry, Fields, Kind, digest, path};
use super::super::file::{Budget, Field, Number};
use super::{EntryWriter, Owned, finite, flat, identity, is_zero, list_key, present, short, word};
use crate::instant;

impl<'a, E: FnMut(Batch)> EntryWriter<'a, E> {
    /// Notes whose a budget is; it can be one's alone.
    pub(super) fn owned(&mut self, at: &str, field: &str, budget: &str, owner: (Kind, &str)) {
        let owner = short(&[owner.0.name(), owner.1]);
        let place = format!("{at}.{field}").into_boxed_str();
        let known = self
            .owners
            .entry(short(&[budget]))
            .or_insert_with(|| (owner, place));
        if known.0 != owner {
            let (at_there, field_there) = known.1.split_once('.').unwrap_or((&known.1, field));
            let there = format!("{}.{field_there}", path(at_there));
            self.wrong(
                at,
                field,
                format!("budget {budget:?} has two owners, this one and that of {there}"),
            );
        }
    }

    /// What may be spent in one window, as text: above zero, whatever the number's spelling.
    fn limit(&mut self, at: &str, Number(limit): &Number) -> String {
        if is_zero(limit) {
            self.wrong(
                at,
                "max_limit",
                "0 blocks for ever, and the gateway's API refuses it; switch the key off instead (is_active)",
            );
        } else if limit.starts_with('-') {
            self.wrong(at, "max_limit", format!("{limit} is negative"));
        } else if !finite(limit) {
            self.wrong(
                at,
                "max_limit",
                format!("{limit} is not finite, or too small for any amount"),
            );
        }
        limit.to_owned()
    }

    /// The owner that a budget itself names, and the field in which it does.
    fn said_owner(
        &mut self,
        at: &str,
        owners: [(Kind, Field<String>, &'static str); 3],
        config: Field<i64>,
    ) -> Option<(Kind, String, &'static str)> {
        let [key, team, customer] = owners.map(|(kind, owner, field)| {
            flat(self.reference(at, field, owner)).map(|owner| (kind, owner, field))
        });
        let config = flat(config).map(|number| {
            let owner = format!("#{number}");
            (Kind::ProviderConfig, owner, "provider_config_id")
        });
        let said: Vec<_> = [key, config, team, customer]
            .into_iter()
            .flatten()
            .collect();
        if let [_, second, ..] = said.as_slice() {
            let field = second.2;
            self.wrong(at, field, "is a second owner of one budget");
        }
        said.into_iter().next()
    }

    /// The owner that a budget stands in, or else the one that it names; both have to be one.
    fn settled_owner(
        &mut self,
        at: &str,
        inline: Option<(Kind, &str)>,
        said: Option<(Kind, String, &'static str)>,
    ) -> Option<(Kind, String)> {
        let Some((kind, key)) = inline else {
            return said.map(|(kind, name, _)| (kind, name));
        };
        if let Some((other, name, field)) = said
            && (other, name.as_str()) != (kind, key)
            && !(other == Kind::ProviderConfig
                && kind == Kind::ProviderConfig
                && !key.starts_with('#'))
        {
            self.wrong(
                at,
                field,
                "is another owner than the one that the budget stands in",
            );
        }
        Some((kind, key.to_owned()))
    }

    /// A budget, inline of an owner or at the top.
    pub(super) fn put_budget(
        &mut self,
        at: &str,
        budget: Budget,
        inline: Option<(Kind, &str)>,
    ) -> String {
        let limit = self.limit(at, &budget.max_limit);
        let window = self.duration(at, "reset_duration", &budget.reset_duration);
        let id = flat(self.reference(at, "id", budget.id));
        let said = self.said_owner(
            at,
            [
                (Kind::VirtualKey, budget.virtual_key_id, "virtual_key_id"),
                (Kind::Team, budget.team_id, "team_id"),
                (Kind::Customer, budget.customer_id, "customer_id"),
            ],
            budget.provider_config_id,
        );
        let owner = self.settled_owner(at, inline, said);
        if let Some(id) = &id {
            if let Some((kind, key)) = &owner {
                self.owned(at, "id", id, (*kind, key));
            }
            self.id(at, Kind::Budget, id);
        } else if inline.is_none() {
            self.wrong(
                at,
                "id",
                "is missing: only a budget inside of its owner can do without",
            );
        }
        let unit = window.and_then(|window| window.unit());
        let nanoseconds = window.map(|window| window.nanoseconds().to_string());
        let key = match (&id, &owner) {
            (Some(id), _) => id.clone(),
            (None, Some((kind, key))) => {
                identity(&[kind.name(), key, nanoseconds.as_deref().unwrap_or_default()])
            }
            (None, None) => at.to_owned(),
        };
        if let Some(aligned) = flat(budget.calendar_aligned) {
            self.lift("calendar_aligned inside a budget", at, "calendar_aligned");
            self.put(Entry {
                kind: Kind::Flag,
                at: at.to_owned(),
                key: key.clone(),
                fields: Fields {
                    calendar_aligned: Some(word(aligned)),
                    ..Fields::default()
                },
                ..Entry::default()
            });
        }
        let fresh = id.is_none().then(|| uuid::Uuid::new_v4().to_string());
        let (parent_kind, parent) = owner.unzip();
        let said = key.clone();
        self.put(Entry {
            kind: Kind::Budget,
            at: at.to_owned(),
            key,
            id,
            parent_kind,
            parent,
            present: present(&[true, true]),
            fields: Fields {
                max_limit: Some(limit),
                reset_duration: Some(budget.reset_duration),
                ..Fields::default()
            },
            nanoseconds,
            starts: unit.map(|unit| instant::text(unit.start(self.now))),
            fresh,
            ..Entry::default()
        });
        said
    }

    /// The budgets of an owner, in every form.
    pub(super) fn put_owned(&mut self, at: &str, owner: (Kind, &str), owned: Owned) {
        let is_list = matches!(owned.budgets, Some(Some(_)));
        let mut keys: Vec<String> = flat(owned.budgets)
            .unwrap_or_default()
            .into_iter()
            .enumerate()
            .map(|(position, budget)| {
                self.put_budget(&format!("{at}b{position}"), budget, Some(owner))
            })
            .collect();
        let of = owner.0.name();
        if let Some(Some(budget)) = owned.budget {
            self.lift(&format!("budget of a {of}"), at, "budget");
            keys.push(self.put_budget(&format!("{at}s"), budget, Some(owner)));
        }
        let claimed = flat(self.reference(at, "budget_id", owned.budget_id));
        if is_list {
            // What older forms say beside a list belongs to it.
            keys.extend(claimed.clone());
            self.list(at, owner, Kind::Budget, keys);
        }
        if let Some(budget) = claimed {
            self.lift(&format!("budget_id of a {of}"), at, "budget_id");
            self.owned(at, "budget_id", &budget, owner);
            self.put(Entry {
                kind: Kind::Claim,
                at: at.to_owned(),
                key: budget,
                parent_kind: Some(owner.0),
                parent: Some(owner.1.to_owned()),
                ..Entry::default()
            });
        }
    }

    /// A list that is complete, with what is in it.
    pub(super) fn list(&mut self, at: &str, owner: (Kind, &str), of: Kind, mut keys: Vec<String>) {
        keys.sort_unstable();
        self.put(Entry {
            kind: Kind::List,
            at: at.to_owned(),
            key: list_key(of, owner.0, owner.1),
            id: Some(of.name().to_owned()),
            parent_kind: Some(owner.0),
            parent: Some(owner.1.to_owned()),
            fields: Fields {
                name: Some(digest(&[serde_json::json!(keys).to_string().as_bytes()])),
                ..Fields::default()
            },
            ..Entry::default()
        });
    }
}
