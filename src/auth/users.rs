//! A table of users and plain passwords: for development and tests.

use std::collections::HashMap;

use super::{Authenticator, ConnectInfo, Verdict};
use crate::codec::ReasonCode;

/// Lets in who names a user of the table with the right password; others by the rule for anonymous clients.
#[derive(Clone, Default)]
pub struct Users {
    passwords: HashMap<String, String>,
    allow_anonymous: bool,
}

impl Users {
    /// A table of user names and passwords. `allow_anonymous` lets in clients that name no user.
    pub fn new(users: impl IntoIterator<Item = (String, String)>, allow_anonymous: bool) -> Self {
        Self { passwords: users.into_iter().collect(), allow_anonymous }
    }
}

impl Authenticator for Users {
    fn authenticate(&self, info: &ConnectInfo) -> Verdict {
        let Some(username) = &info.username else {
            return if self.allow_anonymous { Verdict::Accept } else { refuse(ReasonCode::NotAuthorized) };
        };
        let given = info.password.as_deref().unwrap_or_default();
        let known = self.passwords.get(username.as_str()).map(String::as_bytes);
        // An unknown user takes as long as a wrong password.
        let is_right = is_equal(known.unwrap_or(given), given);
        if known.is_some() && is_right { Verdict::Accept } else { refuse(ReasonCode::BadUserNameOrPassword) }
    }
}

impl std::fmt::Debug for Users {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Users")
            .field("users", &self.passwords.len())
            .field("allow_anonymous", &self.allow_anonymous)
            .finish()
    }
}

fn refuse(reason: ReasonCode) -> Verdict {
    Verdict::Refuse { reason, message: None }
}

/// Compares without telling by its time where the first difference is.
fn is_equal(known: &[u8], given: &[u8]) -> bool {
    let differences = known.iter().zip(given).fold(0, |differences, (a, b)| differences | (a ^ b));
    known.len() == given.len() && differences == 0
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::codec::{Text, Version};

    fn verdict(users: &Users, username: Option<&'static str>, password: Option<&'static str>) -> Option<ReasonCode> {
        let info = ConnectInfo {
            client_id: Text::from_static("c"),
            username: username.map(Text::from_static),
            password: password.map(|password| Bytes::from_static(password.as_bytes())),
            version: Version::V5,
            peer: "test".into(),
            listener: "test".into(),
        };
        match users.authenticate(&info) {
            Verdict::Accept => None,
            Verdict::Refuse { reason, .. } => Some(reason),
            Verdict::Defer => panic!("a table need not wait"),
        }
    }

    #[test]
    fn only_the_right_password_of_a_known_user_is_accepted() {
        let users = Users::new([("dev".to_owned(), "secret".to_owned())], false);
        assert_eq!(verdict(&users, Some("dev"), Some("secret")), None);
        for (username, password) in [(Some("dev"), Some("secre")), (Some("dev"), None), (Some("eve"), Some("secret"))] {
            assert_eq!(verdict(&users, username, password), Some(ReasonCode::BadUserNameOrPassword));
        }
        assert_eq!(verdict(&users, None, None), Some(ReasonCode::NotAuthorized));
        assert_eq!(verdict(&Users::new([], true), None, None), None);
    }
}
