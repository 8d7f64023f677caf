//! The servers at the other end of the link: one for each address of the name.
//!
//! Polls go to each in turn, and on to the next where one gives no answer. What clients ask goes to the
//! one that their network is of: of all addresses the one whose hash with the network is the largest, so
//! that a server that comes or goes takes only its own networks along (rendezvous hashing).

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use axum::{
    body::Body,
    http::{Request, Response, StatusCode, header::HeaderName},
};
use berth_shared::{
    auth_api::LINK_SECRET_HEADER,
    claimant::{Claimant, Network},
    client::{ClientError, Pool},
    file_stamp::Stamp,
    link_secret::LinkSecretFile,
    telemetry::chain,
};
use bytes::Bytes;
use parking_lot::Mutex;
use rustls::ClientConfig;
use sha2::{Digest, Sha256};
use tokio::time::timeout;

use super::{
    super::error::Error,
    addresses::Addresses,
    settings::{LinkError, Settings},
    tls::{self, Stream},
};

/// How long a server may take to answer a poll while there is another to ask.
const POLL_TIME: Duration = Duration::from_secs(3);

/// One of them.
#[derive(Clone)]
pub(super) struct Replica {
    address: SocketAddr,
    /// For what clients ask, which may wait for passwords.
    tokens: Pool<Stream>,
    /// For polls, which that holds up no more than on a socket.
    polls: Pool<Stream>,
}

pub(in crate::auth_client) struct Replicas {
    settings: Settings,
    secret: LinkSecretFile,
    trust: Mutex<Trust>,
    addresses: Addresses,
    /// In the order of their addresses.
    all: ArcSwap<Vec<Replica>>,
    /// Whose turn the next poll is.
    turn: AtomicUsize,
}

/// Whose certificates are taken, and what the file looked like that says so.
struct Trust {
    stamp: Option<Stamp>,
    config: ClientConfig,
}

impl Replicas {
    pub(super) fn open(settings: &Settings) -> Result<Self, LinkError> {
        let stamp = Stamp::of(&settings.ca).ok();
        let trust = Mutex::new(Trust { stamp, config: tls::config(&settings.ca)? });
        Ok(Self {
            secret: LinkSecretFile::open(&settings.secret_file)?,
            trust,
            addresses: Addresses::of(settings.authority.clone(), settings.port()),
            all: ArcSwap::default(),
            turn: AtomicUsize::new(0),
            settings: settings.clone(),
        })
    }

    /// Asks one after the other, beginning with another one each time, until one answers.
    pub(super) async fn ask(
        &self,
        request: Request<Bytes>,
        bytes_max: usize,
    ) -> Result<Response<Bytes>, Error> {
        self.ask_one_of(&self.current().await?, request, bytes_max).await
    }

    pub(super) async fn ask_one_of(
        &self,
        all: &[Replica],
        request: Request<Bytes>,
        bytes_max: usize,
    ) -> Result<Response<Bytes>, Error> {
        let first = self.turn.fetch_add(1, Ordering::Relaxed) % all.len().max(1);
        let in_turn = all[first..].iter().chain(&all[..first]);
        for (number, replica) in in_turn.enumerate() {
            let asked = self.send(&replica.polls, &request, bytes_max);
            // Nobody stands behind the last, which has the time that any answer has.
            if number + 1 == all.len() {
                return answered(asked.await?);
            }
            let answer = timeout(POLL_TIME, asked).await;
            let answer =
                answer.unwrap_or_else(|_| Err(Error::Slow(replica.polls.place().to_owned())));
            match answer.and_then(answered) {
                Err(error) => {
                    tracing::debug!(error = chain(&error), "the next auth-server is asked");
                }
                answer => return answer,
            }
        }
        Err(Error::Answer("there is nobody to ask".to_owned()))
    }

    /// Asks the one whose the network is, and the next only where nothing of it was looked at.
    pub(super) async fn forward(
        &self,
        request: Request<Bytes>,
        network: Network,
        bytes_max: usize,
    ) -> Result<Response<Bytes>, Error> {
        self.forward_to_its_own(&self.current().await?, request, network, bytes_max).await
    }

    pub(super) async fn forward_to_its_own(
        &self,
        all: &[Replica],
        request: Request<Bytes>,
        network: Network,
        bytes_max: usize,
    ) -> Result<Response<Bytes>, Error> {
        let mut told = Error::Refused;
        for replica in in_order_of(all, network) {
            match self.send(&replica.tokens, &request, bytes_max).await {
                Err(error @ (Error::Client(ClientError::Connect { .. }) | Error::Refused)) => {
                    tracing::debug!(error = chain(&error), "the next auth-server is asked");
                    told = error;
                }
                answer => return answer,
            }
        }
        Err(told)
    }

    async fn send(
        &self,
        pool: &Pool<Stream>,
        request: &Request<Bytes>,
        bytes_max: usize,
    ) -> Result<Response<Bytes>, Error> {
        const SECRET: HeaderName = HeaderName::from_static(LINK_SECRET_HEADER);
        let mut request = request.clone().map(Body::from);
        request.headers_mut().insert(SECRET, self.secret.fresh().shown());
        let answer = pool.fetch(request, bytes_max).await?;
        // A refusal of a token names no link.
        let is_refused = answer.status() == StatusCode::UNAUTHORIZED
            && answer.headers().contains_key(LINK_SECRET_HEADER);
        if is_refused { Err(Error::Refused) } else { Ok(answer) }
    }

    /// Those at the addresses that the name has now; while those cannot be had, at the last ones.
    async fn current(&self) -> Result<Arc<Vec<Replica>>, Error> {
        let known = self.all.load_full();
        if !self.addresses.are_due() && !known.is_empty() {
            return Ok(known);
        }
        let found = match self.addresses.look_up().await {
            Err(error) if !known.is_empty() => {
                tracing::warn!(
                    error = chain(&error),
                    "the link goes on with the addresses of before"
                );
                return Ok(known);
            }
            found => found?,
        };
        Ok(self.take(&found))
    }

    /// Goes on with the servers at these addresses; connections to one that stays are kept, unless other
    /// certificates are trusted now.
    pub(super) fn take(&self, found: &[SocketAddr]) -> Arc<Vec<Replica>> {
        let mut trust = self.trust.lock();
        let is_new = self.read_again(&mut trust);
        let known = self.all.load_full();
        if !is_new && known.iter().map(|it| &it.address).eq(found) {
            return known;
        }
        let kept = |address| known.iter().filter(|_| !is_new).find(|it| it.address == address);
        let made = |address| tls::pool(&trust.config, address, &self.settings.authority);
        let replica = |address: &SocketAddr| {
            kept(*address).cloned().unwrap_or_else(|| Replica {
                address: *address,
                tokens: made(*address),
                polls: made(*address),
            })
        };
        let all = Arc::new(found.iter().map(replica).collect::<Vec<_>>());
        let addresses: Vec<_> = all.iter().map(|it| it.address).collect();
        tracing::info!(
            host = self.settings.authority.host(),
            ?addresses,
            "auth-server's addresses"
        );
        self.all.store(Arc::clone(&all));
        all
    }

    /// Whether other certificates are trusted than before.
    fn read_again(&self, trust: &mut Trust) -> bool {
        let now = Stamp::of(&self.settings.ca).ok();
        let may_differ = match (&trust.stamp, &now) {
            (Some(before), Some(now)) => before.may_differ_from(now),
            (before, now) => before.is_some() != now.is_some(),
        };
        if !may_differ {
            return false;
        }
        let is_other = trust.stamp != now;
        trust.stamp = now;
        match tls::config(&self.settings.ca) {
            Ok(config) => {
                trust.config = config;
                is_other
            }
            Err(error) => {
                tracing::warn!(error = chain(&error), "the link's CA stays as it was");
                false
            }
        }
    }
}

/// A poll's answer, unless that says that another should be asked.
fn answered(answer: Response<Bytes>) -> Result<Response<Bytes>, Error> {
    if answer.status().is_server_error() {
        return Err(Error::Answer(format!("auth-server answered {}", answer.status())));
    }
    Ok(answer)
}

/// All of them, the one whose the network is first.
fn in_order_of(all: &[Replica], network: Network) -> Vec<&Replica> {
    let network = Claimant::Network(network).to_string();
    let weight = |replica: &&Replica| -> [u8; 32] {
        let weighed = Sha256::new().chain_update(replica.address.to_string());
        weighed.chain_update(&network).finalize().into()
    };
    let mut ordered: Vec<_> = all.iter().collect();
    ordered.sort_by_cached_key(|replica| std::cmp::Reverse(weight(replica)));
    ordered
}
