//! What the fuzz targets call: a thin door to a parser that is private otherwise.
//!
//! Compiled with the feature `fuzzing` alone, which changes nothing else.

use axum::http::HeaderMap;

use super::token;

/// The credentials cannot be read, and are wrong for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreadable;

/// The user name and password of a `Basic` header, if there is an `Authorization` header at all.
///
/// # Errors
/// When there is one that is not exactly one readable `Basic`.
pub fn basic(headers: &HeaderMap) -> Result<Option<(String, String)>, Unreadable> {
    let credentials = token::basic(headers).map_err(|_| Unreadable)?;
    Ok(credentials.map(|own| (own.user.to_string(), own.password.to_string())))
}
