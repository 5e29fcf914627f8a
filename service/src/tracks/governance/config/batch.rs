//! Entries of one kind on their way to the database.

use super::entry::{COLUMNS, Entry, Kind, PRESENT};

/// Entries of one batch.
const FULL: usize = 2000;

/// Entries of one kind: a kind has a third of all columns, and what no row has need not be read.
pub(super) struct Batch {
    kind: Kind,
    entries: Vec<Entry>,
}

impl Batch {
    pub(super) fn new(kind: Kind) -> Self {
        Self {
            kind,
            entries: Vec::with_capacity(FULL),
        }
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    pub(super) fn is_full(&self) -> bool {
        self.entries.len() >= FULL
    }

    pub(super) fn push(&mut self, entry: Entry) {
        self.entries.push(entry);
    }

    /// The columns that any of them has.
    pub(super) fn columns(&self) -> Vec<&'static str> {
        let mut occurs = [false; COLUMNS.len()];
        for entry in &self.entries {
            for (occurs, cell) in occurs.iter_mut().zip(entry.cells()) {
                *occurs |= cell.is_some();
            }
        }
        let mut columns = vec![PRESENT];
        columns.extend(
            COLUMNS
                .iter()
                .zip(occurs)
                .filter(|(_, occurs)| *occurs)
                .map(|(column, _)| *column),
        );
        columns
    }

    /// A list of objects in JSON.
    pub(super) fn json(&self) -> String {
        let mut json = String::from("[");
        for entry in &self.entries {
            if json.len() > 1 {
                json.push(',');
            }
            json.push_str(&format!("{{\"{PRESENT}\":{}", entry.present));
            for (column, cell) in COLUMNS.iter().zip(entry.cells()) {
                if let Some(cell) = cell {
                    let text = serde_json::Value::from(cell);
                    json.push_str(&format!(",\"{column}\":{text}"));
                }
            }
            json.push('}');
        }
        json.push(']');
        json
    }

    /// The lines of COPY's text format, with [`PRESENT`] and then every column of [`COLUMNS`].
    pub(super) fn lines(&self) -> String {
        let mut lines = String::new();
        for entry in &self.entries {
            lines.push_str(&entry.present.to_string());
            for cell in entry.cells() {
                lines.push('\t');
                match cell {
                    None => lines.push_str("\\N"),
                    Some(cell) => escape(cell, &mut lines),
                }
            }
            lines.push('\n');
        }
        lines
    }
}

/// Writes a text so that COPY reads it as it is.
fn escape(text: &str, lines: &mut String) {
    let mut rest = text;
    while let Some(at) = rest.find(['\\', '\t', '\n', '\r']) {
        lines.push_str(&rest[..at]);
        lines.push_str(match rest.as_bytes()[at] {
            b'\\' => "\\\\",
            b'\t' => "\\t",
            b'\n' => "\\n",
            _ => "\\r",
        });
        rest = &rest[at + 1..];
    }
    lines.push_str(rest);
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn what_copy_reads_otherwise_is_escaped() {
        for (text, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("a\tb", "a\\tb"),
            ("\\N", "\\\\N"),
            ("\\.", "\\\\."),
            ("é\r\nü\\", "é\\r\\nü\\\\"),
        ] {
            let mut lines = String::new();
            escape(text, &mut lines);
            assert_eq!(lines, expected);
        }
    }
}
