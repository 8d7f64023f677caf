//! Acts of administration. Each is written down in the transaction that does it, so that both are
//! there or neither.

use berth_shared::{
    clock::{UnixSeconds, rfc3339},
    rights::Rule,
    subject::{Grantee, GroupName, RobotName, Subject, UserName},
};
use serde_json::{Map, Value, json};

/// Something that an administrator did, or that the server noticed an administrator had done.
#[derive(Debug, Clone, Copy)]
pub enum Act<'a> {
    /// A rule allows more.
    Grant(&'a Rule),
    /// An allow, or some of its actions, was taken back.
    Revoke(&'a Rule),
    /// A rule forbids more.
    Deny(&'a Rule),
    /// A deny, or some of its actions, was taken back.
    DenyRemove(&'a Rule),
    /// Somebody was put into a group.
    GroupAdd(&'a GroupName, &'a Subject),
    /// Somebody was taken out of a group.
    GroupRemove(&'a GroupName, &'a Subject),
    /// A robot was made.
    RobotCreate {
        /// What it is called.
        name: &'a RobotName,
        /// When its secret ends; never when absent.
        expires: Option<UnixSeconds>,
    },
    /// A robot was removed.
    RobotRevoke(&'a RobotName),
    /// `authctl` added a user.
    UserAdd(&'a UserName),
    /// `authctl` gave a user a new password.
    UserPassword(&'a UserName),
    /// `authctl` removed a user, with so many rules.
    UserRemove(&'a UserName, u64),
    /// A user was found in the htpasswd file.
    HtpasswdAdd(&'a UserName),
    /// A user's password was found changed in the htpasswd file.
    HtpasswdChange(&'a UserName),
    /// A user was found gone from the htpasswd file.
    HtpasswdRemove(&'a UserName),
    /// Every token that was out for somebody was made void.
    TokensRevoke(&'a Grantee),
    /// A backup, made at this time, was put in place.
    Restore(&'a str),
    /// Tokens are signed with this key from now on.
    KeyRotate {
        /// The new key.
        key_id: &'a str,
    },
    /// A key is no longer used.
    KeyRetire {
        /// The old key.
        key_id: &'a str,
    },
    /// A key was given up at once, with every token that it signed.
    KeyCompromised {
        /// The key that was given up.
        key_id: &'a str,
    },
    /// Another issuer's word is believed.
    TrustAdd {
        /// Whom it lets sign in.
        name: &'a RobotName,
        /// Whose word it is.
        issuer: &'a str,
    },
    /// Another issuer's word is believed no longer.
    TrustRemove(&'a RobotName),
    /// Refresh tokens were taken back: one, or all of a subject.
    RefreshRevoke {
        /// Whose they were.
        subject: &'a Subject,
        /// Which, as `authctl refresh-tokens` calls them.
        ids: &'a [i64],
    },
}

impl Act<'_> {
    /// The event's word, one of [`EVENTS`](super::EVENTS).
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Grant(_) => "grant.add",
            Self::Revoke(_) => "grant.remove",
            Self::Deny(_) => "deny.add",
            Self::DenyRemove(_) => "deny.remove",
            Self::GroupAdd(..) => "group.add",
            Self::GroupRemove(..) => "group.remove",
            Self::RobotCreate { .. } => "robot.create",
            Self::RobotRevoke(_) => "robot.revoke",
            Self::UserAdd(_) => "user.add",
            Self::UserPassword(_) => "user.passwd",
            Self::UserRemove(..) => "user.remove",
            Self::HtpasswdAdd(_) => "htpasswd.add",
            Self::HtpasswdChange(_) => "htpasswd.change",
            Self::HtpasswdRemove(_) => "htpasswd.remove",
            Self::TokensRevoke(_) => "tokens.revoke",
            Self::Restore(_) => "restore",
            Self::KeyRotate { .. } => "key.rotate",
            Self::KeyRetire { .. } => "key.retire",
            Self::KeyCompromised { .. } => "key.compromised",
            Self::TrustAdd { .. } => "trust.add",
            Self::TrustRemove(_) => "trust.remove",
            Self::RefreshRevoke { .. } => "refresh.revoke",
        }
    }

    /// Whom it is about, where it is about somebody.
    #[must_use]
    pub fn subject(&self) -> Option<String> {
        match self {
            Self::Grant(rule) | Self::Revoke(rule) | Self::Deny(rule) | Self::DenyRemove(rule) => {
                Some(rule.grantee.to_string())
            }
            Self::GroupAdd(_, member) | Self::GroupRemove(_, member) => Some(member.to_string()),
            Self::RobotCreate { name, .. }
            | Self::RobotRevoke(name)
            | Self::TrustAdd { name, .. }
            | Self::TrustRemove(name) => Some(name.to_string()),
            Self::UserAdd(name)
            | Self::UserPassword(name)
            | Self::UserRemove(name, _)
            | Self::HtpasswdAdd(name)
            | Self::HtpasswdChange(name)
            | Self::HtpasswdRemove(name) => Some(name.to_string()),
            Self::TokensRevoke(grantee) => Some(grantee.to_string()),
            Self::RefreshRevoke { subject, .. } => Some(subject.to_string()),
            Self::Restore(_)
            | Self::KeyRotate { .. }
            | Self::KeyRetire { .. }
            | Self::KeyCompromised { .. } => None,
        }
    }

    /// What else there is to know.
    #[must_use]
    pub fn detail(&self) -> Map<String, Value> {
        let value = match self {
            Self::Grant(rule) | Self::Revoke(rule) | Self::Deny(rule) | Self::DenyRemove(rule) => {
                let (pattern, actions) = (&rule.pattern, rule.actions.to_string());
                let mut value = json!({ "pattern": pattern, "actions": actions });
                if let Some(expires) = rule.expires {
                    value["expires"] = rfc3339(expires).into();
                }
                value
            }
            Self::GroupAdd(group, _) | Self::GroupRemove(group, _) => json!({ "group": group }),
            Self::RobotCreate { expires, .. } => match expires {
                Some(expires) => json!({ "expires": rfc3339(*expires) }),
                None => json!({}),
            },
            Self::UserRemove(_, rules) => json!({ "rules": rules }),
            Self::Restore(made) => json!({ "made": made }),
            Self::KeyRotate { key_id }
            | Self::KeyRetire { key_id }
            | Self::KeyCompromised { key_id } => json!({ "key_id": key_id }),
            Self::TrustAdd { issuer, .. } => json!({ "issuer": issuer }),
            Self::RefreshRevoke { ids, .. } => json!({ "refresh_tokens": ids }),
            Self::RobotRevoke(_)
            | Self::TrustRemove(_)
            | Self::UserAdd(_)
            | Self::UserPassword(_)
            | Self::HtpasswdAdd(_)
            | Self::HtpasswdChange(_)
            | Self::HtpasswdRemove(_)
            | Self::TokensRevoke(_) => json!({}),
        };
        if let Value::Object(detail) = value { detail } else { Map::new() }
    }
}
