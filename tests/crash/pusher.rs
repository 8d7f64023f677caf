//! A client that pushes, tags and deletes in a repository of its own, and keeps in mind what was
//! acknowledged.

use std::{collections::BTreeMap, time::Instant};

use berth_shared::digest::Digest;
use fastrand::Rng;
use harness::image::{MANIFEST, digest_of};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    content::{Blob, Image},
    known::Known,
    tally::{Fact, Tally, Violation},
    upload::Session,
    wire::{Wire, expect},
};

/// How many images a client keeps; beyond that it deletes.
const IMAGES_MAX: usize = 10;

/// How many tags a client uses.
const TAGS: u32 = 5;

/// How many sessions a client leaves open for later.
const OPEN_SESSIONS_MAX: usize = 3;

/// An image, and whether it is in the registry.
pub(crate) struct Pushed {
    pub(crate) image: Image,
    pub(crate) is_there: Known<bool>,
    /// When its deletion broke off, if it did.
    pub(crate) doubted: Option<Instant>,
}

/// A client and its memory.
pub(crate) struct Pusher {
    pub(crate) wire: Wire,
    pub(crate) random: Rng,
    pub(crate) seed: u64,
    /// The largest layer, in bytes.
    pub(crate) largest: usize,
    /// Whether several servers are asked, each of which keeps for a while what it has read.
    pub(crate) is_shared: bool,
    pub(crate) repository: String,
    pub(crate) images: Vec<Pushed>,
    /// Manifests whose deletion was acknowledged, and since when they are known to be gone.
    pub(crate) gone: Vec<(Digest, Instant)>,
    pub(crate) tags: BTreeMap<String, Known<Option<Digest>>>,
    /// Sessions that wait for their next chunk.
    pub(crate) open: Vec<Session>,
    /// A token from before at least one kill, and when it was got.
    pub(crate) held: Option<(String, Instant)>,
    pub(crate) tally: Tally,
    /// Where it says that it has looked at a generation.
    pub(crate) looked: mpsc::Sender<u32>,
}

impl Pusher {
    /// One who has pushed nothing yet.
    pub(crate) fn new(
        wire: Wire,
        random: Rng,
        seed: u64,
        number: usize,
        looked: mpsc::Sender<u32>,
    ) -> Self {
        Self {
            wire,
            random,
            seed,
            largest: 0,
            is_shared: false,
            repository: format!("crash/client{number}"),
            images: Vec::new(),
            gone: Vec::new(),
            tags: BTreeMap::new(),
            open: Vec::new(),
            held: None,
            tally: Tally::default(),
            looked,
        }
    }

    /// Works until told to stop, then ends what is open. Gives what it counted.
    ///
    /// # Errors
    /// What must not happen.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<Tally, Violation> {
        while !stop.is_cancelled() {
            if self.wire.is_news() {
                self.look().await?;
            }
            self.act().await?;
            if self.wire.is_registry_alone() {
                self.tally.count(Fact::AnsweredAlone);
            }
        }
        self.check(true).await?;
        self.end_sessions().await?;
        Ok(self.tally)
    }

    /// After a request broke off: waits for the servers, and looks at what they kept.
    pub(crate) async fn after_the_kill(&mut self) -> Result<(), Violation> {
        self.wire.news().await?;
        self.look().await
    }

    async fn look(&mut self) -> Result<(), Violation> {
        self.check(false).await?;
        let generation = self.wire.looked();
        // Whoever counts them may have gone, and then all ends.
        let _ = self.looked.send(generation).await;
        Ok(())
    }

    async fn act(&mut self) -> Result<(), Violation> {
        match self.random.u32(0..10) {
            _ if self.images.len() > IMAGES_MAX => self.delete_image().await,
            0 => self.delete_image().await,
            1 => self.delete_tag().await,
            2 | 3 => self.work_on_session().await,
            4 => self.pull().await,
            _ => self.push().await,
        }
    }

    async fn push(&mut self) -> Result<(), Violation> {
        let image = Image::random(&mut self.random, self.seed, self.largest);
        for blob in &image.blobs {
            self.upload(blob).await?;
        }
        let tag = (self.random.u32(0..5) > 0).then(|| format!("t{}", self.random.u32(0..TAGS)));
        let reference = tag.clone().unwrap_or_else(|| image.digest.to_string());
        let call = self
            .wire
            .call("PUT", self.manifest(&reference))
            .header("content-type", MANIFEST)
            .body(image.manifest.clone());
        let answer = self.wire.send(call).await?;
        if let Some(answer) = &answer {
            expect(answer, 201, "PUT of a manifest")?;
            self.tally.count(Fact::Pushed);
        }
        let acknowledged = answer.is_some();
        if let Some(tag) = tag {
            let tag = self.tags.entry(tag).or_insert_with(|| Known::is(None));
            tag.change(Some(image.digest.clone()), acknowledged);
        }
        let mut is_there = Known::is(false);
        is_there.change(true, acknowledged);
        self.images.push(Pushed { image, is_there, doubted: None });
        self.unless(acknowledged).await
    }

    /// Pulls one of the images, as far as the servers live.
    async fn pull(&mut self) -> Result<(), Violation> {
        if self.images.is_empty() {
            return Ok(());
        }
        let image = &self.images[self.random.usize(..self.images.len())].image;
        let blob = |blob: &Blob| {
            (blob.digest.clone(), format!("/v2/{}/blobs/{}", self.repository, blob.digest))
        };
        let mut wanted = vec![(image.digest.clone(), self.manifest(image.digest.as_str()))];
        wanted.extend(image.blobs.iter().map(blob));
        for (digest, target) in wanted {
            let Some(answer) = self.wire.send(self.wire.call("GET", target)).await? else {
                return self.after_the_kill().await;
            };
            expect(&answer, 200, &format!("GET of {digest}"))?;
            if digest_of(&answer.body) != digest {
                return Err(Violation::new(format!("{digest} hashes wrong")));
            }
        }
        Ok(())
    }

    async fn delete_image(&mut self) -> Result<(), Violation> {
        if self.images.is_empty() {
            return Ok(());
        }
        let at = self.random.usize(..self.images.len());
        let digest = self.images[at].image.digest.clone();
        let call = self.wire.call("DELETE", self.manifest(digest.as_str()));
        let answer = self.wire.send(call).await?;
        if let Some(answer) = &answer {
            expect(answer, 202, "DELETE of a manifest")?;
        }
        let acknowledged = answer.is_some();
        for tag in self.tags.values_mut() {
            if tag.may_be(&Some(digest.clone())) {
                // A manifest takes its tags along.
                tag.change(None, acknowledged);
            }
        }
        if acknowledged {
            self.images.swap_remove(at);
            self.gone.push((digest, Instant::now()));
        } else {
            self.images[at].is_there.change(false, false);
            self.images[at].doubted = Some(Instant::now());
        }
        self.unless(acknowledged).await
    }

    async fn delete_tag(&mut self) -> Result<(), Violation> {
        let name = format!("t{}", self.random.u32(0..TAGS));
        let is_set = |tag: &Known<Option<Digest>>| tag.certain().is_some_and(Option::is_some);
        if !self.tags.get(&name).is_some_and(is_set) {
            return Ok(());
        }
        let answer = self.wire.send(self.wire.call("DELETE", self.manifest(&name))).await?;
        if let Some(answer) = &answer {
            expect(answer, 202, "DELETE of a tag")?;
        }
        if let Some(tag) = self.tags.get_mut(&name) {
            tag.change(None, answer.is_some());
        }
        self.unless(answer.is_some()).await
    }

    /// Opens a session, or takes an open one further.
    async fn work_on_session(&mut self) -> Result<(), Violation> {
        if self.open.len() < OPEN_SESSIONS_MAX {
            let blob = Blob::random(&mut self.random, self.largest);
            let mut session = self.start(&blob).await?;
            self.append(&mut session).await?;
            self.open.push(session);
            return Ok(());
        }
        let mut session = self.open.swap_remove(self.random.usize(..self.open.len()));
        if session.is_complete() || self.random.bool() {
            return self.commit(session).await;
        }
        self.append(&mut session).await?;
        self.open.push(session);
        Ok(())
    }

    async fn end_sessions(&mut self) -> Result<(), Violation> {
        for session in std::mem::take(&mut self.open) {
            if self.random.bool() {
                self.commit(session).await?;
                self.tally.count(Fact::Finished);
            } else {
                let answer = self.wire.ask(self.wire.call("DELETE", session.location())).await?;
                expect(&answer, 204, "cancelling a session")?;
                self.tally.count(Fact::Cancelled);
            }
        }
        Ok(())
    }

    async fn unless(&mut self, acknowledged: bool) -> Result<(), Violation> {
        if acknowledged { Ok(()) } else { self.after_the_kill().await }
    }

    pub(crate) fn manifest(&self, reference: &str) -> String {
        format!("/v2/{}/manifests/{reference}", self.repository)
    }
}
