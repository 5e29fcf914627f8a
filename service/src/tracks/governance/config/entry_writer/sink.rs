//! What is done with each thing of the file, as it is read.

use std::collections::HashMap;

use super::super::batch::Batch;
use super::super::entry::{Entry, Fields, Kind, value_hash};
use super::super::file::{
    Budget, Customer, Field, ProviderConfig, RateLimit, Sink, Team, VirtualKey, nearest_section,
};
use super::{EntryWriter, Owned, flat, present, short, some, word};
use crate::secret::PREFIX;

impl<E: FnMut(Batch)> EntryWriter<'_, E> {
    /// The key's value, which is no other key's of the file.
    fn value_of_one(&mut self, at: &str, value: Field<String>) -> Option<String> {
        let value = self.value(at, value)?;
        let place = format!("{at}.value").into_boxed_str();
        if self.seen.insert(short(&["value", &value]), place).is_some() {
            self.wrong(at, "value", "is another virtual key's too");
        }
        Some(value)
    }

    /// Whoever moves to one leaves the other.
    fn team_or_customer(
        &mut self,
        at: &str,
        team: Field<String>,
        customer: Field<String>,
    ) -> (Field<String>, Field<String>) {
        let team = self.reference(at, "team_id", team);
        let customer = self.reference(at, "customer_id", customer);
        match (&team, &customer) {
            (Some(Some(_)), Some(Some(_))) => {
                self.wrong(
                    at,
                    "customer_id",
                    "a virtual key has a team or a customer, not both",
                );
                (team, customer)
            }
            (Some(Some(_)), None) => (team, Some(None)),
            (None, Some(Some(_))) => (Some(None), customer),
            _ => (team, customer),
        }
    }

    /// The provider configs of a key. Those without a number are told apart by their provider, and of one provider by their place.
    fn provider_configs(
        &mut self,
        at: &str,
        key: &str,
        configs: Vec<ProviderConfig>,
        is_complete: bool,
    ) {
        let mut keys = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        for (position, config) in configs.into_iter().enumerate() {
            let mut place = 0;
            if flat(config.id).is_none() {
                let place_of = places.entry(config.provider.clone()).or_default();
                *place_of += 1;
                place = *place_of;
            }
            keys.push(self.provider_config(&format!("{at}p{position}"), key, place, config));
        }
        if is_complete {
            self.list(at, (Kind::VirtualKey, key), Kind::ProviderConfig, keys);
        }
    }
}

impl<E: FnMut(Batch)> Sink for EntryWriter<'_, E> {
    fn rate_limit(&mut self, position: usize, entry: RateLimit) {
        self.put_rate_limit(&format!("r{position}"), entry);
    }

    fn customer(&mut self, position: usize, entry: Customer) {
        let at = &format!("c{position}");
        self.id(at, Kind::Customer, &entry.id);
        let name = self.name(at, Kind::Customer, entry.name);
        let budget_id = self.reference(at, "budget_id", entry.budget_id);
        if let Some(Some(budget)) = &budget_id {
            self.owned(at, "budget_id", budget, (Kind::Customer, &entry.id));
        }
        let named = self.reference(at, "rate_limit_id", entry.rate_limit_id);
        let rate_limit_id = self.inline_rate_limit(at, named, entry.rate_limit);
        self.restricts(at, "budgets", some(entry.budgets));
        if entry.calendar_aligned.is_some() {
            self.unread("$.governance.customers[].calendar_aligned".to_owned(), 1);
        }
        self.put(Entry {
            kind: Kind::Customer,
            at: at.clone(),
            key: entry.id.clone(),
            id: Some(entry.id),
            present: present(&[name.is_some(), budget_id.is_some(), rate_limit_id.is_some()]),
            fields: Fields {
                name: flat(name),
                budget_id: flat(budget_id),
                rate_limit_id: flat(rate_limit_id),
                ..Fields::default()
            },
            ..Entry::default()
        });
    }

    fn team(&mut self, position: usize, entry: Team) {
        let at = &format!("t{position}");
        self.id(at, Kind::Team, &entry.id);
        let name = self.name(at, Kind::Team, entry.name);
        let customer_id = self.reference(at, "customer_id", entry.customer_id);
        let budget_id = self.reference(at, "budget_id", entry.budget_id);
        if let Some(Some(budget)) = &budget_id {
            self.owned(at, "budget_id", budget, (Kind::Team, &entry.id));
        }
        let named = self.reference(at, "rate_limit_id", entry.rate_limit_id);
        let rate_limit_id = self.inline_rate_limit(at, named, entry.rate_limit);
        self.restricts(at, "budgets", some(entry.budgets));
        self.put(Entry {
            kind: Kind::Team,
            at: at.clone(),
            key: entry.id.clone(),
            id: Some(entry.id),
            present: present(&[
                name.is_some(),
                customer_id.is_some(),
                budget_id.is_some(),
                rate_limit_id.is_some(),
                entry.calendar_aligned.is_some(),
            ]),
            fields: Fields {
                name: flat(name),
                customer_id: flat(customer_id),
                budget_id: flat(budget_id),
                rate_limit_id: flat(rate_limit_id),
                calendar_aligned: flat(entry.calendar_aligned).map(word),
                ..Fields::default()
            },
            ..Entry::default()
        });
    }

    fn budget(&mut self, position: usize, entry: Budget) {
        self.put_budget(&format!("b{position}"), entry, None);
    }

    fn virtual_key(&mut self, position: usize, entry: VirtualKey) {
        let at = &format!("v{position}");
        let id = entry.id;
        self.id(at, Kind::VirtualKey, &id);
        let name = self.name(at, Kind::VirtualKey, entry.name);
        let description = self.text(at, "description", entry.description);
        let value = self.value_of_one(at, entry.value);
        let (team_id, customer_id) = self.team_or_customer(at, entry.team_id, entry.customer_id);
        let named = self.reference(at, "rate_limit_id", entry.rate_limit_id);
        let rate_limit_id = self.inline_rate_limit(at, named, entry.rate_limit);
        self.restricts(at, "expires_at", flat(entry.expires_at).is_some());
        let fresh = value
            .is_none()
            .then(|| format!("{PREFIX}{}", uuid::Uuid::new_v4()));
        self.put(Entry {
            kind: Kind::VirtualKey,
            at: at.clone(),
            key: id.clone(),
            id: Some(id.clone()),
            present: present(&[
                name.is_some(),
                description.is_some(),
                entry.is_active.is_some(),
                team_id.is_some(),
                customer_id.is_some(),
                rate_limit_id.is_some(),
                entry.calendar_aligned.is_some(),
            ]),
            fields: Fields {
                name: flat(name),
                description: flat(description),
                value_hash: value.as_deref().map(value_hash),
                value,
                is_active: flat(entry.is_active).map(word),
                team_id: flat(team_id),
                customer_id: flat(customer_id),
                rate_limit_id: flat(rate_limit_id),
                calendar_aligned: flat(entry.calendar_aligned).map(word),
                ..Fields::default()
            },
            fresh_hash: fresh.as_deref().map(value_hash),
            fresh,
            ..Entry::default()
        });
        self.put_owned(
            at,
            (Kind::VirtualKey, &id),
            Owned {
                budgets: entry.budgets,
                budget: entry.budget,
                budget_id: entry.budget_id,
            },
        );
        let mut configs = flat(entry.provider_configs);
        let is_complete = configs.is_some();
        if self.head.empty_means_all && configs.as_ref().is_none_or(Vec::is_empty) {
            configs = Some(self.every_provider())
                .filter(|every| !every.is_empty())
                .or(configs);
        }
        if let Some(configs) = configs {
            self.provider_configs(at, &id, configs, is_complete);
        }
    }

    fn has_virtual_keys(&mut self) {
        self.notes.virtual_keys = true;
    }

    fn unread(&mut self, path: String, times: u64) {
        match self
            .notes
            .unread
            .iter_mut()
            .find(|(known, _)| *known == path)
        {
            Some((_, known)) => *known += times,
            None => self.notes.unread.push((path, times)),
        }
    }

    fn unknown(&mut self, section: &str) {
        if self.notes.allow_unread {
            self.unread(format!("$.governance.{section}"), 1);
            return;
        }
        let near = nearest_section(section).map_or_else(
            || "; --allow-unread goes on without it".to_owned(),
            |near| format!("; did you mean {near}?"),
        );
        self.problem(
            format!("$.governance.{section}"),
            format!("no gateway knows this section{near}"),
        );
    }
}
