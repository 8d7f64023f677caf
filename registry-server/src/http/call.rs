//! A request that was let through: each operation is one call of the domain.

use std::sync::Arc;

use axum::http::{Method, StatusCode, request::Parts};
use berth_shared::{claimant::Claimant, token::VerifiedToken};

use super::{
    App,
    endpoint::{Endpoint, Operation},
    error::Answer,
    json as json_response,
    query::Query,
};
use crate::{
    authz::{Denied, Reason, permit::Permit},
    registry::content::Content,
    storage::Shares,
};

/// A request that was let through, and what its handler needs.
pub(super) struct Call<'c> {
    pub(super) app: &'c App,
    pub(super) parts: &'c Parts,
    pub(super) query: &'c Query,
    pub(super) token: &'c VerifiedToken,
    /// To whose share the request counts.
    pub(super) claimant: &'c Arc<Claimant>,
}

impl Call<'_> {
    /// What whoever asks may hold.
    pub(super) fn shares(&self) -> Shares {
        self.app.registry.shares(self.claimant)
    }

    /// Whether the head of the answer alone is asked for.
    pub(super) fn is_head(&self) -> bool {
        self.parts.method == Method::HEAD
    }

    /// Does what is asked for.
    pub(super) async fn answer(
        &self,
        endpoint: &Endpoint,
        permit: Option<&Permit>,
        content: &mut Content,
    ) -> Answer {
        match (endpoint, permit) {
            (Endpoint::Ping, _) => Ok(json_response(StatusCode::OK, "{}")),
            (Endpoint::Catalog, _) => self.catalog().await,
            (Endpoint::Repository(_, operation), Some(permit)) => {
                self.on_repository(operation, permit, content).await
            }
            // Nothing is done to a repository without a permit.
            (Endpoint::Repository(..), None) => {
                Err(Denied { scopes: Vec::new(), reason: Reason::Unavailable }.into())
            }
        }
    }

    /// One arm per operation, one domain call per arm. What is large stands apart: thousands of reads
    /// that wait would each have room for it.
    async fn on_repository(
        &self,
        operation: &Operation,
        permit: &Permit,
        content: &mut Content,
    ) -> Answer {
        if operation.writes() {
            self.app.registry.refuse_when_read_only()?;
        }
        match operation {
            Operation::ReadBlob { digest } => self.read_blob(permit, digest).await,
            Operation::DeleteBlob { digest } => self.delete_blob(permit, digest).await,
            Operation::StartUpload => Box::pin(self.start_upload(permit, content)).await,
            Operation::UploadProgress { id } => self.upload_progress(permit, id).await,
            Operation::AppendUpload { id } => {
                Box::pin(self.append_upload(permit, id, content)).await
            }
            Operation::CommitUpload { id } => {
                Box::pin(self.commit_upload(permit, id, content)).await
            }
            Operation::CancelUpload { id } => self.cancel_upload(permit, id).await,
            Operation::ReadManifest { reference } => self.read_manifest(permit, reference).await,
            Operation::PutManifest { reference } => {
                Box::pin(self.put_manifest(permit, reference, content)).await
            }
            Operation::DeleteManifest { reference } => {
                self.delete_manifest(permit, reference).await
            }
            Operation::Tags => self.tags(permit).await,
            Operation::Referrers { digest } => self.referrers(permit, digest).await,
        }
    }
}
