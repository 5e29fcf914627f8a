//! Why there is no key.

use crate::error::Error;

/// The reason, with a stable [`Unusable::code`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unusable {
    /// There is no such model config.
    #[error("there is no model config {id}")]
    NoModelConfig {
        /// The id that was asked for.
        id: String,
    },
    /// No model config is the default one.
    #[error("no model config is the default one")]
    NoDefaultModelConfig,
    /// Several model configs are the default one, which the index that forbids it would have refused.
    #[error("several model configs are the default one")]
    SeveralDefaultModelConfigs,
    /// The model config is deleted.
    #[error("model config {id} is deleted")]
    ModelConfigDeleted {
        /// The model config.
        id: String,
    },
    /// The model config is disabled.
    #[error("model config {id} is disabled")]
    ModelConfigDisabled {
        /// The model config.
        id: String,
    },
    /// There is no such provider.
    #[error("there is no AI provider {id}")]
    NoProvider {
        /// The id that was asked for.
        id: String,
    },
    /// The model config names a provider that is not there.
    #[error("the AI provider of model config {model_config} is not there")]
    ProviderGone {
        /// The model config.
        model_config: String,
    },
    /// The provider is deleted.
    #[error("AI provider {id} is deleted")]
    ProviderDeleted {
        /// The provider.
        id: String,
    },
    /// The provider is disabled.
    #[error("AI provider {id} is disabled")]
    ProviderDisabled {
        /// The provider.
        id: String,
    },
    /// No provider of the type is enabled, or nothing says which type is meant.
    #[error("{}", if provider_type.is_empty() {
        "the model config is linked to no AI provider".to_owned()
    } else {
        format!("no AI provider of type {provider_type:?} is enabled")
    })]
    NoProviderOfType {
        /// The type; empty where a model config has neither a link nor a type.
        provider_type: String,
    },
    /// The chat provider that is meant has not been copied yet; another provider of its family is another door.
    #[error("the chat provider {provider_type:?} has not been copied yet")]
    NotCopied {
        /// The family.
        provider_type: String,
    },
    /// No provider is linked, and several could be meant.
    #[error("multiple enabled AI providers use provider type {provider_type:?}: {}", ids.join(", "))]
    Ambiguous {
        /// The type.
        provider_type: String,
        /// The providers.
        ids: Vec<String>,
    },
    /// Rows that differ have one id, which the table's key would have refused.
    #[error("several rows that differ have one id: of {id}, its provider or its keys")]
    SeveralRows {
        /// The model config that was asked for, or the provider.
        id: String,
    },
    /// Users may bring keys, and neither a user's nor a central one is there.
    #[error("AI provider {id} has no key, and the user has none of their own for it")]
    UserKeyRequired {
        /// The provider.
        id: String,
    },
    /// No key is there, and users may not bring any.
    #[error("AI provider {id} has no key")]
    MissingKey {
        /// The provider.
        id: String,
    },
}

impl Unusable {
    /// The stable code that machines match on.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoModelConfig { .. } => "model_config_not_found",
            Self::NoDefaultModelConfig => "no_default_model_config",
            Self::SeveralDefaultModelConfigs => "several_default_model_configs",
            Self::ModelConfigDeleted { .. } => "model_config_deleted",
            Self::ModelConfigDisabled { .. } => "model_config_disabled",
            Self::NoProvider { .. } | Self::ProviderGone { .. } => "provider_not_found",
            Self::ProviderDeleted { .. } => "provider_deleted",
            Self::ProviderDisabled { .. } => "provider_disabled",
            Self::NoProviderOfType { .. } => "no_provider",
            Self::NotCopied { .. } => "provider_not_copied",
            Self::Ambiguous { .. } => "ambiguous_provider",
            Self::SeveralRows { .. } => "several_rows",
            Self::UserKeyRequired { .. } => "user_api_key_required",
            Self::MissingKey { .. } => "missing_api_key",
        }
    }

    /// What to do next.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoModelConfig { .. } | Self::NoProvider { .. } => "check the id",
            Self::NoDefaultModelConfig => "name a model config, or make one the default",
            Self::SeveralDefaultModelConfigs => "leave one of them the default",
            Self::ModelConfigDeleted { .. } => "choose another model config",
            Self::ModelConfigDisabled { .. } => "enable it in the gateway, or choose another",
            Self::ProviderGone { .. } => "link the model config to a provider that is there",
            Self::ProviderDeleted { .. } => "link the model config to a live provider",
            Self::ProviderDisabled { .. } => "enable it in the gateway, or choose another",
            Self::NoProviderOfType { .. } => {
                "enable one in the gateway, or link the model config to one"
            }
            Self::NotCopied { .. } => "`tollgate migrate up --phase backfill` copies it",
            Self::Ambiguous { .. } => "link the model config to the one that is meant",
            Self::SeveralRows { .. } => "leave one of them; the table has lost its primary key",
            Self::UserKeyRequired { .. } => {
                "the user stores a key of their own, or the provider gets a central one"
            }
            Self::MissingKey { .. } => {
                "give the provider a central key, or let a key of the environment stand in (--fallback-env)"
            }
        }
    }
}

impl From<Unusable> for Error {
    fn from(reason: Unusable) -> Self {
        Self::Unusable {
            code: reason.code(),
            message: reason.to_string(),
            hint: reason.hint(),
        }
    }
}
