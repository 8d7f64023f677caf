//! `registry-server verify`: hash what is stored.

use std::process::ExitCode;

use clap::Args;
use registry_server::{
    config::Config,
    control::Job,
    registry::{event::Event, verify::Options},
};

use crate::{
    output::{self, Failure, bytes, count},
    site,
};

/// Hash everything that is stored, and say which images are damaged.
///
/// What is damaged is no longer served; pushing it again repairs it. A running server does this by
/// itself ([verification] in the configuration). Exit status 1 when something is damaged.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Serve again what has sound bytes: because its file was put right, or because another object
    /// in the store holds them.
    #[arg(long)]
    repair: bool,

    /// How many MiB to read in a second, instead of what the configuration says.
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
}

pub(crate) async fn run(
    arguments: &Arguments,
    config: &Config,
    json: bool,
) -> Result<ExitCode, Failure> {
    let bytes_per_sec_max = arguments.rate.map(|mib| mib.saturating_mul(1024 * 1024));
    let options = Options { repair: arguments.repair, bytes_per_sec_max };
    let mut events = site::start(Job::Verify { options }, config).await?;
    let bar = output::progress_bar();
    while let Some(event) = events.recv().await {
        if json {
            output::json(&event);
        }
        match event {
            Event::Progress { bytes_done, bytes_total, .. } => {
                bar.set_length(bytes_total);
                bar.set_position(bytes_done);
            }
            Event::Damaged { digest, what, images } if !json => bar.suspend(|| {
                output::line(&format!("damaged: {digest}: {what}"));
                for image in images {
                    output::line(&format!("  in {image}"));
                }
            }),
            Event::Repaired { digest, how } if !json => {
                bar.suspend(|| output::line(&format!("repaired: {digest}: {how}")));
            }
            Event::Problem { message } if !json => {
                bar.suspend(|| eprintln!("skipped: {message}"));
            }
            Event::Verified(summary) => {
                bar.finish_and_clear();
                if !json {
                    output::line(&format!(
                        "verified {} and {} ({}): {} damaged, {} repaired, in {:.1} s",
                        count(summary.blobs, "blob", "blobs"),
                        count(summary.manifests, "manifest", "manifests"),
                        bytes(summary.bytes),
                        summary.damaged,
                        summary.repaired,
                        summary.millis as f64 / 1000.0,
                    ));
                }
                return Ok(ExitCode::from(u8::from(summary.damaged > 0)));
            }
            Event::Failed { message } => {
                bar.finish_and_clear();
                return Err(Failure(message));
            }
            _ => {}
        }
    }
    Err(Failure("the server went away before the verification was through".to_owned()))
}
