//! The servers at the other end of the link: one for each address of the name.
//!
//! Polls are spread over all, and go on to the next where one gives no answer. What clients ask goes to the
//! one that their network is of: of all addresses the one whose hash with the network is the largest, so
//! that a server that comes or goes takes only its own networks along (rendezvous hashing). One that could
//! not be asked stands behind the others for a while.

use std::{cmp::Reverse, net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use axum::{
    body::Body,
    http::{Request, Response, StatusCode, header::HeaderName},
};
use berth_shared::{
    auth_api::LINK_SECRET_HEADER,
    claimant::{Claimant, Network},
    client::Pool,
    files::{SMALL_FILE_BYTES_MAX, read_at_most},
    link_secret::LinkSecretFile,
    telemetry::chain,
};
use bytes::Bytes;
use parking_lot::Mutex;
use rustls::ClientConfig;
use sha2::{Digest, Sha256};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{
    super::error::Error,
    addresses::look_up,
    replica::Replica,
    settings::{LinkError, Settings},
    tls::{self, Stream},
};

/// How long a server may take to answer a poll, of which the body may take longer.
const POLL_TIME: Duration = Duration::from_secs(3);

/// How long addresses are used before they are looked up again.
const LOOKED_EVERY: Duration = Duration::from_secs(5);

/// The same while there are none.
const LOOKED_AGAIN: Duration = Duration::from_millis(200);

pub(in crate::auth_client) struct Replicas {
    settings: Settings,
    secret: LinkSecretFile,
    trust: Mutex<Trust>,
    /// In the order of their addresses.
    all: ArcSwap<Vec<Replica>>,
    /// Why there are no addresses, or no others.
    of_addresses: Complaint,
    /// Why no other certificates are trusted than before.
    of_ca: Complaint,
}

/// What is wrong, and goes on as before meanwhile.
#[derive(Default)]
struct Complaint(Mutex<Option<String>>);

/// Whose certificates are taken, as the file says.
struct Trust {
    pem: Vec<u8>,
    config: ClientConfig,
}

impl Replicas {
    pub(super) fn open(settings: &Settings) -> Result<Self, LinkError> {
        let pem = read_ca(settings)?;
        let trust = Mutex::new(Trust { config: tls::config(&settings.ca, &pem)?, pem });
        Ok(Self {
            secret: LinkSecretFile::open(&settings.secret_file)?,
            trust,
            all: ArcSwap::default(),
            of_addresses: Complaint::default(),
            of_ca: Complaint::default(),
            settings: settings.clone(),
        })
    }

    /// Looks for addresses, and at the CA's file, until `shutdown`. Whoever asks finds what was found.
    pub(super) async fn follow(&self, shutdown: &CancellationToken) {
        let follow = async {
            loop {
                match look_up(&self.settings.authority, self.settings.port()).await {
                    Ok(found) => {
                        self.of_addresses.end();
                        self.take(&found);
                    }
                    Err(error) => self.of_addresses.tell(chain(&error)),
                }
                let has_some = !self.all.load().is_empty();
                sleep(if has_some { LOOKED_EVERY } else { LOOKED_AGAIN }).await;
            }
        };
        shutdown.run_until_cancelled(follow).await;
    }

    /// Asks one after the other, beginning anywhere, until one answers.
    pub(super) async fn ask(
        &self,
        request: Request<Bytes>,
        bytes_max: usize,
    ) -> Result<Response<Bytes>, Error> {
        self.ask_one_of(&self.known()?, request, bytes_max).await
    }

    pub(super) async fn ask_one_of(
        &self,
        all: &[Replica],
        request: Request<Bytes>,
        bytes_max: usize,
    ) -> Result<Response<Bytes>, Error> {
        let first = fastrand::usize(..all.len().max(1));
        let mut in_turn: Vec<_> = all[first..].iter().chain(&all[..first]).collect();
        in_turn.sort_by_key(|replica| !replica.is_well());
        // Once more at the end: a connection that was kept may have died without a word.
        in_turn.extend(in_turn.first().copied());
        // What does not pass by itself is worth more to know; of two alike the same is told each time.
        let mut told: Option<((bool, SocketAddr), Error)> = None;
        for replica in in_turn {
            let asked = self.send(&replica.polls, &request, bytes_max, POLL_TIME).await;
            match asked.and_then(answered) {
                Ok(answer) => {
                    replica.note(None);
                    return Ok(answer);
                }
                Err(error) => {
                    replica.note(Some(&error));
                    let rank = (!error.stays(), replica.address);
                    if told.as_ref().is_none_or(|(least, _)| rank <= *least) {
                        told = Some((rank, error));
                    }
                }
            }
        }
        Err(told.map_or_else(nobody, |(_, error)| error))
    }

    /// Asks the one whose the network is, and the next only where nothing of it was looked at.
    pub(super) async fn forward(
        &self,
        request: Request<Bytes>,
        network: Network,
        bytes_max: usize,
    ) -> Result<Response<Bytes>, Error> {
        self.forward_to_its_own(&self.known()?, request, network, bytes_max).await
    }

    pub(super) async fn forward_to_its_own(
        &self,
        all: &[Replica],
        request: Request<Bytes>,
        network: Network,
        bytes_max: usize,
    ) -> Result<Response<Bytes>, Error> {
        let mut told = nobody();
        for replica in in_order_of(all, network) {
            match self.send(&replica.tokens, &request, bytes_max, Duration::MAX).await {
                Err(error) if error.is_unheard() => {
                    replica.note(Some(&error));
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
        most: Duration,
    ) -> Result<Response<Bytes>, Error> {
        const SECRET: HeaderName = HeaderName::from_static(LINK_SECRET_HEADER);
        let mut request = request.clone().map(Body::from);
        request.headers_mut().insert(SECRET, self.secret.fresh().shown());
        let answer = pool.fetch_with_head_in(most, request, bytes_max).await?;
        // A refusal of a token names no link.
        let is_refused = answer.status() == StatusCode::UNAUTHORIZED
            && answer.headers().contains_key(LINK_SECRET_HEADER);
        if is_refused { Err(Error::Refused) } else { Ok(answer) }
    }

    /// Those at the addresses that were found last.
    fn known(&self) -> Result<Arc<Vec<Replica>>, Error> {
        let all = self.all.load_full();
        if all.is_empty() {
            let host = self.settings.authority.host().to_owned();
            let reason = self.of_addresses.0.lock().clone();
            let reason = reason.unwrap_or_else(|| "none was found yet".to_owned());
            return Err(Error::Addresses { host, reason });
        }
        Ok(all)
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
        let replica = |address: &SocketAddr| {
            let made = || Replica::at(*address, &trust.config, &self.settings.authority);
            kept(*address).cloned().unwrap_or_else(made)
        };
        let all = Arc::new(found.iter().map(replica).collect::<Vec<_>>());
        tracing::info!(host = self.settings.authority.host(), addresses = ?found, "auth-server's addresses");
        self.all.store(Arc::clone(&all));
        all
    }

    /// Whether other certificates are trusted than before.
    fn read_again(&self, trust: &mut Trust) -> bool {
        let read = read_ca(&self.settings).and_then(|pem| match pem == trust.pem {
            true => Ok(None),
            false => tls::config(&self.settings.ca, &pem).map(|config| Some(Trust { pem, config })),
        });
        match &read {
            Ok(_) => self.of_ca.end(),
            Err(error) => self.of_ca.tell(chain(error)),
        }
        let Ok(Some(now)) = read else { return false };
        *trust = now;
        true
    }
}

impl Complaint {
    /// Tells it, once as long as it lasts.
    fn tell(&self, complaint: String) {
        let mut told = self.0.lock();
        if told.as_ref() != Some(&complaint) {
            tracing::warn!(error = complaint, "the link goes on as before");
            *told = Some(complaint);
        }
    }

    fn end(&self) {
        *self.0.lock() = None;
    }
}

fn nobody() -> Error {
    Error::Answer("there is nobody to ask".to_owned())
}

fn read_ca(settings: &Settings) -> Result<Vec<u8>, LinkError> {
    let unreadable = |error: std::io::Error| LinkError::Ca {
        path: settings.ca.clone(),
        reason: error.to_string(),
    };
    read_at_most(&settings.ca, SMALL_FILE_BYTES_MAX).map_err(unreadable)
}

/// A poll's answer, unless that says that another should be asked.
fn answered(answer: Response<Bytes>) -> Result<Response<Bytes>, Error> {
    if answer.status().is_server_error() {
        return Err(Error::Answer(format!("auth-server answered {}", answer.status())));
    }
    Ok(answer)
}

/// All of them, the one whose the network is first, and those last that could not be asked of late.
fn in_order_of(all: &[Replica], network: Network) -> Vec<&Replica> {
    let network = Claimant::Network(network).to_string();
    let weight = |replica: &&Replica| -> [u8; 32] {
        let weighed = Sha256::new().chain_update(replica.address.to_string());
        weighed.chain_update(&network).finalize().into()
    };
    let mut ordered: Vec<_> = all.iter().collect();
    ordered.sort_by_cached_key(|replica| (!replica.is_well(), Reverse(weight(replica))));
    ordered
}
