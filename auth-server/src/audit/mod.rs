//! What happened: who was given a token, who was refused, and who changed what.
//!
//! - [`act`] is what an administrator does; its row is written in the act's own transaction
//! - [`author`] is who acts: a person with access to the machine, or the server itself
//! - [`entry`] is what a client caused; it goes through [`queue`], and [`writer`] commits what is
//!   waiting together, so that no sign-in waits for a disk or fails with it
//! - `request` makes an entry of what came of a request for a token
//! - [`export`] brings every row to a file of JSON lines, and acts and guesses to files of their own
//!   once more, so that what makes the first one rotate does not take them along; [`lines`] is such a
//!   file, and rotates
//! - [`row`] is what is read back
//!
//! SQL stays in [`crate::acl::audit`]. Nothing here takes a secret: what a client shows to sign in
//! never reaches this module, but for a name, which is written down only when somebody has it.

pub mod act;
pub mod author;
pub mod entry;
pub mod export;
pub mod lines;
pub mod queue;
mod request;
pub mod row;
pub mod settings;
pub mod writer;

pub use self::{act::Act, author::Author, queue::Queue, row::Row, settings::Settings};

/// Every word that an event may have, in the order of the alphabet.
pub const EVENTS: [&str; 28] = [
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
    "key.retire",
    "key.rotate",
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
