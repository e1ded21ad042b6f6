//! Filters with names for some of their levels: `plant/{line}/temp` is `plant/+/temp`, and `line` is a column.

use crate::codec::{Limits, TopicFilter};

use super::TelemetryError;

/// A filter, and the levels that have names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    filter: TopicFilter,
    names: Vec<Named>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Named {
    name: String,
    level: usize,
    /// It stands for this level and all below.
    is_rest: bool,
}

impl Pattern {
    /// Parses a filter in which a level may be `{name}`, and the last one `{name:#}`.
    pub fn parse(text: &str) -> Result<Self, TelemetryError> {
        let mut levels: Vec<&str> = text.split('/').collect();
        let skipped = if text.starts_with("$share/") { 2 } else { 0 };
        let last = levels.len() - 1;
        let mut names: Vec<Named> = Vec::new();
        for (at, level) in levels.iter_mut().enumerate().skip(skipped) {
            let Some(inner) = level.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) else {
                if level.starts_with('{') || (level.ends_with('}') && !level.contains('{')) {
                    let message = format!("{text:?}: {level:?} has one brace only; {{name}} takes a whole level");
                    return Err(TelemetryError::Settings(message));
                }
                continue;
            };
            let (name, is_rest) = inner.strip_suffix(":#").map_or((inner, false), |name| (name, true));
            if name.is_empty() || (is_rest && at != last) || names.iter().any(|known| known.name == name) {
                let message = format!("{text:?}: {level} must name a level once, and {{name:#}} must be the last");
                return Err(TelemetryError::Settings(message));
            }
            names.push(Named { name: name.to_owned(), level: at - skipped, is_rest });
            *level = if is_rest { "#" } else { "+" };
        }
        let plain = levels.join("/");
        let fault = |fault: &dyn ToString| TelemetryError::Settings(format!("{text:?}: {}", fault.to_string()));
        let plain = crate::codec::Text::try_from(plain.as_str()).map_err(|error| fault(&error))?;
        let filter = TopicFilter::parse(plain, &Limits::default()).map_err(|error| fault(&error))?;
        Ok(Self { filter, names })
    }

    /// The filter to subscribe with.
    pub fn filter(&self) -> &TopicFilter {
        &self.filter
    }

    /// Names of levels, in the order of the levels.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|named| named.name.as_str())
    }

    /// What stands in `topic` for a name.
    pub(crate) fn value<'a>(&self, topic: &'a str, name: &str) -> Option<&'a str> {
        let named = self.names.iter().find(|named| named.name == name)?;
        if named.is_rest {
            topic.splitn(named.level + 1, '/').nth(named.level)
        } else {
            topic.split('/').nth(named.level)
        }
    }

    pub(crate) fn matches(&self, topic: &str) -> bool {
        self.filter.matches(topic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_for_levels_of_a_topic() {
        let pattern = Pattern::parse("$share/g/plant/{line}/{rest:#}").unwrap();
        assert_eq!(pattern.filter().as_str(), "$share/g/plant/+/#");
        assert_eq!(pattern.value("plant/7/a/b", "line"), Some("7"));
        assert_eq!(pattern.value("plant/7/a/b", "rest"), Some("a/b"));
        assert_eq!(pattern.value("plant/7", "rest"), None);
    }

    #[test]
    fn names_that_cannot_be_are_refused_with_the_pattern() {
        for text in ["a/{}/b", "{x}/{x}", "{x:#}/b", "a/#/b"] {
            let fault = Pattern::parse(text).unwrap_err().to_string();
            assert!(fault.contains(&format!("{text:?}")), "{fault}");
        }
    }
}
