//! The credentials of a request for a token, from its `Authorization` header or its form.
//!
//! Whatever is there and cannot be read is wrong credentials, and never none: the client meant to
//! sign in.

use axum::http::{HeaderMap, header};
use base64::{Engine, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

use super::{
    error::{Error, Refusal},
    parameters::Parameters,
};
use crate::{sign_in::credentials::Presented, users::verify::Credentials};

/// What exactly one readable `Authorization` shows: `Basic`, or `Bearer` with a robot's secret
/// or token.
/// `None` without one. Whatever else stands there is wrong credentials, never "none": the client
/// meant to sign in.
pub(super) fn authorization(headers: &HeaderMap) -> Result<Option<Presented>, Error> {
    let unreadable = |cause| Error::because(Refusal::WrongCredentials, cause);
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(unreadable("several Authorization headers"));
    }
    let (scheme, shown) = value
        .to_str()
        .ok()
        .and_then(|value| value.split_once(' '))
        .ok_or_else(|| unreadable("the Authorization header is not readable"))?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Ok(Some(Presented::Bearer(Zeroizing::new(shown.trim().to_owned()))));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(unreadable("the Authorization header is neither Basic nor Bearer"));
    }
    basic(shown).map(|credentials| Some(Presented::Password(credentials))).map_err(unreadable)
}

/// User name and password of RFC 7617.
fn basic(encoded: &str) -> Result<Credentials, &'static str> {
    let decoded = STANDARD.decode(encoded.trim()).map_err(|_| "the credentials are not Base64")?;
    let decoded = Zeroizing::new(decoded);
    let text = std::str::from_utf8(&decoded).map_err(|_| "the credentials are not UTF-8")?;
    let (user, password) = text.split_once(':').ok_or("the credentials have no colon")?;
    Ok(credentials(user, password))
}

/// The user name and password of a form, or its refresh token where those are accepted. A form that
/// asks for a grant without what belongs to it is wrong, and never anonymous.
pub(super) fn from_form(
    parameters: &Parameters,
    refreshes: bool,
) -> Result<Option<Presented>, Error> {
    let wrong = |cause| Err(Error::because(Refusal::WrongCredentials, cause));
    let user = parameters.all("username").next();
    let password = parameters.all("password").next();
    let token = parameters.first("refresh_token").filter(|_| refreshes);
    match (parameters.first("grant_type"), user, password, token) {
        (Some("password") | None, Some(user), Some(password), _) => {
            Ok(Some(Presented::Password(credentials(user, password))))
        }
        (Some("refresh_token") | None, _, _, Some(token)) => {
            Ok(Some(Presented::RefreshToken(Zeroizing::new(token.to_owned()))))
        }
        (Some("refresh_token"), ..) if refreshes => wrong("no refresh token in the form"),
        (Some("password"), ..) => wrong("no username or no password in the form"),
        _ => Ok(None),
    }
}

pub(super) fn shows_refresh_token(parameters: &Parameters) -> bool {
    parameters.first("grant_type") == Some("refresh_token")
        || parameters.first("refresh_token").is_some()
}

pub(super) fn refuse_other_grants(parameters: &Parameters, refreshes: bool) -> Result<(), Error> {
    match parameters.first("grant_type") {
        None | Some("password") => Ok(()),
        Some("refresh_token") if refreshes => Ok(()),
        Some("refresh_token") => Err(Error::refused(Refusal::RefreshToken)),
        Some(_) => Err(Error::refused(Refusal::GrantType)),
    }
}

fn credentials(user: &str, password: &str) -> Credentials {
    Credentials {
        user: Zeroizing::new(user.to_owned()),
        password: Zeroizing::new(password.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn header(value: &[u8]) -> HeaderMap {
        let value = HeaderValue::from_bytes(value).unwrap();
        HeaderMap::from_iter([(header::AUTHORIZATION, value)])
    }

    #[test]
    fn credentials_are_one_readable_basic_header() {
        assert!(authorization(&HeaderMap::new()).is_ok_and(|none| none.is_none()));
        for (text, user, password) in [
            ("andrew:secret", "andrew", "secret"),
            ("andrew:a:b", "andrew", "a:b"),
            ("andrew:pä:ss wörd", "andrew", "pä:ss wörd"),
            (":", "", ""),
        ] {
            for scheme in ["Basic", "basic", "BASIC"] {
                let value = format!("{scheme} {}", STANDARD.encode(text));
                let read = authorization(&header(value.as_bytes())).unwrap();
                let Some(Presented::Password(read)) = read else { panic!("{value}") };
                assert_eq!((read.user.as_str(), read.password.as_str()), (user, password));
            }
        }
        let no_colon = format!("Basic {}", STANDARD.encode("andrew"));
        let latin = format!("Basic {}", STANDARD.encode(b"andrew:\xe4"));
        for bad in ["", "Basic", "Basic !!!", "Digest abc", "Bearer", &no_colon, &latin] {
            assert!(authorization(&header(bad.as_bytes())).is_err(), "{bad}");
        }
        assert!(authorization(&header(b"Basic \xff")).is_err());
        let bearer = authorization(&header(b"bearer berth_x")).unwrap();
        assert!(matches!(bearer, Some(Presented::Bearer(secret)) if *secret == "berth_x"));
        let mut two = header(b"Basic YTpi");
        two.append(header::AUTHORIZATION, HeaderValue::from_static("Basic YTpi"));
        assert!(authorization(&two).is_err());
    }

    #[test]
    fn forms_name_a_user_are_anonymous_or_are_wrong() {
        for (form, expected) in [
            ("grant_type=password&username=a&password=b", Ok(true)),
            ("username=a&password=b", Ok(true)),
            ("grant_type=&username=a&password=b", Ok(true)),
            ("scope=repository:a:pull", Ok(false)),
            ("username=a", Ok(false)),
            ("grant_type=password", Err(())),
            ("grant_type=password&username=a", Err(())),
            ("grant_type=refresh_token&username=a&password=b", Ok(false)),
            ("grant_type=refresh_token&refresh_token=x", Ok(false)),
            ("refresh_token=x", Ok(false)),
        ] {
            let read = from_form(&Parameters::parse(form.as_bytes()), false);
            assert_eq!(read.map(|some| some.is_some()).map_err(|_| ()), expected, "{form}");
        }
        for (form, accepted) in [
            ("", true),
            ("grant_type=password", true),
            ("grant_type=refresh_token", false),
            ("grant_type=authorization_code", false),
        ] {
            let parameters = Parameters::parse(form.as_bytes());
            assert_eq!(refuse_other_grants(&parameters, false).is_ok(), accepted, "{form}");
            let accepted = accepted || form == "grant_type=refresh_token";
            assert_eq!(refuse_other_grants(&parameters, true).is_ok(), accepted, "{form}");
        }
    }

    #[test]
    fn a_refresh_grant_is_a_token_or_is_wrong() {
        for (form, expected) in [
            ("grant_type=refresh_token&refresh_token=x", Ok("x")),
            ("refresh_token=x", Ok("x")),
            ("grant_type=refresh_token&refresh_token=x&refresh_token=y", Ok("x")),
            ("grant_type=refresh_token&refresh_token=x&username=a&password=b", Ok("x")),
            ("grant_type=refresh_token", Err(())),
            ("grant_type=refresh_token&refresh_token=", Err(())),
            ("grant_type=refresh_token&username=a&password=b", Err(())),
        ] {
            let read = from_form(&Parameters::parse(form.as_bytes()), true).map_err(|_| ());
            let read = read.map(|shown| match shown {
                Some(Presented::RefreshToken(token)) => token.to_string(),
                _ => "another".to_owned(),
            });
            assert_eq!(read, expected.map(str::to_owned), "{form}");
        }
    }
}
