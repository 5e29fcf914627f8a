//! The deployment's own keys, which stand in where a provider has none.

use std::collections::BTreeMap;

use tollgate_migration::providers::TYPE;

use super::KeyMaterial;

/// A key per provider type, from the environment.
#[derive(Clone, Debug, Default)]
pub struct Fallback {
    keys: BTreeMap<&'static str, KeyMaterial>,
}

impl Fallback {
    /// Reads the first variable of each type that is not blank; see [`Fallback::variables`].
    pub fn from(variable: impl Fn(&str) -> Option<String>) -> Self {
        let keys = TYPE
            .1
            .iter()
            .filter_map(|&provider_type| {
                let key = Self::variables(provider_type)
                    .iter()
                    .filter_map(|name| variable(name))
                    .find_map(|key| KeyMaterial::new(&key, None))?;
                Some((provider_type, key))
            })
            .collect();
        Self { keys }
    }

    /// The variables that may hold the key of a provider type, in order: the gateway's own settings, then what the
    /// vendor's clients read. For `openai-compat`: `CODER_AI_GATEWAY_OPENAI_COMPAT_KEY`,
    /// `CODER_AIBRIDGE_OPENAI_COMPAT_KEY`, `OPENAI_COMPAT_API_KEY`.
    pub fn variables(provider_type: &str) -> Vec<String> {
        let word = provider_type.to_uppercase().replace('-', "_");
        let vendor: &[&str] = match provider_type {
            "azure" => &["AZURE_OPENAI_API_KEY"],
            "bedrock" => &["AWS_BEARER_TOKEN_BEDROCK"],
            "google" => &["GEMINI_API_KEY"],
            "vercel" => &["AI_GATEWAY_API_KEY"],
            _ => &[],
        };
        [
            format!("CODER_AI_GATEWAY_{word}_KEY"),
            format!("CODER_AIBRIDGE_{word}_KEY"),
            format!("{word}_API_KEY"),
        ]
        .into_iter()
        .chain(vendor.iter().map(|&name| name.to_owned()))
        .collect()
    }

    /// The key of a provider type.
    pub(super) fn key(&self, provider_type: &str) -> Option<&KeyMaterial> {
        self.keys.get(provider_type)
    }
}
