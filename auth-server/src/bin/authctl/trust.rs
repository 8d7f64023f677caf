//! `authctl trust`: machines that sign in with tokens of an issuer of their own.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use auth_server::{
    admin::{Admin, trusts},
    trust::{
        ExpectedAudience, InlineKeys, KEY_SET_BYTES_MAX, KeySource, Remote, RequiredClaim,
        RequiredClaims, Trust, check_ca, keys::try_out, pattern::SubjectPattern, url::IssuerUrl,
    },
};
use berth_shared::{
    clock::rfc3339,
    rights::Effect,
    subject::{Grantee, RobotName},
    telemetry::chain,
};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::{
    grant_text::{GrantText, first_rights, rules},
    report::{Failure, Report, Told, refuse_if, removal, warn},
};

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Let whoever shows a token of an issuer about this subject sign in as robot.NAME.
    Add(Box<Add>),
    /// List trusts with their last use.
    List,
    /// Remove a trust with its grants; tokens that were got by it are void within seconds.
    Remove {
        /// The trust's name, with or without robot. in front.
        #[arg(value_parser = RobotName::from_typed)]
        name: RobotName,
        /// Say what would be done, and do nothing.
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Args)]
#[command(after_help = include_str!("help/trust-add.txt"))]
pub(crate) struct Add {
    /// The name to sign in with, with or without robot. in front.
    #[arg(value_parser = RobotName::from_typed)]
    name: RobotName,
    /// Who issues the tokens: their iss, to the byte.
    #[arg(long, value_name = "URL")]
    issuer: IssuerUrl,
    /// Whom the tokens must be for: their aud. Choose a name of your registry's own, such as its
    /// host, and let the machine ask its issuer for it.
    #[arg(long, value_name = "AUD")]
    audience: ExpectedAudience,
    /// Whom the tokens must be about: their sub. * is one whole part between : and /, beyond the
    /// first two.
    #[arg(long, value_name = "PATTERN")]
    subject: SubjectPattern,
    /// A further claim that must be just that text. May be repeated.
    #[arg(long, value_name = "NAME=VALUE")]
    claim: Vec<RequiredClaim>,
    /// What the machine may do, such as team/app:pull,push. May be repeated.
    #[arg(long, value_name = "REPO:ACTIONS")]
    grant: Vec<GrantText>,
    /// Where the issuer's keys are, if not where its discovery document says.
    #[arg(long, value_name = "URL", conflicts_with = "keys")]
    keys_url: Option<IssuerUrl>,
    /// A file with the issuer's keys (a JWKS). It is kept in the database, and nothing is fetched.
    #[arg(long, value_name = "FILE", conflicts_with = "ca")]
    keys: Option<PathBuf>,
    /// The only root certificates to believe the issuer's server by, as PEM; the system's unless
    /// given.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
}

pub(crate) async fn run(verb: Verb, admin: &Admin) -> Told {
    match verb {
        Verb::Add(arguments) => add(*arguments, admin).await,
        Verb::List => list(admin).await,
        Verb::Remove { name, dry_run } => remove(&name, dry_run, admin).await,
    }
}

async fn add(arguments: Add, admin: &Admin) -> Told {
    let (dry_run, grant) = (arguments.dry_run, arguments.grant.clone());
    if arguments.issuer.as_str() == admin.config.issuer {
        let reason = "--issuer: that is Berth itself, whose tokens need no trust";
        return Err(Failure::usage(reason));
    }
    let trust = read(arguments, admin)?;
    let name = &trust.name;
    let grantee = Grantee::Robot(name.clone());
    let rules = rules(&grant, &grantee, Effect::Allow, None);
    if dry_run {
        trusts::check_new(admin, name).await?;
        let text = format!("would trust {}\n{}", summary(&trust), keys_remark(&trust).await);
        return Ok(Report::done(text, json!({ "name": name, "dry_run": true })));
    }
    let held = trusts::add(admin, &trust, &rules).await?;
    let rights = first_rights(name, &held, admin);
    let keys = keys_remark(&trust).await;
    let text = format!("trusts {}\n{keys}\n{rights}", summary(&trust));
    Ok(Report::done(text, json_trust(&trust, held.len())))
}

/// The trust that was asked for, with what its files say.
fn read(arguments: Add, admin: &Admin) -> Result<Trust, Failure> {
    let Add { name, issuer, audience, subject, claim, keys_url, keys, ca, .. } = arguments;
    let claims =
        RequiredClaims::all(claim).map_err(|error| Failure::usage(format!("--claim: {error}")))?;
    let keys = if let Some(path) = keys {
        let keys = read_file(&path)?.parse::<InlineKeys>();
        KeySource::Inline(keys.map_err(|error| unfit(&path, &chain(&error)))?)
    } else {
        let pem = ca.as_deref().map(read_file).transpose()?;
        if let (Some(path), Some(pem)) = (&ca, &pem) {
            check_ca(pem).map_err(|error| unfit(path, &error.to_string()))?;
        }
        let (issuer, ca) = (issuer.clone(), pem.map(Into::into));
        KeySource::Remote(Box::new(Remote { issuer, keys_url, ca }))
    };
    let created = admin.now();
    Ok(Trust { name, issuer, audience, subject, claims, keys, created, last_used: None })
}

fn unfit(path: &Path, reason: &str) -> Failure {
    Failure::refused(format!("{}: {reason}", path.display()))
}

/// A pipe is fine, since who types names it.
fn read_file(path: &Path) -> Result<String, Failure> {
    let shown = path.display();
    // One byte more than may be, to be told.
    let most = KEY_SET_BYTES_MAX as u64 + 1;
    let read = File::open(path).and_then(|file| io::read_to_string(file.take(most)));
    let text = read.map_err(|error| Failure::refused(format!("reading {shown}: {error}")))?;
    refuse_if(text.len() > KEY_SET_BYTES_MAX, || {
        format!("reading {shown}: it is longer than {KEY_SET_BYTES_MAX} bytes")
    })?;
    Ok(text)
}

/// Whether tokens could be verified now. That they cannot is no reason to refuse: the issuer may
/// be down.
async fn keys_remark(trust: &Trust) -> String {
    match &trust.keys {
        KeySource::Inline(_) => {
            format!(
                "Its keys are in the database: when the issuer has new ones, authctl trust remove \
                 {}, and add it again with its grants",
                trust.name
            )
        }
        KeySource::Remote(remote) => match try_out(remote).await {
            Ok(count) => format!("Its issuer gives keys: {count}"),
            Err(error) => {
                warn(&format!("no token can be checked yet: {}", chain(&error)));
                "Its issuer's keys cannot be had now".to_owned()
            }
        },
    }
}

fn summary(trust: &Trust) -> String {
    let Trust { name, issuer, audience, subject, claims, .. } = trust;
    let claims: String =
        claims.iter().map(|(name, value)| format!("\n  claim     {name}={value}")).collect();
    format!(
        "{name}, by tokens with\n  issuer    {issuer}\n  audience  {audience}\n  \
         subject   {subject}{claims}"
    )
}

fn json_trust(trust: &Trust, rules: usize) -> Value {
    let remote = trust.keys.remote();
    json!({
        "name": trust.name,
        "issuer": trust.issuer.as_str(),
        "audience": trust.audience.as_str(),
        "subject": trust.subject.as_str(),
        "claims": trust.claims,
        "keys_url": remote.and_then(|remote| remote.keys_url.as_ref()).map(IssuerUrl::as_str),
        "keys_inline": remote.is_none(),
        "ca": remote.is_some_and(|remote| remote.ca.is_some()),
        "rules": rules,
        "created": rfc3339(trust.created),
        "last_used": trust.last_used.map(rfc3339),
    })
}

async fn list(admin: &Admin) -> Told {
    let trusts = trusts::list(admin).await?;
    Ok(Report::list(
        trusts.iter().map(|(trust, rules)| json_trust(trust, *rules)).collect(),
        ["TRUST", "ISSUER", "AUDIENCE", "SUBJECT", "RULES", "LAST USED"],
        ["name", "issuer", "audience", "subject", "rules", "last_used"],
        "there are no trusts; how to add one: authctl trust add --help",
    ))
}

async fn remove(name: &RobotName, dry_run: bool, admin: &Admin) -> Told {
    trusts::remove(admin, name, dry_run).await?;
    let [verb, be] = removal(dry_run);
    let text = format!("{verb} {name}; the tokens that were got by it {be} void within seconds");
    Ok(Report::done(text, json!({ "name": name, "removed": !dry_run })))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use auth_server::{audit::Author, config::Config};
    use berth_shared::clock::{Clock, UnixSeconds};
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        verb: Verb,
    }

    const SET: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a",
        "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

    const GOOD: [&str; 7] = [
        "add",
        "ci",
        "--issuer=https://issuer.test",
        "--audience=reg.test",
        "--subject=repo:org/app:ref:refs/heads/main",
        "--claim=owner_id=7",
        "--grant=app:push",
    ];

    fn parse(words: &[&str]) -> Result<Verb, clap::Error> {
        Line::try_parse_from([&["trust"], words].concat()).map(|line| line.verb)
    }

    async fn typed(words: &[&str], admin: &Admin) -> Result<Report, Failure> {
        run(parse(words).unwrap(), admin).await
    }

    fn admin(data: &Path) -> Admin {
        let config = Config {
            data: data.join("auth"),
            htpasswd: data.join("htpasswd"),
            ..Config::default()
        };
        Admin::new(config, Author::process(Clock::set(UnixSeconds::new(0))))
    }

    #[tokio::test]
    async fn a_trust_is_added_listed_and_removed_as_typed() {
        let dir = tempfile::tempdir().unwrap();
        let admin = admin(dir.path());
        let file = dir.path().join("keys.json");
        fs::write(&file, SET).unwrap();
        let keys = format!("--keys={}", file.display());
        let words = [&GOOD[..], &[keys.as_str()]].concat();
        typed(&[&words[..], &["--dry-run"]].concat(), &admin).await.unwrap();
        assert_eq!(typed(&["list"], &admin).await.unwrap().json, json!([]));
        let added = typed(&words, &admin).await.unwrap();
        assert!(added.text.contains("robot.ci") && added.text.contains("app"), "{}", added.text);
        let listed = typed(&["list"], &admin).await.unwrap();
        let one = &listed.json[0];
        assert_eq!((&one["name"], &one["rules"]), (&json!("robot.ci"), &json!(1)));
        assert_eq!(one["claims"], json!({ "owner_id": "7" }));
        let Err(Failure { reason: again, .. }) = typed(&words, &admin).await else { panic!() };
        assert!(again.contains("authctl trust remove robot.ci"), "{again}");
        typed(&["remove", "ci", "--dry-run"], &admin).await.unwrap();
        typed(&["remove", "robot.ci"], &admin).await.unwrap();
        assert!(typed(&["remove", "ci"], &admin).await.is_err());
        assert!(admin.database().await.unwrap().policy().await.unwrap().rules().is_empty());
    }

    #[test]
    fn what_would_trust_too_much_is_wrong_usage() {
        assert!(parse(&GOOD).is_ok());
        for (place, bad) in [
            (2, "--issuer=http://issuer.test"),
            (2, "--issuer=issuer.test"),
            (3, "--audience="),
            (4, "--subject=*"),
            (4, "--subject=repo:*/app:*"),
            (5, "--claim=sub=x"),
            (5, "--claim=owner_id"),
        ] {
            let mut words = GOOD;
            words[place] = bad;
            assert!(parse(&words).is_err(), "{bad}");
        }
        for missing in [2, 3, 4] {
            let mut words = GOOD.to_vec();
            words.remove(missing);
            assert!(parse(&words).is_err(), "without {}", GOOD[missing]);
        }
        let both = [&GOOD[..], &["--keys=x", "--keys-url=https://x"]].concat();
        assert!(parse(&both).is_err());
    }
}
