//! What is wrong with a configuration, where, and what was probably meant.

use std::fmt;

/// Why a configuration is refused: `broker.toml:7: unknown key "max_inflght" in [limits]; did you mean ...`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, as it was named.
    pub file: String,
    /// The line, from 1, if it is about a line.
    pub line: Option<usize>,
    /// What is wrong there.
    pub fault: ConfigFault,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file, self.fault),
            None => write!(f, "{}: {}", self.file, self.fault),
        }
    }
}

impl std::error::Error for ConfigError {}

/// What is wrong.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigFault {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Read(String),
    /// Not TOML.
    #[error("{0}")]
    Syntax(String),
    /// A key that means nothing here.
    #[error("unknown key {key:?}{}{hint}", Within(table))]
    UnknownKey {
        /// The key.
        key: String,
        /// Its table as written in a header, `""` for the top.
        table: String,
        /// What to do about it.
        hint: Hint,
    },
    /// A word that is none of the choices.
    #[error("{key}: unknown value {value:?}{hint}")]
    UnknownValue {
        /// Path of the key.
        key: String,
        /// The word.
        value: String,
        /// What to do about it.
        hint: Hint,
    },
    /// A table without a key that has no default.
    #[error("missing key {key:?}{}", Within(table))]
    MissingKey {
        /// The key.
        key: &'static str,
        /// Its table as written in a header.
        table: String,
    },
    /// A value of the wrong type, in the wrong unit or out of range.
    #[error("{key}: {what}")]
    Value {
        /// Path of the key.
        key: String,
        /// What is wrong with it.
        what: String,
    },
}

/// The answer to an unknown name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    /// One known name is close enough to be meant.
    Nearest(&'static str),
    /// The name is known, but in this table.
    Elsewhere(&'static str),
    /// No idea: all the known names.
    Known(&'static [&'static str]),
}

impl Hint {
    /// The best hint for `name` where `known` are allowed.
    pub(super) fn new(name: &str, known: &'static [&'static str]) -> Self {
        // Names differ by a letter or two when mistyped; a third of their length is as far as a guess is worth.
        let within = (name.chars().count() / 3).max(1);
        let nearest = known.iter().map(|known| (distance(name, known), *known)).min();
        match nearest {
            Some((distance, known)) if distance <= within => Self::Nearest(known),
            _ => Self::Known(known),
        }
    }
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nearest(name) => write!(f, "; did you mean {name:?}?"),
            Self::Elsewhere(table) => write!(f, "; it belongs in [{table}]"),
            Self::Known(names) => write!(f, "; known are {}", names.join(", ")),
        }
    }
}

/// ` in [table]`, or nothing at the top.
struct Within<'a>(&'a str);

impl fmt::Display for Within<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, " in {}", self.0) }
    }
}

/// Letters to insert, delete, replace or swap with their neighbour to get from one to the other.
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<_>, Vec<_>) = (from.chars().take(NAME_CHARS_MAX).collect(), to.chars().collect());
    let mut before: Vec<usize> = vec![0; to.len() + 1];
    let mut above: Vec<usize> = (0..=to.len()).collect();
    for (row, a) in from.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, b) in to.iter().enumerate() {
            let mut cost = (above[column] + usize::from(a != b)).min(above[column + 1] + 1).min(current[column] + 1);
            if row > 0 && column > 0 && *a == to[column - 1] && from[row - 1] == *b {
                cost = cost.min(before[column - 1] + 1);
            }
            current.push(cost);
        }
        before = std::mem::replace(&mut above, current);
    }
    above[to.len()]
}

/// Longer names than any known one need not be compared to their end.
const NAME_CHARS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_letters() {
        for (from, to, want) in [
            ("", "", 0),
            ("", "abc", 3),
            ("max_inflght", "max_inflight", 1),
            ("recieve", "receive", 1),
            ("kitten", "sitting", 3),
            ("levle", "level", 1),
        ] {
            assert_eq!(distance(from, to), want, "{from} {to}");
            assert_eq!(distance(to, from), want, "{to} {from}");
        }
    }

    #[test]
    fn a_hint_is_the_nearest_name_or_all_of_them() {
        const KNOWN: &[&str] = &["level", "format"];
        assert_eq!(Hint::new("levle", KNOWN), Hint::Nearest("level"));
        assert_eq!(Hint::new("fromat", KNOWN).to_string(), "; did you mean \"format\"?");
        assert_eq!(Hint::new("colour", KNOWN).to_string(), "; known are level, format");
    }
}
