//! `Authorization: Basic` on the API itself, for `curl -u` and scripts: taken, never asked for.
//!
//! The credentials are exchanged at `auth-server` for a token of just the scope that the endpoint
//! needs, and what follows is the way of every token: nothing that is checked there is passed by.
//! Answers are kept for a minute at most, under an HMAC of the header with a key of this process;
//! refusals are not kept.

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header},
};
use berth_shared::{
    client::ClientError,
    link::{CLIENT_ADDRESS_HEADER, TOKEN_PATH},
    scope::Scope,
    serve::log::{REQUEST_ID_HEADER, RequestId},
    telemetry::chain,
};
use moka::future::Cache;
use ring::{hmac, rand::SystemRandom};
use serde::Deserialize;

use super::value;
use crate::link::AuthLink;

/// How long a token is used again, unless it ends before.
const KEPT: Duration = Duration::from_secs(60);

/// What tokens that are kept take, in bytes: some ten thousand of the usual ones.
const TOKENS_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What one takes besides its text.
const TOKEN_BYTES: usize = 512;

/// Why there is no token for the credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NoToken {
    /// They are wrong, in the words of the token endpoint.
    Wrong(String),
    /// Too many are signing in; with what the token endpoint says about when to try again.
    Busy(Option<HeaderValue>),
    /// The token endpoint gives no usable answer; with what it says instead, for the log.
    Unavailable(String),
}

/// Exchanges credentials for tokens; clones share what is kept.
#[derive(Debug, Clone)]
pub(crate) struct Exchange {
    link: AuthLink,
    service: Arc<str>,
    key: Arc<hmac::Key>,
    tokens: Cache<[u8; 32], Arc<HeaderMap>>,
}

/// What a request shows and needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question<'a> {
    /// The value of its `Authorization` header.
    pub(crate) shown: &'a HeaderValue,
    /// The scopes that its endpoint needs.
    pub(crate) scopes: &'a [Scope],
    /// Where it comes from.
    pub(crate) client: Option<IpAddr>,
    /// What it is found by in the log.
    pub(crate) id: Option<RequestId>,
}

#[derive(Deserialize)]
struct Answer {
    token: String,
}

/// What a refusal of the token endpoint says; it holds no secret.
#[derive(Deserialize)]
struct Refusal {
    errors: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    message: String,
}

impl From<ClientError> for NoToken {
    fn from(error: ClientError) -> Self {
        Self::Unavailable(chain(&error))
    }
}

/// The one `Authorization` header of `headers`, if it is `Basic`.
pub(crate) fn shown(headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().filter(|_| values.next().is_none())?;
    let scheme = value.to_str().ok()?.split_once(' ')?.0;
    scheme.eq_ignore_ascii_case("basic").then_some(value)
}

impl Exchange {
    /// An exchange that keeps nothing yet.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub(crate) fn new(link: AuthLink, service: &str) -> Result<Self, ring::error::Unspecified> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())?;
        Ok(Self {
            link,
            service: service.into(),
            key: Arc::new(key),
            tokens: Cache::builder()
                .max_capacity(TOKENS_BYTES_MAX)
                .weigher(|_, headers: &Arc<HeaderMap>| weight(headers))
                .time_to_live(KEPT)
                .build(),
        })
    }

    /// Headers with the token in place of the credentials. Equal requests at once ask once.
    pub(crate) async fn headers(&self, asked: Question<'_>) -> Result<Arc<HeaderMap>, NoToken> {
        let answer = self.tokens.try_get_with(self.tag(asked), self.ask(asked)).await;
        answer.map_err(|refused| (*refused).clone())
    }

    /// Forgets a token that turned out not to be good any more.
    pub(crate) async fn forget(&self, asked: Question<'_>) {
        self.tokens.invalidate(&self.tag(asked)).await;
    }

    fn tag(&self, asked: Question<'_>) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(asked.shown.as_bytes());
        for scope in asked.scopes {
            // No header value holds a line end.
            context.update(b"\n");
            context.update(scope.to_string().as_bytes());
        }
        let mut tag = [0; 32];
        tag.copy_from_slice(context.sign().as_ref());
        tag
    }

    async fn ask(&self, asked: Question<'_>) -> Result<Arc<HeaderMap>, NoToken> {
        let (parts, body) = self.link.forward(self.request(asked)).await?.into_parts();
        match parts.status {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED => {
                let wrong = "wrong user name or password";
                return Err(NoToken::Wrong(message(&body).unwrap_or_else(|| wrong.to_owned())));
            }
            StatusCode::TOO_MANY_REQUESTS => {
                return Err(NoToken::Busy(parts.headers.get(header::RETRY_AFTER).cloned()));
            }
            status => return Err(NoToken::Unavailable(said(status, &body))),
        }
        let answer: Answer = serde_json::from_slice(&body)
            .map_err(|_| NoToken::Unavailable("auth-server answered without a token".to_owned()))?;
        let mut bearer = value(format!("Bearer {}", answer.token));
        bearer.set_sensitive(true);
        Ok(Arc::new(HeaderMap::from_iter([(header::AUTHORIZATION, bearer)])))
    }

    fn request(&self, asked: Question<'_>) -> Request<Body> {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("service", &self.service);
        query.extend_pairs(asked.scopes.iter().map(|scope| ("scope", scope.to_string())));
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = format!("{TOKEN_PATH}?{}", query.finish()).parse().unwrap_or_default();
        let headers = request.headers_mut();
        headers.insert(header::HOST, value("auth-server"));
        headers.insert(header::AUTHORIZATION, asked.shown.clone());
        if let Some(id) = asked.id {
            headers.insert(REQUEST_ID_HEADER, value(id.to_string()));
        }
        if let Some(client) = asked.client {
            let name = HeaderName::from_static(CLIENT_ADDRESS_HEADER);
            headers.insert(name, value(client.to_string()));
        }
        request
    }
}

/// A refusal in words.
fn said(status: StatusCode, body: &[u8]) -> String {
    match message(body) {
        Some(message) => format!("auth-server answered {status}: {message}"),
        None => format!("auth-server answered {status}"),
    }
}

fn message(body: &[u8]) -> Option<String> {
    let refusal = serde_json::from_slice::<Refusal>(body).ok()?;
    refusal.errors.into_iter().next().map(|entry| entry.message)
}

/// What kept headers take.
fn weight(headers: &HeaderMap) -> u32 {
    let text: usize = headers.values().map(HeaderValue::len).sum();
    u32::try_from(text + TOKEN_BYTES).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_is_one_header_of_that_scheme() {
        let headers = |values: &[&'static str]| -> HeaderMap {
            values
                .iter()
                .map(|text| (header::AUTHORIZATION, HeaderValue::from_static(text)))
                .collect()
        };
        for good in ["Basic YTpi", "basic YTpi", "Basic !"] {
            assert!(shown(&headers(&[good])).is_some(), "{good}");
        }
        for bad in [vec![], vec!["Bearer x"], vec!["Basic"], vec!["Basic YTpi", "Basic YTpi"]] {
            assert!(shown(&headers(&bad)).is_none(), "{bad:?}");
        }
    }
}
