//! An access control list: rules in order, of which the first that fits decides.
//!
//! A subscription is judged once, when it is made, so a rule must hold for everything that its filter can ever match:
//! permission is given where the rule covers the whole filter, and refused where the rule touches any of it. What
//! should be compared as it is written, wildcards included, goes into [`AclRule::literals`].

use super::{Access, Authorizer, ConnectInfo, Permit};
use crate::codec::TopicFilter;

/// What clients may publish and subscribe to.
///
/// ```
/// use ferromq::{
///     auth::{Acl, AclRule, Permission},
///     codec::TopicFilter,
/// };
///
/// let own = AclRule {
///     filters: vec![TopicFilter::new("device/%c/#").unwrap()],
///     ..AclRule::everything(Permission::Allow)
/// };
/// let acl = Acl::new(vec![own], Permission::Deny);
/// # let _ = acl;
/// ```
#[derive(Debug, Clone)]
pub struct Acl {
    rules: Vec<Compiled>,
    no_match: Permission,
}

/// What a rule says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// The client may.
    Allow,
    /// The client may not.
    Deny,
}

/// One rule. An empty list of users or client identifiers is everybody; a rule without filters and literals is about
/// every topic, those that begin with `$` included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AclRule {
    /// What it says.
    pub permission: Permission,
    /// Whether it is about PUBLISH and wills.
    pub publish: bool,
    /// Whether it is about SUBSCRIBE.
    pub subscribe: bool,
    /// User names it is about.
    pub users: Vec<String>,
    /// Client identifiers it is about.
    pub client_ids: Vec<String>,
    /// Topics it is about. A level `%c` is the client identifier, `%u` the user name.
    pub filters: Vec<TopicFilter>,
    /// Topic names and filters it is about if they are asked for in just these characters.
    pub literals: Vec<String>,
}

impl Acl {
    /// A list. `no_match` holds for what no rule is about.
    pub fn new(rules: Vec<AclRule>, no_match: Permission) -> Self {
        Self { rules: rules.into_iter().map(Compiled::new).collect(), no_match }
    }
}

impl Authorizer for Acl {
    fn authorize(&self, client: &ConnectInfo, access: Access<'_>) -> Permit {
        let decides = self.rules.iter().find(|rule| rule.fits(client, access));
        Permit::from(decides.map_or(self.no_match, |rule| rule.permission) == Permission::Allow)
    }
}

impl AclRule {
    /// A rule for everybody, every action and every topic.
    pub fn everything(permission: Permission) -> Self {
        Self {
            permission,
            publish: true,
            subscribe: true,
            users: Vec::new(),
            client_ids: Vec::new(),
            filters: Vec::new(),
            literals: Vec::new(),
        }
    }
}

/// A rule as it is asked.
#[derive(Debug, Clone)]
struct Compiled {
    permission: Permission,
    publish: bool,
    subscribe: bool,
    users: Names,
    client_ids: Names,
    filters: Vec<Vec<Level>>,
    literals: Names,
}

/// A level of a rule's filter.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Level {
    Name(String),
    Any,
    Rest,
    ClientId,
    User,
}

impl Compiled {
    fn new(rule: AclRule) -> Self {
        Self {
            permission: rule.permission,
            publish: rule.publish,
            subscribe: rule.subscribe,
            users: Names::new(rule.users),
            client_ids: Names::new(rule.client_ids),
            filters: rule.filters.iter().map(|filter| levels(filter.as_str())).collect(),
            literals: Names::new(rule.literals),
        }
    }

    fn fits(&self, client: &ConnectInfo, access: Access<'_>) -> bool {
        let (wanted, is_meant) = match access {
            Access::Publish { topic, .. } => (topic, self.publish),
            Access::Subscribe { filter, .. } => (filter, self.subscribe),
        };
        is_meant && self.is_about_client(client) && self.is_about_topic(client, wanted)
    }

    fn is_about_client(&self, client: &ConnectInfo) -> bool {
        let names_user = client.username.as_deref().is_some_and(|user| self.users.contains(user));
        (self.users.is_empty() || names_user)
            && (self.client_ids.is_empty() || self.client_ids.contains(&client.client_id))
    }

    fn is_about_topic(&self, client: &ConnectInfo, wanted: &str) -> bool {
        if self.filters.is_empty() && self.literals.is_empty() {
            return true;
        }
        let reach = match self.permission {
            Permission::Allow => Reach::Covers,
            Permission::Deny => Reach::Touches,
        };
        self.literals.contains(wanted) || self.filters.iter().any(|filter| reach.holds(filter, client, wanted))
    }
}

/// Names in order, so that one of many is found fast.
#[derive(Debug, Clone)]
struct Names(Vec<String>);

impl Names {
    fn new(mut names: Vec<String>) -> Self {
        names.sort_unstable();
        Self(names)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn contains(&self, name: &str) -> bool {
        self.0.binary_search_by(|own| own.as_str().cmp(name)).is_ok()
    }
}

/// How a rule's filter must stand to what is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// Every topic that is asked for is the rule's.
    Covers,
    /// Some topic that is asked for is the rule's.
    Touches,
}

impl Reach {
    fn holds(self, filter: &[Level], client: &ConnectInfo, wanted: &str) -> bool {
        // [MQTT-4.7.2-1] a wildcard in front does not reach topics that begin with `$`, on either side.
        let is_dollar = |name: &str| name.starts_with('$');
        let ours_is_wild = matches!(filter.first(), Some(Level::Any | Level::Rest));
        let ours_is_dollar = matches!(filter.first(), Some(Level::Name(name)) if is_dollar(name));
        if ours_is_wild && is_dollar(wanted) || ours_is_dollar && wanted.starts_with(['+', '#']) {
            return false;
        }
        let mut ours = filter.iter();
        for theirs in wanted.split('/') {
            match ours.next() {
                Some(Level::Rest) => return true,
                // What is asked for goes on where the rule may not.
                _ if theirs == "#" => return self == Self::Touches,
                None => return false,
                Some(level) if !self.fits(level, client, theirs) => return false,
                Some(_) => {}
            }
        }
        // `a/#` is about `a` too, section 4.7.1.2.
        matches!(ours.next(), None | Some(Level::Rest))
    }

    fn fits(self, level: &Level, client: &ConnectInfo, theirs: &str) -> bool {
        let name = match level {
            Level::Any | Level::Rest => return true,
            Level::Name(name) => Some(name.as_str()),
            Level::ClientId => Some(client.client_id.as_str()),
            Level::User => client.username.as_deref(),
        };
        let is_exact = |name: &str| !name.is_empty() && !name.contains(['/', '+', '#']);
        match name {
            _ if theirs == "+" => self == Self::Touches,
            Some(name) if matches!(level, Level::Name(_)) || is_exact(name) => name == theirs,
            // Who has a name that is no level, or none at all, has no level of its own; but could be meant.
            _ => self == Self::Touches,
        }
    }
}

fn levels(filter: &str) -> Vec<Level> {
    let level = |level: &str| match level {
        "+" => Level::Any,
        "#" => Level::Rest,
        "%c" => Level::ClientId,
        "%u" => Level::User,
        name => Level::Name(name.to_owned()),
    };
    filter.split('/').map(level).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec::{QoS, Text, Version, topic};

    fn client(client_id: &str, user: Option<&str>) -> ConnectInfo {
        ConnectInfo {
            client_id: Text::try_from(client_id).expect("an identifier"),
            username: user.map(|user| Text::try_from(user).expect("a name")),
            password: None,
            version: Version::V5,
            peer: "test".into(),
            listener: "test".into(),
        }
    }

    fn rule(permission: Permission, filters: &[&str]) -> AclRule {
        let filters = filters.iter().map(|filter| TopicFilter::new(filter).expect("a filter")).collect();
        AclRule { filters, ..AclRule::everything(permission) }
    }

    fn publish(topic: &str) -> Access<'_> {
        Access::Publish { topic, qos: QoS::AtMostOnce, retain: false, payload: b"" }
    }

    fn subscribe(filter: &str) -> Access<'_> {
        Access::Subscribe { filter, qos: QoS::AtMostOnce }
    }

    use Permission::{Allow, Deny};

    impl Acl {
        fn allows(&self, client: &ConnectInfo, access: Access<'_>) -> bool {
            self.authorize(client, access) == Permit::Allow
        }
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let acl = Acl::new(vec![rule(Deny, &["plant/secret/#"]), rule(Allow, &["plant/#"])], Deny);
        let anyone = client("c", None);
        for (access, expected) in [
            (publish("plant/1"), true),
            (publish("plant/secret"), false),
            (publish("plant/secret/1"), false),
            (publish("other"), false),
            (subscribe("plant/1/+"), true),
            (subscribe("plant/#"), false), // would deliver plant/secret
            (subscribe("plant/+"), false),
            (subscribe("plant/+/1"), false),
            (subscribe("plant/+/1/x"), false),
            (subscribe("#"), false),
        ] {
            assert_eq!(acl.allows(&anyone, access), expected, "{access:?}");
        }
    }

    #[test]
    fn placeholders_stand_for_one_whole_level() {
        let acl = Acl::new(vec![rule(Allow, &["dev/%c/#", "user/%u"])], Deny);
        assert!(acl.allows(&client("a", None), publish("dev/a/temp")));
        assert!(!acl.allows(&client("a", None), publish("dev/b/temp")));
        assert!(acl.allows(&client("a", Some("ann")), subscribe("user/ann")));
        assert!(!acl.allows(&client("a", None), subscribe("user/ann")));
        // A client cannot choose a name that is a wildcard, or several levels.
        for name in ["+", "#", "a/b"] {
            for access in [subscribe("dev/+/temp"), subscribe("dev/#"), publish("dev/a/b/temp")] {
                assert!(!acl.allows(&client(name, None), access), "{name} {access:?}");
            }
        }
        let refused = Acl::new(vec![rule(Deny, &["dev/%c"])], Allow);
        assert!(!refused.allows(&client("+", None), publish("dev/x")));
        assert!(refused.allows(&client("y", None), publish("dev/x")));
    }

    #[test]
    fn literals_are_compared_as_they_are_written() {
        let literal = AclRule { literals: vec!["#".into(), "a/b".into()], ..rule(Deny, &[]) };
        let acl = Acl::new(vec![literal], Allow);
        assert!(!acl.allows(&client("c", None), subscribe("#")));
        assert!(!acl.allows(&client("c", None), subscribe("a/b")));
        assert!(acl.allows(&client("c", None), subscribe("a/#")));
        assert!(acl.allows(&client("c", None), publish("c")));
    }

    #[test]
    fn users_client_identifiers_and_actions_narrow_a_rule() {
        let only = AclRule {
            users: vec!["ann".into()],
            client_ids: vec!["a".into(), "b".into()],
            subscribe: false,
            ..AclRule::everything(Allow)
        };
        let acl = Acl::new(vec![only], Deny);
        assert!(acl.allows(&client("a", Some("ann")), publish("$any/x")));
        assert!(!acl.allows(&client("a", Some("ann")), subscribe("x")));
        assert!(!acl.allows(&client("c", Some("ann")), publish("x")));
        assert!(!acl.allows(&client("a", Some("bob")), publish("x")));
        assert!(!acl.allows(&client("a", None), publish("x")));
    }

    #[test]
    fn wildcards_in_front_do_not_reach_dollar_topics() {
        let acl = Acl::new(vec![rule(Allow, &["#", "+/x"])], Deny);
        assert!(!acl.allows(&client("c", None), subscribe("$SYS/#")));
        assert!(!acl.allows(&client("c", None), publish("$SYS/x")));
        assert!(acl.allows(&client("c", None), subscribe("#")));
        let acl = Acl::new(vec![rule(Deny, &["$SYS/#"])], Allow);
        assert!(acl.allows(&client("c", None), subscribe("#")));
        assert!(!acl.allows(&client("c", None), subscribe("$SYS/broker/+")));
    }

    fn filter() -> impl Strategy<Value = String> {
        let level = prop_oneof![Just("a"), Just("b"), Just(""), Just("+"), Just("$s")];
        (prop::collection::vec(level, 1..4), any::<bool>()).prop_map(|(levels, is_open)| {
            let text = levels.join("/");
            if is_open || text.is_empty() { format!("{text}/#") } else { text }
        })
    }

    fn name() -> impl Strategy<Value = String> {
        let level = prop_oneof![Just("a"), Just("b"), Just(""), Just("$s")];
        prop::collection::vec(level, 1..5)
            .prop_map(|levels| levels.join("/"))
            .prop_filter("a topic is not empty", |name| !name.is_empty())
    }

    proptest! {
        /// No topic escapes: what is allowed is allowed whole, and what is refused was refused for a topic of it.
        #[test]
        fn a_permitted_subscription_delivers_permitted_topics_only(ours in filter(), theirs in filter(), name in name()) {
            let anyone = client("c", None);
            let allows = Acl::new(vec![rule(Allow, &[&ours])], Deny);
            let denies = Acl::new(vec![rule(Deny, &[&ours])], Allow);
            prop_assert_eq!(allows.allows(&anyone, publish(&name)), topic::matches(&ours, &name));
            prop_assert_eq!(denies.allows(&anyone, publish(&name)), !topic::matches(&ours, &name));
            if topic::matches(&theirs, &name) {
                if allows.allows(&anyone, subscribe(&theirs)) {
                    prop_assert!(topic::matches(&ours, &name), "{} let {} have {}", ours, theirs, name);
                }
                if denies.allows(&anyone, subscribe(&theirs)) {
                    prop_assert!(!topic::matches(&ours, &name), "{} let {} have {}", ours, theirs, name);
                }
            }
            // Nobody is refused what he may have.
            prop_assert!(allows.allows(&anyone, subscribe(&ours)));
        }
    }
}
