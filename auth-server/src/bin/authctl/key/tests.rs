//! The verbs as they are typed, on a directory of their own.

use std::{path::Path, time::Duration};

use auth_server::{
    audit::Author,
    config::Config,
    keys::{NEXT_AGE_SECS_MIN, SigningKeys},
};
use berth_shared::clock::{Clock, UnixSeconds};
use clap::Parser;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(subcommand)]
    verb: Verb,
}

fn admin(dir: &Path, clock: &Clock) -> Admin {
    let config = Config { data: dir.to_owned(), ..Config::default() };
    Admin::new(config, Author::process(clock.clone()))
}

fn typed(admin: &Admin, line: &str) -> Result<Report, Failure> {
    let line = Line::parse_from(line.split(' '));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(run(&line.verb, admin))
}

fn states(admin: &Admin) -> Vec<String> {
    let report = typed(admin, "key list").unwrap();
    let keys = report.json.as_array().unwrap();
    keys.iter().map(|key| key["state"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn keys_are_rotated_listed_and_exported() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::set(UnixSeconds::new(1_790_000_000));
    let admin = admin(dir.path(), &clock);
    let Err(Failure { reason, .. }) = typed(&admin, "key list") else { panic!() };
    assert!(reason.contains("start auth-server"), "{reason}");
    SigningKeys::open(&admin.config.keys(), &clock).unwrap();
    assert_eq!(states(&admin), ["active", "next"]);

    for line in ["key rotate", "key rotate --dry-run"] {
        let Err(Failure { reason, .. }) = typed(&admin, line) else { panic!() };
        assert!(reason.contains("2026-09-21T14:19:20Z") && reason.contains("--now"), "{reason}");
    }
    clock.advance(Duration::from_secs(NEXT_AGE_SECS_MIN.unsigned_abs()));
    let plan = typed(&admin, "key rotate --dry-run").unwrap();
    assert!(plan.text.contains("would sign") && plan.text.contains("would make"), "{}", plan.text);
    assert_eq!(states(&admin), ["active", "next"]);
    let rotated = typed(&admin, "key rotate").unwrap();
    assert_eq!(rotated.json["active"]["id"], plan.json["active"]["id"]);
    assert_eq!(rotated.json["retired"]["id"], plan.json["retired"]["id"]);
    assert!(rotated.text.contains("stays published until 2026-09-22"), "{}", rotated.text);
    assert_eq!(states(&admin), ["active", "next", "retired"]);

    let list = typed(&admin, "key list").unwrap();
    let lines: Vec<_> = list.text.lines().collect();
    assert!(lines[0].starts_with("KEY ") && lines[0].ends_with("GOES"), "{}", lines[0]);
    assert!(lines[1].contains("ES256") && lines[1].contains("active"), "{}", lines[1]);
    assert!(lines[3].contains("retired") && lines[3].ends_with('Z'), "{}", lines[3]);
    assert!(list.text.contains("can sign from 2026-09-21T14:25:20Z"), "{}", list.text);

    let export = typed(&admin, "key export").unwrap();
    assert_eq!(export.json["key_id"], rotated.json["active"]["id"]);
    assert_eq!(export.text.matches("BEGIN CERTIFICATE").count(), 3);
    assert!(!export.text.contains("PRIVATE"));
}

#[test]
fn keys_that_leaked_are_dropped_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::set(UnixSeconds::new(1_790_000_000));
    let admin = admin(dir.path(), &clock);
    SigningKeys::open(&admin.config.keys(), &clock).unwrap();
    let report = typed(&admin, "key rotate --now").unwrap();
    assert!(report.text.contains("within seconds"), "{}", report.text);
    assert_eq!(states(&admin), ["active", "next", "retired"]);
    let plan = typed(&admin, "key rotate --compromised --dry-run").unwrap();
    assert_eq!(plan.json["dropped"].as_array().unwrap().len(), 3);
    assert_eq!(states(&admin), ["active", "next", "retired"]);
    let report = typed(&admin, "key rotate --compromised").unwrap();
    assert_eq!(report.json["dropped"], plan.json["dropped"]);
    assert!(report.text.contains("every token that is out is void"), "{}", report.text);
    assert!(report.text.contains("backups"), "{}", report.text);
    assert_eq!(states(&admin), ["active", "next"]);
}

#[test]
fn what_seals_is_made_once_and_changed_by_a_line_in_front() {
    let dir = tempfile::tempdir().unwrap();
    let admin = admin(dir.path(), &Clock::set(UnixSeconds::new(1_790_000_000)));
    let file = dir.path().join("sealing.key");
    let line = format!("key seal --out {}", file.display());
    let made = typed(&admin, &line).unwrap();
    assert!(made.text.contains("[keys]\nsealed_with = "), "{}", made.text);
    let first = std::fs::read_to_string(&file).unwrap();
    assert!(!made.text.contains(first.trim_end()) && !made.json.to_string().contains(&first[..43]));
    let Err(Failure { reason, .. }) = typed(&admin, &line) else { panic!() };
    assert!(reason.contains("--add"), "{reason}");
    let added = typed(&admin, &format!("{line} --add")).unwrap();
    assert!(added.text.contains("authctl key reseal"), "{}", added.text);
    let both = std::fs::read_to_string(&file).unwrap();
    assert!(both.lines().count() == 2 && both.ends_with(&first));
    // Files are not sealed.
    let Err(Failure { reason, .. }) = typed(&admin, "key reseal") else { panic!() };
    assert!(reason.contains("which nothing seals"), "{reason}");
}
