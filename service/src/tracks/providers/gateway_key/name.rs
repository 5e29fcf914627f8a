//! What a gateway key may be called.

use std::fmt;
use std::str::FromStr;

use super::secret;
use crate::error::Error;

/// The longest name, in characters.
const LONGEST: usize = 64;

/// A name in lower kebab case: words of a to z and 0 to 9 with single dashes between them, at most 64 characters. Upper
/// case is folded, so that names are unique whatever their case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(String);

impl Name {
    /// The name as it is stored.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(given: &str) -> Result<Self, Error> {
        let shown = secret::without_secrets(given);
        if secret::is_in(given) {
            return Err(Error::usage(
                format!("{shown:?} looks like a secret, not like a name"),
                "a name is stored and shown; secrets are passed on standard input",
            ));
        }
        let refuse = |why: &str| {
            Err(Error::usage(
                format!("{shown:?} is no name for a gateway key: {why}"),
                "words of a to z and 0 to 9 with single dashes between them, at most 64 characters: us-east-1",
            ))
        };
        let length = given.chars().count();
        if length > LONGEST {
            return refuse(&format!("it has {length} characters"));
        }
        // Only ASCII is folded: another script's upper case is no more allowed than its lower case.
        let name = given.to_ascii_lowercase();
        if name.is_empty() {
            return refuse("it is empty");
        }
        if let Some(other) = name
            .chars()
            .find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-'))
        {
            return refuse(&format!("{other:?} is not allowed"));
        }
        if name.split('-').any(str::is_empty) {
            return refuse("a dash stands only between two words");
        }
        Ok(Self(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_lower_kebab_case() {
        let longest = "a".repeat(64);
        for (given, stored) in [
            ("a", "a"),
            ("us-east-1", "us-east-1"),
            ("US-East-1", "us-east-1"),
            ("0", "0"),
            (longest.as_str(), longest.as_str()),
        ] {
            assert_eq!(given.parse::<Name>().unwrap().as_str(), stored);
        }
        for given in [
            "",
            "-",
            "-a",
            "a-",
            "a--b",
            "a_b",
            "a b",
            " a",
            "a\n",
            "é",
            "ключ",
            "ſ",
            "İ",
            "Ω",
            "a.b",
            "a\0",
            &"a".repeat(65),
            // A secret.
            "0eWVabcdefgh1234567890ABCDEFGHijklmnopqStQA",
        ] {
            let error = given.parse::<Name>().unwrap_err();
            assert_eq!(error.exit_code(), 2, "{given:?}");
        }
    }
}
