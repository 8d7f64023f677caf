//! What happened: who was given a token, who was refused, and who changed what.
//!
//! - [`act`] is what an administrator does; its row is written in the act's own transaction
//! - [`author`] is who acts: a person with access to the machine, or the server itself
//! - [`entry`] is what a client caused
//! - [`row`] is what is read back
//!
//! These are the words; [`crate::audit_log`] writes them down, and SQL stays in
//! [`crate::database::audit`]. Nothing here takes a secret: what a client shows to sign in never reaches
//! this module, but for a name, which is written down only when somebody has it.

pub mod act;
pub mod author;
pub mod entry;
pub mod row;

pub use self::{act::Act, author::Author, row::Row};

/// Every word that an event may have, in the order of the alphabet.
pub const EVENTS: [&str; 31] = [
    "audit.gap",
    "deny.add",
    "deny.remove",
    "grant.add",
    "grant.remove",
    "group.add",
    "group.remove",
    "htpasswd.add",
    "htpasswd.change",
    "htpasswd.remove",
    "key.compromised",
    "key.reseal",
    "key.retire",
    "key.rotate",
    "link.init",
    "link.rotate",
    "login.busy",
    "login.fail",
    "refresh.issue",
    "refresh.revoke",
    "restore",
    "robot.create",
    "robot.revoke",
    "token.deny",
    "token.issue",
    "tokens.revoke",
    "trust.add",
    "trust.remove",
    "user.add",
    "user.passwd",
    "user.remove",
];
