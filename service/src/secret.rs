//! Values of virtual keys where an id or a name should be: told by their beginning alone.

use crate::report::Report;

/// How a value begins, in every version of the gateway.
pub(crate) const PREFIX: &str = "sk-bf-";
/// Characters of it that are told.
const SHOWN: usize = 5;

/// A text with every value in it cut short.
pub(crate) fn shortened(text: &str) -> String {
    let mut short = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(PREFIX) {
        let (before, value) = rest.split_at(at);
        short.push_str(before);
        let end = value
            .find(|letter: char| !(letter.is_alphanumeric() || matches!(letter, '-' | '_')))
            .unwrap_or(value.len());
        let (value, behind) = value.split_at(end);
        let shown: String = value.chars().take(PREFIX.len() + SHOWN).collect();
        short.push_str(&shown);
        if shown.len() < value.len() {
            short.push('…');
        }
        rest = behind;
    }
    short.push_str(rest);
    short
}

/// The same of a whole report.
pub(crate) fn shorten(report: &mut Report) {
    let ids = report
        .changes
        .iter_mut()
        .flat_map(|change| &mut change.sample_ids);
    for id in ids {
        *id = shortened(id);
    }
    for finding in &mut report.findings {
        for text in finding
            .sample_ids
            .iter_mut()
            .chain([&mut finding.title, &mut finding.effect])
        {
            *text = shortened(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::shortened;

    #[test]
    fn a_value_is_told_by_its_beginning() {
        for (text, told) in [
            ("sk-bf-vk-prod-eu-01", "sk-bf-vk-pr…"),
            (
                "\"sk-bf-0123456789\" is there too",
                "\"sk-bf-01234…\" is there too",
            ),
            ("sk-bf-1", "sk-bf-1"),
            ("vk-1", "vk-1"),
            (
                "a sk-bf-aaaaaaaa, b sk-bf-bbbbbbbb",
                "a sk-bf-aaaaa…, b sk-bf-bbbbb…",
            ),
        ] {
            assert_eq!(shortened(text), told);
        }
    }
}
