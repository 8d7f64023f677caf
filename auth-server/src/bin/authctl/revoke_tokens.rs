//! `authctl revoke-tokens`: making void what is out, without taking any right away.

use auth_server::admin::{Admin, Nobody};
use berth_shared::subject::Grantee;
use clap::Args;
use serde_json::json;

use crate::report::{Report, Told, warn};

#[derive(Args)]
#[command(after_help = include_str!("help/revoke-tokens.txt"))]
pub(crate) struct Arguments {
    /// A user name, `robot.NAME`, `group:NAME`, `everyone` or `anonymous`.
    #[arg(value_name = "SUBJECT")]
    grantee: Grantee,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
}

pub(crate) async fn run(arguments: &Arguments, admin: &Admin) -> Told {
    let Arguments { grantee, dry_run } = arguments;
    let database = admin.database().await?;
    if let Some(nobody) = Nobody::of(grantee, admin, &*database.policy().await?) {
        warn(&format!("{nobody}: tokens of one who is gone end all the same"));
    }
    if *dry_run {
        let text = format!(
            "every token that is out for {grantee} would be void within seconds, refresh tokens too"
        );
        return Ok(Report::done(text, json!({ "subject": grantee, "revoked": false })));
    }
    let ended = database.void_tokens(grantee).await?;
    let refresh = match ended {
        0 => String::new(),
        1 => "; 1 refresh token ended".to_owned(),
        ended => format!("; {ended} refresh tokens ended"),
    };
    let text = format!("every token that is out for {grantee} is void within seconds{refresh}");
    let json = json!({ "subject": grantee, "revoked": true, "refresh_tokens": ended });
    Ok(Report::done(text, json))
}
