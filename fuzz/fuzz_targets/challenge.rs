//! Four lines: the realm, the service, the error and the scopes of a challenge.
//!
//! For whatever the configuration takes, the header is read back by the grammar of RFC 9110
//! §11.6.1, and says what went in.
#![no_main]

use berth_fuzz::shared::scope::Scope;
use http::{HeaderValue, Uri};
use libfuzzer_sys::fuzz_target;
use registry_server::{
    fuzzing::{challenge, is_realm, is_service},
    http::origin::Origin,
};

const ERRORS: [&str; 2] = ["invalid_token", "insufficient_scope"];

fuzz_target!(|text: &str| {
    let mut lines = text.splitn(4, '\n');
    let mut line = || lines.next().unwrap_or_default();
    let Some(realm) = realm(line()) else { return };
    // A configuration can say `\n`, a line of the input cannot.
    let service = line().replace("\\n", "\n");
    if !is_service(&service) {
        return;
    }
    let error = line();
    let error = ERRORS.into_iter().find(|known| *known == error);
    let scopes = Scope::parse_all([line()]);

    let written = challenge(&realm, &service, &scopes, error);
    let parameters = read(&written).unwrap_or_else(|| panic!("{written:?}"));
    let words: Vec<String> = scopes.iter().map(ToString::to_string).collect();
    let scope = (!words.is_empty()).then(|| ("scope", words.join(" ")));
    let expected = [("realm", realm), ("service", service)].into_iter();
    let expected = expected.chain(scope).chain(error.map(|error| ("error", error.to_owned())));
    let expected: Vec<_> = expected.map(|(name, value)| (name.to_owned(), value)).collect();
    assert_eq!(parameters, expected, "{written:?}");
});

/// That of an origin of Berth's own, or of a foreign issuer.
fn realm(text: &str) -> Option<String> {
    let own = || Origin::from_uri(&text.parse::<Uri>().ok()?).map(|origin| origin.realm());
    own().or_else(|| is_realm(text).then(|| text.to_owned()))
}

/// The parameters of a `Bearer` challenge. Every value must be quoted, since some clients read
/// nothing else.
fn read(header: &HeaderValue) -> Option<Vec<(String, String)>> {
    let mut rest = header.to_str().ok()?.strip_prefix("Bearer ")?;
    let mut parameters = Vec::new();
    loop {
        let (name, value) = rest.split_once('=')?;
        let is_token = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric());
        let (value, behind) = unquote(value).filter(|_| is_token)?;
        parameters.push((name.to_owned(), value));
        if behind.is_empty() {
            return Some(parameters);
        }
        rest = behind.strip_prefix(',')?;
    }
}

/// A quoted string (RFC 9110 §5.6.4) and what stands behind it.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut letters = text.strip_prefix('"')?.char_indices();
    let mut value = String::new();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, &text[at + 2..])),
            '\\' => value.push(letters.next()?.1),
            _ => value.push(letter),
        }
    }
    None
}
