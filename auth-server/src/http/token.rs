//! `GET` and `POST /token`: distribution's token endpoint and its OAuth 2 form (auth R8–R12).
//!
//! Query and body are read by hand: content types, repeated fields and unknown parameters are no
//! reason to refuse, since a 415 or 422 strands clients. The identity comes from the credentials
//! alone, never from `account` or any other parameter.

use std::net::IpAddr;

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use berth_shared::{
    clock::rfc3339,
    link,
    scope::Scope,
    serve::{PeerAddress, log::LogFields},
    telemetry::chain,
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use metrics::counter;
use serde::Serialize;
use zeroize::Zeroizing;

use super::{
    Door, Socket,
    error::{Error, Refusal},
    json,
};
use crate::{
    issue::Withheld,
    server::{Agent, Granted, IssueError, TokenRequest},
    sign_in::Presented,
    users::verify::Credentials,
};

/// The longest body of a token request.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// The least `expires_in` that every client reads as it is meant. A token that rests on a grant
/// about to end says so in its `exp` alone.
const EXPIRES_IN_SECS_MIN: i64 = 60;

/// The parameters of a request, from the query or from the body. Wiped when dropped, since a
/// password may be among them.
struct Parameters(Vec<(String, Zeroizing<String>)>);

impl Parameters {
    fn parse(text: &[u8]) -> Self {
        let pairs = form_urlencoded::parse(text);
        let owned = |(name, value): (std::borrow::Cow<'_, str>, std::borrow::Cow<'_, str>)| {
            (name.into_owned(), Zeroizing::new(value.into_owned()))
        };
        Self(pairs.map(owned).collect())
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The first value that says anything: crane sends `service=` even when it has none.
    fn first<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.all(name).find(|value| !value.is_empty())
    }
}

/// `GET /token`: parameters in the query, credentials in `Authorization`.
pub(super) async fn get(State(door): State<Door>, request: Request) -> Response {
    let caller = Caller::of(&door, &request);
    let parameters = Parameters::parse(request.uri().query().unwrap_or_default().as_bytes());
    let answer = match authorization(request.headers()) {
        Ok(presented) => {
            let is_offline = parameters.first("offline_token") == Some("true");
            answer(&door, &parameters, Shown { presented, is_offline }, &caller).await
        }
        Err(error) => Err(caller.unreadable(&door, error)),
    };
    respond(answer, caller.address)
}

/// `POST /token`: parameters and credentials in the body (RFC 6749 §4.3).
pub(super) async fn post(State(door): State<Door>, request: Request) -> Response {
    let caller = Caller::of(&door, &request);
    let unreadable = |error| caller.unreadable(&door, error);
    let answer = async {
        let from_header = authorization(request.headers()).map_err(unreadable)?;
        let parameters = Parameters::parse(&read_body(request.into_body()).await?);
        let refreshes = door.server.config().refresh_tokens;
        let presented = match from_header {
            // Which of the two is meant cannot be known.
            Some(_) if refreshes && shows_refresh_token(&parameters) => {
                let cause = "an Authorization header beside a refresh token";
                return Err(Error::because(Refusal::WrongCredentials, cause));
            }
            Some(presented) => Some(presented),
            None => from_form(&parameters, refreshes).map_err(unreadable)?,
        };
        refuse_other_grants(&parameters, refreshes)?;
        let is_offline = parameters.first("access_type") == Some("offline");
        answer(&door, &parameters, Shown { presented, is_offline }, &caller).await
    };
    respond(answer.await, caller.address)
}

/// What a request shows, and whether it asks for a refresh token.
struct Shown {
    presented: Option<Presented>,
    is_offline: bool,
}

async fn answer(
    door: &Door,
    parameters: &Parameters,
    shown: Shown,
    caller: &Caller,
) -> Result<Response, Error> {
    let Shown { presented, is_offline } = shown;
    let server = &door.server;
    let service = server
        .service(parameters.first("service"))
        .ok_or_else(|| Error::refused(Refusal::Service))?;
    let asked_for_something = parameters.all("scope").any(|scope| !scope.trim().is_empty());
    if presented.is_none() && !asked_for_something {
        return Err(Error::refused(Refusal::Credentials));
    }
    let name = presented.as_ref().and_then(Presented::name);
    if let (Some(account), Some(name)) = (parameters.first("account"), name)
        && account != name
    {
        tracing::debug!("the parameter account names another user than the credentials");
    }
    let scopes = Scope::parse_all(parameters.all("scope"));
    let request = TokenRequest {
        service,
        scopes: &scopes,
        presented: presented.as_ref(),
        is_offline,
        client: caller.address,
        agent: Agent { id: parameters.first("client_id"), ..caller.agent() },
    };
    match server.issue(request).await {
        Ok(granted) => Ok(token_answer(&granted)),
        Err(error) => Err(refused(error)),
    }
}

fn refused(error: IssueError) -> Error {
    match error {
        // A name that no user has may be a password typed in the wrong field: it is not logged.
        IssueError::Wrong { known } => {
            let cause =
                if known.is_some() { "wrong password or secret" } else { "no such user or robot" };
            let mut error = Error::because(Refusal::WrongCredentials, cause);
            error.log().subject = known.map(|name| name.to_string());
            error
        }
        IssueError::Untrusted { known, reason } => {
            let mut error = Error::because(Refusal::WrongCredentials, reason);
            error.log().subject = known.map(|name| name.to_string());
            error
        }
        IssueError::IssuerDown { known, reason } => {
            let mut error = Error::because(Refusal::IssuerDown, reason);
            error.log().subject = known.map(|name| name.to_string());
            error
        }
        IssueError::Busy { .. } => Error::refused(Refusal::Busy),
        IssueError::Database(error) => Error::because(Refusal::Unavailable, chain(&error)),
        IssueError::Broken(cause) => Error::because(Refusal::Internal, cause),
    }
}

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
fn from_form(parameters: &Parameters, refreshes: bool) -> Result<Option<Presented>, Error> {
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
        (Some("refresh_token"), ..) if refreshes => {
            Err(Error::because(Refusal::WrongCredentials, "no refresh token in the form"))
        }
        (Some("password"), ..) => {
            Err(Error::because(Refusal::WrongCredentials, "no username or no password in the form"))
        }
        _ => Ok(None),
    }
}

fn shows_refresh_token(parameters: &Parameters) -> bool {
    parameters.first("grant_type") == Some("refresh_token")
        || parameters.first("refresh_token").is_some()
}

fn refuse_other_grants(parameters: &Parameters, refreshes: bool) -> Result<(), Error> {
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

async fn read_body(body: Body) -> Result<Zeroizing<Vec<u8>>, Error> {
    match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(body) => Ok(Zeroizing::new(body.to_bytes().to_vec())),
        Err(error) if error.is::<LengthLimitError>() => Err(Error::refused(Refusal::BodyLong)),
        Err(error) => Err(Error::because(Refusal::BodyCut, error.to_string())),
    }
}

/// Who sends a request, as far as the connection and the headers say.
struct Caller {
    address: Option<IpAddr>,
    user_agent: Option<HeaderValue>,
}

impl Caller {
    fn of(door: &Door, request: &Request) -> Self {
        let user_agent = request.headers().get(header::USER_AGENT).cloned();
        Self { address: client_address(door, request), user_agent }
    }

    fn agent(&self) -> Agent<'_> {
        let header = self.user_agent.as_ref().and_then(|value| value.to_str().ok());
        Agent { header, ..Agent::default() }
    }

    /// Notes that this caller's credentials could not be read.
    fn unreadable(&self, door: &Door, error: Error) -> Error {
        door.server.note_unreadable(self.address, self.agent());
        error
    }
}

/// The client's address, for the log: what the registry says where it is the only one who can
/// speak, else the peer's. `None` leaves the peer's to the log itself.
fn client_address(door: &Door, request: &Request) -> Option<IpAddr> {
    let peer = request.extensions().get::<PeerAddress>().and_then(|peer| peer.0);
    match door.socket {
        Socket::Public => peer,
        Socket::Private => request
            .headers()
            .get(link::CLIENT_ADDRESS_HEADER)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.parse().ok()),
    }
}

#[derive(Serialize)]
struct Answer<'a> {
    token: &'a str,
    access_token: &'a str,
    expires_in: i64,
    issued_at: String,
    scope: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<&'a str>,
}

fn token_answer(granted: &Granted) -> Response {
    let Granted { signed_in, issued, token, refresh_token } = granted;
    counter!("berth_tokens_issued_total", "method" => signed_in.method.word()).increment(1);
    if issued.withheld != Withheld::Nothing {
        counter!("berth_tokens_denied_total", "withheld" => issued.withheld.word()).increment(1);
    }
    let claims = &issued.claims;
    let scopes: Vec<_> = issued.scopes.iter().map(ToString::to_string).collect();
    let answer = Answer {
        token,
        access_token: token,
        expires_in: (claims.exp - claims.iat).max(EXPIRES_IN_SECS_MIN),
        issued_at: rfc3339(claims.iat),
        scope: scopes.join(" "),
        refresh_token: refresh_token.as_ref().map(|token| token.as_str()),
    };
    let mut response = json(StatusCode::OK, &answer);
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    let log = LogFields { subject: Some(signed_in.subject.to_string()), ..LogFields::default() };
    response.extensions_mut().insert(log);
    response
}

fn respond(answer: Result<Response, Error>, client: Option<IpAddr>) -> Response {
    if let Err(error) = &answer {
        counter!("berth_tokens_refused_total", "reason" => error.reason()).increment(1);
    }
    let mut response = answer.unwrap_or_else(IntoResponse::into_response);
    if let Some(log) = response.extensions_mut().get_mut::<LogFields>() {
        log.client = client;
    }
    response
}

#[cfg(test)]
mod tests {
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
