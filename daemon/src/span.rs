//! Lengths of time as people write them: `250ms`, `10s`, `5min`, `1h`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

/// A length of time, read from a flag, a variable or a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

const UNITS: &[(&str, u64)] = &[("ms", 1), ("s", 1_000), ("min", 60_000), ("h", 3_600_000)];

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || {
            format!("'{text}' is no length of time: expected a number with ms, s, min or h, as 10s")
        };
        let digits = text
            .find(|c: char| !c.is_ascii_digit())
            .ok_or_else(expected)?;
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| expected())?;
        let unit = UNITS
            .iter()
            .find(|(name, _)| *name == unit.trim())
            .ok_or_else(expected)?;
        let millis = number.checked_mul(unit.1).ok_or_else(expected)?;
        Ok(Self(Duration::from_millis(millis)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        let whole = |unit: u64| millis > 0 && millis.is_multiple_of(u128::from(unit));
        let (name, unit) = UNITS
            .iter()
            .rev()
            .find(|(_, unit)| whole(*unit))
            .unwrap_or(&UNITS[0]);
        write!(f, "{}{name}", millis / u128::from(*unit))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_is_read_and_written_back() {
        for text in ["250ms", "10s", "5min", "1h", "0ms"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
        assert_eq!("60 s".parse::<Span>().unwrap().to_string(), "1min");
    }

    #[test]
    fn what_is_no_time_is_refused_with_an_example() {
        for text in [
            "",
            "10",
            "s",
            "ten s",
            "-1s",
            "10 parsecs",
            "99999999999999999999s",
        ] {
            let error = text.parse::<Span>().unwrap_err();
            assert!(error.contains("as 10s"), "{error}");
        }
    }
}
