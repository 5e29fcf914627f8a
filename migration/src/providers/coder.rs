//! Coder's numbers (`docs/upstream/coder.md` A8).

use crate::context::Context;
use crate::plan_builder::PlanBuilder;
use crate::track::Track;

/// The first number with chat providers.
pub const FIRST: i64 = 422;
/// The last before the cutover; below it a tool can prepare, and nothing else.
pub const BEFORE: i64 = 502;
/// The new tables and the model configs' link.
pub const EXPANDED: i64 = 503;
/// The copy.
pub const COPIED: i64 = 504;
/// The end of the cutover.
pub const FINISHED: i64 = 505;
/// Keys of gateway replicas.
pub const GATEWAY_KEYS: i64 = 514;
/// The newest that is known.
pub const NEWEST: i64 = 532;

/// Releases and the newest migration of each.
const RELEASES: [(&str, i64); 4] = [("2.31", 421), ("2.32", 462), ("2.33", 483), ("2.34", 509)];

/// Whether a number can be Coder's. A database with its tables is at 422 at least; what counts higher than Coder ever has
/// (timestamps) is another product of the same library.
pub fn is_plausible(version: i64, carried: bool) -> bool {
    (1..=9_999).contains(&version) && (!carried || version >= FIRST)
}

/// A number, with the release whose newest migration it is.
pub fn words(version: i64) -> String {
    RELEASES
        .iter()
        .find(|(_, newest)| *newest == version)
        .map_or_else(
            || version.to_string(),
            |(release, _)| format!("{version} ({release})"),
        )
}

/// The number of a release or of a number: `2.33`, `2.33.4`, `v2.33.4`, `483`.
pub fn parse(word: &str) -> Option<i64> {
    let word = word.strip_prefix('v').unwrap_or(word);
    if let Ok(number) = word.parse::<i64>() {
        return Some(number);
    }
    RELEASES
        .iter()
        .find(|(release, _)| {
            word == *release
                || word
                    .strip_prefix(release)
                    .is_some_and(|rest| rest.starts_with('.'))
        })
        .map(|(_, number)| *number)
}

/// The ledger goes back with the step that its number stands for.
pub(super) fn undo_number(context: &Context, stands_for: i64, builder: &mut PlanBuilder) {
    if context.ledger(Track::PROVIDERS).number() == Some(stands_for) {
        builder.move_ledger(stands_for, stands_for - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_releases_are_read() {
        assert_eq!(parse("483"), Some(483));
        assert_eq!(parse("2.33"), Some(483));
        assert_eq!(parse("v2.34.3"), Some(509));
        assert_eq!(parse("2.3"), None);
        assert_eq!(words(483), "483 (2.33)");
        assert_eq!(words(502), "502");
    }
}
