//! What a request cost.

use std::str::FromStr;

use crate::error::Error;

/// An amount that is finite and not negative. It stays the text that it was given as, so that no digit is lost on the way
/// to the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cost(String);

impl Cost {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Cost {
    type Err = Error;

    fn from_str(given: &str) -> Result<Self, Error> {
        let is_decimal = given.starts_with(|c: char| c.is_ascii_digit() || c == '.')
            && given.bytes().all(|byte| {
                byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-')
            });
        // Neither beyond what SQLite's numbers hold, nor so small that they would hold nothing.
        let digits = given.split(['e', 'E']).next().unwrap_or_default();
        let is_zero = !digits.bytes().any(|byte| matches!(byte, b'1'..=b'9'));
        let is_number = given
            .parse::<f64>()
            .is_ok_and(|cost| cost.is_finite() && (cost > 0.0 || is_zero));
        if is_decimal && is_number {
            return Ok(Self(given.to_owned()));
        }
        Err(Error::usage(
            format!("{given:?} is no cost"),
            "a decimal number that is not negative, such as 0.0125",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_decimals_from_zero_on() {
        for given in [
            "0",
            "1",
            "0.1",
            ".5",
            "12.345678901234567890123",
            "1e-7",
            "1E+2",
            "0.000",
            "0e-5",
        ] {
            assert_eq!(given.parse::<Cost>().unwrap().as_str(), given);
        }
        for given in [
            "", "-1", "-0", "+1", "NaN", "inf", "1e999", "1e-20000", "1,5", "0x10", "1 ", "1.2.3",
            "e5",
        ] {
            assert!(given.parse::<Cost>().is_err(), "{given:?}");
        }
    }
}
