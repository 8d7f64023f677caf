//! `registry-server schema`: the tables in PostgreSQL, and what a newer program makes of them.

use std::process::ExitCode;

use berth_shared::database::Schema;
use clap::Args;
use registry_server::{config::Config, metadata::postgres};

use crate::output::{self, Ended, Failure};

/// Show what a start of this program would change about the tables in PostgreSQL, or change it.
///
/// A server does it by itself when it starts. Whoever wants it done before, in a job of its own, runs
/// this first, by `database.migrate_url` where that is set. Servers of the version before go on meanwhile.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Change the tables. Back them up before, with pg_dump: nothing is copied.
    #[arg(long)]
    apply: bool,
}

pub(crate) async fn run(arguments: &Arguments, config: &Config, json: bool) -> Ended {
    let Some(settings) = &config.database else {
        return Err(Failure(
            "the database is a file: a start brings it to what this program needs, and copies it before"
                .to_owned(),
        ));
    };
    let schema = match arguments.apply {
        true => postgres::migrate(settings).await?,
        false => postgres::look_at_schema(settings).await?,
    };
    let version = if arguments.apply { schema.version.max(schema.known) } else { schema.version };
    if json {
        let missing = if arguments.apply { Vec::new() } else { schema.missing };
        output::json(&Schema { version, missing, ..schema });
        return Ok(ExitCode::SUCCESS);
    }
    for missing in &schema.missing {
        let done = if arguments.apply { "done" } else { "would be done" };
        output::line(&format!("{:04} {}: {done}", missing.version, missing.name));
    }
    output::line(&format!(
        "the tables at {} are of version {version}, and this program is of version {}{}",
        settings.place(),
        schema.known,
        if version > schema.known { ", which works beside the newer one" } else { "" },
    ));
    Ok(ExitCode::SUCCESS)
}
