//! What a token says: the requested scopes, cut down to what the rules allow.
//!
//! Pure: the time, the token's name and the revocation counter are passed in, and signing happens
//! elsewhere. A token carries what was asked for and nothing more (auth R9, R12, R14).

use std::time::Duration;

use berth_shared::{
    action::Action,
    action::Actions,
    claims::{Access, Audience, ClaimSet},
    clock::UnixSeconds,
    name::RepositoryName,
    rights::{Effect, Rights, Rule},
    scope::Scope,
    subject::Subject,
    text::words,
};

/// The longest life of a token, in seconds: beyond a day it would be a password.
pub(crate) const TOKEN_LIFE_SECS_MAX: u32 = 86_400;

/// How far before its issue a token begins to hold, in seconds, for verifiers whose clock is
/// behind (auth R14).
const NOT_BEFORE_SECS: i64 = 10;

/// How long before a robot's secret ends its tokens begin to say so, in seconds.
const SECRET_ENDS_SOON_SECS: i64 = 7 * 24 * 60 * 60;

/// One request for a token, by a subject whose credentials have been checked.
#[derive(Debug)]
pub struct Request<'a> {
    /// Who asks.
    pub subject: &'a Subject,
    /// The issuer's name.
    pub issuer: &'a str,
    /// For which service.
    pub service: &'a str,
    /// What is asked for.
    pub scopes: &'a [Scope],
    /// What the subject may do.
    pub rights: &'a Rights,
    /// The revocation counter as it was before the credentials were checked.
    pub counter: u64,
    /// When the secret ends that the subject showed; never when absent.
    pub secret_expires: Option<UnixSeconds>,
    /// The time of issue.
    pub now: UnixSeconds,
    /// How long the token is to hold.
    pub life: Duration,
    /// The token's own name.
    pub id: String,
}

words! {
    /// How much of what was asked for a token does not say.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Withheld {
        /// It says all of it; also when nothing was asked for.
        Nothing = "nothing",
        /// It lacks a scope, or an action of one that was asked for by name.
        Part = "part",
        /// It allows nothing that was asked for.
        Everything = "everything",
    }
}

/// What a token will say, before it is signed.
#[derive(Debug)]
pub struct Issued {
    /// What it does not say.
    pub withheld: Withheld,
    /// The token's claims.
    pub claims: ClaimSet,
    /// The granted scopes: a scope that grants nothing is not among them.
    pub scopes: Vec<Scope>,
}

/// Decides what the token says.
pub fn issue(request: Request<'_>) -> Issued {
    let now = request.now;
    let life = i64::try_from(request.life.as_secs()).unwrap_or(i64::MAX);
    let mut expires = (now + life).min(request.secret_expires.unwrap_or(UnixSeconds::MAX));
    let mut scopes = Vec::new();
    let mut is_all = true;
    for scope in request.scopes {
        let Some((granted, until)) = grant(scope, request.rights, now) else {
            is_all = false;
            continue;
        };
        is_all &= is_enough(&granted, scope);
        expires = expires.min(until.unwrap_or(expires));
        scopes.push(granted);
    }
    let withheld = match scopes.is_empty() {
        _ if is_all => Withheld::Nothing,
        true => Withheld::Everything,
        false => Withheld::Part,
    };
    let claims = ClaimSet {
        iss: request.issuer.to_owned(),
        sub: request.subject.claim().to_owned(),
        aud: Audience::One(request.service.to_owned()),
        exp: expires,
        nbf: now - NOT_BEFORE_SECS,
        iat: now,
        jti: request.id,
        access: scopes.iter().map(Access::from).collect(),
        counter: request.counter,
        secret_expires: request.secret_expires.filter(|end| *end - now <= SECRET_ENDS_SOON_SECS),
    };
    Issued { withheld, claims, scopes }
}

/// The part of `scope` that is held, and until when: a token must not outlive the grants that it
/// rests on. `None` when nothing of it is held.
fn grant(scope: &Scope, rights: &Rights, now: UnixSeconds) -> Option<(Scope, Option<UnixSeconds>)> {
    match scope {
        Scope::Catalog => {
            let until = latest_end(rights.pulling_everything(now))?;
            Some((Scope::Catalog, until))
        }
        Scope::Repository { name, actions } => {
            let held: Actions = rights.actions_on(name, now).intersection(*actions);
            if held.is_empty() {
                return None;
            }
            let until =
                held.iter().filter_map(|action| action_end(name, action, rights, now)).min();
            Some((Scope::repository(name.clone(), held), until))
        }
    }
}

/// Whether the part of `asked` that is granted is what the client meant. `*` asks for whatever is
/// held, and so does naming every action.
fn is_enough(granted: &Scope, asked: &Scope) -> bool {
    let is_whatever =
        matches!(asked, Scope::Repository { actions, .. } if *actions == Actions::ALL);
    is_whatever || granted == asked
}

/// When `action` stops to be held; `None` when some rule allows it for good.
fn action_end(
    name: &RepositoryName,
    action: Action,
    rights: &Rights,
    now: UnixSeconds,
) -> Option<UnixSeconds> {
    let allows = |rule: &&Rule| rule.effect == Effect::Allow && rule.decides().contains(action);
    latest_end(rights.deciding(name, now).filter(allows)).flatten()
}

/// The latest end among `rules`: `None` without rules, `Some(None)` when one of them never ends.
fn latest_end<'a>(rules: impl Iterator<Item = &'a Rule>) -> Option<Option<UnixSeconds>> {
    rules.map(|rule| rule.expires).reduce(|a, b| Some(a?.max(b?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixSeconds = UnixSeconds::new(1_000_000);

    fn rights(rules: &[(&str, &str, Option<UnixSeconds>)]) -> Rights {
        let rule = |(pattern, actions, expires): &(&str, &str, Option<UnixSeconds>)| Rule {
            grantee: "andrew".parse().unwrap(),
            pattern: pattern.parse().unwrap(),
            effect: Effect::Allow,
            actions: actions.parse().unwrap(),
            expires: *expires,
        };
        Rights { rules: rules.iter().map(rule).collect() }
    }

    fn issue_for(scopes: &str, rights: &Rights) -> Issued {
        issue(Request {
            subject: &Subject::from_claim("andrew").unwrap(),
            issuer: "berth",
            service: "berth",
            scopes: &Scope::parse_all([scopes]),
            rights,
            counter: 7,
            secret_expires: None,
            now: NOW,
            life: Duration::from_secs(900),
            id: "id".to_owned(),
        })
    }

    #[test]
    fn a_token_holds_what_was_asked_for_and_allowed() {
        let rights = rights(&[("team/**", "push", None), ("public", "pull", None)]);
        for (asked, granted) in [
            ("repository:team/app:pull,push", "repository:team/app:pull,push"),
            ("repository:team/app:pull", "repository:team/app:pull"),
            ("repository:team/app:*", "repository:team/app:pull,push"),
            ("repository:public:push,pull", "repository:public:pull"),
            ("repository:other:pull", ""),
            ("registry:catalog:*", ""),
            ("", ""),
        ] {
            let issued = issue_for(asked, &rights);
            let words: Vec<_> = issued.scopes.iter().map(ToString::to_string).collect();
            assert_eq!(words.join(" "), granted, "{asked}");
            assert_eq!(issued.claims.access.len(), issued.scopes.len());
        }
        let claims = issue_for("", &rights).claims;
        assert_eq!((claims.nbf, claims.iat, claims.exp), (NOW - 10, NOW, NOW + 900));
        assert_eq!((claims.sub.as_str(), claims.counter), ("andrew", 7));
    }

    #[test]
    fn what_is_withheld_is_what_was_asked_for_by_name() {
        let rights = rights(&[("a", "pull", None), ("b", "push", None)]);
        for (asked, expected) in [
            ("", Withheld::Nothing),
            ("repository:a:pull", Withheld::Nothing),
            ("repository:a:pull,push", Withheld::Part),
            ("repository:a:push", Withheld::Everything),
            ("repository:a:*", Withheld::Nothing),
            ("repository:a:pull,push,delete", Withheld::Nothing),
            ("repository:c:*", Withheld::Everything),
            ("repository:a:pull repository:b:push", Withheld::Nothing),
            ("repository:a:pull repository:c:pull", Withheld::Part),
            ("repository:a:* repository:c:*", Withheld::Part),
            ("registry:catalog:*", Withheld::Everything),
            ("repository:a:pull registry:catalog:*", Withheld::Part),
        ] {
            assert_eq!(issue_for(asked, &rights).withheld, expected, "{asked}");
        }
    }

    #[test]
    fn the_catalog_goes_to_whoever_pulls_everything() {
        let issued = issue_for("registry:catalog:*", &rights(&[("**", "pull", None)]));
        assert_eq!(issued.claims.access[0].actions, ["*"]);
        assert_eq!(issued.withheld, Withheld::Nothing);
    }

    #[test]
    fn a_token_does_not_outlive_the_grants_it_rests_on() {
        for (rules, asked, expires) in [
            (vec![("a", "pull", Some(NOW + 50))], "repository:a:pull", NOW + 50),
            (
                vec![("a", "pull", Some(NOW + 50)), ("**", "pull", None)],
                "repository:a:pull",
                NOW + 900,
            ),
            (
                vec![("a", "push", Some(NOW + 50)), ("**", "pull", None)],
                "repository:a:pull",
                NOW + 900,
            ),
            (vec![("a", "push", Some(NOW + 50)), ("**", "pull", None)], "repository:a:*", NOW + 50),
            (
                vec![("a", "pull", Some(NOW + 50)), ("*", "pull", Some(NOW + 70))],
                "repository:a:pull",
                NOW + 70,
            ),
            (vec![("a", "pull", Some(NOW + 50))], "repository:b:pull", NOW + 900),
            (vec![("**", "pull", Some(NOW + 50))], "registry:catalog:*", NOW + 50),
        ] {
            assert_eq!(issue_for(asked, &rights(&rules)).claims.exp, expires, "{asked}");
        }
    }
}
