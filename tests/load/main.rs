//! Puts loads on both servers, one at a time, and prints what they hold in memory and files and how
//! a good client fares beside each.

mod connections;
mod content;
mod crowd;
mod figures;
mod good;
mod honest;
mod kind;
mod line;
mod memory;
mod pulls;
mod site;
mod stage;
mod statements;
mod uploads;

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Parser;
use harness::told_to_stop;
use kind::Kind;
use stage::Row;

/// Puts loads on both servers, one at a time, and prints a row of a table for each.
///
/// Each load gets servers and a data directory of its own, and ends by itself. A good client pulls,
/// pushes and signs in all the while; its worst answers stand in the row. `A1` to `A5` are attacks.
/// What is no attack fails unless everybody is served to the end. With bounds, a line `ok - …`
/// stands in place of the row where they hold, and a line `not ok - …` for each that does not.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  \
    load                                  all loads, as a table\n  \
    load a3-manifests a3-blobs            two of them\n  \
    load --served --memory-mib-max 128 a3-puts\n\n\
    Connections and files are many: `ulimit -n` must allow for 4,096.")]
struct Options {
    /// The loads to put on; all of them unless given
    #[arg(value_enum)]
    loads: Vec<Kind>,
    /// Where the servers and authctl lie [default: beside this program]
    #[arg(long, env = "BERTH_BIN", value_name = "DIR")]
    bin: Option<PathBuf>,
    /// Where to put data directories, which are removed afterwards [default: a temporary place]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The address that the registry listens on, and that all clients come from
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST), value_name = "ADDRESS")]
    listen: IpAddr,
    /// Another address of this machine that the good client comes from
    #[arg(long, value_name = "ADDRESS")]
    good_from: Option<IpAddr>,
    /// How long each load stands [default: what is usual for it]
    #[arg(long, value_name = "SECONDS")]
    secs: Option<u64>,
    /// Bound: what each server may have held in memory
    #[arg(long, value_name = "MIB")]
    memory_mib_max: Option<u64>,
    /// Bound: how many files each server may have had open
    #[arg(long, value_name = "COUNT")]
    files_max: Option<usize>,
    /// Bound: the good client is never refused, and answered all the while
    #[arg(long)]
    served: bool,
}

impl Options {
    fn has_bounds(&self) -> bool {
        self.served || self.memory_mib_max.is_some() || self.files_max.is_some()
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let outcome = tokio::select! {
        outcome = work(&options) => outcome,
        stopped = told_to_stop() => Err(stopped),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("not ok - {error}");
            ExitCode::FAILURE
        }
    }
}

/// Puts on all loads, and tells whether all bounds held.
async fn work(options: &Options) -> io::Result<bool> {
    let this = std::env::current_exe()?;
    let bin = options.bin.as_deref().or(this.parent()).unwrap_or(Path::new("."));
    let kinds = if options.loads.is_empty() { Kind::all() } else { &options.loads };
    if !options.has_bounds() {
        println!("{}", Row::HEAD);
    }
    let mut hold = true;
    for kind in kinds {
        let row = stage::run(*kind, options, bin).await;
        let row = row.map_err(|error| io::Error::other(format!("{}: {error}", kind.name())))?;
        let violations = row.violations(options);
        hold &= violations.is_empty();
        tell(*kind, options, &row, &violations);
    }
    Ok(hold)
}

fn tell(kind: Kind, options: &Options, row: &Row, violations: &[String]) {
    if !options.has_bounds() {
        println!("{row}");
    } else if violations.is_empty() {
        println!("ok - {}: {}", kind.words(), row.brief());
    }
    for violation in violations {
        println!("not ok - {}: {violation}", kind.words());
    }
}
