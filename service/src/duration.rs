//! Reset durations as the gateway reads them (`docs/upstream/bifrost.md` §3.1).

/// Nanoseconds of an hour.
const HOUR: f64 = 3_600e9;

/// Reads a reset duration: an alias (`daily`, `weekly`, `monthly`, `yearly`, in any case), a number with `d`, `w`, `M` or
/// `Y` (24 hours, 7, 30 and 365 days), or Go's own syntax (`1h30m`). Returns nanoseconds, which may be zero or negative;
/// `None` where the gateway could not read it.
pub fn parse(text: &str) -> Option<i64> {
    match text.to_ascii_lowercase().as_str() {
        "daily" => return parse("1d"),
        "weekly" => return parse("1w"),
        "monthly" => return parse("1M"),
        "yearly" => return parse("1Y"),
        _ => {}
    }
    let days = match text.as_bytes().last()? {
        b'd' => 1.0,
        b'w' => 7.0,
        b'M' => 30.0,
        b'Y' => 365.0,
        _ => return go_duration(text),
    };
    // Upstream reads the number as hours and scales the result.
    let hours = go_duration(&format!("{}h", &text[..text.len() - 1]))?;
    scaled(hours, days * 24.0)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "the range is checked before the cast, and upstream multiplies floats too"
)]
fn scaled(nanoseconds: i64, factor: f64) -> Option<i64> {
    let product = nanoseconds as f64 * factor;
    (product.abs() < 9.2e18).then_some(product as i64)
}

/// Go's `time.ParseDuration`: signed decimal numbers, each with a unit.
fn go_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = 0i64;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        if !number.bytes().any(|byte| byte.is_ascii_digit()) || number.matches('.').count() > 1 {
            return None;
        }
        let letters = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, next) = tail.split_at(letters);
        let factor = match unit {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => HOUR,
            _ => return None,
        };
        total = total.checked_add(scaled_number(number, factor)?)?;
        rest = next;
    }
    Some(if negative { -total } else { total })
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the range is checked before the cast"
)]
fn scaled_number(number: &str, factor: f64) -> Option<i64> {
    let value = number.parse::<f64>().ok()? * factor;
    (value < 9.2e18).then_some(value.round() as i64)
}

#[cfg(test)]
mod tests {
    use super::parse;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn what_the_gateway_reads() {
        for (text, seconds) in [
            ("1d", 86_400),
            ("24h", 86_400),
            ("daily", 86_400),
            ("Weekly", 604_800),
            ("1w", 604_800),
            ("7d", 604_800),
            ("1M", 2_592_000),
            ("30d", 2_592_000),
            ("1Y", 31_536_000),
            ("1.5d", 129_600),
            ("1h30m", 5_400),
            ("90m", 5_400),
            ("-1h", -3_600),
            ("0", 0),
            ("0d", 0),
        ] {
            assert_eq!(parse(text), Some(seconds * SECOND), "{text}");
        }
        assert_eq!(parse("1m"), Some(60 * SECOND), "m is a minute, M a month");
        assert_eq!(parse("1500ms"), Some(1_500_000_000));
    }

    #[test]
    fn what_the_gateway_refuses() {
        for text in [
            "", "1D", "1W", "1y", "1d12h", "d", "h", "1", "one day", "1..5h", "1Q", "1h1",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
