//! Topic names and filters: parsed once, valid ever after (section 4.7).

use super::{Limits, Text};

/// A valid topic name: not empty, no wildcards. (Empty only inside a PUBLISH that carries a topic alias.)
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct TopicName(Text);

/// A valid topic filter, wildcards included; may be a shared one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TopicFilter(Text);

/// The parts of `$share/group/filter`, section 4.8.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedFilter<'a> {
    /// Share name: no `/`, `+` or `#` [MQTT-4.8.2-2].
    pub group: &'a str,
    /// The filter the group shares.
    pub filter: &'a str,
}

/// Why a string is no topic name or filter.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum InvalidTopic {
    #[error("a topic must hold at least one character")]
    Empty,
    #[error("a topic must not hold U+0000")]
    Null,
    #[error("a topic name must not hold the wildcards + and #")]
    Wildcard,
    #[error("# must be the last level of a filter, and alone in it")]
    MultiLevel,
    #[error("+ must stand alone in its level")]
    SingleLevel,
    #[error("a shared filter is $share/group/filter, with a group name free of / + #")]
    Share,
    #[error("a topic of {levels} levels exceeds the limit of {max}")]
    TooDeep { levels: usize, max: u16 },
    #[error("a topic of {len} bytes exceeds the limit of {max}")]
    TooLong { len: usize, max: u16 },
}

impl TopicName {
    /// Parses a topic name within `limits`.
    pub fn parse(text: Text, limits: &Limits) -> Result<Self, InvalidTopic> {
        check_name(&text, limits)?;
        Ok(Self(text))
    }

    /// The empty topic of a PUBLISH that carries only a topic alias.
    pub const fn empty() -> Self {
        Self(Text::new())
    }

    /// A name that [`check_name`] has accepted.
    pub(crate) const fn from_checked(text: Text) -> Self {
        Self(text)
    }

    /// The topic.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The topic as shared text.
    pub const fn as_text(&self) -> &Text {
        &self.0
    }
}

impl TopicFilter {
    /// Parses a filter within `limits`.
    pub fn parse(text: Text, limits: &Limits) -> Result<Self, InvalidTopic> {
        check_filter(&text, limits)?;
        Ok(Self(text))
    }

    /// The filter.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The filter as shared text.
    pub const fn as_text(&self) -> &Text {
        &self.0
    }

    /// The parts of a shared filter, or `None` for a plain one.
    pub fn shared(&self) -> Option<SharedFilter<'_>> {
        let (group, filter) = self.0.strip_prefix("$share/")?.split_once('/')?;
        Some(SharedFilter { group, filter })
    }

    /// Whether the filter holds + or #.
    pub fn has_wildcard(&self) -> bool {
        self.0.contains(['+', '#'])
    }

    /// Whether this filter (its inner one, if shared) matches `topic`. `$`-topics are matched only by filters that
    /// start with the same level literally [MQTT-4.7.2-1].
    pub fn matches(&self, topic: &str) -> bool {
        let filter = self.shared().map_or(self.as_str(), |shared| shared.filter);
        matches(filter, topic)
    }
}

/// Checks a topic name without keeping it.
pub fn check_name(topic: &str, limits: &Limits) -> Result<(), InvalidTopic> {
    let _ = (topic, limits);
    todo!("codec helper")
}

/// Checks a topic filter without keeping it; `$share/...` must be well formed.
pub fn check_filter(filter: &str, limits: &Limits) -> Result<(), InvalidTopic> {
    let _ = (filter, limits);
    todo!("codec helper")
}

/// Whether the plain `filter` matches `topic`; both must be valid.
pub fn matches(filter: &str, topic: &str) -> bool {
    let _ = (filter, topic);
    todo!("codec helper")
}
