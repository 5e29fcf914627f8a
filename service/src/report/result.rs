//! What each command says for itself, beside tracks, changes and findings. The field names are a contract.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use tollgate_migration::plan::Blocks;
use tollgate_migration::{Phase, Track};

use super::Finding;

/// A command's own result.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum CommandResult {
    /// Of `migrate status`.
    Status(StatusResult),
    /// Of `migrate plan`.
    Plan(PlanResult),
    /// Of `migrate up`.
    Up(UpResult),
    /// Of `migrate adopt`.
    Adopted(AdoptResult),
    /// Of `migrate resolve`.
    Resolved(ResolveResult),
    /// Of `migrate pause` and `migrate resume`.
    Paused(PauseResult),
    /// Of `migrate prepare`.
    Prepared(PrepareResult),
    /// Of `migrate handover`.
    HandedOver(HandoverResult),
    /// Of `doctor`.
    Examined(DoctorResult),
    /// Of `schema diff`.
    Compared(DiffResult),
    /// Of `snapshot`.
    Snapshot(SnapshotResult),
    /// Of `verify`.
    Verified(VerifyResult),
    /// Of `rehearse`.
    Rehearsed(RehearseResult),
    /// Of `rehearse --gateway`.
    Booted(BootResult),
    /// Of `history`.
    History(HistoryResult),
    /// Of `reconcile all`.
    Routines(RoutinesResult),
    /// Of `reconcile billing`.
    Cleared(ClearedResult),
    /// Of `virtual-key delete`, `provider-config delete` and `mcp-client delete`.
    Deleted(DeletionResult),
    /// Of `seed`.
    Planted(PlantedResult),
    /// Of a command that answers one question, as the answer says itself.
    Answer(Value),
}

impl CommandResult {
    /// An answer, as it says itself. What does not serialise is `null`.
    pub fn answer(answer: impl Serialize) -> Self {
        Self::Answer(serde_json::to_value(answer).unwrap_or_default())
    }

    /// Where the command worked, where it says so.
    pub fn place(&self) -> Option<&Place> {
        match self {
            Self::Status(result) => Some(&result.place),
            Self::Plan(result) => Some(&result.place),
            Self::Up(result) => Some(&result.place),
            _ => None,
        }
    }

    /// What the gateways have recorded.
    pub fn gateways(&self) -> &[GatewayState] {
        match self {
            Self::Status(result) => &result.gateways,
            Self::Plan(result) => &result.gateways,
            Self::Up(result) => &result.gateways,
            Self::Adopted(result) => &result.gateways,
            Self::Prepared(result) => &result.gateways,
            Self::Examined(result) => &result.gateways,
            _ => &[],
        }
    }

    /// Which steps wait for a later version of the gateway.
    pub fn waiting(&self) -> &[WaitingStep] {
        match self {
            Self::Status(result) => &result.waiting,
            Self::Plan(result) => &result.waiting,
            Self::Up(result) => &result.waiting,
            _ => &[],
        }
    }

    /// How the schema differs from what the applied migrations make.
    pub fn drift(&self) -> &[Drift] {
        match self {
            Self::Status(result) => &result.drift,
            Self::Compared(result) => &result.differences,
            _ => &[],
        }
    }

    /// What was compared with a snapshot.
    pub fn compared(&self) -> &[Compared] {
        match self {
            Self::Verified(result) => &result.compared,
            Self::Rehearsed(result) => &result.compared,
            _ => &[],
        }
    }
}

/// Where a command works: a deploy's log says which database was migrated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Place {
    /// The address, without its password.
    pub address: String,
    /// The database's name, or the file.
    pub database: Option<String>,
    /// The schema; SQLite has none.
    pub schema: Option<String>,
}

/// What a track's gateway has recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct GatewayState {
    /// The track.
    pub track: Track,
    /// The product.
    pub gateway: &'static str,
    /// The table in which it records its migrations.
    pub ledger: &'static str,
    /// Its version, in its own words.
    pub version: String,
    /// The newest migration it has recorded.
    pub newest: Option<String>,
    /// The version as far as which this Tollgate goes here.
    pub target: Option<String>,
}

/// A step that waits for a later version of the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct WaitingStep {
    /// The track.
    pub track: Track,
    /// The step.
    pub version: String,
    /// Its phase.
    pub phase: Phase,
    /// The version.
    pub waits_for: String,
}

/// A difference between the live schema and the expected one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Drift {
    /// The track.
    pub track: Track,
    /// The table it is on.
    pub table: String,
    /// The object, `table kind name`.
    pub object: String,
    /// `missing`, `unexpected` or `changed`.
    pub kind: &'static str,
    /// How it should be.
    pub expected: Option<String>,
    /// How it is.
    pub live: Option<String>,
    /// All of that in one line.
    pub line: String,
    /// Whether it was there at adoption, or is a later upstream's work.
    pub tolerated: bool,
}

/// A step of several transactions that has begun and not ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BegunStep {
    /// The track.
    pub track: Track,
    /// The step.
    pub version: String,
    /// `up` or `down`.
    pub direction: &'static str,
}

/// A track whose runs hold between two batches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Pause {
    /// The track.
    pub track: Track,
    /// Since when.
    pub since: String,
    /// Who paused it.
    pub by: String,
}

/// Of `migrate pause` and `migrate resume`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PauseResult {
    /// What is paused now.
    pub paused: Vec<Pause>,
    /// What was, and goes on.
    pub resumed: Vec<Pause>,
}

/// How far a pass of a step in progress is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PassState {
    /// Its migration.
    pub version: String,
    /// Its name.
    pub pass: String,
    /// How much of the table's physical order was walked, in percent.
    pub percent: u64,
    /// Rows that it has changed.
    pub rows: u64,
}

/// A run that is at work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RunningRun {
    /// The track whose lock it holds.
    pub track: Track,
    /// Who it is, and since when.
    pub holder: String,
}

/// Of `migrate status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StatusResult {
    /// Where.
    #[serde(flatten)]
    pub place: Place,
    /// Manual schema changes since.
    pub drift: Vec<Drift>,
    /// Steps that were cut off, or that a run is at.
    pub in_progress: Vec<BegunStep>,
    /// How far their passes are.
    pub passes: Vec<PassState>,
    /// Runs that hold a track's lock now.
    pub running: Vec<RunningRun>,
    /// Tracks that are paused.
    pub paused: Vec<Pause>,
    /// What the gateways have recorded.
    pub gateways: Vec<GatewayState>,
    /// What waits for a later one.
    pub waiting: Vec<WaitingStep>,
}

/// One step of a planned migration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PlannedStep {
    /// What it is for.
    pub purpose: String,
    /// The statement.
    pub sql: String,
    /// What it makes a running gateway wait for.
    pub blocks: Blocks,
    /// The number of the transaction it belongs to, counted from one; absent where it runs outside of any.
    pub transaction: Option<usize>,
    /// Whether it runs once per batch.
    pub batched: bool,
    /// Whether it is a part of the step before it.
    pub detail: bool,
}

/// A planned migration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PlannedMigration {
    /// The track.
    pub track: Track,
    /// The migration.
    pub version: String,
    /// Its phase.
    pub phase: Phase,
    /// What it does.
    pub summary: String,
    /// What its most exclusive step makes a running gateway wait for.
    pub blocks: Blocks,
    /// About how long, in milliseconds, the longest such step does so at once.
    pub blocks_for_ms: u64,
    /// About how many rows it will change, counted before the run.
    pub rows: u64,
    /// SQLite tables that are rebuilt.
    pub rebuilds: Vec<String>,
    /// Its steps, in order.
    pub steps: Vec<PlannedStep>,
}

/// Of `migrate plan`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PlanResult {
    /// Where.
    #[serde(flatten)]
    pub place: Place,
    /// What would run, in order.
    pub migrations: Vec<PlannedMigration>,
    /// What the gateways have recorded.
    pub gateways: Vec<GatewayState>,
    /// What waits for a later one.
    pub waiting: Vec<WaitingStep>,
}

/// Of `migrate up`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct UpResult {
    /// Where.
    #[serde(flatten)]
    pub place: Place,
    /// What the gateways have recorded.
    pub gateways: Vec<GatewayState>,
    /// What waits for a later one.
    pub waiting: Vec<WaitingStep>,
    /// In the record of the run: every row that lost something, in full.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropped: Option<Vec<Finding>>,
    /// In the record of the run: every copy that was made, as its track describes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clones: Option<Vec<Value>>,
}

/// What a database was recognised as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Recognition {
    /// The track.
    pub track: Track,
    /// The shape, in words.
    pub shape: &'static str,
    /// The migrations whose result it already has.
    pub applied: Vec<&'static str>,
}

/// Of `migrate adopt`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct AdoptResult {
    /// Whether nothing was written.
    pub dry_run: bool,
    /// What the tracks were recognised as.
    pub recognised: Vec<Recognition>,
    /// What the gateways have recorded.
    pub gateways: Vec<GatewayState>,
}

/// Of `migrate resolve`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ResolveResult {
    /// The track.
    pub track: Track,
    /// The step.
    pub version: String,
    /// What the record said.
    pub was: String,
    /// What it says.
    pub is: &'static str,
    /// How the schema differs from what the step makes.
    pub against_applied: Vec<String>,
    /// How it differs from what the step before makes.
    pub against_pending: Vec<String>,
}

/// Of `migrate prepare`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PrepareResult {
    /// What the gateways have recorded.
    pub gateways: Vec<GatewayState>,
    /// How things stand, by track.
    pub state: BTreeMap<&'static str, &'static str>,
    /// Whether it was `--finish`.
    pub finish: bool,
}

/// Of `migrate handover`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct HandoverResult {
    /// The number of the ledger before.
    pub from: Option<i64>,
    /// The number now.
    pub to: Option<i64>,
    /// Whether it was moved.
    pub moved: bool,
}

/// Of `doctor`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DoctorResult {
    /// What the gateways have recorded.
    pub gateways: Vec<GatewayState>,
}

/// Of `schema diff`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DiffResult {
    /// Every difference.
    pub differences: Vec<Drift>,
}

/// A table of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SnapshotTable {
    /// The track.
    pub track: Track,
    /// Its name.
    pub table: String,
    /// Its rows.
    pub rows: u64,
    /// Sums of amounts, by column.
    pub sums: BTreeMap<String, String>,
    /// What stands for all of its rows.
    pub digest: String,
}

/// Of `snapshot`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SnapshotResult {
    /// The file.
    pub file: String,
    /// Its size.
    pub bytes: u64,
    /// What is in it.
    pub tables: Vec<SnapshotTable>,
}

/// What a table or a fact of the snapshot came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Compared {
    /// The table or fact.
    pub name: String,
    /// Rows in the snapshot; none where it had no such table.
    pub rows_before: Option<u64>,
    /// Rows now.
    pub rows: u64,
    /// Sums of amounts in the snapshot.
    pub sums_before: BTreeMap<String, String>,
    /// Sums of amounts now.
    pub sums: BTreeMap<String, String>,
}

/// Of `verify`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct VerifyResult {
    /// The file.
    pub snapshot: Option<String>,
    /// When it was taken.
    pub taken_at: Option<String>,
    /// What was compared.
    pub compared: Vec<Compared>,
}

/// What was copied for a rehearsal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CopyResult {
    /// How many tables; zero where the whole file was copied.
    pub tables: usize,
    /// How many rows.
    pub rows: u64,
    /// How long it took.
    pub ms: u64,
    /// What could not be copied, each as one line.
    pub left_out: Vec<String>,
}

/// The transaction that made anybody wait longest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LongestLock {
    /// The migration.
    pub version: String,
    /// How long.
    pub ms: u64,
    /// Whom.
    pub blocks: Blocks,
}

/// Of `rehearse`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RehearseResult {
    /// The copy.
    pub copy: CopyResult,
    /// How long the snapshot took.
    pub snapshot_ms: u64,
    /// How long `up` took.
    pub up_ms: u64,
    /// How long `verify` took.
    pub verify_ms: u64,
    /// What would make a running gateway wait.
    pub longest_lock: Option<LongestLock>,
    /// What was compared.
    pub compared: Vec<Compared>,
}

/// What came of a gateway's boot on one copy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BootedCopy {
    /// What stopped the boot.
    pub stopped: Option<String>,
    /// What it lost.
    pub lost: Vec<Finding>,
    /// What was compared.
    pub compared: Vec<Compared>,
}

/// Of `rehearse --gateway`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BootResult {
    /// The product.
    pub gateway: &'static str,
    /// The version that booted.
    #[serde(rename = "for")]
    pub version: String,
    /// On a copy that nobody had prepared.
    pub without_prepare: BootedCopy,
    /// On one that was.
    pub with_prepare: BootedCopy,
}

/// A recorded run.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RecordedRun {
    /// Its number.
    pub id: i64,
    /// The command.
    pub kind: String,
    /// When it began.
    pub started_at: String,
    /// When it ended.
    pub finished_at: String,
    /// `done`, `failed`, `refused` or `stopped`.
    pub outcome: String,
    /// The version that ran.
    pub tool_version: String,
    /// Where it ran.
    pub host: String,
    /// Its report, where one run was asked for.
    pub report: Option<Value>,
}

/// Of `history`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct HistoryResult {
    /// The runs, the newest first.
    pub runs: Vec<RecordedRun>,
}

/// What came of a routine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RoutineOutcome {
    /// It ran.
    Done,
    /// Its tables are not there.
    Skipped,
    /// It failed.
    Failed,
}

/// A routine of `reconcile all`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RoutineRun {
    /// Its name.
    pub routine: &'static str,
    /// What came of it.
    pub outcome: RoutineOutcome,
    /// How many rows it changed.
    pub rows: u64,
}

/// Of `reconcile all`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RoutinesResult {
    /// In the order in which they ran.
    pub routines: Vec<RoutineRun>,
}

/// A billing mode that was cleared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ClearedMode {
    /// Whose it was.
    pub workspace_id: String,
    /// What it was.
    pub was: String,
}

/// Of `reconcile billing`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ClearedResult {
    /// What was cleared.
    pub cleared: Vec<ClearedMode>,
}

/// Of the deletions: what was to be deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DeletionResult {
    /// The virtual key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub virtual_key_id: Option<String>,
    /// The provider config.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider_config_id: Option<i64>,
    /// The MCP client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Whether nothing was deleted.
    pub dry_run: bool,
}

/// A hazard that was planted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PlantedHazard {
    /// Its code.
    pub code: &'static str,
    /// The rows that it names.
    pub ids: &'static [&'static str],
}

/// Of `seed`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PlantedResult {
    /// In the order in which they were asked for.
    pub planted: Vec<PlantedHazard>,
}
