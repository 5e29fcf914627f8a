//! Entries of one kind on their way to the database.

use super::entry::{COLUMNS, Entry, Kind, PRESENT};

/// Bytes of one batch.
const FULL: usize = 4 << 20;

/// How a batch is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A list of objects in JSON.
    Json,
    /// The lines of COPY's text format, with [`PRESENT`] and then every column of [`COLUMNS`].
    Lines,
}

/// Entries of one kind: a kind has a third of all columns, and what no row has need not be read.
pub(super) struct Batch {
    kind: Kind,
    form: Form,
    text: String,
    /// Which of [`COLUMNS`] any of them has.
    occurs: [bool; COLUMNS.len()],
}

impl Batch {
    pub(super) fn new(kind: Kind, form: Form) -> Self {
        Self {
            kind,
            form,
            text: String::new(),
            occurs: [false; COLUMNS.len()],
        }
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    pub(super) fn is_full(&self) -> bool {
        self.text.len() >= FULL
    }

    pub(super) fn push(&mut self, entry: &Entry) {
        match self.form {
            Form::Json => self.push_object(entry),
            Form::Lines => self.push_line(entry),
        }
    }

    fn push_object(&mut self, entry: &Entry) {
        let text = &mut self.text;
        text.push(if text.is_empty() { '[' } else { ',' });
        text.push_str(&format!("{{\"{PRESENT}\":{}", entry.present));
        let cells = COLUMNS.iter().zip(entry.cells());
        for ((column, cell), occurs) in cells.zip(&mut self.occurs) {
            if let Some(cell) = cell {
                *occurs = true;
                let cell = serde_json::Value::from(cell);
                text.push_str(&format!(",\"{column}\":{cell}"));
            }
        }
        text.push('}');
    }

    fn push_line(&mut self, entry: &Entry) {
        self.text.push_str(&entry.present.to_string());
        for cell in entry.cells() {
            self.text.push('\t');
            match cell {
                None => self.text.push_str("\\N"),
                Some(cell) => escape(cell, &mut self.text),
            }
        }
        self.text.push('\n');
    }

    /// The columns that any of them has.
    pub(super) fn columns(&self) -> Vec<&'static str> {
        let mut columns = vec![PRESENT];
        columns.extend(
            COLUMNS
                .iter()
                .zip(self.occurs)
                .filter(|(_, occurs)| *occurs)
                .map(|(column, _)| *column),
        );
        columns
    }

    /// What it is written as.
    pub(super) fn into_text(mut self) -> String {
        if self.form == Form::Json {
            self.text.push(']');
        }
        self.text
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
