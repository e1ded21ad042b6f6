//! A number written as text, as simple devices send it.

use crate::telemetry::{DecodeError, column::Scalar};

/// Reads a whole number if it is one, else a number with a fraction.
pub(super) fn parse(payload: &[u8]) -> Result<Scalar<'static>, DecodeError> {
    let text = std::str::from_utf8(payload).map_err(DecodeError::new)?.trim();
    if let Ok(value) = text.parse() {
        return Ok(Scalar::Int(value));
    }
    text.parse().map(Scalar::Float).map_err(|_| {
        let shown: String = text.chars().take(SHOWN_MAX).collect();
        DecodeError(format!("{shown:?} is no number"))
    })
}

/// Characters that an error shows.
const SHOWN_MAX: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_whole_where_they_can_be() {
        assert_eq!(parse(b" 42\n"), Ok(Scalar::Int(42)));
        assert_eq!(parse(b"-4.5e3"), Ok(Scalar::Float(-4500.0)));
        assert_eq!(parse(b"18446744073709551616"), Ok(Scalar::Float(18_446_744_073_709_551_616.0)));
        assert_eq!(parse(b"on").unwrap_err().to_string(), "\"on\" is no number");
        assert!(parse(b"\xff").is_err());
    }
}
