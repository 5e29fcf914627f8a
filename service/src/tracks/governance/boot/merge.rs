//! The merge of OAuth tokens, as the boots of 2.0 make it (`docs/upstream/bifrost.md` §12): it stops on equal rows of mode `vk`.

use tollgate_migration::Context;
use tollgate_migration::governance::mcp;
use tollgate_migration::plan_builder::PlanBuilder;

use super::write;

pub(super) fn tokens(live: &Context, builder: &mut PlanBuilder) {
    copied(live, builder, mcp::TOKENS, mcp::MERGED_TOKENS, "auth_mode");
}

pub(super) fn flows(live: &Context, builder: &mut PlanBuilder) {
    copied(live, builder, mcp::SESSIONS, mcp::MERGED_FLOWS, "flow_mode");
}

/// A table like the one of before, with its rows. It stays, and nobody writes it any more.
fn copied(live: &Context, builder: &mut PlanBuilder, from: &str, to: &str, mode: &str) {
    let Some(spec) = mcp::all().into_iter().find(|spec| spec.name == from) else {
        return;
    };
    let columns: Vec<&str> = spec
        .columns
        .iter()
        .map(|column| column.name.as_str())
        .filter(|column| live.catalog.has_column(from, column))
        .collect();
    // Of a shape from before 1.5.3 nothing could be copied.
    let is_shaped = columns.contains(&mode);
    let list = columns.join(", ");
    let renamed = |name: &str| name.replace(from, to);
    let indexes = spec
        .indexes
        .iter()
        .cloned()
        .map(|mut index| {
            index.name = renamed(&index.name);
            index
        })
        .collect();
    builder.create_table(&tollgate_migration::ddl::TableSpec {
        name: to.to_owned(),
        foreign_keys: Vec::new(),
        indexes,
        ..spec.clone()
    });
    if is_shaped {
        write(
            builder,
            to,
            format!("INSERT INTO {to} ({list}) SELECT {list} FROM {from}"),
        );
    }
}
