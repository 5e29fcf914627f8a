//! What Coder's own migrations rewrite and insert (`docs/upstream/coder.md` A3 and A8).

use crate::module::Rewrite;

/// Columns that they rewrite.
pub(super) const REWRITES: &[Rewrite] = &[
    // The types of Bedrock providers, at the starts of builds from 2026-06-11 on.
    Rewrite::any("ai_providers", "type", &["518"]),
    Rewrite::any("ai_providers", "updated_at", &["504", "505", "518"]),
    Rewrite::any("chat_model_configs", "provider", &["518"]),
    Rewrite::any("chat_model_configs", "updated_at", &["518"]),
];

/// Rows that they and starts insert.
pub(super) const INSERTS: &[(&str, &[&str])] = &[
    // The seed from the environment.
    ("ai_providers", &["504"]),
    ("ai_provider_keys", &["504"]),
];
