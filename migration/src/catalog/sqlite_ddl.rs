//! Reads and edits SQLite's stored `CREATE TABLE` text.
//!
//! SQLite keeps a table's definition as the text that created it; constraint names, checks and table options live
//! nowhere else. A rebuild therefore edits that text and leaves every word it does not understand as it stands.

/// One token of SQL with its place in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Token {
    kind: Kind,
    start: usize,
    end: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// An identifier or keyword; quoted ones carry their unquoted text and the mark that they were quoted.
    Word {
        text: String,
        quoted: bool,
    },
    Open,
    Close,
    Comma,
    Other,
}

impl Token {
    fn is_keyword(&self, keyword: &str) -> bool {
        matches!(&self.kind, Kind::Word { text, quoted: false } if text.eq_ignore_ascii_case(keyword))
    }

    fn word(&self) -> Option<&str> {
        match &self.kind {
            Kind::Word { text, .. } => Some(text),
            _ => None,
        }
    }
}

/// What stands between quotes from there on, and where what follows begins. A doubled quote stands for itself, but in brackets.
fn quoted(bytes: &[u8], mut at: usize, quote: u8) -> (Vec<u8>, usize) {
    let close = if quote == b'[' { b']' } else { quote };
    let mut text = Vec::new();
    while at < bytes.len() {
        if bytes[at] == close {
            if close != b']' && bytes.get(at + 1) == Some(&close) {
                at += 1;
            } else {
                break;
            }
        }
        text.push(bytes[at]);
        at += 1;
    }
    (text, (at + 1).min(bytes.len()))
}

fn tokens(sql: &str) -> Vec<Token> {
    let bytes = sql.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        let kind = match bytes[at] {
            b' ' | b'\t' | b'\n' | b'\r' | 0x0c => {
                at += 1;
                continue;
            }
            b'-' if bytes.get(at + 1) == Some(&b'-') => {
                at = sql[at..].find('\n').map_or(bytes.len(), |end| at + end);
                continue;
            }
            b'/' if bytes.get(at + 1) == Some(&b'*') => {
                at = sql[at + 2..]
                    .find("*/")
                    .map_or(bytes.len(), |end| at + end + 4);
                continue;
            }
            quote @ (b'\'' | b'"' | b'`' | b'[') => {
                let text;
                (text, at) = quoted(bytes, at + 1, quote);
                // A name in single quotes is an identifier where SQLite expects one, as in `CONSTRAINT 'x'`, and a
                // string elsewhere; a column that is only named in a string counts as mentioned, on the safe side.
                Kind::Word {
                    text: String::from_utf8_lossy(&text).into_owned(),
                    quoted: true,
                }
            }
            b'(' => {
                at += 1;
                Kind::Open
            }
            b')' => {
                at += 1;
                Kind::Close
            }
            b',' => {
                at += 1;
                Kind::Comma
            }
            byte if byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80 => {
                let rest = &bytes[at..];
                let is_of_word = |byte: &u8| {
                    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$') || *byte >= 0x80
                };
                at += rest.iter().take_while(|byte| is_of_word(byte)).count();
                Kind::Word {
                    text: sql[start..at].to_owned(),
                    quoted: false,
                }
            }
            _ => {
                at += 1;
                Kind::Other
            }
        };
        found.push(Token {
            kind,
            start,
            end: at,
        });
    }
    found
}

/// The text with `REFERENCES missing` as `REFERENCES meant`, in whatever quotes; none where it does not stand there.
pub fn renamed_parent(sql: &str, missing: &str, meant: &str) -> Option<String> {
    const KEYWORD: &str = "references";
    let lower = sql.to_ascii_lowercase();
    let mut out = String::new();
    let mut done = 0;
    let mut changed = false;
    while let Some(at) = lower[done..].find(KEYWORD) {
        let behind = done + at + KEYWORD.len();
        out.push_str(&sql[done..behind]);
        done = behind;
        let rest = &sql[behind..];
        let name = rest.trim_start();
        let space = &rest[..rest.len() - name.len()];
        let forms = [
            format!("\"{missing}\""),
            format!("`{missing}`"),
            format!("[{missing}]"),
            missing.to_owned(),
        ];
        let found = forms.iter().find(|form| {
            name.get(..form.len())
                .is_some_and(|head| head.eq_ignore_ascii_case(form))
                && !name[form.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_')
        });
        if let Some(form) = found {
            out.push_str(space);
            out.push_str(&format!("`{meant}`"));
            done = behind + space.len() + form.len();
            changed = true;
        }
    }
    out.push_str(&sql[done..]);
    changed.then_some(out)
}

/// The identifiers and keywords that a statement mentions, in lower case. Used to see conservatively whether a view or
/// trigger depends on a column.
pub fn words(sql: &str) -> Vec<String> {
    tokens(sql)
        .iter()
        .filter_map(|token| token.word().map(str::to_lowercase))
        .collect()
}

/// What a constraint inside a `CREATE TABLE` is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConstraintKind {
    /// `REFERENCES` on a column, or `FOREIGN KEY (…)` on the table, with the referring columns.
    ForeignKey(Vec<String>),
    /// `CHECK (…)`.
    Check,
    /// `UNIQUE` or `PRIMARY KEY`, with its columns.
    Key(Vec<String>),
}

/// A constraint found in a `CREATE TABLE`, on a column or on the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constraint {
    /// Its name, where it has one.
    pub name: Option<String>,
    /// What it is.
    pub kind: ConstraintKind,
    /// Its text without the name.
    pub text: String,
}

/// One item between the outer parentheses of a `CREATE TABLE`.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its text, as written.
    pub text: String,
    /// The column's name; `None` for a table constraint.
    pub column: Option<String>,
    /// The constraints it carries.
    pub constraints: Vec<Constraint>,
}

impl Item {
    /// Whether the item names the identifier anywhere.
    pub fn mentions(&self, identifier: &str) -> bool {
        words(&self.text).contains(&identifier.to_lowercase())
    }
}

/// A `CREATE TABLE` statement, taken apart.
#[derive(Clone, Debug)]
pub struct CreateTable {
    /// Columns first, then table constraints, each as written.
    pub items: Vec<Item>,
    /// What follows the closing parenthesis (`STRICT`, `WITHOUT ROWID`).
    pub options: String,
}

impl CreateTable {
    /// Takes a stored `CREATE TABLE` apart; `None` where it is not of that form (`CREATE TABLE … AS SELECT` is stored
    /// by SQLite with its columns written out, so it is).
    pub fn parse(sql: &str) -> Option<Self> {
        let tokens = tokens(sql);
        let open = tokens.iter().position(|token| token.kind == Kind::Open)?;
        let mut depth = 0usize;
        let mut items = Vec::new();
        let mut first = open + 1;
        for (position, token) in tokens.iter().enumerate().skip(open) {
            match token.kind {
                Kind::Open => depth += 1,
                Kind::Close => {
                    depth -= 1;
                    if depth == 0 {
                        items.push(item(sql, tokens.get(first..position)?)?);
                        return Some(Self {
                            items,
                            options: sql[token.end..].trim().to_owned(),
                        });
                    }
                }
                Kind::Comma if depth == 1 => {
                    items.push(item(sql, tokens.get(first..position)?)?);
                    first = position + 1;
                }
                _ => {}
            }
        }
        None
    }

    /// The statement under another table name.
    pub fn sql(&self, quoted_name: &str) -> String {
        let items: Vec<&str> = self.items.iter().map(|item| item.text.as_str()).collect();
        let mut sql = format!("CREATE TABLE {quoted_name} ({})", items.join(","));
        if !self.options.is_empty() {
            sql.push(' ');
            sql.push_str(&self.options);
        }
        sql
    }

    /// Every constraint, of columns and of the table.
    pub fn constraints(&self) -> impl Iterator<Item = &Constraint> {
        self.items.iter().flat_map(|item| &item.constraints)
    }

    /// Whether the table counts its keys up and never reuses one.
    pub fn is_autoincrement(&self) -> bool {
        self.items.iter().any(|item| item.mentions("autoincrement"))
    }

    /// Whether rows have a rowid.
    pub fn has_rowid(&self) -> bool {
        !words(&self.options).contains(&"rowid".to_owned())
    }

    /// Puts a column where `ALTER TABLE … ADD COLUMN` would put it: behind the last column.
    pub fn add_column(&mut self, text: &str) {
        if let Some(parsed) = item(text, &tokens(text)) {
            let end = self
                .items
                .iter()
                .rposition(|item| item.column.is_some())
                .map_or(0, |position| position + 1);
            self.items.insert(end, parsed);
        }
    }

    /// Adds a table constraint at the end.
    pub fn add_constraint(&mut self, text: &str) {
        self.items.extend(item(text, &tokens(text)));
    }

    /// The items that [`CreateTable::drop_column`] would take out, the column's own first.
    pub fn items_over(&self, column: &str) -> Vec<String> {
        let mut kept = self.clone();
        kept.drop_column(column);
        let mut gone: Vec<&Item> = self
            .items
            .iter()
            .filter(|item| !kept.items.iter().any(|kept| kept.text == item.text))
            .collect();
        gone.sort_by_key(|item| item.column.is_none());
        gone.into_iter().map(|item| item.text.clone()).collect()
    }

    /// Whether the columns carry nothing but their types and foreign keys, so that `ALTER TABLE` can add them.
    pub fn is_plain(&self) -> bool {
        self.items.iter().all(|item| {
            item.constraints
                .iter()
                .all(|found| matches!(found.kind, ConstraintKind::ForeignKey(_)))
                && !["not", "collate", "generated", "as", "default"]
                    .iter()
                    .any(|keyword| words(&item.text).iter().any(|word| word == keyword))
        })
    }

    /// Takes the column out, with every table constraint over it.
    pub fn drop_column(&mut self, column: &str) {
        self.items.retain(|item| match &item.column {
            Some(name) => !name.eq_ignore_ascii_case(column),
            None => !own_columns(item)
                .iter()
                .any(|name| name.eq_ignore_ascii_case(column)),
        });
    }

    /// Takes the foreign keys over exactly that column out, wherever they are written.
    pub fn drop_foreign_keys(&mut self, column: &str) {
        let over = |constraint: &Constraint| {
            matches!(&constraint.kind, ConstraintKind::ForeignKey(columns)
                if columns.len() == 1 && columns[0].eq_ignore_ascii_case(column))
        };
        self.items
            .retain(|item| item.column.is_some() || !item.constraints.iter().any(over));
        for item in &mut self.items {
            let Some(unwanted) = item.constraints.iter().find(|&found| over(found)) else {
                continue;
            };
            let clause = unwanted.text.clone();
            cut(item, &clause);
        }
    }

    /// Takes a check out by its clause, with its name, wherever it is written.
    pub fn cut_check(&mut self, clause: &str) {
        let is = |found: &Constraint| found.kind == ConstraintKind::Check && found.text == clause;
        self.items
            .retain(|item| item.column.is_some() || !item.constraints.iter().any(is));
        for item in &mut self.items {
            if item.constraints.iter().any(is) {
                cut(item, clause);
            }
        }
    }

    /// Takes the named check out where it stands as a table constraint.
    pub fn drop_check(&mut self, name: &str) {
        self.items.retain(|item| {
            item.column.is_some()
                || !item
                    .constraints
                    .iter()
                    .any(|found| found.name.as_deref() == Some(name))
        });
    }
}

/// Cuts a column constraint out of its column, with its name. Its text is a verbatim piece of the item.
fn cut(item: &mut Item, clause: &str) {
    let Some(start) = item.text.find(clause) else {
        return;
    };
    let named = item
        .constraints
        .iter()
        .any(|found| found.text == clause && found.name.is_some());
    let mut head = item.text[..start].trim_end();
    if named
        && let Some(keyword) = tokens(head)
            .iter()
            .rfind(|token| token.is_keyword("CONSTRAINT"))
    {
        head = head[..keyword.start].trim_end();
    }
    let text = format!("{head}{}", &item.text[start + clause.len()..]);
    if let Some(parsed) = self::item(&text, &tokens(&text)) {
        *item = parsed;
    }
}

/// The columns of its own table that a table constraint speaks of; those of a parent table are not among them.
fn own_columns(item: &Item) -> Vec<String> {
    item.constraints
        .iter()
        .flat_map(|constraint| match &constraint.kind {
            ConstraintKind::ForeignKey(columns) | ConstraintKind::Key(columns) => columns.clone(),
            ConstraintKind::Check => words(&constraint.text),
        })
        .collect()
}

/// The words between the first pair of parentheses at or behind a position.
fn parenthesised(tokens: &[Token], from: usize) -> Vec<String> {
    tokens[from..]
        .iter()
        .skip_while(|token| token.kind != Kind::Open)
        .skip(1)
        .take_while(|token| token.kind != Kind::Close)
        .filter_map(|token| token.word().map(str::to_owned))
        .collect()
}

/// Where the clause that begins at a position ends: behind its arguments, before the next clause.
fn clause_end(tokens: &[Token], from: usize) -> usize {
    const NEXT: [&str; 10] = [
        "CONSTRAINT",
        "PRIMARY",
        "UNIQUE",
        "CHECK",
        "DEFAULT",
        "COLLATE",
        "REFERENCES",
        "GENERATED",
        "AS",
        "FOREIGN",
    ];
    let mut depth = 0usize;
    let mut at = from + 1;
    let references = tokens[from].is_keyword("REFERENCES") || tokens[from].is_keyword("FOREIGN");
    let table_foreign_key = tokens[from].is_keyword("FOREIGN");
    while at < tokens.len() {
        match tokens[at].kind {
            Kind::Open => depth += 1,
            Kind::Close => depth = depth.saturating_sub(1),
            _ if depth == 0 => {
                // ON DELETE SET NULL / SET DEFAULT, and NOT DEFERRABLE, belong to a foreign key.
                let belongs = references
                    && (tokens[at - 1].is_keyword("SET")
                        || (table_foreign_key && tokens[at].is_keyword("REFERENCES")));
                let not_null = tokens[at].is_keyword("NOT")
                    && tokens
                        .get(at + 1)
                        .is_some_and(|next| next.is_keyword("NULL"));
                let null = tokens[at].is_keyword("NULL")
                    && !belongs
                    && tokens[from].is_keyword("REFERENCES");
                if !belongs
                    && (NEXT.iter().any(|keyword| tokens[at].is_keyword(keyword))
                        || not_null
                        || null)
                {
                    return at;
                }
            }
            _ => {}
        }
        at += 1;
    }
    at
}

/// Reads one item. The text kept begins and ends with its first and last token.
fn item(sql: &str, tokens: &[Token]) -> Option<Item> {
    let (first, last) = (tokens.first()?, tokens.last()?);
    let is_constraint = ["CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "FOREIGN"]
        .iter()
        .any(|keyword| first.is_keyword(keyword));
    let column = if is_constraint {
        None
    } else {
        Some(first.word()?.to_owned())
    };
    let mut constraints = Vec::new();
    let mut name = None;
    let mut depth = 0usize;
    let mut at = usize::from(!is_constraint);
    while at < tokens.len() {
        match tokens[at].kind {
            Kind::Open => depth += 1,
            Kind::Close => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > 0 {
            at += 1;
            continue;
        }
        let token = &tokens[at];
        if token.is_keyword("CONSTRAINT") {
            name = tokens
                .get(at + 1)
                .and_then(|next| next.word().map(str::to_owned));
            at += 2;
            continue;
        }
        let own = || column.iter().cloned().collect::<Vec<_>>();
        let kind = if token.is_keyword("REFERENCES") {
            Some(ConstraintKind::ForeignKey(own()))
        } else if token.is_keyword("FOREIGN") {
            Some(ConstraintKind::ForeignKey(parenthesised(tokens, at)))
        } else if token.is_keyword("CHECK") {
            Some(ConstraintKind::Check)
        } else if token.is_keyword("UNIQUE") || token.is_keyword("PRIMARY") {
            Some(ConstraintKind::Key(if is_constraint {
                parenthesised(tokens, at)
            } else {
                own()
            }))
        } else {
            if token.is_keyword("NOT") || token.is_keyword("DEFAULT") || token.is_keyword("COLLATE")
            {
                name = None;
            }
            None
        };
        if let Some(kind) = kind {
            let end = clause_end(tokens, at);
            constraints.push(Constraint {
                name: name.take(),
                kind,
                text: sql[tokens[at].start..tokens[end - 1].end].to_owned(),
            });
            at = end;
        } else {
            at += 1;
        }
    }
    Some(Item {
        text: sql[first.start..last.end].to_owned(),
        column,
        constraints,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GORM: &str = "CREATE TABLE `governance_virtual_keys` (`id` varchar(255),`name` varchar(255) NOT NULL,`is_active` numeric DEFAULT true,`budget_id` varchar(255),`note` text DEFAULT 'a, (b) `c` -- d',PRIMARY KEY (`id`),CONSTRAINT `fk_governance_virtual_keys_budget` FOREIGN KEY (`budget_id`) REFERENCES `governance_budgets`(`id`),CONSTRAINT `fk_team` FOREIGN KEY (`team_id`) REFERENCES `governance_teams`(`budget_id`))";

    #[test]
    fn what_is_taken_apart_reads_the_same_when_put_together() {
        let table = CreateTable::parse(GORM).unwrap();
        assert_eq!(table.sql("`governance_virtual_keys`"), GORM);
    }

    #[test]
    fn dropping_a_column_takes_its_foreign_key_and_no_other() {
        let mut table = CreateTable::parse(GORM).unwrap();
        table.drop_column("budget_id");
        let sql = table.sql("`t`");
        assert!(!sql.contains("fk_governance_virtual_keys_budget"));
        assert!(sql.contains("CONSTRAINT `fk_team` FOREIGN KEY (`team_id`) REFERENCES `governance_teams`(`budget_id`)"));
        assert!(sql.contains("DEFAULT 'a, (b) `c` -- d'"));
    }

    #[test]
    fn column_constraints_are_found_with_their_names() {
        let table = CreateTable::parse(
            "CREATE TABLE t (a integer CONSTRAINT fk_a REFERENCES p(id) ON DELETE SET NULL NOT NULL CONSTRAINT \"one\" CHECK (a > 0), b text UNIQUE) STRICT",
        )
        .unwrap();
        let found: Vec<_> = table.constraints().cloned().collect();
        assert_eq!(found[0].name.as_deref(), Some("fk_a"));
        assert_eq!(found[0].text, "REFERENCES p(id) ON DELETE SET NULL");
        assert_eq!(found[1].name.as_deref(), Some("one"));
        assert_eq!(found[1].text, "CHECK (a > 0)");
        assert_eq!(found[2].kind, ConstraintKind::Key(vec!["b".to_owned()]));
        assert_eq!(table.options, "STRICT");
    }

    #[test]
    fn an_inline_foreign_key_is_cut_out_of_its_column() {
        let mut table = CreateTable::parse(
            "CREATE TABLE t (a integer NOT NULL CONSTRAINT fk_a REFERENCES p(id) ON DELETE CASCADE DEFAULT 5, b text)",
        )
        .unwrap();
        table.drop_foreign_keys("a");
        assert_eq!(
            table.sql("t"),
            "CREATE TABLE t (a integer NOT NULL DEFAULT 5,b text)"
        );
    }

    #[test]
    fn an_added_column_stands_before_the_table_constraints() {
        let mut table =
            CreateTable::parse("CREATE TABLE t (a integer, CHECK (a > 0)) WITHOUT ROWID").unwrap();
        table.add_column("b text CONSTRAINT fk REFERENCES p(id)");
        assert_eq!(
            table.sql("t"),
            "CREATE TABLE t (a integer,b text CONSTRAINT fk REFERENCES p(id),CHECK (a > 0)) WITHOUT ROWID"
        );
        assert!(!table.has_rowid());
    }
}
