//! A good client beside the load: it pulls, pushes and signs in, over and over, and remembers the
//! longest that it waited for an answer.

use std::{
    fmt, io,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use harness::{
    Client,
    client::Call,
    image::{INDEX, digest_of},
    stack::PASSWORD,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{content, site::Site};

/// Whose repository the good client works in.
pub(crate) const REPOSITORY: &str = "bob/app";

/// How long the good client rests between two requests.
const PAUSE: Duration = Duration::from_millis(20);

/// What the good client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    Pull,
    Push,
    SignIn,
}

/// How the requests of one kind went.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Waits {
    worst: Duration,
    answered: u32,
    failed: u32,
    waiting_since: Option<Instant>,
}

impl Waits {
    /// Whether nothing failed and answers came all the time that the load stood.
    pub(crate) fn is_served(&self) -> bool {
        // A load stands for ten seconds or more, unless all who make it are done before.
        const ANSWERS_MIN: u32 = 5;
        self.failed == 0 && self.answered >= ANSWERS_MIN
    }

    /// Closes the account: who still waits has waited until now.
    fn close(mut self) -> Self {
        match self.waiting_since {
            Some(since) if since.elapsed() > self.worst => self.worst = since.elapsed(),
            _ => self.waiting_since = None,
        }
        self
    }
}

impl fmt::Display for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An answer that never came is the worst one.
        let more = if self.waiting_since.is_some() { "> " } else { "" };
        write!(f, "{more}{:.2} s", self.worst.as_secs_f64())?;
        if self.failed > 0 { write!(f, ", {} failed", self.failed) } else { Ok(()) }
    }
}

/// The good client at work.
pub(crate) struct Good {
    waits: [Arc<Mutex<Waits>>; 3],
    _tasks: JoinSet<()>,
}

impl Good {
    /// Puts into the registry what the good client pulls.
    ///
    /// # Errors
    /// When the registry does not take it.
    pub(crate) async fn prepare(site: &Site) -> io::Result<()> {
        let mut line = site.line("bob");
        content::push_blob(&mut line, REPOSITORY, content::filler(1000)).await?;
        let target = format!("/v2/{REPOSITORY}/manifests/v1");
        line.expect("PUT", &target, Some(INDEX), content::index("good", 0)).await.map(|_| ())
    }

    /// Begins, from that address if one is given, once every request has succeeded without a load.
    ///
    /// # Errors
    /// When one does not.
    pub(crate) async fn start(site: &Site, from: Option<IpAddr>) -> io::Result<Self> {
        let bearer = site.bearer(Some("bob"), &format!("repository:{REPOSITORY}:*")).await?;
        let client = site.client.clone();
        let client = from.map_or_else(|| client.clone(), |from| client.from_address(from));
        let mut tasks = JoinSet::new();
        let mut waits = Vec::new();
        for deed in [Deed::Pull, Deed::Push, Deed::SignIn] {
            let doer = Doer { client: client.clone(), bearer: bearer.clone(), deed };
            for turn in 0..2 {
                if !doer.succeeds(turn).await {
                    return Err(io::Error::other(format!("{deed:?} fails without a load")));
                }
            }
            let account = Arc::new(Mutex::new(Waits::default()));
            waits.push(Arc::clone(&account));
            tasks.spawn(async move { doer.go_on(&account).await });
        }
        let [pull, push, sign_in] = <[_; 3]>::try_from(waits).expect("three deeds");
        Ok(Self { waits: [pull, push, sign_in], _tasks: tasks })
    }

    /// How pulls, pushes and sign-ins went so far.
    pub(crate) fn waits(&self) -> [Waits; 3] {
        self.waits.each_ref().map(|waits| read(waits).close())
    }
}

/// Does one of the deeds.
struct Doer {
    client: Client,
    bearer: String,
    deed: Deed,
}

impl Doer {
    async fn go_on(&self, account: &Mutex<Waits>) {
        // Those before this were without a load.
        for turn in 2.. {
            let begun = Instant::now();
            change(account, |waits| waits.waiting_since = Some(begun));
            let succeeded = self.succeeds(turn).await;
            change(account, |waits| {
                waits.waiting_since = None;
                waits.worst = waits.worst.max(begun.elapsed());
                let count = if succeeded { &mut waits.answered } else { &mut waits.failed };
                *count += 1;
            });
            sleep(PAUSE).await;
        }
    }

    async fn succeeds(&self, turn: u32) -> bool {
        let answer = self.call(turn).attempt().await;
        answer.is_some_and(|answer| answer.status.is_success())
    }

    /// Manifests and blobs in turns.
    fn call(&self, turn: u32) -> Call {
        let is_blob = turn.is_multiple_of(2);
        match self.deed {
            Deed::Pull if is_blob => {
                let digest = digest_of(&content::filler(1000));
                self.authorized("GET", format!("/v2/{REPOSITORY}/blobs/{digest}"))
            }
            Deed::Pull => self.authorized("GET", format!("/v2/{REPOSITORY}/manifests/v1")),
            Deed::Push if is_blob => {
                let bytes = format!("what was pushed at turn {turn}");
                let digest = digest_of(bytes.as_bytes());
                let target = format!("/v2/{REPOSITORY}/blobs/uploads/?digest={digest}");
                self.authorized("POST", target).body(bytes)
            }
            Deed::Push => {
                let bytes = content::index(&format!("turn {turn}"), 0);
                self.authorized("PUT", format!("/v2/{REPOSITORY}/manifests/v2"))
                    .header("content-type", INDEX)
                    .body(bytes)
            }
            Deed::SignIn => {
                let scope = format!("repository:{REPOSITORY}:pull");
                let target = format!("/token?service=berth&scope={scope}");
                self.client.call("GET", target).basic("bob", PASSWORD)
            }
        }
    }

    fn authorized(&self, method: &str, target: String) -> Call {
        self.client.call(method, target).header("authorization", self.bearer.as_str())
    }
}

fn read(account: &Mutex<Waits>) -> Waits {
    *account.lock().unwrap_or_else(PoisonError::into_inner)
}

fn change(account: &Mutex<Waits>, change: impl FnOnce(&mut Waits)) {
    change(&mut account.lock().unwrap_or_else(PoisonError::into_inner));
}
