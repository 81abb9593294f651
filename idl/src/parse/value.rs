//! Literals: values of constants, arguments of attributes, ordinals.

use proc_macro2::{Literal, TokenTree};

use crate::ast::{Value, ValueKind};
use crate::codes;
use crate::cursor::{Failed, Parsed, Parser};
use crate::diagnostic::Diagnostic;

impl Parser<'_> {
    /// `true`, `-5`, `2.5`, `"text"`
    pub(super) fn value(&mut self) -> Parsed<Value> {
        let start = self.here();
        if let Some(span) = self.eat_word("true") {
            return Ok(Value {
                span,
                kind: ValueKind::Bool(true),
            });
        }
        if let Some(span) = self.eat_word("false") {
            return Ok(Value {
                span,
                kind: ValueKind::Bool(false),
            });
        }
        let negative = self.eat_punct('-');
        let literal = self.here();
        let Some(text) = self.literal() else {
            return Err(self.expected("a number, a string, `true` or `false`"));
        };
        let span = start.to(literal);
        let kind = match &text {
            text if negative => numeric(&text.to_string(), true),
            text => string(text)
                .map(ValueKind::Text)
                .or_else(|| numeric(&text.to_string(), false)),
        };
        match kind {
            Some(kind) => Ok(Value { span, kind }),
            None => {
                let message = "this is no value of a constant";
                let help = "values are numbers without a suffix, strings, `true` and `false`";
                self.push(Diagnostic::new(&codes::CONST_VALUE, span, message).help(help));
                Err(Failed)
            }
        }
    }

    fn literal(&mut self) -> Option<Literal> {
        let (TokenTree::Literal(literal), _) = self.position().token_tree()? else {
            return None;
        };
        self.bump();
        Some(literal)
    }
}

/// The text of a string literal.
pub(super) fn string(literal: &Literal) -> Option<String> {
    match syn::Lit::new(literal.clone()) {
        syn::Lit::Str(text) if text.suffix().is_empty() => Some(text.value()),
        _ => None,
    }
}

fn numeric(text: &str, negative: bool) -> Option<ValueKind> {
    if let Some(magnitude) = integer(text) {
        let value = magnitude.and_then(|magnitude| i128::try_from(magnitude).ok());
        return Some(ValueKind::Int(
            value.map(|value| if negative { -value } else { value }),
        ));
    }
    let digits: String = text.chars().filter(|c| *c != '_').collect();
    let decimal = digits.starts_with(|c: char| c.is_ascii_digit())
        && digits
            .chars()
            .all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-'));
    let value: f64 = if decimal {
        digits.parse().ok()?
    } else {
        return None;
    };
    Some(ValueKind::Float(if negative { -value } else { value }))
}

/// The number of an integer literal without a suffix; `Some(None)` if it is beyond 128 bits.
pub(super) fn integer(text: &str) -> Option<Option<u128>> {
    let digits: String = text.chars().filter(|c| *c != '_').collect();
    let (radix, digits) = match digits.get(..2) {
        Some("0x") => (16, &digits[2..]),
        Some("0o") => (8, &digits[2..]),
        Some("0b") => (2, &digits[2..]),
        _ => (10, digits.as_str()),
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    Some(u128::from_str_radix(digits, radix).ok())
}

/// Microseconds of a time as `5s`; not nothing, and not beyond 64 bits.
pub(super) fn time_us(text: &str) -> Option<u64> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit_at);
    let unit_us = match unit {
        "us" => 1,
        "ms" => 1_000,
        "s" => 1_000_000,
        "m" => 60_000_000,
        "h" => 3_600_000_000,
        _ => return None,
    };
    number
        .parse::<u64>()
        .ok()?
        .checked_mul(unit_us)
        .filter(|time| *time > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(time_us("5s"), Some(5_000_000));
        assert_eq!(time_us("250us"), Some(250));
        assert_eq!(time_us("2h"), Some(7_200_000_000));
        for wrong in [
            "",
            "5",
            "s",
            "0s",
            "5 s",
            "-5s",
            "5d",
            "1.5s",
            "99999999999999999h",
            "5é",
        ] {
            assert_eq!(time_us(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn integers() {
        assert_eq!(integer("1_000"), Some(Some(1_000)));
        assert_eq!(integer("0xff"), Some(Some(255)));
        assert_eq!(integer("0b11"), Some(Some(3)));
        assert_eq!(integer(&"9".repeat(60)), Some(None));
        for wrong in ["5i64", "1.0", "0x", "\"5\"", "0b12"] {
            assert_eq!(integer(wrong), None, "{wrong}");
        }
    }
}
