//! A request line: `METHOD PATH?QUERY`.
//!
//! What is understood is written back the same, names a harmless repository, and asks for the right
//! that its method stands for; a method that is said to be allowed is.
#![no_main]

use berth_fuzz::{assert_harmless, shared::scope::Scope};
use http::Method;
use libfuzzer_sys::fuzz_target;
use registry_server::fuzzing::{Endpoint, page, tags};

fuzz_target!(|line: &str| {
    let Some((method, target)) = line.split_once(' ') else { return };
    let Ok(method) = Method::from_bytes(method.as_bytes()) else { return };
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    check_query(query);
    match Endpoint::parse(&method, path) {
        Ok(endpoint) => check(&endpoint, &method, path, query),
        Err(Some(allowed)) => check_allowed(allowed, &method, path),
        Err(None) => {}
    }
});

fn check(endpoint: &Endpoint, method: &Method, path: &str, query: Option<&str>) {
    let written = endpoint.path();
    assert_eq!(Endpoint::parse(method, &written).as_ref(), Ok(endpoint));
    let unescaped = path.replace("%3A", ":").replace("%3a", ":");
    assert!(written == unescaped || written == unescaped + "/", "{path} became {written}");

    let mut scopes = endpoint.scopes(query).into_iter();
    match (endpoint.repository(), scopes.next()) {
        (Some(name), Some(scope)) => {
            assert_harmless(&name);
            assert!(written.starts_with(&format!("/v2/{name}/")));
            let expected = format!("repository:{name}:{}", right(method, &written));
            assert_eq!(scope.to_string(), expected);
            check_mount(&name, scopes.next(), method, query);
        }
        (None, Some(scope)) => assert_eq!((scope, &*written), (Scope::Catalog, "/v2/_catalog")),
        (None, None) => assert_eq!(written, "/v2/"),
        (Some(name), None) => panic!("no right is needed on {name}"),
    }
    assert_eq!(scopes.next(), None);
}

/// Uploads are pushes, whatever is done with them; else the method says it.
fn right(method: &Method, path: &str) -> &'static str {
    let is_upload = path.rsplit('/').nth(1) == Some("uploads");
    match *method {
        _ if is_upload => "pull,push",
        Method::GET | Method::HEAD => "pull",
        Method::DELETE => "delete",
        _ => "pull,push",
    }
}

fn check_mount(
    name: &berth_fuzz::shared::name::RepositoryName,
    scope: Option<Scope>,
    method: &Method,
    query: Option<&str>,
) {
    let Some(scope) = scope else { return };
    assert_eq!(method, Method::POST);
    assert!(query.is_some());
    let Scope::Repository { name: from, actions } = scope else {
        panic!("mounts from no repository")
    };
    assert_harmless(&from);
    assert_ne!(from, *name);
    assert_eq!(actions.to_string(), "pull");
}

fn check_allowed(allowed: &str, method: &Method, path: &str) {
    for word in allowed.split(", ") {
        assert_ne!(word, method.as_str(), "{path}");
        let other = Method::from_bytes(word.as_bytes()).expect("a method");
        assert!(!matches!(Endpoint::parse(&other, path), Err(Some(_))), "{word} {path}");
    }
}

fn check_query(query: Option<&str>) {
    if let Some((limit, _last)) = page(query) {
        assert!(limit <= 1000);
    }
    for tag in tags(query).into_iter().flatten() {
        assert_eq!(tag.as_str().parse().as_ref(), Ok(&tag));
        assert!(!tag.as_str().contains(['/', ':', '%', '\0']));
    }
}
