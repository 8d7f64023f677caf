//! What `authctl init` leaves behind: tried in a directory of its own, and tried again.

use std::{collections::BTreeMap, fs, path::Path};

use auth_server::{config::Config, database::Database, host::Host};
use clap::Parser;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    arguments: Arguments,
}

async fn init(dir: &Path, more: &[&str]) -> Result<Report, Failure> {
    let (data, certs) = (dir.join("data"), dir.join("certs"));
    let mut line =
        vec!["init", "--data", data.to_str().unwrap(), "--certs", certs.to_str().unwrap()];
    line.extend_from_slice(more);
    run(&Line::parse_from(line).arguments, Author::process(Clock::system())).await
}

/// Every file below `dir` and what is in it. SQLite's own files are left out.
fn tree(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(tree(&path));
        } else if !path.to_string_lossy().contains("auth.db") {
            files.insert(path.display().to_string(), fs::read(&path).unwrap());
        }
    }
    files
}

async fn holds(dir: &Path, who: &str, what: &str) -> bool {
    let config = Config::load(&dir.join("data/auth.toml")).unwrap();
    let policy = Database::open(&config.database()).await.unwrap().policy().await.unwrap();
    let (who, what) = (who.parse().unwrap(), what.parse().unwrap());
    policy.rules_naming(&who).iter().any(|rule| rule.pattern.matches(&what))
}

#[tokio::test]
async fn a_second_run_changes_nothing_and_shows_no_password() {
    let dir = tempfile::tempdir().unwrap();
    let first = init(dir.path(), &["--host", "reg.lan"]).await.unwrap();
    let password = first.json["password"].as_str().unwrap();
    assert!(password.len() >= 20 && first.text.contains(password));
    assert!(holds(dir.path(), "andrew", "any/thing").await);
    let before = tree(dir.path());
    let second = init(dir.path(), &["--host", "reg.lan"]).await.unwrap();
    assert_eq!(before, tree(dir.path()));
    assert!(second.json["password"].is_null());
    assert_eq!(second.json["steps"], serde_json::json!([]));
    let third = init(dir.path(), &["--host", ""]).await.unwrap();
    assert_eq!(third.json["public_urls"], serde_json::json!(["https://reg.lan:5000"]));
    assert_eq!(before, tree(dir.path()));
}

#[tokio::test]
async fn settings_that_listen_on_ipv4_alone_get_a_remark_for_an_ipv6_host() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path(), &["--listen", "0.0.0.0:5000"]).await.unwrap();
    for (host, remarked) in [("reg.lan", false), ("reg.lan,2001:db8::1", true)] {
        let report = init(dir.path(), &["--host", host]).await.unwrap();
        assert_eq!(report.text.contains("write [::]:5000 there"), remarked, "{}", report.text);
    }
    for bad in ["5000", "reg.lan:5000"] {
        let refused = Line::try_parse_from(["init", "--listen", bad]).err().unwrap().to_string();
        assert!(refused.contains("such as [::]:5000"), "{refused}");
    }
}

#[tokio::test]
async fn where_clients_would_not_reach_it_is_remarked_at_the_first_run_too() {
    for (line, remark) in [
        (&["--host", "2001:db8::1", "--listen", "0.0.0.0:5000"], "write [::]:5000 there"),
        (&["--host", "reg.lan", "--listen", "127.0.0.1:5000"], "this machine alone reaches"),
        (&["--host", "reg.lan", "--listen", "[::]:5080"], "else give --port 5080"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        for again in [false, true] {
            let report = init(dir.path(), line).await.unwrap();
            assert!(report.text.contains(remark), "{again}: {}", report.text);
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let report = init(dir.path(), &["--listen", "127.0.0.1:5000"]).await.unwrap();
    assert!(!report.text.contains("proxy"), "{}", report.text);
}

#[tokio::test]
async fn fewer_hosts_are_fewer_urls_and_those_added_by_hand_stay() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path(), &["--host", "reg.lan,old.lan"]).await.unwrap();
    let report = init(dir.path(), &["--host", "reg.lan"]).await.unwrap();
    assert_eq!(report.json["public_urls"], serde_json::json!(["https://reg.lan:5000"]));
    assert!(report.text.contains("server.pem again for reg.lan\n"), "{}", report.text);
    assert!(report.text.contains("restart it"), "{}", report.text);
    let toml = dir.path().join("data/registry.toml");
    let text = fs::read_to_string(&toml).unwrap();
    let both = "\"https://reg.lan:5000\", \"https://added.lan\"";
    fs::write(&toml, text.replace("\"https://reg.lan:5000\"", both)).unwrap();
    let report = init(dir.path(), &["--host", "reg.lan"]).await.unwrap();
    assert_eq!(report.json["steps"], serde_json::json!([]));
    assert_eq!(report.json["public_urls"][1], "https://added.lan");
}

#[tokio::test]
async fn a_dry_run_makes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let report = init(dir.path(), &["--dry-run"]).await.unwrap();
    assert!(report.text.contains("would make"));
    assert!(tree(dir.path()).is_empty());
}

#[tokio::test]
async fn other_hosts_renew_the_certificate_and_rewrite_the_urls() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path(), &[]).await.unwrap();
    let toml = dir.path().join("data/registry.toml");
    let text = fs::read_to_string(&toml).unwrap();
    fs::write(&toml, format!("# mine\n{text}")).unwrap();
    let ca = fs::read(dir.path().join("certs/ca.pem")).unwrap();
    init(dir.path(), &["--host", "reg.lan,192.168.1.5", "--port", "6000"]).await.unwrap();
    let text = fs::read_to_string(&toml).unwrap();
    assert!(text.starts_with("# mine\n"), "{text}");
    assert!(text.contains("[\"https://reg.lan:6000\", \"https://192.168.1.5:6000\"]"), "{text}");
    assert!(text.contains("[::]:6000"), "{text}");
    assert_eq!(ca, fs::read(dir.path().join("certs/ca.pem")).unwrap());
    let layout = Layout::new(
        &Line::parse_from([
            "init",
            "--data",
            "x",
            "--certs",
            dir.path().join("certs").to_str().unwrap(),
        ])
        .arguments,
    );
    let found = layout.unwrap().certificates.find(&Clock::system()).unwrap();
    let hosts: Vec<Host> = vec!["reg.lan".parse().unwrap(), "192.168.1.5".parse().unwrap()];
    assert_eq!(
        found,
        auth_server::certs::Found::Berths { hosts, is_ending: false, is_of_key: true }
    );
}

#[tokio::test]
async fn an_owners_certificate_is_used_and_left_alone() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    init(other.path(), &["--host", "own.lan"]).await.unwrap();
    let certs = dir.path().join("certs");
    fs::create_dir(&certs).unwrap();
    for name in ["server.pem", "server.key"] {
        fs::copy(other.path().join("certs").join(name), certs.join(name)).unwrap();
    }
    let before = tree(&certs);
    let report = init(dir.path(), &[]).await.unwrap();
    assert_eq!(report.json["public_urls"], serde_json::json!(["https://own.lan:5000"]));
    assert!(report.text.contains("your own") && report.json["ca"].is_null());
    init(dir.path(), &["--host", "reg.lan"]).await.unwrap();
    assert_eq!(before, tree(&certs));
}

#[tokio::test]
async fn an_htpasswd_file_is_taken_over_and_everyone_may_do_everything() {
    let dir = tempfile::tempdir().unwrap();
    let hash = format!("$2y$05${}", ".".repeat(53));
    let file = dir.path().join("old");
    fs::write(&file, format!("lena:{hash}\r\nold:$apr1$x$y")).unwrap();
    let path = file.to_str().unwrap();
    init(dir.path(), &["--no-user"]).await.unwrap();
    let report = init(dir.path(), &["--htpasswd", path]).await.unwrap();
    assert!(report.text.contains("authctl user passwd old"), "{}", report.text);
    assert_eq!(report.json["user"], "lena");
    let copied = fs::read_to_string(dir.path().join("data/htpasswd")).unwrap();
    assert_eq!(copied, format!("lena:{hash}\r\nold:$apr1$x$y\n"));
    assert!(holds(dir.path(), "everyone", "a/b").await);
    let again = init(dir.path(), &["--htpasswd", path]).await.unwrap();
    assert!(again.text.contains("not taken over"));
}

#[tokio::test]
async fn the_split_layout_keeps_the_registry_apart() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("berth");
    let line = ["init", "--split", "--no-user", "--data", root.to_str().unwrap()];
    let report =
        run(&Line::parse_from(line).arguments, Author::process(Clock::system())).await.unwrap();
    assert!(report.json["user"].is_null());
    for path in [
        "auth/auth.toml",
        "auth/htpasswd",
        "auth/auth.db",
        "auth/keys",
        "registry/registry.toml",
        "certs/server.pem",
        "certs/server.key",
        "certs/ca.pem",
        "ca/ca.key",
        "ca/ca.pem",
        "run",
    ] {
        assert!(root.join(path).exists(), "{path}");
    }
    assert!(!root.join("certs/ca.key").exists());
    let config = Config::load(&root.join("auth/auth.toml")).unwrap();
    assert_eq!(
        config.database().canonicalize().unwrap(),
        root.join("auth/auth.db").canonicalize().unwrap()
    );
    let certificates = config.certificates.unwrap();
    for path in [certificates.server_pem(), certificates.ca_key()] {
        assert!(path.exists(), "{}", path.display());
    }
    let registry = fs::read_to_string(root.join("registry/registry.toml")).unwrap();
    assert!(
        registry.contains("\"../certs/server.pem\"") && registry.contains("\"../run/auth.sock\"")
    );
}
