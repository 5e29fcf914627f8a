//! What a virtual key may do on a provider, and its value.

use crate::secret::PREFIX;

use super::super::assignments::assignment_key;
use super::super::batch::Batch;
use super::super::entry::{Entry, Fields, Kind};
use super::super::file::{Field, Number, ProviderConfig};
use super::{EntryWriter, Owned, finite, flat, identity, present, word};

/// The list of all models, as the gateway writes it.
fn every_model() -> Field<Vec<String>> {
    Some(Some(vec!["*".to_owned()]))
}

impl<'a, E: FnMut(Batch)> EntryWriter<'a, E> {
    /// What a key of a file of version 1 may do that has no provider configs: everything, on every provider of the file.
    pub(super) fn every_provider(&self) -> Vec<ProviderConfig> {
        self.head
            .providers
            .iter()
            .map(|provider| ProviderConfig {
                id: None,
                provider: provider.clone(),
                rate_limit: None,
                key_ids: None,
                weight: None,
                allowed_models: every_model(),
                blacklisted_models: None,
                allow_all_keys: Some(Some(true)),
                rate_limit_id: None,
                budgets: None,
                budget: None,
                budget_id: None,
            })
            .collect()
    }

    pub(super) fn provider_config(
        &mut self,
        at: &str,
        key: &str,
        place: usize,
        config: ProviderConfig,
    ) -> String {
        let number = flat(config.id);
        let provider =
            flat(self.text(at, "provider", Some(Some(config.provider)))).unwrap_or_default();
        if provider.is_empty() {
            self.wrong(at, "provider", "is empty");
        }
        let identity = match number {
            Some(number) => {
                self.id(at, Kind::ProviderConfig, &number.to_string());
                format!("#{number}")
            }
            None => identity(&[key, &provider, &place.to_string()]),
        };
        let named = self.reference(at, "rate_limit_id", config.rate_limit_id);
        let rate_limit_id = self.inline_rate_limit(at, named, config.rate_limit);
        let ids = config.key_ids.as_ref().map(Option::as_deref);
        // Of every key, by either spelling; of a file of version 1 where it names none.
        let named = ids.flatten().unwrap_or_default();
        let every = named == ["*"] || named.is_empty() && self.head.empty_means_all;
        let listed = ids.is_some().then(|| {
            let mut listed: Vec<String> = named.iter().filter(|_| !every).cloned().collect();
            listed.sort_unstable();
            listed.dedup();
            listed
        });
        let allow_all_keys = if every {
            Some(Some(true))
        } else if listed.is_some() && config.allow_all_keys.is_none() {
            // Whoever lists keys means these.
            Some(Some(false))
        } else {
            config.allow_all_keys
        };
        let weight = self.weight(at, config.weight);
        let mut models = config.allowed_models;
        if self.head.empty_means_all
            && models
                .as_ref()
                .is_none_or(|list| list.as_ref().is_none_or(Vec::is_empty))
        {
            models = every_model();
        }
        let allowed_models = self.models(at, "allowed_models", &models);
        let blacklisted_models = self.models(at, "blacklisted_models", &config.blacklisted_models);
        self.put(Entry {
            kind: Kind::ProviderConfig,
            at: at.to_owned(),
            key: identity.clone(),
            id: number.map(|number| number.to_string()),
            parent_kind: Some(Kind::VirtualKey),
            parent: Some(key.to_owned()),
            place: Some(place.to_string()),
            present: present(&[
                true,
                weight.is_some(),
                allowed_models.is_some(),
                blacklisted_models.is_some(),
                allow_all_keys.is_some(),
                rate_limit_id.is_some(),
            ]),
            fields: Fields {
                provider: Some(provider),
                weight: flat(weight),
                allowed_models,
                blacklisted_models,
                allow_all_keys: flat(allow_all_keys).map(word),
                rate_limit_id: flat(rate_limit_id),
                ..Fields::default()
            },
            ..Entry::default()
        });
        if let Some(listed) = listed {
            self.key_ids(at, &identity, listed);
        }
        self.put_owned(
            at,
            (Kind::ProviderConfig, &identity),
            Owned {
                budgets: config.budgets,
                budget: config.budget,
                budget_id: config.budget_id,
            },
        );
        identity
    }

    /// The keys that a provider config may use; a list that is complete.
    fn key_ids(&mut self, at: &str, config: &str, listed: Vec<String>) {
        for word in &listed {
            self.text(at, "key_ids", Some(Some(word.clone())));
            self.put(Entry {
                kind: Kind::KeyId,
                at: at.to_owned(),
                key: assignment_key(config, word),
                id: Some(word.clone()),
                parent_kind: Some(Kind::ProviderConfig),
                parent: Some(config.to_owned()),
                ..Entry::default()
            });
        }
        self.list(at, (Kind::ProviderConfig, config), Kind::KeyId, listed);
    }

    fn weight(&mut self, at: &str, weight: Field<Number>) -> Field<String> {
        let weight = weight.map(|weight| weight.map(|Number(weight)| weight));
        if let Some(Some(weight)) = &weight
            && !finite(weight)
        {
            self.wrong(at, "weight", format!("{weight} is not finite"));
        }
        weight
    }

    /// A list of models, as the column holds it.
    fn models(&mut self, at: &str, field: &str, list: &Field<Vec<String>>) -> Option<String> {
        let list = list.as_ref()?.as_deref().unwrap_or_default();
        let text = serde_json::json!(list).to_string();
        if text.contains("\\u0000") {
            self.wrong(
                at,
                field,
                "holds a NUL character, which no database column takes",
            );
        }
        Some(text)
    }

    /// A key's value: of the environment where it says so. The text is never told.
    pub(super) fn value(&mut self, at: &str, value: Field<String>) -> Option<String> {
        let value = flat(self.reference(at, "value", value))?;
        let Some(name) = value.strip_prefix("env.") else {
            self.literal(at, &value);
            return Some(value);
        };
        let found = (self.env)(name).filter(|found| !found.is_empty());
        match &found {
            None if name.is_empty() => self.wrong(at, "value", "env. names no variable"),
            None => self.wrong(at, "value", format!("the environment has no {name}")),
            Some(found) if found.contains('\0') => {
                self.wrong(at, "value", format!("{name} holds a NUL character"));
            }
            Some(found) if found.trim() != found || found.contains(['\n', '\r']) => self.wrong(
                at,
                "value",
                format!("{name} holds a line break, or white space around the value"),
            ),
            Some(found) if !found.starts_with(PREFIX) => self.wrong(
                at,
                "value",
                format!("{name} does not begin with {PREFIX}: the gateway would make another key"),
            ),
            Some(_) => {}
        }
        found
    }

    /// What is no `env.` reference has to be a key itself: whoever can read the file would hold a working one where a reference
    /// was taken for the secret.
    pub(super) fn literal(&mut self, at: &str, value: &str) {
        let bare = value.trim();
        let lower = bare.to_ascii_lowercase();
        let refers =
            lower.starts_with("vault.") || lower.starts_with("env.") || bare.starts_with('$');
        if refers {
            self.wrong(
                at,
                "value",
                "looks like a reference, and only env.NAME, exactly so, is resolved",
            );
        } else if bare != value || value.contains(['\n', '\r']) {
            self.wrong(
                at,
                "value",
                "has a line break in it, or white space around it",
            );
        } else if !value.starts_with(PREFIX) {
            self.wrong(
                at,
                "value",
                format!("does not begin with {PREFIX}: the gateway would make another key"),
            );
        }
    }
}
