//! What the fuzz targets call: a thin door to a parser that is private otherwise.
//!
//! Compiled with the feature `fuzzing` alone, which changes nothing else.

use axum::http::HeaderMap;

use super::credentials;
use crate::sign_in::credentials::Presented;

/// The credentials cannot be read, and are wrong for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreadable;

/// The user name and password of a `Basic` header, or nothing and the secret of a `Bearer` one, if
/// there is an `Authorization` header at all.
///
/// # Errors
/// When there is one that is not exactly one that can be read.
pub fn authorization(headers: &HeaderMap) -> Result<Option<(Option<String>, String)>, Unreadable> {
    let presented = credentials::authorization(headers).map_err(|_| Unreadable)?;
    Ok(presented.map(|presented| match presented {
        Presented::Password(own) => (Some(own.user.to_string()), own.password.to_string()),
        other => (None, other.secret().to_string()),
    }))
}
