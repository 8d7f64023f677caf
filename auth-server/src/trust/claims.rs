//! Whether the claims of an issuer's token are those that a trust is for.
//!
//! Pure, and strict: a claim of the wrong JSON type is a refusal and never "not there", which is
//! how checks were passed by in other implementations.

use berth_shared::{clock::UnixSeconds, token};
use serde_json::{Map, Value};

use super::Trust;

/// Claims as they stand in a token.
pub type Claims = Map<String, Value>;

/// How much of what others wrote the log shows, in characters: enough to see what was meant.
const SHOWN_CHARS_MAX: usize = 200;

/// Why a token is not one that a trust is for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Mismatch(String);

/// The `iss` of a token, by which its trusts are found.
pub(crate) fn issuer(claims: &Claims) -> Result<&str, Mismatch> {
    text(claims, "iss")
}

impl Trust {
    /// Checks everything that these claims must say at `now`.
    ///
    /// # Errors
    /// The first claim that says something else.
    pub fn check(&self, claims: &Claims, now: UnixSeconds) -> Result<(), Mismatch> {
        if issuer(claims)? != self.issuer.as_str() {
            return Err(Mismatch("it is another issuer's".to_owned()));
        }
        if !audience_contains(claims, self.audience.as_str())? {
            let wanted = shown(self.audience.as_str());
            return Err(Mismatch(format!(
                "its audience is not {wanted:?}: the client must ask its issuer for exactly that"
            )));
        }
        let subject = text(claims, "sub")?;
        if !self.subject.matches(subject) {
            let subject = shown(subject);
            return Err(Mismatch(format!("its subject {subject:?} is not within the trust's")));
        }
        for (name, value) in self.claims.iter() {
            let is = text(claims, name)?;
            if is != value {
                let is = shown(is);
                return Err(Mismatch(format!("the claim {name:?} is {is:?} and not as required")));
            }
        }
        in_time(claims, now)
    }
}

fn unreadable(name: &str) -> Mismatch {
    Mismatch(format!("the claim {name:?} is missing or of the wrong type"))
}

fn text<'a>(claims: &'a Claims, name: &str) -> Result<&'a str, Mismatch> {
    let text = claims.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    text.ok_or_else(|| unreadable(name))
}

/// RFC 7519 §4.1.3: one text, or several.
fn audience_contains(claims: &Claims, wanted: &str) -> Result<bool, Mismatch> {
    match claims.get("aud") {
        Some(Value::String(one)) => Ok(one == wanted),
        Some(Value::Array(all)) if all.iter().all(Value::is_string) => {
            Ok(all.iter().any(|one| one.as_str() == Some(wanted)))
        }
        _ => Err(unreadable("aud")),
    }
}

/// `exp` and `iat` are in every ID token (OpenID Connect Core 1.0 §2); `nbf` need not be.
fn in_time(claims: &Claims, now: UnixSeconds) -> Result<(), Mismatch> {
    let read = |time: &Value| time.as_i64().map(UnixSeconds::new);
    let time = |name| claims.get(name).map(|time| read(time).ok_or_else(|| unreadable(name)));
    let required = |name| time(name).unwrap_or_else(|| Err(unreadable(name)));
    let (expires, issued) = (required("exp")?, required("iat")?);
    let begins = time("nbf").transpose()?.unwrap_or(issued);
    token::in_time(begins.max(issued), expires, now).map_err(|error| Mismatch(error.to_string()))
}

/// What the log shows of a text that others wrote, who could make it as long as they like.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::trust::{KeySource, Remote, RequiredClaims};

    const NOW: UnixSeconds = UnixSeconds::new(1_790_000_000);

    fn trust() -> Trust {
        let issuer: crate::trust::url::IssuerUrl = "https://issuer.test".parse().unwrap();
        Trust {
            name: "robot.ci".parse().unwrap(),
            issuer: issuer.clone(),
            audience: "reg.test".parse().unwrap(),
            subject: "repo:org/app:ref:refs/heads/main".parse().unwrap(),
            claims: RequiredClaims::all(["owner_id=7".parse().unwrap()]).unwrap(),
            keys: KeySource::Remote(Box::new(Remote { issuer, keys_url: None, ca: None })),
            created: UnixSeconds::new(0),
            last_used: None,
        }
    }

    /// Claims that fit, with `name` as `value`; without it when that is null.
    fn claims(name: &str, value: Value) -> Claims {
        let mut claims = json!({
            "iss": "https://issuer.test", "aud": "reg.test", "owner_id": "7",
            "sub": "repo:org/app:ref:refs/heads/main",
            "exp": NOW + 300, "iat": NOW - 1, "nbf": NOW - 1,
        });
        claims[name] = value;
        claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        serde_json::from_value(claims).unwrap()
    }

    #[test]
    fn every_claim_must_be_there_and_say_just_what_is_trusted() {
        for (name, good) in [
            ("x", json!("y")),
            ("nbf", json!(null)),
            ("nbf", json!(NOW + 60)),
            ("iat", json!(NOW + 60)),
            ("exp", json!(NOW - 59)),
            ("aud", json!(["other", "reg.test"])),
        ] {
            let checked = trust().check(&claims(name, good.clone()), NOW);
            assert_eq!(checked, Ok(()), "{name} {good}");
        }
        for name in ["iss", "aud", "sub", "exp", "iat", "owner_id"] {
            let checked = trust().check(&claims(name, json!(null)), NOW);
            assert_eq!(checked, Err(unreadable(name)), "{name}");
        }
        for (name, odd) in [
            ("iss", json!(["https://issuer.test"])),
            ("aud", json!(7)),
            ("aud", json!({ "reg.test": true })),
            ("aud", json!(["reg.test", 7])),
            ("sub", json!(["repo:org/app:ref:refs/heads/main"])),
            ("sub", json!("")),
            ("owner_id", json!(7)),
            ("exp", json!("1890000000")),
            ("exp", json!(1.89e9)),
            ("exp", json!(u64::MAX)),
            ("iat", json!(true)),
            ("nbf", json!("0")),
        ] {
            let checked = trust().check(&claims(name, odd.clone()), NOW);
            assert_eq!(checked, Err(unreadable(name)), "{name} {odd}");
        }
        for (name, wrong) in [
            ("iss", json!("https://issuer.test/")),
            ("iss", json!("https://ISSUER.test")),
            ("aud", json!("reg.tes")),
            ("aud", json!("reg.test.evil.org")),
            ("aud", json!("reg.test other")),
            ("aud", json!(["reg.test2", "other"])),
            ("aud", json!([])),
            ("sub", json!("repo:org/app:ref:refs/heads/main2")),
            ("sub", json!("repo:org/app:ref:refs/heads")),
            ("sub", json!("xrepo:org/app:ref:refs/heads/main")),
            ("owner_id", json!("77")),
            ("nbf", json!(NOW + 61)),
            ("iat", json!(NOW + 61)),
            ("exp", json!(NOW - 60)),
            ("exp", json!(-1)),
        ] {
            let checked = trust().check(&claims(name, wrong.clone()), NOW);
            assert!(checked.is_err(), "{name} {wrong}");
            assert_ne!(checked, Err(unreadable(name)), "{name} {wrong}");
        }
    }
}
