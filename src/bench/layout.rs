//! Who publishes to whom: topics, filters, and how often a message comes out.

use std::fmt::Write;

use super::Plan;

/// Who publishes to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Each publisher has a subscriber of its own.
    Pairs,
    /// Every subscriber has the messages of all publishers, by a wildcard.
    FanIn,
    /// Every subscriber has the messages of all publishers, who use one topic.
    FanOut,
    /// The subscribers share the messages of all publishers.
    Shared,
    /// Every subscriber holds [`Plan::filters`] filters, exact ones and wildcards in turn; publishers pick topics at random,
    /// and each topic matches one filter of all.
    Matching,
}

impl Layout {
    /// Whether any of several subscribers may get the next message of a publisher, so that all of them count together.
    pub fn is_spread(self) -> bool {
        matches!(self, Self::Shared | Self::Matching)
    }
}

impl Plan {
    /// How often each message should come out.
    pub(super) fn copies(&self) -> u64 {
        match self.layout {
            Layout::Pairs | Layout::Shared | Layout::Matching => 1,
            Layout::FanIn | Layout::FanOut => self.subscribers.into(),
        }
    }

    /// Filters of one subscriber.
    pub(super) fn filters_each(&self) -> u32 {
        if self.layout == Layout::Matching { self.filters } else { 1 }
    }

    /// Topics that one publisher picks from.
    pub(super) fn topics(&self) -> u32 {
        if self.layout == Layout::Matching { self.subscribers.saturating_mul(self.filters) } else { 1 }
    }

    /// The topic of a publisher's next message; `pick` is below [`Self::topics`].
    pub(super) fn topic(&self, publisher: u32, pick: u32, out: &mut String) {
        out.clear();
        let (run, site) = (self.run, pick / SITE_DEVICES);
        // Writing into a string cannot fail.
        let _ = match self.layout {
            Layout::FanOut => write!(out, "bench/{run:08x}/0"),
            Layout::Matching => write!(out, "bench/{run:08x}/site{site}/dev{pick}/temp"),
            _ => write!(out, "bench/{run:08x}/{publisher}"),
        };
        (0..self.depth).for_each(|_| out.push_str(LEVEL));
    }

    /// A subscriber's filter; `at` is below [`Self::filters_each`].
    pub(super) fn filter(&self, subscriber: u32, at: u32) -> String {
        let (run, deep) = (self.run, LEVEL.repeat(self.depth as usize));
        match self.layout {
            Layout::Pairs => format!("bench/{run:08x}/{subscriber}{deep}"),
            Layout::FanOut => format!("bench/{run:08x}/0{deep}"),
            Layout::FanIn => format!("bench/{run:08x}/+{deep}"),
            Layout::Shared => format!("$share/bench/bench/{run:08x}/+{deep}"),
            // Neighbouring topics belong to different clients.
            Layout::Matching => matching(run, at.saturating_mul(self.subscribers).saturating_add(subscriber)),
        }
    }
}

/// The filter that the topic of this number matches, and no other does.
fn matching(run: u32, number: u32) -> String {
    let site = number / SITE_DEVICES;
    match number % 5 {
        0 => format!("bench/{run:08x}/site{site}/dev{number}/temp"),
        1 => format!("bench/{run:08x}/site{site}/dev{number}/+"),
        2 => format!("bench/{run:08x}/site{site}/dev{number}/#"),
        3 => format!("bench/{run:08x}/+/dev{number}/temp"),
        _ => format!("bench/{run:08x}/+/dev{number}/#"),
    }
}

/// What makes a topic a level deeper.
const LEVEL: &str = "/level";

/// Topics below one level of the tree.
const SITE_DEVICES: u32 = 100;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::codec::{QoS, TopicFilter, Version};

    #[test]
    fn every_random_topic_matches_one_filter_of_all() {
        let plan = plan(Layout::Matching);
        let all: Vec<(u32, TopicFilter)> = (0..plan.subscribers)
            .flat_map(|subscriber| (0..plan.filters).map(move |at| (subscriber, at)))
            .map(|(subscriber, at)| (subscriber, TopicFilter::new(&plan.filter(subscriber, at)).unwrap()))
            .collect();
        assert_eq!(all.len(), plan.topics() as usize);
        assert!(
            all.iter().any(|(_, filter)| filter.has_wildcard()) && all.iter().any(|(_, filter)| !filter.has_wildcard())
        );
        let mut topic = String::new();
        for pick in 0..plan.topics() {
            plan.topic(0, pick, &mut topic);
            let takers: Vec<_> =
                all.iter().filter(|(_, filter)| filter.matches(&topic)).map(|(taker, _)| *taker).collect();
            assert_eq!(takers, [pick % plan.subscribers], "{topic}");
        }
    }

    #[test]
    fn deep_topics_match_their_deep_filters() {
        for layout in [Layout::Pairs, Layout::FanIn, Layout::FanOut] {
            let plan = Plan { depth: 12, ..plan(layout) };
            let mut topic = String::new();
            plan.topic(3, 0, &mut topic);
            assert_eq!(topic.split('/').count(), 15);
            assert!(TopicFilter::new(&plan.filter(3, 0)).unwrap().matches(&topic), "{topic}");
        }
    }

    fn plan(layout: Layout) -> Plan {
        Plan {
            server: String::new(),
            version: Version::V3_1_1,
            credentials: None,
            layout,
            publishers: 7,
            subscribers: 7,
            filters: 40,
            depth: 0,
            stalled: 0,
            slow: 0,
            qos: QoS::AtMostOnce,
            payload_bytes: 16,
            rate: None,
            window: 1,
            duration: Duration::ZERO,
            warmup: Duration::ZERO,
            threads: 1,
            clients: Vec::new(),
            run: 1,
            broker: None,
        }
    }
}
