//! Bifrost's versions by what they record (`docs/upstream/bifrost.md` §8).

/// Releases that record the same, and an id that the first of them brought.
#[derive(Clone, Copy, Debug)]
pub struct Stage {
    /// The releases, oldest first.
    pub releases: &'static [&'static str],
    id: &'static str,
}

const fn stage(id: &'static str, releases: &'static [&'static str]) -> Stage {
    Stage { releases, id }
}

/// Every stage, oldest first.
pub const STAGES: &[Stage] = &[
    stage("many2manyjoin", &["1.4.0", "1.4.1"]),
    stage("add_model_config_table", &["1.4.2"]),
    stage("add_is_ping_available_column", &["1.4.3"]),
    stage("add_oauth_tables", &["1.4.4"]),
    stage("add_azure_scopes_column", &["1.4.5"]),
    stage("add_rate_limit_to_teams_and_customers", &["1.4.6"]),
    stage("add_key_status_columns", &["1.4.7"]),
    stage("add_encryption_columns", &["1.4.8"]),
    stage("widen_encrypted_varchar_columns", &["1.4.9"]),
    stage("add_bedrock_assume_role_columns", &["1.4.10", "1.4.11"]),
    stage(
        "add_store_raw_request_response_column",
        &["1.4.12", "1.4.13", "1.4.14", "1.4.15", "1.4.16"],
    ),
    stage("add_key_blacklisted_models_json_column", &["1.4.17"]),
    stage(
        "add_budget_calendar_aligned_column",
        &[
            "1.4.18", "1.4.19", "1.4.20", "1.4.21", "1.4.22", "1.4.23", "1.4.24",
        ],
    ),
    stage(
        "add_allow_all_keys_to_provider_config",
        &["1.5.0-prerelease1"],
    ),
    stage("add_multi_budget_tables", &["1.5.0-prerelease2"]),
    stage("add_model_pricing_unique_index", &["1.5.0-prerelease3"]),
    stage(
        "add_team_budgets_to_budgets_table",
        &["1.5.0-prerelease4", "1.5.0-prerelease5"],
    ),
    stage(
        "convert_mcp_client_tool_sync_interval_minutes_to_seconds",
        &["1.5.0-prerelease6"],
    ),
    stage("make_oauth_token_expiry_nullable", &["1.5.0-prerelease7"]),
    stage("gov_unique_team_names", &["1.5.0"]),
    stage("drop_allow_direct_keys_column_ddl", &["1.5.1", "1.5.2"]),
    stage("add_oauth_auth_mode_columns", &["1.5.3"]),
    stage("add_created_by_user_id_column_for_virtual_keys", &["1.5.4"]),
    stage("backfill_vk_provider_config_blacklisted_models", &["1.5.5"]),
    stage(
        "add_mcp_per_user_header_credentials_table",
        &["1.5.6", "1.5.7", "1.5.8"],
    ),
    stage(
        "migrate_virtual_key_governance_to_model_configs",
        &["1.5.9", "1.5.10", "1.5.11"],
    ),
    stage(
        "add_customer_name_unique_constraint_index",
        &["1.5.12", "1.5.13"],
    ),
    stage("add_skills_repo_tables", &["1.5.14", "1.5.15", "1.5.16"]),
    stage(
        "add_bedrock_mantle_key_columns",
        &["1.6.0", "1.6.1", "1.6.2"],
    ),
    stage("add_virtual_key_expires_at_column", &["1.6.3", "1.6.4"]),
    stage("add_oauth_config_resource_column", &["1.6.5", "1.6.6"]),
    stage("add_budget_override_columns", &["1.6.7", "1.6.8", "1.6.9"]),
    stage("add_budget_reset_config_column", &["1.6.10"]),
    stage(
        "merge_oauth_token_tables",
        &[
            "2.0.0-prerelease1",
            "2.0.0-prerelease2",
            "2.0.0-prerelease3",
        ],
    ),
    stage("add_vk_rotation_cooldown_columns", &["2.1.0"]),
];

/// The id by which a stage is known.
pub fn mark(stage: i64) -> Option<&'static str> {
    usize::try_from(stage)
        .ok()
        .and_then(|stage| STAGES.get(stage))
        .map(|stage| stage.id)
}

/// Ids of the first versions, and of every later step on the tables of a track: one of them is enough to know the table.
const KNOWN: &[&str] = &[
    "addcustomproviderconfigjsoncolumn",
    "addvirtualkeyproviderconfig",
    "add_vk_mcp_configs_table",
    "add_provider_config_budget_rate_limit",
    "add_mcp_client_id_column",
    "add_virtual_key_config_hash_column",
    "add_provider_governance_columns",
    "add_per_user_oauth_tables",
    "backfill_empty_virtual_key_configs",
    "backfill_allowed_models_wildcard",
    "add_allow_on_all_virtual_keys_column",
    "migrate_calendar_aligned",
    "drop_legacy_calendar_aligned_columns",
    "add_team_calendar_aligned_column",
    "add_mcp_per_user_header_flows_table",
    "add_model_config_scope_columns",
    "add_customer_budgets_to_budgets_table",
    "create_mcp_oauth_flows_table",
];

/// Whether an id is one of Bifrost's.
pub fn is_known(id: &str) -> bool {
    KNOWN.contains(&id) || STAGES.iter().any(|stage| stage.id == id)
}

/// The newest stage of which an id is recorded.
pub fn stage_of(ids: &[String]) -> Option<usize> {
    STAGES
        .iter()
        .rposition(|stage| ids.iter().any(|id| id == stage.id))
}

/// The stage of a release. A `v` before it is read over.
pub fn parse(release: &str) -> Option<usize> {
    let release = release.strip_prefix('v').unwrap_or(release);
    STAGES
        .iter()
        .position(|stage| stage.releases.contains(&release))
}

impl Stage {
    /// The releases, as one reads them.
    pub fn words(&self) -> String {
        match self.releases {
            [] => String::new(),
            [only] => (*only).to_owned(),
            [first, .., last] => format!("{first} to {last}"),
        }
    }
}

/// The releases that a ledger stands for.
pub fn words(ids: &[String]) -> String {
    stage_of(ids)
        .and_then(|stage| STAGES.get(stage))
        .map_or_else(|| "before 1.4".to_owned(), Stage::words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_release_is_at_one_stage() {
        for (position, stage) in STAGES.iter().enumerate() {
            for release in stage.releases {
                assert_eq!(parse(release), Some(position));
                assert_eq!(parse(&format!("v{release}")), Some(position));
            }
        }
        assert_eq!(parse("1.4.25"), None);
    }

    #[test]
    fn the_newest_recorded_step_says_the_release() {
        let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        let at = |recorded: &[&str]| stage_of(&ids(recorded)).map(|at| STAGES[at].words());
        assert_eq!(
            at(&["many2manyjoin", "add_budget_calendar_aligned_column"]),
            Some("1.4.18 to 1.4.24".to_owned())
        );
        assert_eq!(
            at(&["add_multi_budget_tables"]),
            Some("1.5.0-prerelease2".to_owned())
        );
        assert_eq!(at(&["somebody_elses"]), None);
    }
}
