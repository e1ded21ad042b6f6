//! Topic names and filters: parsed once, valid ever after (section 4.7).

use bytes::Bytes;

use super::{
    DecodeError, Limits, ReasonCode, Text,
    cursor::{Field, violation},
    text,
};

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
    #[error("a topic must not hold control characters or noncharacters")]
    Disallowed,
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

impl InvalidTopic {
    /// The fault of a topic name that a peer has sent, in PUBLISH or as the will's topic.
    pub(super) const fn in_name(self, field: &Field) -> DecodeError {
        let what = field.invalid;
        match self {
            // "It is a Protocol Error if the Topic Name is zero length and there is no Topic Alias", section 3.3.2.1.
            Self::Empty => DecodeError::protocol(what),
            Self::Null | Self::Disallowed => DecodeError::malformed(what),
            _ => violation(ReasonCode::TopicNameInvalid, what),
        }
    }

    /// The fault of a topic filter that a peer has sent.
    pub(super) const fn in_filter(self, field: &Field) -> DecodeError {
        let what = field.invalid;
        match self {
            Self::Null | Self::Disallowed => DecodeError::malformed(what),
            _ => violation(ReasonCode::TopicFilterInvalid, what),
        }
    }
}

impl TopicName {
    /// A topic name within the default limits.
    pub fn new(topic: &str) -> Result<Self, InvalidTopic> {
        check_name(topic, &Limits::default())?;
        copied(topic).map(Self)
    }

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
    /// A topic filter within the default limits.
    pub fn new(filter: &str) -> Result<Self, InvalidTopic> {
        check_filter(filter, &Limits::default())?;
        copied(filter).map(Self)
    }

    /// Parses a filter within `limits`.
    pub fn parse(text: Text, limits: &Limits) -> Result<Self, InvalidTopic> {
        check_filter(&text, limits)?;
        Ok(Self(text))
    }

    /// A filter that [`check_filter`] has accepted.
    pub(super) const fn from_checked(text: Text) -> Self {
        Self(text)
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
#[inline]
pub fn check_name(topic: &str, limits: &Limits) -> Result<(), InvalidTopic> {
    if text::plain(topic.as_bytes()).is_none() {
        find_in_name(topic)?;
    }
    check_size(topic, limits)
}

/// Reads a topic name that a peer has sent: UTF-8 and all else that [`check_name`] checks, in one pass.
#[inline]
pub(super) fn decode_name<'a>(bytes: &'a [u8], field: &Field, limits: &Limits) -> Result<&'a str, DecodeError> {
    let topic = match text::plain(bytes) {
        Some(topic) => topic,
        None => decode_odd_name(bytes, field)?,
    };
    check_size(topic, limits).map_err(|fault| fault.in_name(field))?;
    Ok(topic)
}

/// Checks a topic filter without keeping it; `$share/...` must be well formed.
pub fn check_filter(filter: &str, limits: &Limits) -> Result<(), InvalidTopic> {
    let is_plain = text::plain(filter.as_bytes()).is_some();
    check_size(filter, limits)?;
    if !is_plain {
        check_characters(filter)?;
    }
    let plain = match filter.strip_prefix(SHARE_PREFIX) {
        Some(shared) => check_share(shared)?,
        None => filter,
    };
    if is_plain { Ok(()) } else { check_wildcards(plain) }
}

/// Whether the plain `filter` matches `topic`; both must be valid.
pub fn matches(filter: &str, topic: &str) -> bool {
    // [MQTT-4.7.2-1] a filter that starts with a wildcard does not match topics that start with `$`
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let (mut filter, mut topic) = (filter.as_bytes(), topic.as_bytes());
    loop {
        match (filter, topic) {
            // `sport/#` matches the parent level `sport` too, section 4.7.1.2.
            ([b'#', ..], _) | ([b'/', b'#'], []) => return true,
            ([b'+', rest @ ..], _) => {
                filter = rest;
                topic = skip_level(topic);
            }
            ([wanted, filter_rest @ ..], [found, topic_rest @ ..]) if wanted == found => {
                filter = filter_rest;
                topic = topic_rest;
            }
            _ => return filter.is_empty() && topic.is_empty(),
        }
    }
}

/// What is left of `topic` from its next / on.
#[inline]
fn skip_level(mut topic: &[u8]) -> &[u8] {
    while let [byte, rest @ ..] = topic
        && *byte != b'/'
    {
        topic = rest;
    }
    topic
}

/// Length and depth.
#[inline]
fn check_size(topic: &str, limits: &Limits) -> Result<(), InvalidTopic> {
    if topic.is_empty() {
        return Err(InvalidTopic::Empty); // [MQTT-4.7.3-1]
    }
    if topic.len() > usize::from(limits.topic_bytes_max) {
        return Err(InvalidTopic::TooLong { len: topic.len(), max: limits.topic_bytes_max });
    }
    // One shorter than that has no more levels, whatever it holds.
    if topic.len() < usize::from(limits.topic_levels_max) {
        Ok(())
    } else {
        check_levels(topic, limits.topic_levels_max)
    }
}

fn check_levels(topic: &str, max: u16) -> Result<(), InvalidTopic> {
    let levels = topic.bytes().filter(|&byte| byte == b'/').count() + 1;
    if levels > usize::from(max) { Err(InvalidTopic::TooDeep { levels, max }) } else { Ok(()) }
}

/// UTF-8, and what [`find_in_name`] finds.
#[cold]
fn decode_odd_name<'a>(bytes: &'a [u8], field: &Field) -> Result<&'a str, DecodeError> {
    let topic = std::str::from_utf8(bytes).map_err(|_| DecodeError::malformed(field.utf8))?;
    find_in_name(topic).map_err(|fault| fault.in_name(field))?;
    Ok(topic)
}

/// Looks closer at a topic name that holds suspect bytes.
#[cold]
fn find_in_name(topic: &str) -> Result<(), InvalidTopic> {
    check_characters(topic)?;
    if topic.contains(['+', '#']) {
        return Err(InvalidTopic::Wildcard); // [MQTT-3.3.2-2]
    }
    Ok(())
}

/// U+0000 [MQTT-4.7.3-2] and the code points of section 5.4.9, which a receiver may refuse.
fn check_characters(topic: &str) -> Result<(), InvalidTopic> {
    if topic.as_bytes().contains(&0) {
        return Err(InvalidTopic::Null);
    }
    if text::has_disallowed(topic) { Err(InvalidTopic::Disallowed) } else { Ok(()) }
}

/// Wildcards stand alone in their level [MQTT-4.7.1-2], # in the last one [MQTT-4.7.1-1].
fn check_wildcards(filter: &str) -> Result<(), InvalidTopic> {
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        if level.contains('#') && (level.len() > 1 || levels.peek().is_some()) {
            return Err(InvalidTopic::MultiLevel);
        }
        if level.contains('+') && level.len() > 1 {
            return Err(InvalidTopic::SingleLevel);
        }
    }
    Ok(())
}

/// The filter of `group/filter`: the group is not empty [MQTT-4.8.2-1] and free of wildcards, and a `/` and a filter
/// follow it [MQTT-4.8.2-2].
fn check_share(shared: &str) -> Result<&str, InvalidTopic> {
    match shared.split_once('/') {
        Some((group, filter)) if !group.is_empty() && !group.contains(['+', '#']) && !filter.is_empty() => Ok(filter),
        _ => Err(InvalidTopic::Share),
    }
}

fn copied(topic: &str) -> Result<Text, InvalidTopic> {
    Text::from_utf8(Bytes::copy_from_slice(topic.as_bytes())).ok_or(InvalidTopic::Null)
}

/// What a shared subscription's filter starts with, section 4.8.2.
const SHARE_PREFIX: &str = "$share/";

#[cfg(test)]
mod tests {
    use super::*;

    fn name(topic: &str) -> Result<(), InvalidTopic> {
        check_name(topic, &Limits::default())
    }

    fn filter(filter: &str) -> Result<(), InvalidTopic> {
        check_filter(filter, &Limits::default())
    }

    #[test]
    fn topic_names_hold_no_wildcards_and_at_least_one_character() {
        for good in ["/", "a", "/finance", "sport/tennis/player1", "a b", "Accounts payable", "$SYS/x", "é/😀", "a//b"]
        {
            assert_eq!(name(good), Ok(()), "{good}");
        }
        assert_eq!(name(""), Err(InvalidTopic::Empty));
        assert_eq!(name("a\0b"), Err(InvalidTopic::Null));
        assert_eq!(name("a\u{1}b"), Err(InvalidTopic::Disallowed));
        for wild in ["+", "#", "a/+", "a/b#c", "0123456789abcdef+", "é/#"] {
            assert_eq!(name(wild), Err(InvalidTopic::Wildcard), "{wild}");
        }
    }

    #[test]
    fn filters_are_those_of_section_4_7_1() {
        for good in
            ["#", "+", "sport/#", "sport/tennis/player1/#", "+/tennis/#", "sport/+/player1", "/+", "+/+", "/", "$SYS/#"]
        {
            assert_eq!(filter(good), Ok(()), "{good}");
        }
        for bad in ["sport/tennis#", "sport/tennis/#/ranking", "#/", "a#", "##"] {
            assert_eq!(filter(bad), Err(InvalidTopic::MultiLevel), "{bad}");
        }
        for bad in ["sport+", "+a", "a/b+/c", "++"] {
            assert_eq!(filter(bad), Err(InvalidTopic::SingleLevel), "{bad}");
        }
    }

    #[test]
    fn shared_filters_have_a_group_and_a_filter() {
        for good in ["$share/g/a", "$share/g//", "$share/g/#", "$share/g/+/a", "$share", "$shared/a"] {
            assert_eq!(filter(good), Ok(()), "{good}");
        }
        for bad in ["$share/", "$share/g", "$share/g/", "$share//a", "$share/+/a", "$share/g#/a"] {
            assert_eq!(filter(bad), Err(InvalidTopic::Share), "{bad}");
        }
        assert_eq!(filter("$share/g/a#"), Err(InvalidTopic::MultiLevel));
        let shared = TopicFilter::new("$share/g/a/+").unwrap();
        assert_eq!(shared.shared(), Some(SharedFilter { group: "g", filter: "a/+" }));
        assert!(shared.matches("a/b"));
        assert_eq!(TopicFilter::new("$share").unwrap().shared(), None);
    }

    #[test]
    fn limits_are_told_with_their_numbers() {
        let limits = Limits { topic_levels_max: 3, topic_bytes_max: 20, ..Limits::default() };
        assert_eq!(check_name("a/b/c", &limits), Ok(()));
        assert_eq!(check_name("a/b/c/d", &limits), Err(InvalidTopic::TooDeep { levels: 4, max: 3 }));
        assert_eq!(check_filter("////////////////////", &limits), Err(InvalidTopic::TooDeep { levels: 21, max: 3 }));
        let long = "0123456789abcdef01234";
        assert_eq!(check_name(long, &limits), Err(InvalidTopic::TooLong { len: 21, max: 20 }));
        assert_eq!(check_filter(long, &limits), Err(InvalidTopic::TooLong { len: 21, max: 20 }));
    }

    #[test]
    fn matching_follows_the_examples_of_section_4_7() {
        let hits = [
            ("sport/tennis/player1/#", "sport/tennis/player1"),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon"),
            ("sport/#", "sport"),
            ("#", "/"),
            ("sport/tennis/+", "sport/tennis/player1"),
            ("sport/+", "sport/"),
            ("+/+", "/finance"),
            ("/+", "/finance"),
            ("+", "a"),
            ("$SYS/#", "$SYS/monitor/Clients"),
            ("$SYS/monitor/+", "$SYS/monitor/Clients"),
            ("a//b", "a//b"),
        ];
        for (filter, topic) in hits {
            assert!(matches(filter, topic), "{filter} must match {topic}");
        }
        let misses = [
            ("sport/tennis/+", "sport/tennis/player1/ranking"),
            ("sport/+", "sport"),
            ("+", "/finance"),
            ("#", "$SYS/monitor/Clients"),
            ("+/monitor/Clients", "$SYS/monitor/Clients"),
            ("ACCOUNTS", "Accounts"),
            ("a", "a/"),
            ("a/b", "a"),
        ];
        for (filter, topic) in misses {
            assert!(!matches(filter, topic), "{filter} must not match {topic}");
        }
    }
}
