//! One spelling per condition: without the accidents of quoting, casting, bracketing and order. Grouping is none of them:
//! `a OR (b AND c)` is not `(a OR b) AND c`.

/// The spelling of an expression. A leading `CHECK` stays.
pub(super) fn expression(spelt: &str) -> String {
    let mut tokens = tokens(&without_casts(spelt));
    let check = tokens.first().is_some_and(|token| token == "check");
    if check {
        tokens.remove(0);
    }
    let text = Parser {
        tokens: &tokens,
        at: 0,
    }
    .any()
    .text(false);
    if check { format!("check {text}") } else { text }
}

fn without_casts(spelt: &str) -> String {
    let mut plain = String::new();
    let mut rest = spelt;
    while let Some(at) = rest.find("::") {
        plain.push_str(&rest[..at]);
        let tail = &rest[at + 2..];
        let end = tail
            .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ' '))
            .unwrap_or(tail.len());
        // A type of several words ends before a word that joins conditions.
        let lower = tail[..end].to_lowercase();
        let end = [" and ", " or ", " is ", " not "]
            .iter()
            .filter_map(|word| lower.find(word))
            .min()
            .map_or(end, |found| found.min(end));
        rest = &tail[end..];
    }
    plain.push_str(rest);
    plain
}

/// Words in lower case, texts as they are, brackets of both kinds and commas.
fn tokens(plain: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    for character in plain.chars() {
        match character {
            '\'' => {
                quoted = !quoted;
                word.push(character);
            }
            other if quoted => word.push(other),
            '[' | ']' | ',' | '(' | ')' => {
                words.push(std::mem::take(&mut word));
                words.push(character.to_string());
            }
            other if other.is_whitespace() || matches!(other, '"' | '`') => {
                words.push(std::mem::take(&mut word));
            }
            other => word.extend(other.to_lowercase()),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    for word in &mut words {
        if word == "!=" {
            "<>".clone_into(word);
        }
    }
    words
}

/// A condition.
#[derive(Debug, PartialEq, Eq)]
enum Node {
    Atom(String),
    Not(Box<Node>),
    All(Vec<Node>),
    Any(Vec<Node>),
}

impl Node {
    /// Its text; in brackets where it joins others and stands inside of something.
    fn text(&self, inside: bool) -> String {
        let joined = |nodes: &[Self], word: &str| {
            let mut parts: Vec<String> = nodes.iter().map(|node| node.text(true)).collect();
            parts.sort();
            parts.dedup();
            let text = parts.join(word);
            if inside && parts.len() > 1 {
                format!("({text})")
            } else {
                text
            }
        };
        match self {
            Self::Atom(text) => text.clone(),
            Self::Not(node) => format!("not {}", node.text(true)),
            Self::All(nodes) => joined(nodes, " and "),
            Self::Any(nodes) => joined(nodes, " or "),
        }
    }
}

struct Parser<'a> {
    tokens: &'a [String],
    at: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&str> {
        self.tokens.get(self.at).map(String::as_str)
    }

    fn any(&mut self) -> Node {
        let mut nodes = vec![self.all()];
        while self.peek() == Some("or") {
            self.at += 1;
            nodes.push(self.all());
        }
        flat(nodes, Node::Any, |node| match node {
            Node::Any(inner) => Ok(inner),
            other => Err(other),
        })
    }

    fn all(&mut self) -> Node {
        let mut nodes = vec![self.one()];
        while self.peek() == Some("and") {
            self.at += 1;
            nodes.push(self.one());
        }
        flat(nodes, Node::All, |node| match node {
            Node::All(inner) => Ok(inner),
            other => Err(other),
        })
    }

    fn one(&mut self) -> Node {
        if self.peek() == Some("not") {
            self.at += 1;
            return match self.one() {
                Node::Not(node) => *node,
                node => Node::Not(Box::new(node)),
            };
        }
        let start = self.at;
        let mut depth = 0_usize;
        let mut between = 0_usize;
        let mut cases = 0_usize;
        while let Some(token) = self.peek() {
            match token {
                "(" | "[" => depth += 1,
                ")" | "]" if depth == 0 => break,
                ")" | "]" => depth -= 1,
                "case" => cases += 1,
                "end" => cases = cases.saturating_sub(1),
                "between" if depth == 0 => between += 1,
                "and" if depth == 0 && between > 0 => between -= 1,
                "and" | "or" if depth == 0 && cases == 0 => break,
                _ => {}
            }
            self.at += 1;
        }
        let tokens = &self.tokens[start..self.at];
        if self.at == start {
            // A bracket that nothing opened: what is not understood stays as it is.
            self.at = self.tokens.len();
            return Node::Atom(atom(&self.tokens[start..]));
        }
        if is_one_group(tokens) {
            return Parser {
                tokens: &tokens[1..tokens.len() - 1],
                at: 0,
            }
            .any();
        }
        match tokens {
            [first @ .., equals, true_literal] if equals == "=" && true_literal == "true" => {
                Node::Atom(atom(first))
            }
            [first @ .., equals, true_literal] if equals == "=" && true_literal == "false" => {
                Node::Not(Box::new(Node::Atom(atom(first))))
            }
            _ => Node::Atom(atom(tokens)),
        }
    }
}

fn flat(
    nodes: Vec<Node>,
    join: fn(Vec<Node>) -> Node,
    open: fn(Node) -> Result<Vec<Node>, Node>,
) -> Node {
    let mut all = Vec::new();
    for node in nodes {
        match open(node) {
            Ok(inner) => all.extend(inner),
            Err(node) => all.push(node),
        }
    }
    if all.len() == 1
        && let Some(only) = all.pop()
    {
        return only;
    }
    join(all)
}

/// Whether the first bracket closes with the last token.
fn is_one_group(tokens: &[String]) -> bool {
    if tokens.first().map(String::as_str) != Some("(") {
        return false;
    }
    let mut depth = 0_usize;
    for (position, token) in tokens.iter().enumerate() {
        match token.as_str() {
            "(" => depth += 1,
            ")" => {
                depth -= 1;
                if depth == 0 {
                    return position + 1 == tokens.len();
                }
            }
            _ => {}
        }
    }
    false
}

/// What joins nothing, without round brackets.
fn atom(tokens: &[String]) -> String {
    let mut plain: Vec<&str> = Vec::new();
    for token in tokens {
        match token.as_str() {
            "(" | ")" => {}
            // What a cast to an array leaves behind; a dump that was restored casts each element instead.
            "]" if plain.last() == Some(&"[") => {
                plain.pop();
            }
            other => plain.push(other),
        }
    }
    plain.join(" ")
}

#[cfg(test)]
mod tests {
    use super::expression;

    #[test]
    fn a_check_reads_the_same_on_both_backends() {
        assert_eq!(
            expression("CHECK (((virtual_key_id IS NULL) OR (provider_config_id IS NULL)))"),
            expression("CHECK (virtual_key_id IS NULL OR provider_config_id IS NULL)")
        );
        assert_eq!(expression("((a)::text = 'x'::text)"), "a = 'x'");
    }

    #[test]
    fn a_check_reads_the_same_after_a_restore_and_an_earlier_release() {
        let made = "(((a)::text = ANY ((ARRAY['x'::character varying, 'y z'::character varying])::text[])))";
        let restored = "(((a)::text = ANY (ARRAY[('x'::character varying)::text, ('y z'::character varying)::text])))";
        let written = "a = any array['x', 'y z'] []";
        assert_eq!(expression(made), "a = any array [ 'x' , 'y z' ]");
        assert_eq!(expression(made), expression(restored));
        assert_eq!(expression(made), expression(written));
    }

    #[test]
    fn spellings_of_one_condition_are_one() {
        for (one, other) in [
            ("a != ''", "a <> ''"),
            (
                "(deleted = true) OR (x IS NOT NULL)",
                "deleted OR x IS NOT NULL",
            ),
            ("deleted = false", "NOT deleted"),
            ("a AND b AND c", "(c AND (a AND b))"),
            ("a OR b", "b OR a"),
            ("n >= 0 AND n <= 100", "((n <= 100) AND (n >= 0))"),
            ("n BETWEEN 0 AND 100 AND m", "m AND n BETWEEN 0 AND 100"),
            ("a = 'x'::text AND b = 'y'::text", "b = 'y' AND a = 'x'"),
        ] {
            assert_eq!(expression(one), expression(other), "{one} / {other}");
        }
    }

    #[test]
    fn grouping_counts() {
        for (one, other) in [
            ("a OR (b AND c)", "(a OR b) AND c"),
            ("NOT (a AND b)", "NOT a AND b"),
            ("NOT a", "a"),
        ] {
            assert_ne!(expression(one), expression(other), "{one} / {other}");
        }
    }
}
