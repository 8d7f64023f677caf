//! From what a request shows of who sends it to what it may do.

use axum::http::{HeaderValue, request::Parts};
use berth_shared::{serve::log::RequestId, token::Refusal};

use super::{
    App,
    basic::{Exchange, Question},
    client_address::ClientAddress,
    credentials::Credentials,
    endpoint::{Line, Operation},
    error::Error,
};
use crate::authz::{Authorized, Denied, Reason, access::Access};

impl App {
    /// Judges the credentials; those of `Basic` by the token that they are exchanged for.
    pub(super) async fn authorize(
        &self,
        line: &Line,
        access: &Access<'_>,
        parts: &Parts,
    ) -> Result<Authorized, Error> {
        match (Credentials::read(&parts.headers), &self.basic) {
            (Credentials::Basic(shown), Some(exchange)) => {
                self.authorize_basic(line, access, parts, shown, exchange).await
            }
            (Credentials::Basic(_) | Credentials::Nothing, _) => {
                self.authorize_token(line, access, None).await
            }
            (Credentials::Bearer(token), _) => {
                self.authorize_token(line, access, Some(token)).await
            }
            (Credentials::Malformed, _) => {
                let reason = Reason::BadToken(Refusal::Malformed);
                Err(Denied::Challenge { scopes: access.scopes(), reason }.into())
            }
        }
    }

    async fn authorize_basic(
        &self,
        line: &Line,
        access: &Access<'_>,
        parts: &Parts,
        shown: &HeaderValue,
        exchange: &Exchange,
    ) -> Result<Authorized, Error> {
        let scopes = access.scopes();
        let client = parts.extensions.get::<ClientAddress>().and_then(|client| client.0);
        let id = parts.extensions.get::<RequestId>().copied();
        let asked = Question { shown, scopes: &scopes, client, id };
        let judge = async || {
            let token = exchange.token(asked).await;
            let token = token.map_err(|reason| Error::no_token(reason, scopes.clone()))?;
            self.authorize_token(line, access, Some(&token)).await
        };
        let mut judged = judge().await;
        if let Err(Error::Denied(Denied::Challenge { reason: Reason::BadToken(_), .. })) = &judged {
            // It was voided after it was kept: the credentials may be good all the same.
            exchange.forget(asked).await;
            judged = judge().await;
        }
        if judged.is_err() {
            // A token that is not enough is not kept, so that a grant counts with the next request.
            exchange.forget(asked).await;
        }
        judged
    }

    async fn authorize_token(
        &self,
        line: &Line,
        access: &Access<'_>,
        token: Option<&str>,
    ) -> Result<Authorized, Error> {
        let session = async || match line.operation().and_then(Operation::session) {
            Some(id) => Ok(self.registry.uploads.grant(id).await?),
            None => Ok(None),
        };
        self.authorizer.authorize(access, token, session).await
    }
}
