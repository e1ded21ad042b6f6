//! `[acl]` and its rules: who may publish and subscribe to what.

use serde::{Deserialize, Deserializer, Serialize, de};

use super::print::Page;
use crate::{
    auth::{self, AclRule, Permission},
    codec::TopicFilter,
};

/// Who may publish and subscribe to what. Without rules, everybody to everything, unless `no_match` denies it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(from = "Written")]
pub struct Acl {
    /// What holds for what no rule is about: if nothing is said, "deny" where there are rules and "allow" where there
    /// are none.
    pub no_match: Permission,
    /// The rules, of which the first that fits decides.
    pub rules: Vec<AclRule>,
}

impl Acl {
    /// The table's name and its keys.
    pub(super) const TABLE: (&'static str, &'static [&'static str]) = ("acl", &["no_match", "rules"]);

    /// The list as the broker asks it, if there is one.
    pub fn authorizer(&self) -> Option<auth::Acl> {
        let judges = !self.rules.is_empty() || self.no_match == Permission::Deny;
        judges.then(|| auth::Acl::new(self.rules.clone(), self.no_match))
    }

    /// Appends the table, and one `[[acl.rules]]` for each rule.
    pub(super) fn print(&self, page: &mut Page) {
        page.table("acl", &["Who may publish and subscribe to what; the first of [[acl.rules]] that fits decides."]);
        page.key("no_match", &["What holds for what no rule is about: \"deny\", the default with rules, or \"allow\", the default without."], &word(self.no_match));
        for rule in &self.rules {
            page.element("acl.rules");
            page.key(
                "permission",
                &["The first rule that fits decides: \"allow\" or \"deny\"."],
                &word(rule.permission),
            );
            page.key("action", &["\"publish\", \"subscribe\" or \"all\"."], &Action::of(rule));
            page.key("users", &["User names; [] is everybody."], &rule.users);
            page.key("client_ids", &["Client identifiers; [] is everybody."], &rule.client_ids);
            let filters: Vec<_> = rule.filters.iter().map(TopicFilter::as_str).collect();
            page.key("filters", &["Topics; %c is the client identifier, %u the user name. [] is any."], &filters);
            page.key("literals", &["Topics and filters compared as they are written."], &rule.literals);
        }
    }
}

impl Default for Acl {
    fn default() -> Self {
        Written::default().into()
    }
}

/// The table as it is written.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Written {
    #[serde(deserialize_with = "permission_if_any")]
    no_match: Option<Permission>,
    #[serde(deserialize_with = "rules")]
    rules: Vec<AclRule>,
}

impl From<Written> for Acl {
    fn from(Written { no_match, rules }: Written) -> Self {
        let silent = if rules.is_empty() { Permission::Allow } else { Permission::Deny };
        Self { no_match: no_match.unwrap_or(silent), rules }
    }
}

/// A rule as it is written; only what it says must be.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(deserialize_with = "permission")]
    permission: Permission,
    #[serde(default)]
    action: Action,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    client_ids: Vec<String>,
    #[serde(default)]
    filters: Vec<Filter>,
    #[serde(default)]
    literals: Vec<String>,
}

impl From<Table> for AclRule {
    fn from(table: Table) -> Self {
        Self {
            permission: table.permission,
            publish: matches!(table.action, Action::Publish | Action::All),
            subscribe: matches!(table.action, Action::Subscribe | Action::All),
            users: table.users,
            client_ids: table.client_ids,
            filters: table.filters.into_iter().map(|filter| filter.0).collect(),
            literals: table.literals,
        }
    }
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Action {
    Publish,
    Subscribe,
    #[default]
    All,
}

impl Action {
    fn of(rule: &AclRule) -> Self {
        match (rule.publish, rule.subscribe) {
            (true, false) => Self::Publish,
            (false, true) => Self::Subscribe,
            _ => Self::All,
        }
    }
}

/// A topic filter. What is shared is judged by the filter behind the group.
struct Filter(TopicFilter);

impl<'de> Deserialize<'de> for Filter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match TopicFilter::new(&text) {
            Ok(filter) if filter.shared().is_some() => Err(de::Error::custom(format!(
                "{text:?}: name the filter behind $share/group/, which is what is judged"
            ))),
            Ok(filter) => Ok(Self(filter)),
            Err(error) => Err(de::Error::custom(format!("{text:?}: {error}"))),
        }
    }
}

fn rules<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<AclRule>, D::Error> {
    let tables = Vec::<Table>::deserialize(deserializer)?;
    Ok(tables.into_iter().map(AclRule::from).collect())
}

fn permission<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Permission, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Word {
        Allow,
        Deny,
    }

    Word::deserialize(deserializer).map(|word| match word {
        Word::Allow => Permission::Allow,
        Word::Deny => Permission::Deny,
    })
}

fn permission_if_any<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Permission>, D::Error> {
    permission(deserializer).map(Some)
}

const fn word(permission: Permission) -> &'static str {
    match permission {
        Permission::Allow => "allow",
        Permission::Deny => "deny",
    }
}
