//! Measures Berth beside other registries, in turns in one run, and writes a table and a picture.

mod berth;
mod chart;
mod content;
mod elsewhere;
mod goal;
mod growth;
mod http;
mod memory;
mod peer;
mod result;
mod start;
mod store;
mod table;
mod tool;
mod work;

use std::{
    io,
    path::{Path, PathBuf},
    pin::pin,
    process::ExitCode,
    time::Duration,
};

use clap::{Parser, Subcommand};
use harness::told_to_stop;

use crate::{
    content::Content,
    peer::{Name, PASSWORD, Peer, USER},
    result::Results,
    start::Place,
    tool::Busy,
    work::Work,
};

/// Measures Berth beside other registries on this machine, in turns in one run.
///
/// Peers are what the environment names or this machine has: `ZOT`, `ANGOS` and `DISTRIBUTION` name
/// programs; nginx and docker-registry are taken from the path; `BENCH_POSTGRES` and `BENCH_S3` are the
/// URLs of a database and of a bucket for the peers that need them. What is missing is said. Everything
/// listens on loopback, unless it is told otherwise. Tables are printed; progress goes to standard error.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  \
    bench                              every row, three rounds\n  \
    bench --rounds 1 --blob-mib 256    a first look\n  \
    bench manifest blob-10k            two rows alone\n  \
    bench growth                       Berth alone, on large stores\n  \
    bench peers berth-tls zot-tls      two peers, for clients of your own")]
struct Options {
    /// What else to do than to measure rows
    #[command(subcommand)]
    verb: Option<Verb>,
    /// The rows to measure; all of them unless given
    #[arg(value_enum)]
    rows: Vec<Work>,
    /// Where auth-server, registry-server and authctl lie [default: beside this program]
    #[arg(long, global = true, env = "BERTH_BIN", value_name = "DIR")]
    bin: Option<PathBuf>,
    /// How often each row is measured at each peer
    #[arg(long, global = true, default_value_t = 3, value_name = "COUNT")]
    rounds: usize,
    /// How long each load stands
    #[arg(long, global = true, default_value_t = 5, value_name = "SECONDS")]
    secs: u64,
    /// The size of a large blob
    #[arg(long, global = true, default_value_t = 1024, value_name = "MIB")]
    blob_mib: u64,
    /// How many small blobs, tags, images and children of an index are pushed
    #[arg(long, global = true, default_value_t = 1000, value_name = "COUNT")]
    many: usize,
    /// The peers to measure; all that need no other servers unless given
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAME")]
    peers: Vec<Name>,
    /// Measure no row once more beside a busy loop on one core
    #[arg(long)]
    quiet_only: bool,
    /// Wait so long before memory at rest is read
    #[arg(long, global = true, default_value_t = 60, value_name = "SECONDS")]
    rest_secs: u64,
    /// Where to write the picture
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
    /// Where to put what the servers keep, which is removed afterwards [default: a temporary place]
    #[arg(long, global = true, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// What else this program does.
#[derive(Debug, Subcommand)]
enum Verb {
    /// Ask stores of several sizes for the same, and start the server on the last
    Growth {
        /// How many tags, blobs, repositories and referrers each has
        #[arg(default_values_t = [1_000, 100_000, 1_000_000])]
        sizes: Vec<usize>,
    },
    /// Read what both servers hold at rest, while many pull and push, and with idle connections
    Memory,
    /// Start peers, and keep them until told to stop. Each has a line: its name, where it answers,
    /// who signs in, its CA, and what it is; then comes `ready`
    Peers {
        /// Those to start; all of them unless given
        #[arg(value_enum)]
        names: Vec<Name>,
        #[command(flatten)]
        place: Place,
    },
    /// Put rows into the database of a registry that does not run, for a collection
    Fill {
        /// Where it keeps its data
        site: PathBuf,
        /// How many blobs, one in a hundred of them garbage
        blobs: usize,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let outcome = match options.verb {
        // Which are told to stop when they have served.
        Some(Verb::Peers { .. }) => run(&options).await,
        _ => tokio::select! {
            outcome = run(&options) => outcome,
            stopped = told_to_stop() => Err(stopped),
        },
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> io::Result<()> {
    let this = std::env::current_exe()?;
    let bin = options.bin.as_deref().or(this.parent()).unwrap_or(Path::new("."));
    let parent = options.data.clone().unwrap_or_else(std::env::temp_dir);
    let directory = tempfile::Builder::new().prefix("berth-bench-").tempdir_in(parent)?;
    let root = directory.path();
    match &options.verb {
        None => measure(options, bin, root).await,
        Some(Verb::Growth { sizes }) => growth::measure(options, bin, root, sizes).await,
        Some(Verb::Memory) => memory::measure(options, bin, root).await,
        Some(Verb::Peers { names, place }) => keep(bin, root, place, names).await,
        Some(Verb::Fill { site, blobs }) => store::fill_for_collection(site, *blobs).await,
    }
}

/// Starts peers and keeps them, for scripts that bring clients of their own.
async fn keep(bin: &Path, root: &Path, place: &Place, names: &[Name]) -> io::Result<()> {
    let names = if names.is_empty() { Name::ALONE } else { names };
    let mut stopped = pin!(told_to_stop());
    let (mut peers, missing) = tokio::select! {
        started = start::peers(bin, root, place, names) => started?,
        stopped = &mut stopped => return Err(stopped),
    };
    for why in missing {
        eprintln!("not started: {why}");
    }
    for Peer { name, base, ca, .. } in &peers {
        println!("{} {base} {USER}:{PASSWORD} {} {name}", name.word(), ca.display());
    }
    println!("ready");
    stopped.await;
    for peer in &mut peers {
        peer.end().await;
    }
    Ok(())
}

async fn measure(options: &Options, bin: &Path, root: &Path) -> io::Result<()> {
    let place = Place::default();
    let names = if options.peers.is_empty() { Name::ALONE } else { &options.peers };
    let (mut peers, missing) = start::peers(bin, root, &place, names).await?;
    let mut content = Content::make(root, options.blob_mib, options.many)?;
    for peer in &peers {
        content.push_to(peer).await.map_err(|error| peer.told(&error))?;
    }
    let rows = if options.rows.is_empty() { Work::all() } else { &options.rows };
    let mut results = Results::default();
    for is_busy in [false, true] {
        if is_busy && options.quiet_only {
            break;
        }
        for round in 1..=options.rounds {
            for row in rows {
                // Not before the peers' own turn: each is measured under the same conditions.
                let _busy = if is_busy { Some(Busy::start()?) } else { None };
                for peer in &peers {
                    measure_one(*row, peer, &mut content, options, is_busy, &mut results).await;
                }
            }
            let beside = if is_busy { ", beside a busy loop" } else { "" };
            eprintln!("round {round} of {} is done{beside}", options.rounds);
        }
    }
    if options.rows.is_empty() {
        eprintln!("memory at rest is read in {} s", options.rest_secs);
        tokio::time::sleep(Duration::from_secs(options.rest_secs)).await;
        for peer in &peers {
            results.note_memory(peer);
        }
    }
    table::print(options, &peers, &missing, rows, &results);
    if let Some(path) = &options.picture {
        chart::write(path, &peers, rows, &results)?;
    }
    for peer in &mut peers {
        peer.end().await;
    }
    Ok(())
}

/// Measures a row at a peer. A failure stands in the table, and the run goes on.
async fn measure_one(
    row: Work,
    peer: &Peer,
    content: &mut Content,
    options: &Options,
    is_busy: bool,
    results: &mut Results,
) {
    if !row.suits(peer) {
        return;
    }
    // Peers that sync nothing leave their writes to those that come after them.
    nix::unistd::sync();
    match row.measure(peer, content, options.secs).await {
        Ok(figure) => {
            eprintln!("{}, {}: {}", row.words(), peer.name, row.unit().told(figure));
            results.note(row, peer.name, is_busy, figure);
        }
        Err(error) => {
            eprintln!("{}, {}: {error}", row.words(), peer.name);
            results.note_failure(row, peer.name, &error);
        }
    }
}
