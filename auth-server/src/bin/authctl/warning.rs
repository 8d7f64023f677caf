//! What a person should know before something is done, which may be a typing error. Nothing is done
//! about it.

use auth_server::database::policy::Policy;
use berth_shared::{rights::Rule, subject::Grantee};

use crate::instance::Admin;

/// That `grantee` is nobody, if so: no user, neither robot nor trust, or a group that is not there.
pub(crate) fn nobody(grantee: &Grantee, admin: &Admin, policy: &Policy) -> Option<String> {
    let (is_there, text) = match grantee {
        Grantee::User(name) => {
            (admin.users().users.contains_key(name), format!("there is no user {name}"))
        }
        Grantee::Robot(name) => (
            policy.robots.get(name).is_some() || policy.trusts.get(name).is_some(),
            format!("there is no {name}"),
        ),
        Grantee::Group(name) => {
            (policy.groups.contains_key(name), format!("nobody is in group:{name}"))
        }
        Grantee::Everyone | Grantee::Anonymous => return None,
    };
    (!is_there).then_some(text)
}

/// The same where it may be somebody who is yet to come.
pub(crate) fn nobody_yet(grantee: &Grantee, admin: &Admin, policy: &Policy) -> Option<String> {
    let hint = match grantee {
        Grantee::User(name) => format!("to add one: authctl user add {name}"),
        Grantee::Group(name) => format!("to add somebody: authctl group add {name} USER"),
        other => format!(
            "to make it: authctl robot create {other} (a secret) or authctl trust add {other} (its \
             issuer's tokens)"
        ),
    };
    nobody(grantee, admin, policy).map(|nobody| format!("{nobody} yet; {hint}"))
}

/// Of each rule whose pattern begins with a name by which the registry is reached: it holds for a
/// repository that nobody means.
pub(crate) fn own_host(rules: &[Rule], admin: &Admin) -> Vec<String> {
    let Some(certificates) = &admin.config.certificates else { return Vec::new() };
    let Ok(found) = certificates.find(admin.clock()) else { return Vec::new() };
    let warning = |rule: &Rule| {
        let (host, rest) = rule.pattern.as_str().split_once('/')?;
        found.hosts().iter().any(|own| own.to_string() == host).then(|| {
            format!(
                "{host} is this registry's own name, which no repository's begins with: write {rest}"
            )
        })
    };
    rules.iter().filter_map(warning).collect()
}
