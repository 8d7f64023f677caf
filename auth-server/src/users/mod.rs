//! Who may sign in: the users of an htpasswd file or of the database, and the check of their passwords.
//!
//! The server only ever reads the file; [`edit`] is for `authctl`. Nothing here knows what a user
//! may do.

mod budget;
pub mod edit;
pub mod htpasswd;
pub mod limits;
mod pace;
mod queue;
pub mod source;
pub mod store;
pub mod throttle;
pub mod verify;

use zeroize::Zeroizing;

/// The longest password in bytes: bcrypt looks at no more, and a password that is cut silently is
/// weaker than its owner thinks.
pub const PASSWORD_BYTES_MAX: usize = 72;

/// The bcrypt cost of new passwords.
pub const NEW_COST: u32 = 10;

/// A password that bcrypt can check as a whole. Wiped from memory when dropped, and never shown.
#[derive(Clone)]
pub struct Password(Zeroizing<String>);

/// The text cannot be a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPassword {
    /// Nothing at all.
    #[error("the password is empty")]
    Empty,
    /// More than bcrypt looks at.
    #[error("the password is longer than {PASSWORD_BYTES_MAX} bytes")]
    Long,
    /// A NUL, at which some implementations of bcrypt stop.
    #[error("the password holds a NUL byte")]
    Nul,
}

impl Password {
    /// Takes `text` as a password.
    ///
    /// # Errors
    /// When it is empty, too long or holds a NUL.
    pub fn new(text: Zeroizing<String>) -> Result<Self, InvalidPassword> {
        if text.is_empty() {
            Err(InvalidPassword::Empty)
        } else if text.len() > PASSWORD_BYTES_MAX {
            Err(InvalidPassword::Long)
        } else if text.contains('\0') {
            Err(InvalidPassword::Nul)
        } else {
            Ok(Self(text))
        }
    }

    /// The password as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The bcrypt hash of a new password.
    ///
    /// # Errors
    /// When the system gives no randomness for the salt.
    pub fn hash(&self, cost: u32) -> Result<String, bcrypt::BcryptError> {
        let parts = bcrypt::hash_with_result(self.as_bytes(), cost)?;
        // $2y$ is what Apache writes, and what every reader of htpasswd files knows.
        Ok(parts.format_for_version(bcrypt::Version::TwoY))
    }
}
