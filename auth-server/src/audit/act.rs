//! Acts of administration. Each is written down in the transaction that does it, so that both are
//! there or neither.

use std::fmt::Display;

use berth_shared::{
    clock::{UnixSeconds, rfc3339},
    rights::{Effect, Rule},
    subject::{Grantee, GroupName, RobotName, Subject, UserName},
};
use serde_json::{Map, Value, json};

/// Something that an administrator did, or that the server noticed an administrator had done.
#[derive(Debug, Clone, Copy)]
pub enum Act<'a> {
    /// A rule allows more, or forbids more.
    RuleAdd(&'a Rule),
    /// A rule, or some of its actions, was taken back.
    RuleRemove(&'a Rule),
    /// Somebody was put into a group.
    GroupAdd(&'a GroupName, &'a Subject),
    /// Somebody was taken out of a group.
    GroupRemove(&'a GroupName, &'a Subject),
    /// A robot was made, whose secret ends then, or never.
    RobotCreate(&'a RobotName, Option<UnixSeconds>),
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
    KeyRotate(&'a str),
    /// A key is no longer used.
    KeyRetire(&'a str),
    /// A key was given up at once, with every token that it signed.
    KeyCompromised(&'a str),
    /// So many signing keys were sealed anew.
    KeyReseal(usize),
    /// The word of another issuer, this one, is believed.
    TrustAdd(&'a RobotName, &'a str),
    /// Another issuer's word is believed no longer.
    TrustRemove(&'a RobotName),
    /// What the link needs was made, its secret anew.
    LinkInit,
    /// The link's secret is being changed: which step that was.
    LinkRotate(&'a str),
    /// Refresh tokens of a subject were taken back: which, as `authctl refresh-tokens` calls them.
    RefreshRevoke(&'a Subject, &'a [i64]),
}

/// The event's word, whom it is about, and an object of what else there is to know.
type Parts<'a> = (&'static str, Option<&'a dyn Display>, Value);

impl Act<'_> {
    /// The event's word, one of [`EVENTS`](super::EVENTS); whom it is about, where it is about
    /// somebody; and what else there is to know.
    pub fn parts(&self) -> (&'static str, Option<String>, Map<String, Value>) {
        let (word, subject, detail): Parts<'_> = match self {
            Self::RuleAdd(rule) => of_rule(rule, "grant.add", "deny.add"),
            Self::RuleRemove(rule) => of_rule(rule, "grant.remove", "deny.remove"),
            Self::GroupAdd(group, member) => ("group.add", Some(member), json!({ "group": group })),
            Self::GroupRemove(group, member) => {
                ("group.remove", Some(member), json!({ "group": group }))
            }
            Self::RobotCreate(name, end) => ("robot.create", Some(name), until(*end, json!({}))),
            Self::RobotRevoke(name) => ("robot.revoke", Some(name), json!({})),
            Self::UserAdd(name) => ("user.add", Some(name), json!({})),
            Self::UserPassword(name) => ("user.passwd", Some(name), json!({})),
            Self::UserRemove(name, rules) => ("user.remove", Some(name), json!({ "rules": rules })),
            Self::HtpasswdAdd(name) => ("htpasswd.add", Some(name), json!({})),
            Self::HtpasswdChange(name) => ("htpasswd.change", Some(name), json!({})),
            Self::HtpasswdRemove(name) => ("htpasswd.remove", Some(name), json!({})),
            Self::TokensRevoke(grantee) => ("tokens.revoke", Some(grantee), json!({})),
            Self::Restore(made) => ("restore", None, json!({ "made": made })),
            Self::KeyRotate(id) => ("key.rotate", None, json!({ "key_id": id })),
            Self::KeyRetire(id) => ("key.retire", None, json!({ "key_id": id })),
            Self::KeyCompromised(id) => ("key.compromised", None, json!({ "key_id": id })),
            Self::KeyReseal(keys) => ("key.reseal", None, json!({ "keys": keys })),
            Self::TrustAdd(name, issuer) => ("trust.add", Some(name), json!({ "issuer": issuer })),
            Self::TrustRemove(name) => ("trust.remove", Some(name), json!({})),
            Self::LinkInit => ("link.init", None, json!({})),
            Self::LinkRotate(step) => ("link.rotate", None, json!({ "step": step })),
            Self::RefreshRevoke(subject, ids) => {
                ("refresh.revoke", Some(subject), json!({ "refresh_tokens": ids }))
            }
        };
        let detail = if let Value::Object(detail) = detail { detail } else { Map::new() };
        (word, subject.map(ToString::to_string), detail)
    }
}

/// The parts of an act on a rule, with the word for a grant or the one for a deny.
fn of_rule<'r>(rule: &'r Rule, grant: &'static str, deny: &'static str) -> Parts<'r> {
    let word = if rule.effect == Effect::Allow { grant } else { deny };
    let actions = rule.actions.to_string();
    let detail = until(rule.expires, json!({ "pattern": rule.pattern, "actions": actions }));
    (word, Some(&rule.grantee), detail)
}

fn until(end: Option<UnixSeconds>, mut detail: Value) -> Value {
    if let Some(end) = end {
        detail["expires"] = rfc3339(end).into();
    }
    detail
}
