//! `GET` and `POST /token`: distribution's token endpoint and its OAuth 2 form (auth R8–R12).
//!
//! Query and body are read by hand: content types, repeated fields and unknown parameters are no
//! reason to refuse, since a 415 or 422 strands clients. The identity comes from the credentials
//! alone, never from `account` or any other parameter.

use std::net::IpAddr;

use axum::{
    body::{Body, HttpBody},
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use berth_shared::{
    auth_api,
    claimant::Claimant,
    clock::rfc3339,
    scope::Scope,
    serve::{
        Late, PeerAddress,
        budget::{Reservation, Share},
        log::LogFields,
    },
    telemetry::chain,
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use metrics::counter;
use serde::Serialize;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::{
    Door, Socket,
    credentials::{authorization, from_form, refuse_other_grants, shows_refresh_token},
    error::{Error, Refusal},
    json,
    parameters::Parameters,
};
use crate::{
    issue::Withheld,
    sign_in::{
        credentials::Presented,
        request::{Agent, Granted, IssueError, TokenRequest, Why},
    },
};

/// The least `expires_in` that every client reads as it is meant. A token that rests on a grant
/// about to end says so in its `exp` alone.
const EXPIRES_IN_SECS_MIN: i64 = 60;

/// How often a body is in memory at most: as it came, as one piece, and as parameters.
const BODY_COPIES: usize = 3;

/// `GET /token`: parameters in the query, credentials in `Authorization`.
pub(super) async fn get(State(door): State<Door>, request: Request) -> Response {
    let caller = Caller::of(&door, &request);
    let parameters = Parameters::parse(request.uri().query().unwrap_or_default().as_bytes());
    let answer = match authorization(request.headers()) {
        Ok(presented) => {
            let is_offline = parameters.first("offline_token") == Some("true");
            answer(&door, &parameters, presented, is_offline, &caller).await
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
        let memory = door.server.memory.share(Claimant::stranger(caller.address));
        let (_until_answered, body) = read_body(request.into_body(), &memory).await?;
        let parameters = Parameters::parse(&body);
        drop(body);
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
        answer(&door, &parameters, presented, is_offline, &caller).await
    };
    respond(answer.await, caller.address)
}

async fn answer(
    door: &Door,
    parameters: &Parameters,
    presented: Option<Presented>,
    is_offline: bool,
    caller: &Caller,
) -> Result<Response, Error> {
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
    use Refusal as R;
    let (known, why) = match error {
        IssueError::Refused { known, why } => (known, why),
        IssueError::Database(error) => return Error::because(R::Unavailable, chain(&error)),
        IssueError::KeysAway(cause) => return Error::because(R::Unavailable, cause),
        IssueError::Broken(cause) => return Error::because(R::Internal, cause),
    };
    let mut refused = match why {
        // A name that no user has may be a password typed in the wrong field: it is not logged.
        Why::Wrong { .. } if known.is_none() => {
            Error::because(R::WrongCredentials, "no such user or robot")
        }
        Why::Wrong { .. } => Error::because(R::WrongCredentials, "wrong password or secret"),
        Why::PasswordLong => Error::because(R::PasswordLong, "a password of more than 72 bytes"),
        Why::Untrusted(reason) => Error::because(R::WrongCredentials, reason),
        Why::IssuerDown(reason) => Error::because(R::IssuerDown, reason),
        Why::Busy(limit) => Error::limited(R::Busy, limit),
    };
    refused.log().subject = known.map(|name| name.to_string());
    refused
}

/// Reads a body, and what it takes until the request is answered.
async fn read_body(body: Body, memory: &Share) -> Result<(Reservation, Zeroizing<Vec<u8>>), Error> {
    const MOST: usize = auth_api::TOKEN_BODY_BYTES_MAX;
    let announced = body.size_hint().upper().and_then(|length| usize::try_from(length).ok());
    let bytes = announced.unwrap_or(MOST).min(MOST) * BODY_COPIES;
    let room = memory.reserve(bytes).await;
    let room = room.map_err(|busy| Error::limited(Refusal::Crowded, busy.limit))?;
    let whole = Limited::new(body, auth_api::TOKEN_BODY_BYTES_MAX).collect();
    match timeout(auth_api::TOKEN_BODY_TIMEOUT, whole).await {
        Ok(Ok(body)) => Ok((room, Zeroizing::new(body.to_bytes().to_vec()))),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Error::refused(Refusal::BodyLong)),
        Ok(Err(error)) if !Late::is_behind(&*error) => {
            Err(Error::because(Refusal::BodyCut, error.to_string()))
        }
        Ok(Err(_)) | Err(_) => Err(Error::limited(Refusal::BodyLate, auth_api::TOKEN_BODY_LIMIT)),
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
        door.server.recorder.unreadable(self.address, self.agent());
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
            .get(auth_api::CLIENT_ADDRESS_HEADER)
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
    use berth_shared::serve::budget::Budget;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_comes_is_not_waited_for() {
        let never = futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>();
        let memory = Budget::new("memory_bytes_max", 1 << 20).share(Claimant::stranger(None));
        let error = read_body(Body::from_stream(never), &memory).await.unwrap_err();
        assert_eq!(error.into_response().status(), StatusCode::REQUEST_TIMEOUT);
    }
}
