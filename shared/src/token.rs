//! Token verification (RFC 7519, RFC 8725; rule R15 of Berth's contract).
//!
//! The key comes from the own set by `kid`: `jwk`, `jku` and `x5u` in a header are ignored in
//! Berth's own tokens and a reason to refuse those of other issuers, and `x5c` is read only where a certificate bundle is configured that its chain must end in.
//! Signature and fixed claims are checked once by [`Verifier::verify`]; the time is
//! checked at every use, so that a verified token can be kept.

use jsonwebtoken::{TokenData, Validation, dangerous::insecure_decode, decode, decode_header};
use serde::de::DeserializeOwned;

use crate::{
    claims::{ClaimSet, LEEWAY_SECS},
    clock::UnixSeconds,
    keys::KeySet,
    subject::Subject,
    text::words,
};

/// What a token must say to be taken: who issued it, and for which service.
#[derive(Debug, Clone)]
pub struct Verifier {
    /// The exact `iss`.
    pub issuer: String,
    /// The service that `aud` must contain.
    pub service: String,
    /// Whether subjects are somebody else's, and not Berth's users.
    pub foreign_subjects: bool,
}

/// A token whose signature, issuer, audience and shape are right. Whether it is in time and not
/// revoked is asked at every use.
#[derive(Debug, Clone)]
pub struct VerifiedToken {
    /// What it says.
    pub claims: ClaimSet,
    /// Whom it speaks for.
    pub subject: Subject,
}

words! {
    /// Why a token is not taken. The client learns `invalid_token`; the log learns which.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
    pub enum Refusal {
        /// Not a JWT of the right shape.
        #[error("the token is malformed")]
        Malformed = "malformed",
        /// Signed by a key that is not in the set.
        #[error("the token's key id is not known")]
        UnknownKey = "unknown_key",
        /// The signature or its algorithm is wrong.
        #[error("the token's signature does not verify")]
        Signature = "signature",
        /// Issued by somebody else.
        #[error("the token was issued by somebody else")]
        Issuer = "issuer",
        /// Meant for another service.
        #[error("the token is for another service")]
        Audience = "audience",
        /// Not yet in force.
        #[error("the token is not yet in force: compare the clocks of issuer and server")]
        NotYet = "not_yet",
        /// Its time is over.
        #[error("the token has expired")]
        Expired = "expired",
        /// It names a key of its own making, where a key is not even to be named.
        #[error("the token's header brings a key along (jwk, jku or x5u), as no issuer has to")]
        BringsKey = "brings_key",
        /// A right was taken away since it was issued.
        #[error("the token was revoked")]
        Revoked = "revoked",
    }
}

impl Verifier {
    /// Checks everything about a token that does not change with time; `now` is for the
    /// certificates of a chain.
    ///
    /// # Errors
    /// The first reason for which the token cannot be taken.
    pub fn verify(
        &self,
        keys: &KeySet,
        token: &str,
        now: UnixSeconds,
    ) -> Result<VerifiedToken, Refusal> {
        let claims: ClaimSet = signed_claims(keys, token, now)?;
        self.accept(claims)
    }

    fn accept(&self, claims: ClaimSet) -> Result<VerifiedToken, Refusal> {
        if claims.iss != self.issuer {
            return Err(Refusal::Issuer);
        }
        if !claims.aud.contains(&self.service) {
            return Err(Refusal::Audience);
        }
        if claims.jti.is_empty() {
            return Err(Refusal::Malformed);
        }
        let subject = match Subject::from_claim(&claims.sub) {
            Ok(Subject::User(_) | Subject::Robot(_)) | Err(_) if self.foreign_subjects => {
                Subject::Foreign(claims.sub.clone())
            }
            subject => subject.map_err(|_| Refusal::Malformed)?,
        };
        Ok(VerifiedToken { claims, subject })
    }
}

/// Checks header and signature, and gives the claims as they stand: not one of them is checked.
///
/// # Errors
/// When a key of the set did not sign this token with its one algorithm, or the claims cannot be
/// read.
pub fn signed_claims<T: DeserializeOwned>(
    keys: &KeySet,
    token: &str,
    now: UnixSeconds,
) -> Result<T, Refusal> {
    let header = decode_header(token).map_err(|_| Refusal::Malformed)?;
    let is_jwt = header.typ.as_deref().is_none_or(|typ| typ.eq_ignore_ascii_case("JWT"));
    if !is_jwt || header.crit.is_some() {
        return Err(Refusal::Malformed);
    }
    let key = keys.find(&header, now).ok_or(Refusal::UnknownKey)?;
    if header.alg != key.algorithm {
        return Err(Refusal::Signature);
    }
    decode(token, &key.key, &signature_only(key.algorithm)).map(|data| data.claims).map_err(
        |error| match error.kind() {
            jsonwebtoken::errors::ErrorKind::InvalidSignature => Refusal::Signature,
            _ => Refusal::Malformed,
        },
    )
}

/// What somebody wrote into a token, whoever that was: good for finding out whose keys to ask for,
/// and for nothing else. Gives the key id and the claims.
///
/// # Errors
/// When it is no token, names no key, or brings one along (`jwk`, `jku`, `x5u`), as no honest
/// issuer has to.
pub fn unverified<T: DeserializeOwned>(token: &str) -> Result<(String, T), Refusal> {
    let Ok(TokenData { header, claims }) = insecure_decode(token) else {
        return Err(Refusal::Malformed);
    };
    if header.jwk.is_some() || header.jku.is_some() || header.x5u.is_some() {
        return Err(Refusal::BringsKey);
    }
    Ok((header.kid.ok_or(Refusal::UnknownKey)?, claims))
}

/// The crate's own claim checks are off: it skips claims that are absent, and reads the clock
/// itself. [`ClaimSet`] requires every claim, and [`VerifiedToken::in_time`] takes the time.
fn signature_only(algorithm: jsonwebtoken::Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation
}

impl VerifiedToken {
    /// Whether the token is in force at `now`, give or take the leeway.
    ///
    /// # Errors
    /// [`Refusal::NotYet`] or [`Refusal::Expired`].
    pub fn in_time(&self, now: UnixSeconds) -> Result<(), Refusal> {
        let claims = &self.claims;
        in_time(claims.nbf.max(claims.iat), claims.exp, now)
    }
}

/// Whether what holds from `begins` until `expires` holds at `now`, give or take the leeway.
///
/// # Errors
/// [`Refusal::NotYet`] or [`Refusal::Expired`].
pub fn in_time(begins: UnixSeconds, expires: UnixSeconds, now: UnixSeconds) -> Result<(), Refusal> {
    if begins > now + LEEWAY_SECS {
        return Err(Refusal::NotYet);
    }
    if expires + LEEWAY_SECS <= now {
        return Err(Refusal::Expired);
    }
    Ok(())
}
