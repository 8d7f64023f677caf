//! From an issuer's token to the trust that it stands for: the order of the steps.

use berth_shared::{
    clock::UnixSeconds,
    subject::RobotName,
    token::{self, signed_claims, unverified},
};

use crate::{
    acl::policy::trusts::Trusts,
    trust::{
        Trust,
        claims::{self, Claims, Mismatch},
        keys::{IssuerKeys, Unavailable},
    },
};

/// The longest token that is looked at, in bytes. The known issuers make tokens of 1 to 3 KiB.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// Why a token stands for nobody. The client learns that it is wrong; the log learns this.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("the token is longer than {TOKEN_BYTES_MAX} bytes")]
    Long,
    #[error(transparent)]
    Token(#[from] token::Refusal),
    #[error("the token cannot be used: {0}")]
    Claims(#[from] Mismatch),
    #[error("no trust of that name is for the token's issuer; authctl trust list shows them")]
    NoTrust,
    #[error("{trust} is not for the token: {mismatch}")]
    NotMeant { trust: RobotName, mismatch: Mismatch },
    #[error("{trust} is not for the token: {reason}")]
    NotSigned { trust: RobotName, reason: token::Refusal },
    #[error("both {0} and {1} are for the token: the client must send the name that is meant")]
    Ambiguous(RobotName, RobotName),
    #[error("{trust}: {reason}")]
    Unavailable { trust: RobotName, reason: Unavailable },
}

/// Whether a secret is to be read as an issuer's token: three parts, of which a JSON object's
/// encoding is the first. Robots' secrets never look so.
pub(super) fn is_token(secret: &str) -> bool {
    secret.starts_with("ey") && secret.bytes().filter(|byte| *byte == b'.').count() == 2
}

/// The one trust that `token` stands for: that of `name` if one was sent, else whichever it is.
///
/// Keys are looked at only for trusts that the claims fit, so that nothing is fetched for tokens
/// that would be refused anyway. Claims are checked again as the key has signed them.
pub(super) async fn exchange<'a>(
    trusts: &'a Trusts,
    keys: &IssuerKeys,
    name: Option<&RobotName>,
    token: &str,
    now: UnixSeconds,
) -> Result<&'a Trust, Refusal> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Refusal::Long);
    }
    let (key_id, unverified): (String, Claims) = unverified(token)?;
    let issuer = claims::issuer(&unverified)?;
    let is_asked = |trust: &&Trust| {
        trust.issuer.as_str() == issuer && name.is_none_or(|name| trust.name == *name)
    };
    let mut refusal = Refusal::NoTrust;
    let mut found: Option<&Trust> = None;
    for trust in trusts.iter().filter(is_asked) {
        match verify(trust, keys, &key_id, token, &unverified, now).await {
            Ok(()) => match found {
                Some(first) => {
                    return Err(Refusal::Ambiguous(first.name.clone(), trust.name.clone()));
                }
                None => found = Some(trust),
            },
            // Whether this one is meant too is not known, so that none may be taken.
            Err(unavailable @ Refusal::Unavailable { .. }) => return Err(unavailable),
            Err(other) => refusal = other,
        }
    }
    found.ok_or(refusal)
}

async fn verify(
    trust: &Trust,
    keys: &IssuerKeys,
    key_id: &str,
    token: &str,
    unverified: &Claims,
    now: UnixSeconds,
) -> Result<(), Refusal> {
    let name = || trust.name.clone();
    let not_meant = |mismatch| Refusal::NotMeant { trust: name(), mismatch };
    trust.check(unverified, now).map_err(not_meant)?;
    let keys = keys.for_token(trust, key_id).await;
    let keys = keys.map_err(|reason| Refusal::Unavailable { trust: name(), reason })?;
    let claims: Claims = signed_claims(&keys, token, now)
        .map_err(|reason| Refusal::NotSigned { trust: name(), reason })?;
    trust.check(&claims, now).map_err(not_meant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_told_from_secrets() {
        for (text, expected) in [
            ("eyJhbGciOiJub25lIn0.e30.x", true),
            ("eyJ.eyJ.", true),
            ("eyJ.eyJ", false),
            ("eyJ.a.b.c.d", false),
            ("berth_ey.a.b", false),
            ("", false),
            ("correct horse", false),
        ] {
            assert_eq!(is_token(text), expected, "{text}");
        }
    }
}
