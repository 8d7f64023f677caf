//! What is dead goes: objects, and all that lies there for an unfinished one.

use std::io;

use futures_util::{StreamExt, stream};

use super::{
    S3Store, name,
    state::{State, Upload},
};
use crate::storage::{Dead, Error, Location};

/// Multipart uploads that are given up at once.
const ABORTS_AT_ONCE: usize = 16;

impl S3Store {
    /// Deletes all that may lie there for each, and says what became of it.
    pub(super) async fn delete_all(&self, dead: &[Dead]) -> Vec<Result<(), Error>> {
        let aborts: Vec<_> = dead.iter().map(|one| self.abort(one)).collect();
        let aborted: Vec<_> = stream::iter(aborts).buffered(ABORTS_AT_ONCE).collect().await;
        let mut results = Vec::with_capacity(dead.len());
        let (mut names, mut owners) = (Vec::new(), Vec::new());
        for (number, locations) in aborted.into_iter().enumerate() {
            results.push(locations.map(|locations| {
                for location in locations {
                    self.0.lengths.invalidate(&location);
                    names.push(name(&location));
                    owners.push(number);
                }
            }));
        }
        let deleted = self.bucket().delete(&names).await;
        for (number, deleted) in owners.into_iter().zip(deleted) {
            if let Err(failure) = deleted {
                let error = self.explain("deleting", &dead[number].location, failure).await;
                results[number] = Err(error);
            }
        }
        // Whatever else answers deletes what it never had.
        if results.iter().any(Result::is_ok) && !self.is_marked().await {
            let strange = |location: &Location| {
                let source = io::Error::other("its bucket does not say whose it is");
                Error::Away { operation: "deleting", location: location.clone(), source }
            };
            return dead.iter().map(|one| Err(strange(&one.location))).collect();
        }
        results
    }

    /// What an unfinished object was that is dead; `None` of an object.
    fn state_of(dead: &Dead) -> Result<Option<State>, Error> {
        let Some(text) = &dead.state else { return Ok(None) };
        let unreadable = || {
            let source = io::Error::other("the row says nothing that this version understands");
            Error::Io { operation: "deleting", location: dead.location.clone(), source }
        };
        State::read(text).map(Some).ok_or_else(unreadable)
    }

    /// Gives up the multipart upload of what is dead, whose parts go with it. Gives what else may lie
    /// there.
    async fn abort(&self, dead: &Dead) -> Result<Vec<Location>, Error> {
        let Some(state) = Self::state_of(dead)? else { return Ok(vec![dead.location.clone()]) };
        if let Some(upload) = &state.upload {
            self.abort_upload(upload).await?;
        }
        Ok(state.locations().collect())
    }

    pub(super) async fn abort_upload(&self, upload: &Upload) -> Result<(), Error> {
        let object = upload.at.parse()?;
        match self.bucket().abort(&name(&object), &upload.id).await {
            Ok(()) => Ok(()),
            Err(failure) => Err(self.explain("giving up", &object, failure).await),
        }
    }
}
