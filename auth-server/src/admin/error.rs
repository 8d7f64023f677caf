//! Why an operation was not done.

use berth_shared::subject::{RobotName, UserName};

use crate::{database, files::FileError, keys::KeyError, users::htpasswd::Problem};

/// An operation was not done, and nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database cannot be used.
    #[error(transparent)]
    Database(#[from] database::Error),
    /// A file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// A password cannot be hashed.
    #[error(transparent)]
    Hash(#[from] bcrypt::BcryptError),
    /// The signing keys cannot be used.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The system gives no randomness.
    #[error("the system gives no randomness")]
    Randomness,
    /// There is a robot of this name.
    #[error("there is a {0} already; to make it anew: authctl robot revoke {0}")]
    RobotThere(RobotName),
    /// There is no robot of this name.
    #[error("there is no {0}; authctl robot list shows them")]
    NoRobot(RobotName),
    /// Who is to get a secret is a trust.
    #[error("{0} is a trust and needs no secret; to end it: authctl trust remove {0}")]
    TrustNeedsNoSecret(RobotName),
    /// Whose secret is to be revoked is a trust.
    #[error("{0} is a trust and has no secret; to end it: authctl trust remove {0}")]
    TrustHasNoSecret(RobotName),
    /// Who is to be trusted is a robot.
    #[error("{0} is a robot with a secret; to end it: authctl robot revoke {0}")]
    RobotHasSecret(RobotName),
    /// There is a trust of this name.
    #[error("there is a trust {0} already; to make it anew: authctl trust remove {0}")]
    TrustThere(RobotName),
    /// There is no trust of this name.
    #[error("there is no trust {0}; authctl trust list")]
    NoTrust(RobotName),
    /// Somebody else did something about this name.
    #[error("{0} was made or removed meanwhile: try again")]
    Meanwhile(RobotName),
    /// There is a user of this name.
    #[error("there is a line for {0} already; for a new password: authctl user passwd {0}")]
    UserThere(UserName),
    /// There is no user of this name in the users' file.
    #[error("no user {0} in {1}; to add one: authctl user add {0}")]
    NoUser(UserName, String),
    /// There is neither a user of this name in the users' file nor a rule.
    #[error("no user {0} in {1}, and no grants of that name")]
    NothingOfUser(UserName, String),
    /// What is done with users in a database alone.
    #[error(
        "the users are in {0}, which is a file like that one: put its lines there; with [database] in auth.toml \
         they are in a database, and this brings them there"
    )]
    UsersInFile(String),
    /// A file of users without any.
    #[error("{0} has no users: nothing was changed")]
    NoUsersInFile(String),
    /// Somebody else changed the user at the same time.
    #[error("{0} was added or removed meanwhile: look again")]
    UserMeanwhile(UserName),
    /// A file of users of which a line cannot be used.
    #[error("{0}, {1}: nothing was changed")]
    UsersFile(String, Problem),
}
