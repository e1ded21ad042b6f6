//! Topic aliases (section 3.3.2.3.4): numbers that stand for topics, one table a direction, for one connection.

use std::collections::HashMap;

use crate::codec::{ReasonCode, Text};

/// Aliases the peer has set for the topics it sends.
#[derive(Debug, Default)]
pub struct IncomingAliases {
    topics: Vec<Option<Text>>,
    maximum: u16,
}

impl IncomingAliases {
    /// No aliases yet; the peer may use 1 to `maximum`. Takes no heap until one is set.
    pub const fn new(maximum: u16) -> Self {
        Self { topics: Vec::new(), maximum }
    }

    /// The peer may use 1 to `maximum`.
    pub const fn set_maximum(&mut self, maximum: u16) {
        self.maximum = maximum;
    }

    /// `alias` stands for `topic` from now on.
    pub fn set(&mut self, alias: u16, topic: Text) -> Result<(), ReasonCode> {
        let at = self.index(alias)?;
        if at >= self.topics.len() {
            self.topics.resize(at + 1, None);
        }
        if let Some(slot) = self.topics.get_mut(at) {
            *slot = Some(topic);
        }
        Ok(())
    }

    /// The topic behind `alias`; unknown ones are a protocol error.
    pub fn get(&self, alias: u16) -> Result<&Text, ReasonCode> {
        let at = self.index(alias)?;
        self.topics.get(at).and_then(Option::as_ref).ok_or(ReasonCode::ProtocolError)
    }

    fn index(&self, alias: u16) -> Result<usize, ReasonCode> {
        if alias == 0 || alias > self.maximum {
            return Err(ReasonCode::TopicAliasInvalid);
        }
        Ok(usize::from(alias) - 1)
    }
}

/// Aliases set for the topics sent to the peer: the first topics get the numbers there are.
#[derive(Debug, Default)]
pub struct OutgoingAliases {
    aliases: HashMap<Text, u16, foldhash::fast::FixedState>,
    maximum: u16,
}

/// How to name a topic in one PUBLISH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// By the topic alone: no alias is left.
    Topic,
    /// By the topic, setting this alias.
    Both(u16),
    /// By this alias, the topic left empty.
    Alias(u16),
}

impl OutgoingAliases {
    /// No aliases yet; 1 to `maximum` may be used.
    pub fn new(maximum: u16) -> Self {
        Self { aliases: HashMap::default(), maximum }
    }

    /// Whether the peer takes aliases at all.
    pub const fn is_enabled(&self) -> bool {
        self.maximum > 0
    }

    /// How to name `topic` in the next PUBLISH. Topics of a byte or two are not worth a number.
    pub fn name(&mut self, topic: &str) -> Naming {
        if self.maximum == 0 || topic.len() <= ALIAS_PROPERTY_BYTES {
            return Naming::Topic;
        }
        if let Some(alias) = self.aliases.get(topic) {
            return Naming::Alias(*alias);
        }
        if self.aliases.len() >= usize::from(self.maximum) {
            return Naming::Topic;
        }
        let Ok(text) = Text::try_from(topic) else { return Naming::Topic };
        let alias = self.aliases.len() as u16 + 1;
        self.aliases.insert(text, alias);
        Naming::Both(alias)
    }
}

/// What an alias costs on the wire: identifier and two bytes.
const ALIAS_PROPERTY_BYTES: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn incoming_aliases_are_bounded_replaceable_and_unknown_until_set() {
        let mut aliases = IncomingAliases::new(2);
        assert_eq!(aliases.get(1), Err(ReasonCode::ProtocolError));
        assert_eq!(aliases.set(3, Text::from_static("a")), Err(ReasonCode::TopicAliasInvalid));
        assert_eq!(aliases.get(0), Err(ReasonCode::TopicAliasInvalid));
        aliases.set(2, Text::from_static("a")).unwrap();
        aliases.set(2, Text::from_static("b")).unwrap();
        assert_eq!(aliases.get(2).unwrap().as_str(), "b");
    }

    #[test]
    fn outgoing_aliases_name_the_topic_once_and_then_only_the_number() {
        let mut aliases = OutgoingAliases::new(1);
        assert_eq!(aliases.name("plant/1"), Naming::Both(1));
        assert_eq!(aliases.name("plant/1"), Naming::Alias(1));
        assert_eq!(aliases.name("plant/2"), Naming::Topic);
        assert_eq!(OutgoingAliases::new(0).name("plant/1"), Naming::Topic);
    }
}
