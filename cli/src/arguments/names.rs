//! The name of each command, and what may be said of it before it runs.

use super::{
    BillingMode, BudgetCommand, Command, GatewayKeyCommand, McpClient, Migrate, ProviderConfig,
    ProviderKeyCommand, Reconcile, Schema, VirtualKey, WorkspaceSecret,
};

impl Command {
    /// The gateway version that boots next, where one was named.
    pub(crate) fn next(&self) -> Option<&str> {
        let next = match self {
            Self::Migrate(Migrate::Status { next, .. }) | Self::Verify { next, .. } => next,
            Self::Migrate(Migrate::Plan { choice, .. }) => &choice.next,
            Self::Migrate(Migrate::Up(up)) => &up.choice.next,
            Self::Migrate(Migrate::Prepare(prepare)) => &prepare.next,
            Self::Doctor(doctor) => &doctor.next,
            Self::Rehearse(rehearse) => &rehearse.choice.next,
            _ => return None,
        };
        next.next_version.as_deref()
    }

    /// Whether the command only reads, so that a signal may end it anywhere.
    pub(crate) fn only_reads(&self) -> bool {
        match self {
            Self::Migrate(Migrate::Status { .. } | Migrate::Plan { .. })
            | Self::Migrate(
                Migrate::Adopt { dry_run: true, .. } | Migrate::Resolve { dry_run: true, .. },
            )
            | Self::Doctor(_)
            | Self::Snapshot { .. }
            | Self::Verify { .. }
            | Self::Schema(Schema::Diff { .. } | Schema::Repair { dry_run: true, .. })
            | Self::Budget(
                BudgetCommand::Check { .. }
                | BudgetCommand::List { .. }
                | BudgetCommand::Reset { dry_run: true, .. },
            )
            | Self::ProviderKey(_)
            | Self::GatewayKey(GatewayKeyCommand::List)
            | Self::BillingMode(BillingMode::Get { .. } | BillingMode::Strip { .. })
            | Self::WorkspaceSecret(_)
            | Self::History { .. } => true,
            Self::Reconcile(routine) => routine.how().dry_run || routine.how().check,
            _ => false,
        }
    }

    /// The command's name in the JSON answer.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Migrate(Migrate::Status { .. }) => "migrate status",
            Self::Migrate(Migrate::Plan { .. }) => "migrate plan",
            Self::Migrate(Migrate::Up(_)) => "migrate up",
            Self::Migrate(Migrate::Down { .. }) => "migrate down",
            Self::Migrate(Migrate::Adopt { .. }) => "migrate adopt",
            Self::Migrate(Migrate::Resolve { .. }) => "migrate resolve",
            Self::Migrate(Migrate::Pause) => "migrate pause",
            Self::Migrate(Migrate::Resume) => "migrate resume",
            Self::Migrate(Migrate::Handover { .. }) => "migrate handover",
            Self::Migrate(Migrate::Prepare(_)) => "migrate prepare",
            Self::Doctor(_) => "doctor",
            Self::Snapshot { .. } => "snapshot",
            Self::Verify { .. } => "verify",
            Self::Rehearse(_) => "rehearse",
            Self::Schema(Schema::Diff { .. }) => "schema diff",
            Self::Schema(Schema::Repair { .. }) => "schema repair",
            Self::Reconcile(Reconcile::Credentials { .. }) => "reconcile credentials",
            Self::Reconcile(Reconcile::Flows { .. }) => "reconcile flows",
            Self::Reconcile(Reconcile::HeaderKeys(_)) => "reconcile header-keys",
            Self::Reconcile(Reconcile::HeaderRequirements { .. }) => {
                "reconcile header-requirements"
            }
            Self::Reconcile(Reconcile::Resets { .. }) => "reconcile resets",
            Self::Budget(BudgetCommand::Check { .. }) => "budget check",
            Self::Budget(BudgetCommand::Record { .. }) => "budget record",
            Self::Budget(BudgetCommand::List { .. }) => "budget list",
            Self::Budget(BudgetCommand::Reset { .. }) => "budget reset",
            Self::VirtualKey(VirtualKey::Delete { .. }) => "virtual-key delete",
            Self::ProviderConfig(ProviderConfig::Delete { .. }) => "provider-config delete",
            Self::Reconcile(Reconcile::ProviderKeys { .. }) => "reconcile provider-keys",
            Self::Reconcile(Reconcile::Billing(_)) => "reconcile billing",
            Self::Reconcile(Reconcile::Config { .. }) => "reconcile config",
            Self::Reconcile(Reconcile::All(_)) => "reconcile all",
            Self::Reconcile(Reconcile::Run { .. }) => "reconcile run",
            Self::McpClient(McpClient::Delete { .. }) => "mcp-client delete",
            Self::ProviderKey(ProviderKeyCommand::Resolve { .. }) => "provider-key resolve",
            Self::GatewayKey(GatewayKeyCommand::Create { .. }) => "gateway-key create",
            Self::GatewayKey(GatewayKeyCommand::List) => "gateway-key list",
            Self::GatewayKey(GatewayKeyCommand::Delete { .. }) => "gateway-key delete",
            Self::GatewayKey(GatewayKeyCommand::Authenticate) => "gateway-key authenticate",
            Self::BillingMode(BillingMode::Get { .. }) => "billing-mode get",
            Self::BillingMode(BillingMode::Set { .. }) => "billing-mode set",
            Self::BillingMode(BillingMode::Clear { .. }) => "billing-mode clear",
            Self::BillingMode(BillingMode::Strip { .. }) => "billing-mode strip",
            Self::WorkspaceSecret(WorkspaceSecret::Check { .. }) => "workspace-secret check",
            Self::History { .. } => "history",
            Self::Seed(_) => "seed",
            Self::Demo(_) => "demo",
            Self::Completions { .. } => "completions",
        }
    }
}
