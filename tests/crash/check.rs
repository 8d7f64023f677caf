//! What must hold after a restart, by what was acknowledged before.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use berth_shared::digest::Digest;
use harness::{Response, image::digest_of};
use tokio::time::sleep;

use crate::{
    content::Image,
    pusher::Pusher,
    tally::{Fact, Violation},
    wire::expect,
};

/// How long a token is kept in use: well below its life of 15 minutes.
const HELD_SECS_MAX: u64 = 600;

/// Behind the time for which a server keeps what it has read, where others may delete it.
const KEPT: Duration = Duration::from_secs(11);

/// How many deleted manifests are looked for after each restart; at the end all are.
const GONE_SAMPLE: usize = 16;

impl Pusher {
    /// Looks at everything that the client knows of; the servers are up.
    ///
    /// # Errors
    /// What is not as it was acknowledged.
    pub(crate) async fn check(&mut self, thorough: bool) -> Result<(), Violation> {
        self.check_tokens().await?;
        self.check_images().await?;
        self.check_gone(thorough).await?;
        self.check_tags().await?;
        self.check_sessions().await
    }

    /// The old token is taken, and a new one is to be had.
    async fn check_tokens(&mut self) -> Result<(), Violation> {
        if let Some((token, got)) = &self.held {
            let list = format!("/v2/{}/tags/list", self.repository);
            let answer = self.wire.ask(self.wire.call("GET", "/v2/")).await?;
            expect(&answer, 200, "/v2/ with the last token")?;
            self.wire.token.clone_from(token);
            let answer = self.wire.ask(self.wire.call("GET", list)).await?;
            if !matches!(answer.status.as_u16(), 200 | 404) {
                expect(&answer, 200, "a request with a token from before the kill")?;
            }
            self.tally.count(Fact::TokenHeld);
            if got.elapsed() > Duration::from_secs(HELD_SECS_MAX) {
                self.held = None;
            }
        }
        self.wire.token = self.wire.fresh_token(&self.repository).await?;
        self.held.get_or_insert_with(|| (self.wire.token.clone(), Instant::now()));
        Ok(())
    }

    /// An acknowledged image is there, whole. One whose push or deletion had no answer is there,
    /// whole, or absent.
    async fn check_images(&mut self) -> Result<(), Violation> {
        let mut hashed = HashSet::new();
        for mut pushed in std::mem::take(&mut self.images) {
            let digest = &pushed.image.digest;
            self.outlive(pushed.doubted.take()).await;
            let answer = self.get(&self.manifest(digest.as_str())).await?;
            let is_there = answer.status != 404;
            if is_there {
                self.is_whole(&pushed.image, &answer, &mut hashed).await?;
            }
            let was_certain = pushed.is_there.certain().is_some();
            pushed.is_there.settle(is_there).map_err(|words| {
                Violation::new(format!("manifest {digest} of {}: there: {words}", self.repository))
            })?;
            self.tally.count(match (was_certain, is_there) {
                (true, _) => Fact::Pulled,
                (false, true) => Fact::Whole,
                (false, false) => Fact::Absent,
            });
            if is_there {
                self.images.push(pushed);
            } else {
                self.gone.push((pushed.image.digest, Instant::now()));
            }
        }
        Ok(())
    }

    async fn is_whole(
        &self,
        image: &Image,
        manifest: &Response,
        hashed: &mut HashSet<Digest>,
    ) -> Result<(), Violation> {
        expect(manifest, 200, "GET of a manifest")?;
        if digest_of(&manifest.body) != image.digest {
            return Err(Violation::new(format!("manifest {} hashes wrong", image.digest)));
        }
        for blob in &image.blobs {
            if !hashed.insert(blob.digest.clone()) {
                continue;
            }
            let target = format!("/v2/{}/blobs/{}", self.repository, blob.digest);
            let answer = self.get(&target).await?;
            expect(&answer, 200, &format!("GET of a blob of the manifest {}", image.digest))?;
            if digest_of(&answer.body) != blob.digest {
                return Err(Violation::new(format!("blob {} hashes wrong", blob.digest)));
            }
        }
        Ok(())
    }

    /// Of several servers, one that was asked before may say for a while that it is still there.
    async fn outlive(&self, since: Option<Instant>) {
        if let Some(since) = since
            && self.is_shared
        {
            sleep(KEPT.saturating_sub(since.elapsed())).await;
        }
    }

    /// What was deleted stays so.
    async fn check_gone(&mut self, thorough: bool) -> Result<(), Violation> {
        let mut gone = self.gone.clone();
        if !thorough {
            // The latest, and some of all others.
            let latest = gone.split_off(gone.len().saturating_sub(GONE_SAMPLE / 2));
            self.random.shuffle(&mut gone);
            gone.truncate(GONE_SAMPLE / 2);
            gone.extend(latest);
        }
        for (digest, since) in gone {
            if !thorough && self.is_shared && since.elapsed() < KEPT {
                continue;
            }
            self.outlive(Some(since)).await;
            let answer = self.get(&self.manifest(digest.as_str())).await?;
            expect(&answer, 404, &format!("GET of the manifest {digest}, which is gone"))?;
            self.tally.count(Fact::StillGone);
        }
        Ok(())
    }

    /// Every tag leads where it was acknowledged to, and nothing is listed that does not resolve.
    async fn check_tags(&mut self) -> Result<(), Violation> {
        let mut listed = self.listed_tags().await?;
        for (name, known) in &mut self.tags {
            let target = format!("/v2/{}/manifests/{name}", self.repository);
            let answer = self.wire.ask(self.wire.call("GET", target)).await?;
            let seen = match answer.status.as_u16() {
                404 => None,
                _ => Some(digest_of(&answer.body)),
            };
            if listed.remove(name) != seen.is_some() {
                return Err(Violation::new(format!(
                    "the tag {name} of {} resolves to {seen:?}, and the list says otherwise",
                    self.repository
                )));
            }
            if let Some(digest) = &seen {
                expect(&answer, 200, "GET by tag")?;
                if !self.images.iter().any(|pushed| pushed.image.digest == *digest) {
                    return Err(Violation::new(format!("{name} leads to {digest}, which is gone")));
                }
                self.tally.count(Fact::Resolved);
            }
            known.settle(seen).map_err(|words| {
                Violation::new(format!("the tag {name} of {}: {words}", self.repository))
            })?;
        }
        match listed.into_iter().next() {
            Some(name) => Err(Violation::new(format!("a tag {name} that nobody pushed"))),
            None => Ok(()),
        }
    }

    async fn listed_tags(&self) -> Result<HashSet<String>, Violation> {
        let answer = self.get(&format!("/v2/{}/tags/list", self.repository)).await?;
        if answer.status == 404 {
            return Ok(HashSet::new());
        }
        expect(&answer, 200, "the list of tags")?;
        let names = answer.json()["tags"].as_array().cloned().unwrap_or_default();
        Ok(names.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect())
    }

    /// Every open session is known, and stands where it was acknowledged to.
    async fn check_sessions(&mut self) -> Result<(), Violation> {
        for session in &mut self.open {
            let call = self.wire.call("GET", session.location());
            let answer = self.wire.ask(call).await?;
            expect(&answer, 204, "GET of an open session")?;
            session.stand(&answer)?;
            self.tally.count(Fact::Stood);
        }
        Ok(())
    }

    async fn get(&self, target: &str) -> Result<Response, Violation> {
        self.wire.ask(self.wire.call("GET", target)).await
    }
}
