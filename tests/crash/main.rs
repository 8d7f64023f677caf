//! Kills the servers at random moments while clients push, and checks that nothing that was
//! acknowledged is lost.

mod authctl;
mod check;
mod content;
mod known;
mod people;
mod powercut;
mod pusher;
mod server;
mod site;
mod tally;
mod upload;
mod wire;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Parser, ValueEnum};
use fastrand::Rng;
use people::Administrator;
use pusher::Pusher;
use site::{Layout, Site};
use tally::{Tally, Violation};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use wire::Wire;

/// How many clients push at the same time.
const PUSHERS: usize = 4;

/// How long the servers are left alone after everything was checked, in milliseconds.
const PEACE_MILLIS: std::ops::RangeInclusive<u64> = 10..=700;

/// From how many rounds on it would be strange if no kill had interrupted anything.
const ROUNDS_TELLING: u32 = 10;

/// How long everybody may take to look at everything after a restart.
const LOOK_SECS_MAX: u64 = 120;

/// Kills Berth's servers at random moments while clients push, and checks what they kept.
#[derive(Debug, Parser)]
struct Options {
    /// How often to kill.
    #[arg(long, default_value_t = 20)]
    rounds: u32,
    /// Whom to kill.
    #[arg(long, value_enum, default_value_t = Victim::Registry)]
    victim: Victim,
    /// How many registry-servers serve the registry.
    #[arg(long, default_value_t = 1)]
    replicas: usize,
    /// The tables of their settings that say where rows and objects are.
    #[arg(long, value_name = "FILE")]
    places: Option<PathBuf>,
    /// Runs this in place of a kill, and of several one after the other: each takes away what the servers stand
    /// on, and ends when that is back.
    #[arg(long, value_name = "PROGRAM")]
    disturb: Vec<PathBuf>,
    /// The largest layer, in bytes.
    #[arg(long, default_value_t = 3 * 1024 * 1024)]
    largest: usize,
    /// Where to put everything; a directory that is not there yet [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Kill both servers, and each time forget whatever they had not synced.
    #[arg(long)]
    powercut: bool,
    /// What the random choices are made from; the moments of requests are not among them.
    #[arg(long)]
    seed: Option<u64>,
    /// Where the programs lie [default: beside this one]
    #[arg(long, env = "BERTH_BIN", value_name = "DIR")]
    bin: Option<PathBuf>,
}

/// Whom to kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Victim {
    /// `registry-server`.
    Registry,
    /// `auth-server`, and an `authctl` that happens to run.
    Auth,
    /// All of them.
    Both,
    /// One of several `registry-server`s that share a registry.
    Replica,
}

impl Victim {
    fn is_registry(self) -> bool {
        self != Self::Auth
    }

    fn is_auth(self) -> bool {
        matches!(self, Self::Auth | Self::Both)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Registry => "registry-server",
            Self::Auth => "auth-server",
            Self::Both => "both servers",
            Self::Replica => "one of several registry-servers",
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut options = Options::parse();
    if options.powercut {
        options.victim = Victim::Both;
    }
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..));
    println!("# {} rounds, {}, seed {seed}", options.rounds, options.victim.name());
    match in_directory(&options, seed).await {
        Ok(lines) => {
            lines.iter().for_each(|line| println!("ok - {line}"));
            ExitCode::SUCCESS
        }
        Err(violation) => {
            println!("not ok - {violation} (--seed {seed})");
            ExitCode::FAILURE
        }
    }
}

/// Works in the directory of the options, or in one that is removed unless something went wrong.
async fn in_directory(options: &Options, seed: u64) -> Result<Vec<String>, Violation> {
    if let Some(root) = &options.data {
        return until_told(options, root, seed).await;
    }
    let failed = |error| Violation::new(format!("a temporary directory: {error}"));
    let mut directory =
        tempfile::Builder::new().prefix("berth-crash-").tempdir().map_err(failed)?;
    let outcome = until_told(options, directory.path(), seed).await;
    if outcome.is_err() {
        directory.disable_cleanup(true);
        println!("# everything is left in {}", directory.path().display());
    }
    outcome
}

/// Works until done or told to stop: what was started is killed either way.
async fn until_told(options: &Options, root: &Path, seed: u64) -> Result<Vec<String>, Violation> {
    let failed = |error| Violation::new(format!("hearing signals: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let outcome = tokio::select! {
        outcome = work(options, root, seed) => outcome,
        _ = interrupt.recv() => return Err(Violation::new("interrupted")),
        _ = terminate.recv() => return Err(Violation::new("told to stop")),
    };
    if outcome.is_err() {
        for log in Site::logs(root) {
            println!("# warnings in {}:", log.display());
            server::warnings_in(&log).iter().for_each(|line| println!("#   {line}"));
        }
    }
    outcome
}

async fn work(options: &Options, root: &Path, seed: u64) -> Result<Vec<String>, Violation> {
    let this = std::env::current_exe().unwrap_or_default();
    let beside = this.parent().unwrap_or(Path::new("."));
    let bin = options.bin.as_deref().unwrap_or(beside);
    let mut random = Rng::with_seed(seed);
    let places = options.places.as_deref().map(std::fs::read_to_string).transpose();
    let layout = Layout {
        replicas: options.replicas,
        places: places.map_err(|error| Violation::new(error.to_string()))?.unwrap_or_default(),
        on_powercut: options.powercut,
    };
    let mut site = Site::start(bin, root, &layout).await?;
    let stop = CancellationToken::new();
    let (looked, looks) = mpsc::channel(PUSHERS + 1);
    let mut workers = JoinSet::new();
    for number in 0..PUSHERS {
        let wire = Wire::new(site.watch());
        let pusher = Pusher::new(wire, random.fork(), seed, number, looked.clone());
        let pusher = Pusher { largest: options.largest, is_shared: options.replicas > 1, ..pusher };
        workers.spawn(pusher.run(stop.clone()));
    }
    if options.victim.is_auth() {
        let wire = Wire::new(site.watch());
        let people = Administrator::new(wire, site.authctl.clone(), random.fork(), looked);
        workers.spawn(people.run(stop.clone()));
    }
    let headcount = workers.len();
    let back = Duration::ZERO;
    let mut rounds = Rounds { options, random, looks, headcount, back };
    tokio::select! {
        outcome = rounds.run(&mut site) => outcome?,
        ended = workers.join_next() => {
            return Err(ended.map(told).and_then(Result::err).unwrap_or_else(|| {
                Violation::new("a client stopped by itself")
            }));
        }
    }
    stop.cancel();
    let mut tally = Tally::default();
    while let Some(ended) = workers.join_next().await {
        tally.add(told(ended)?);
    }
    site.verify().await?;
    site.end().await;
    if !options.disturb.is_empty() {
        println!("# at most {:.1} s until all were ready again", rounds.back.as_secs_f64());
    }
    report(options, &tally)
}

/// What a client's task ended with. A panic is a violation too.
fn told(
    ended: Result<Result<Tally, Violation>, tokio::task::JoinError>,
) -> Result<Tally, Violation> {
    ended.unwrap_or_else(|error| Err(Violation::new(format!("a client panicked: {error}"))))
}

fn report(options: &Options, tally: &Tally) -> Result<Vec<String>, Violation> {
    if options.rounds >= ROUNDS_TELLING && !tally.has_interruptions() {
        return Err(Violation::new("no kill came in the middle of anything: nothing was shown"));
    }
    let victim = options.victim;
    let disturbed: Vec<_> =
        options.disturb.iter().filter_map(|it| it.file_name()?.to_str()).collect();
    let how = if options.powercut { ", and what was not synced forgotten" } else { "" };
    let mut lines = vec![match disturbed.is_empty() {
        true => format!("{} killed {} times{how}", victim.name(), options.rounds),
        false => format!("{} times in turn: {}", options.rounds, disturbed.join(", ")),
    }];
    lines.extend(tally.pushing());
    if victim.is_registry() {
        lines.extend(tally.interrupted());
    } else {
        lines.push(tally.alone());
    }
    if victim.is_auth() {
        lines.extend(tally.administration());
    }
    lines.push("registry-server verify finds nothing wrong".to_owned());
    Ok(lines)
}

/// Kill, restart, and wait until everybody has looked at what is there.
struct Rounds<'o> {
    options: &'o Options,
    random: Rng,
    looks: mpsc::Receiver<u32>,
    headcount: usize,
    /// How long it took at most until all were ready after something was taken away.
    back: Duration,
}

impl Rounds<'_> {
    async fn run(&mut self, site: &mut Site) -> Result<(), Violation> {
        self.await_looks(1).await?;
        for round in 0..self.options.rounds {
            sleep(Duration::from_millis(self.random.u64(PEACE_MILLIS))).await;
            let generation = match self.options.disturb.as_slice() {
                [] => self.kill(site).await?,
                programs => {
                    let (generation, back) =
                        site.disturb(&programs[round as usize % programs.len()]).await?;
                    self.back = self.back.max(back);
                    generation
                }
            };
            self.await_looks(generation).await?;
        }
        Ok(())
    }

    async fn kill(&mut self, site: &mut Site) -> Result<u32, Violation> {
        site.kill(self.options.victim, &mut self.random).await?;
        if self.options.victim == Victim::Replica {
            // The others go on meanwhile.
            sleep(Duration::from_millis(self.random.u64(PEACE_MILLIS))).await;
        }
        site.start_what_is_down().await
    }

    async fn await_looks(&mut self, wanted: u32) -> Result<(), Violation> {
        let mut missing = self.headcount;
        let looking = async {
            while missing > 0 {
                match self.looks.recv().await {
                    Some(generation) if generation == wanted => missing -= 1,
                    Some(_) => {}
                    // All clients have stopped, which whoever waits for them reports.
                    None => std::future::pending().await,
                }
            }
        };
        let all = timeout(Duration::from_secs(LOOK_SECS_MAX), looking).await;
        all.map_err(|_| Violation::new(format!("{missing} clients are stuck after a restart")))
    }
}
