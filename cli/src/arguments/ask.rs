//! What a gateway asks at run time, from the command line.

use clap::{Args, Subcommand};

use super::Wait;

#[derive(Debug, Subcommand)]
pub(crate) enum BudgetCommand {
    /// Exit 0 when every budget above a request allows it, 4 with the first that does not
    ///
    /// In this order: the provider's own, model configs (of this model on this provider, of this model, of this provider, of all),
    /// provider config, virtual key, the key's own model configs, team, the team's customer, the key's own customer. A budget
    /// blocks when its usage has reached its limit; one whose window is over counts as zero. A key that is switched off or has
    /// expired is refused. Reads only.
    Check {
        #[command(flatten)]
        asked: Asked,
        /// What the request will cost, where that is known: refuse it when that goes beyond a limit
        #[arg(long, value_name = "AMOUNT", allow_hyphen_values = true)]
        cost: Option<String>,
    },
    /// Add what a request cost to every budget above it, in one transaction
    ///
    /// A window that is over resets with it. For a gateway that embeds tollgate-service, or one that is stopped: a
    /// Bifrost that runs keeps usage in memory and writes it back on its next tick.
    Record {
        #[command(flatten)]
        asked: Asked,
        /// The cost, a decimal number in the currency of the budgets
        #[arg(long, value_name = "AMOUNT", allow_hyphen_values = true)]
        cost: String,
        /// The request's id: a cost that comes with an id that was recorded before adds nothing
        #[arg(long, value_name = "ID", allow_hyphen_values = true)]
        request_id: Option<String>,
    },
    /// Begin one budget again, before its window is over: usage 0, and a reason that the record of runs keeps
    ///
    /// The window begins now, or with the day, week, month or year where the owner's windows follow the calendar. `tollgate
    /// history` says who was given what back, and why.
    Reset {
        /// The budget's id
        #[arg(value_name = "ID")]
        id: String,
        /// Why
        #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
        reason: String,
        /// Say what would be, and change nothing
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        wait: Wait,
    },
    /// How the budgets above a virtual key stand
    List {
        /// The virtual key's id
        #[arg(long, value_name = "ID", allow_hyphen_values = true)]
        virtual_key: String,
        /// Only those that a request to this provider meets
        #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
        provider: Option<String>,
        /// Only those that a request of this model meets
        #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
        model: Option<String>,
    },
}

/// A request.
#[derive(Debug, Args)]
pub(crate) struct Asked {
    /// The virtual key's id
    #[arg(long, value_name = "ID", allow_hyphen_values = true)]
    pub virtual_key: String,
    /// The provider that the request goes to
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    pub provider: String,
    /// The model that the request names; without it only the limits of all models (`*`) are asked
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    pub model: Option<String>,
}

impl Asked {
    /// The same for the library.
    pub(crate) fn request(&self) -> tollgate_service::governance::budget::Asked<'_> {
        tollgate_service::governance::budget::Asked {
            virtual_key: &self.virtual_key,
            provider: Some(&self.provider),
            model: self.model.as_deref(),
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum ProviderKeyCommand {
    /// Say which key is used, from where, or why there is none; never the key itself
    ///
    /// Reads only. In this order: the model config is there and enabled, so is its provider; the user's own key (with --user
    /// and --byok), the provider's oldest central key, the key of the environment (--fallback-env), and for bedrock the
    /// machine's own credentials. A model config without a provider means the one enabled provider of its type. Exits 1 with
    /// the reason when no key is usable.
    Resolve {
        /// The model config's id, or `default`
        #[arg(long, value_name = "ID")]
        model_config: String,
        /// On whose behalf
        #[arg(long, value_name = "ID")]
        user: Option<String>,
        /// Users may bring keys of their own; without it a stored one is ignored
        #[arg(long)]
        byok: bool,
        /// Where the provider has no key, one of the environment stands in: for openai the first of
        /// CODER_AI_GATEWAY_OPENAI_KEY, CODER_AIBRIDGE_OPENAI_KEY and OPENAI_API_KEY, and so for each type
        #[arg(long)]
        fallback_env: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum GatewayKeyCommand {
    /// Create a key and show its secret, once
    ///
    /// The database holds a hash; nothing can show the secret again.
    Create {
        /// Words of a to z and 0 to 9 with single dashes between them, at most 64 characters; upper case is folded
        #[arg(allow_hyphen_values = true)]
        name: String,
    },
    /// The keys, oldest first, without their secrets
    List,
    /// Delete a key; whoever holds its secret is refused from the next request on
    Delete {
        /// The key's name, or its id
        #[arg(value_name = "ID|NAME", allow_hyphen_values = true)]
        key: String,
    },
    /// Say whose key the secret on standard input is, and note its use
    ///
    /// Exits 1 for a secret that is unknown, malformed or deleted, without saying which. Secrets are never arguments.
    Authenticate,
}

/// Any text is a legal id, mode or default here, a leading dash included: the answer is one of the three all the same.
#[derive(Debug, Subcommand)]
pub(crate) enum BillingMode {
    /// The mode of a workspace: one of platform_managed, byok and disabled, beside an error too
    Get {
        /// The workspace's id
        #[arg(allow_hyphen_values = true)]
        workspace: String,
        #[command(flatten)]
        org: OrgDefault,
    },
    /// Set the mode of a workspace
    Set {
        /// The workspace's id
        #[arg(allow_hyphen_values = true)]
        workspace: String,
        /// platform_managed, byok or disabled
        #[arg(allow_hyphen_values = true)]
        mode: String,
        #[command(flatten)]
        org: OrgDefault,
    },
    /// Let a workspace inherit the organisation's default
    Clear {
        /// The workspace's id
        #[arg(allow_hyphen_values = true)]
        workspace: String,
        #[command(flatten)]
        org: OrgDefault,
    },
    /// Filter an environment from stdin to what the workspace's container may have
    ///
    /// Under platform_managed the names that bypass the platform's proxy are removed and the proxy's settings, read from
    /// tollgate's own environment, are injected; where they are missing nothing is injected and the exit is 4.
    Strip {
        /// The workspace's id
        #[arg(allow_hyphen_values = true)]
        workspace: String,
        #[command(flatten)]
        org: OrgDefault,
        /// The environment is a JSON object, not KEY=VALUE lines
        #[arg(long)]
        json_env: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct OrgDefault {
    /// The organisation's default; what is none of the three counts as platform_managed
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true,
        allow_hyphen_values = true,
        env = "MOLECULE_LLM_BILLING_MODE"
    )]
    pub org_default: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum WorkspaceSecret {
    /// Exit 0 when the secret may be written, 4 with the reason when not
    Check {
        /// The workspace's id
        #[arg(long, value_name = "ID", allow_hyphen_values = true)]
        workspace: String,
        /// The secret's name, compared trimmed and in upper case
        #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
        key: String,
        #[command(flatten)]
        org: OrgDefault,
    },
}
