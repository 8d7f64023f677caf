//! `Authorization: Basic` on the API itself, for `curl -u` and scripts: taken, never asked for.
//!
//! The credentials are exchanged at `auth-server` for a token of just the scope that the endpoint
//! needs, and what follows is the way of every token: nothing that is checked there is passed by.
//! Answers are kept for a minute at most, under an HMAC of the header with a key of this process;
//! refusals are not kept.

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::http::{HeaderValue, Request, StatusCode, header};
use berth_shared::{claimant::network_of, scope::Scope, serve::log::RequestId, telemetry::chain};
use bytes::Bytes;
use moka::future::Cache;
use ring::{hmac, rand::SystemRandom};
use serde_json::Value;

use super::token_request;
use crate::auth_client::AuthClient;

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
#[derive(Clone)]
pub(crate) struct Exchange {
    client: AuthClient,
    service: Arc<str>,
    key: Arc<hmac::Key>,
    tokens: Cache<[u8; 32], Arc<str>>,
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

impl Exchange {
    /// An exchange that keeps nothing yet.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub(crate) fn new(client: AuthClient, service: &str) -> Result<Self, ring::error::Unspecified> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())?;
        Ok(Self {
            client,
            service: service.into(),
            key: Arc::new(key),
            tokens: Cache::builder()
                .max_capacity(TOKENS_BYTES_MAX)
                .weigher(|_, token: &Arc<str>| {
                    u32::try_from(token.len() + TOKEN_BYTES).unwrap_or(u32::MAX)
                })
                .time_to_live(KEPT)
                .build(),
        })
    }

    /// The token for the credentials. Equal requests at once ask once.
    pub(crate) async fn token(&self, asked: Question<'_>) -> Result<Arc<str>, NoToken> {
        // Large, and every request that waits would have room for it.
        let answer = Box::pin(self.tokens.try_get_with(self.tag(asked), self.ask(asked))).await;
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

    async fn ask(&self, asked: Question<'_>) -> Result<Arc<str>, NoToken> {
        let network = asked.client.map(network_of);
        let answer = self.client.forward(self.request(asked), network).await;
        let answer = answer.map_err(|error| NoToken::Unavailable(chain(&error)))?;
        let (parts, body) = answer.into_parts();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        // What a refusal says holds no secret.
        let said = body["errors"][0]["message"].as_str();
        match (parts.status, body["token"].as_str()) {
            (StatusCode::OK, Some(token)) => Ok(token.into()),
            (StatusCode::OK, None) => {
                Err(NoToken::Unavailable("auth-server answered without a token".to_owned()))
            }
            (StatusCode::UNAUTHORIZED, _) => {
                Err(NoToken::Wrong(said.unwrap_or("wrong user name or password").to_owned()))
            }
            (StatusCode::TOO_MANY_REQUESTS, _) => {
                Err(NoToken::Busy(parts.headers.get(header::RETRY_AFTER).cloned()))
            }
            (status, _) => {
                let said = said.map(|said| format!(": {said}")).unwrap_or_default();
                Err(NoToken::Unavailable(format!("auth-server answered {status}{said}")))
            }
        }
    }

    fn request(&self, asked: Question<'_>) -> Request<Bytes> {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("service", &self.service);
        query.extend_pairs(asked.scopes.iter().map(|scope| ("scope", scope.to_string())));
        let mut request = token_request(Some(&query.finish()), asked.client, asked.id);
        request.headers_mut().insert(header::AUTHORIZATION, asked.shown.clone());
        request
    }
}
