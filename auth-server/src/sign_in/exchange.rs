//! From an issuer's token to the trust that it stands for: the order of the steps.

use std::{collections::BTreeMap, fmt::Display};

use berth_shared::{
    clock::UnixSeconds,
    subject::RobotName,
    token::{signed_claims, unverified},
};

use super::request::Why;
use crate::trust::{
    Trust,
    claims::{self, Claims},
    keys::IssuerKeys,
};

/// The longest token that is looked at, in bytes. The known issuers make tokens of 1 to 3 KiB.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

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
    trusts: &'a BTreeMap<RobotName, Trust>,
    keys: &IssuerKeys,
    name: Option<&RobotName>,
    token: &str,
    now: UnixSeconds,
) -> Result<&'a Trust, Why> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(untrusted(format!("the token is longer than {TOKEN_BYTES_MAX} bytes")));
    }
    let (key_id, unverified): (String, Claims) = unverified(token).map_err(untrusted)?;
    let unusable = |reason| untrusted(format!("the token cannot be used: {reason}"));
    let issuer = claims::issuer(&unverified).map_err(unusable)?;
    let is_asked = |trust: &&Trust| {
        trust.issuer.as_str() == issuer && name.is_none_or(|name| trust.name == *name)
    };
    let none = "no trust of that name is for the token's issuer; authctl trust list shows them";
    let mut why = untrusted(none);
    let mut found: Option<&Trust> = None;
    for trust in trusts.values().filter(is_asked) {
        match verify(trust, keys, &key_id, token, &unverified, now).await {
            Ok(()) => match found {
                Some(first) => {
                    let both = format!("both {} and {}", first.name, trust.name);
                    let hint = "the client must send the name that is meant";
                    return Err(untrusted(format!("{both} are for the token: {hint}")));
                }
                None => found = Some(trust),
            },
            // Whether this one is meant too is not known, so that none may be taken.
            Err(unavailable @ Why::IssuerDown(_)) => return Err(unavailable),
            Err(other) => why = other,
        }
    }
    found.ok_or(why)
}

async fn verify(
    trust: &Trust,
    keys: &IssuerKeys,
    key_id: &str,
    token: &str,
    unverified: &Claims,
    now: UnixSeconds,
) -> Result<(), Why> {
    let name = &trust.name;
    let not_meant =
        |reason: &dyn Display| untrusted(format!("{name} is not for the token: {reason}"));
    trust.check(unverified, now).map_err(|mismatch| not_meant(&mismatch))?;
    let keys = keys.for_token(trust, key_id).await;
    let keys = keys.map_err(|reason| Why::IssuerDown(format!("{name}: {reason}")))?;
    let claims: Claims = signed_claims(&keys, token, now).map_err(|reason| not_meant(&reason))?;
    trust.check(&claims, now).map_err(|mismatch| not_meant(&mismatch))
}

fn untrusted(reason: impl Display) -> Why {
    Why::Untrusted(reason.to_string())
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
