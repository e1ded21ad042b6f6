//! Quantities with their units: `"64 KiB"`, `"1.5h"`. What `Display` writes, `FromStr` reads back.
//!
//! Exact: `"1.0005s"` is refused rather than rounded, so the effective configuration says what the file says.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A number of bytes: `"64 KiB"`, `"1MB"`, or a plain integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

/// A time to the millisecond: `"250ms"`, `"30s"`, `"5 min"`, `"1.5h"`, `"2d"`, or a plain number of seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period(Duration);

/// Whole seconds, as MQTT counts: written like a [`Period`], or `"never"` for [`Seconds::NEVER`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seconds(pub u32);

/// Why a text is no quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// No number at the start.
    #[error("{text:?} does not start with a number; write for example {example:?}")]
    Number {
        /// What was written.
        text: String,
        /// What could be.
        example: &'static str,
    },
    /// A unit that is not known here, or none.
    #[error("{text:?} needs one of the units {units}; write for example {example:?}")]
    Unit {
        /// What was written.
        text: String,
        /// The units.
        units: &'static str,
        /// What could be written.
        example: &'static str,
    },
    /// Smaller than one of what is counted.
    #[error("{text:?} is not a whole number of {of}")]
    Fraction {
        /// What was written.
        text: String,
        /// What is counted.
        of: &'static str,
    },
    /// More than can be held.
    #[error("{text:?} is too much; at most {max}")]
    TooMuch {
        /// What was written.
        text: String,
        /// The most.
        max: String,
    },
}

impl ByteSize {
    /// As a length in memory.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl From<usize> for ByteSize {
    fn from(bytes: usize) -> Self {
        Self(bytes as u64)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        BYTES.display(self.0, f)
    }
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        BYTES.parse(text).map(Self)
    }
}

impl Period {
    /// The time.
    pub const fn as_duration(self) -> Duration {
        self.0
    }

    /// This many seconds.
    pub const fn from_secs(seconds: u32) -> Self {
        Self(Duration::from_secs(seconds as u64))
    }
}

impl From<Duration> for Period {
    /// Cut to milliseconds, at most [`Seconds::NEVER`] seconds.
    fn from(time: Duration) -> Self {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).min(TIMES.max);
        Self(Duration::from_millis(millis))
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        TIMES.display(self.0.as_millis() as u64, f)
    }
}

impl FromStr for Period {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        TIMES.parse(text).map(|millis| Self(Duration::from_millis(millis)))
    }
}

impl Seconds {
    /// What stands for no end in session expiry (section 3.1.2.11.2).
    pub const NEVER: Self = Self(u32::MAX);
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::NEVER { f.write_str(NEVER) } else { TIMES.display(u64::from(self.0) * 1000, f) }
    }
}

impl FromStr for Seconds {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        if text.trim() == NEVER {
            return Ok(Self::NEVER);
        }
        let millis = TIMES.parse(text)?;
        if millis % 1000 != 0 {
            return Err(UnitError::Fraction { text: text.to_owned(), of: "seconds" });
        }
        Ok(Self(u32::try_from(millis / 1000).expect("the most that TIMES parses is u32::MAX seconds")))
    }
}

/// Reads text or a plain number; writes text. The number is handed to `FromStr` with `$unit` behind it.
macro_rules! quantity_serde {
    ($name:ident, $unit:literal, $expecting:literal) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;

                impl de::Visitor<'_> for Visitor {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expecting)
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }

                    fn visit_u64<E: de::Error>(self, number: u64) -> Result<$name, E> {
                        format!("{number}{}", $unit).parse().map_err(E::custom)
                    }

                    fn visit_i64<E: de::Error>(self, number: i64) -> Result<$name, E> {
                        format!("{number}{}", $unit).parse().map_err(E::custom)
                    }

                    fn visit_f64<E: de::Error>(self, number: f64) -> Result<$name, E> {
                        format!("{number}{}", $unit).parse().map_err(E::custom)
                    }
                }

                deserializer.deserialize_any(Visitor)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    };
}

quantity_serde!(ByteSize, "B", "a size such as \"64 KiB\" or a number of bytes");
quantity_serde!(Period, "s", "a time such as \"250ms\" or \"30s\", or a number of seconds");
quantity_serde!(Seconds, "s", "a time such as \"30s\" or \"2h\", \"never\", or a number of seconds");

/// One kind of quantity: its units in terms of the smallest.
struct Scale {
    /// Name as written first, further names, and how many of the smallest unit.
    units: &'static [(&'static str, &'static [&'static str], u64)],
    /// Names for `Display`, greatest first.
    shown: &'static [&'static str],
    listed: &'static str,
    example: &'static str,
    counted: &'static str,
    max: u64,
}

impl Scale {
    fn parse(&self, text: &str) -> Result<u64, UnitError> {
        let written = text.trim();
        let end = written.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(written.len());
        let (number, unit) = written.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let text = || text.to_owned();
        if whole.is_empty() || fraction.is_empty() || fraction.contains('.') {
            return Err(UnitError::Number { text: text(), example: self.example });
        }
        let size = self.find(unit.trim_start()).ok_or_else(|| UnitError::Unit {
            text: text(),
            units: self.listed,
            example: self.example,
        })?;
        let too_much = || UnitError::TooMuch { text: text(), max: self.shown_value(self.max) };
        let whole: u64 = whole.parse().map_err(|_| too_much())?;
        // More digits than any unit can divide are not whole, unless they are zeros.
        let digits = fraction.trim_end_matches('0');
        let scale = 10_u128.checked_pow(digits.len() as u32).filter(|_| digits.len() <= FRACTION_DIGITS_MAX);
        let scale = scale.ok_or_else(|| UnitError::Fraction { text: text(), of: self.counted })?;
        let part = digits.parse::<u128>().unwrap_or(0) * u128::from(size);
        if part % scale != 0 {
            return Err(UnitError::Fraction { text: text(), of: self.counted });
        }
        let total = u128::from(whole) * u128::from(size) + part / scale;
        u64::try_from(total).ok().filter(|&total| total <= self.max).ok_or_else(too_much)
    }

    fn find(&self, unit: &str) -> Option<u64> {
        let names = |name: &str| name.eq_ignore_ascii_case(unit);
        self.units.iter().find(|(name, others, _)| names(name) || others.iter().any(|name| names(name))).map(|u| u.2)
    }

    /// In the greatest unit that divides it.
    fn display(&self, value: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown_value(value))
    }

    fn shown_value(&self, value: u64) -> String {
        let mut fitting = self.shown.iter().filter_map(|name| self.find(name).map(|size| (name, size)));
        match fitting.find(|(_, size)| value != 0 && value.is_multiple_of(*size)) {
            Some((name, size)) => format!("{} {name}", value / size),
            None => format!("{value} {}", if value == 0 { self.units[0].0 } else { self.shown[self.shown.len() - 1] }),
        }
    }
}

const BYTES: Scale = Scale {
    units: &[
        ("B", &["byte", "bytes"], 1),
        ("KiB", &[], 1 << 10),
        ("MiB", &[], 1 << 20),
        ("GiB", &[], 1 << 30),
        ("kB", &[], 1000),
        ("MB", &[], 1_000_000),
        ("GB", &[], 1_000_000_000),
    ],
    shown: &["GiB", "MiB", "KiB", "B"],
    listed: "B, KiB, MiB, GiB, kB, MB, GB",
    example: "64 KiB",
    counted: "bytes",
    // What TOML's integers hold.
    max: i64::MAX as u64,
};

const TIMES: Scale = Scale {
    units: &[
        ("s", &["sec", "second", "seconds"], 1000),
        ("ms", &["millisecond", "milliseconds"], 1),
        ("min", &["m", "minute", "minutes"], 60_000),
        ("h", &["hour", "hours"], 3_600_000),
        ("d", &["day", "days"], 86_400_000),
    ],
    shown: &["d", "h", "min", "s", "ms"],
    listed: "ms, s, min, h, d",
    example: "30s",
    counted: "milliseconds",
    // 136 years: what MQTT's four-byte intervals hold, and no sum with the clock overflows.
    max: u32::MAX as u64 * 1000,
};

const NEVER: &str = "never";

/// No unit is divisible by 10 more often.
const FRACTION_DIGITS_MAX: usize = 18;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_units() {
        for (text, bytes) in [
            ("0 B", 0),
            ("1024 B", 1024),
            ("64 KiB", 65_536),
            ("64kib", 65_536),
            ("1MB", 1_000_000),
            ("1.5 MiB", 1_572_864),
            (" 2 GiB ", 2 << 30),
            ("0.5kB", 500),
            ("1.000000000000000000000000 kB", 1000),
        ] {
            assert_eq!(text.parse::<ByteSize>(), Ok(ByteSize(bytes)), "{text}");
        }
    }

    #[test]
    fn times_are_read_with_units() {
        for (text, millis) in [
            ("250ms", 250),
            ("30s", 30_000),
            ("5 min", 300_000),
            ("1.5h", 5_400_000),
            ("2d", 172_800_000),
            ("0.25s", 250),
            ("1 hour", 3_600_000),
        ] {
            assert_eq!(text.parse::<Period>(), Ok(Period(Duration::from_millis(millis))), "{text}");
        }
        assert_eq!("never".parse(), Ok(Seconds::NEVER));
        assert_eq!("1.5min".parse(), Ok(Seconds(90)));
    }

    #[test]
    fn faults_say_what_could_be_written() {
        for (text, words) in [
            ("KiB", "does not start with a number"),
            ("-1 B", "does not start with a number"),
            ("1.", "does not start with a number"),
            ("1.2.3 B", "does not start with a number"),
            ("64", "needs one of the units B, KiB"),
            ("64 K", "needs one of the units B, KiB"),
            ("64 Kib!", "\"64 KiB\""),
            ("0.3 B", "not a whole number of bytes"),
            ("0.00000000000000000001 GB", "not a whole number of bytes"),
            ("9999999999 GiB", "too much"),
            ("99999999999999999999 B", "too much"),
        ] {
            let error = text.parse::<ByteSize>().unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
        for (text, words) in [
            ("10", "units ms, s, min, h, d"),
            ("1.0005s", "not a whole number of milliseconds"),
            ("50000d", "too much; at most 4294967295 s"),
        ] {
            let error = text.parse::<Period>().unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
        assert!("1.5s".parse::<Seconds>().unwrap_err().to_string().contains("whole number of seconds"));
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(bytes in 0..=i64::MAX as u64, shift in 0_u32..62, seconds: u32, millis in 0..=TIMES.max) {
            for bytes in [bytes, bytes >> shift, 1 << shift] {
                prop_assert_eq!(ByteSize(bytes).to_string().parse(), Ok(ByteSize(bytes)));
            }
            prop_assert_eq!(Seconds(seconds).to_string().parse(), Ok(Seconds(seconds)));
            let period = Period::from(Duration::from_millis(millis));
            prop_assert_eq!(period.to_string().parse(), Ok(period));
        }
    }
}
