//! Settings: a mistake stops the server before it starts, and is named by its key.

use std::{fs, path::Path};

use berth_shared::telemetry::chain;
use registry_server::config::Config;

pub(crate) const REGISTRY: &str = "listen = '127.0.0.1:0'\npublic_urls = ['https://reg.test']\n";

pub(crate) fn registry(text: &str) -> Result<Config, String> {
    registry_in(tempfile::tempdir().expect("a folder").path(), text)
}

fn registry_in(folder: &Path, text: &str) -> Result<Config, String> {
    let path = folder.join("registry.toml");
    fs::write(&path, text).expect("writing");
    Config::read(&path).map_err(|error| chain(&error))
}

pub(crate) fn auth(text: &str) -> Result<(), String> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("auth.toml");
    fs::write(&path, text).expect("writing");
    auth_server::config::Config::load(&path).map(drop).map_err(|error| chain(&error))
}

#[test]
fn the_registry_refuses_what_it_does_not_know_or_cannot_mean_by_name() {
    registry(REGISTRY).expect("a good file");
    for (more, key) in [
        ("publicurls = []", "publicurls"),
        ("[limits]\nmanifest_max = 1", "manifest_max"),
        ("[limits]\nuploads_max = 0", "limits.uploads_max"),
        ("[limits]\nconnections_max = 0", "limits.connections_max"),
        ("[limits]\nconnections_per_network_max = 0", "limits.connections_per_network_max"),
        ("[limits]\nconnection_idle_secs_max = 0", "limits.connection_idle_secs_max"),
        ("[limits]\ntransfer_bytes_per_sec_min = 0", "limits.transfer_bytes_per_sec_min"),
        ("[limits]\nbody_idle_secs_max = 0", "limits.body_idle_secs_max"),
        ("[limits]\nmanifest_bytes_max = 'x'", "manifest_bytes_max"),
        ("[tls]\ncert = 'a'", "cert"),
        ("[tls]\ncertificate = 'a'", "key"),
        ("[metrics]\nlisten = '0.0.0.0:9102'", "metrics.listen"),
        ("[collection]\ngrace = 1", "grace"),
        ("[collection]\nuntagged_secs = 0", "collection.untagged_secs: must be at least 1"),
        ("[verification]\nbytes_per_sec_max = 0", "verification.bytes_per_sec_max"),
        ("service = ''", "service"),
        ("trusted_proxies = ['0.0.0.0/0']", "trusted_proxies"),
        ("trusted_proxies = ['::/0']", "trusted_proxies"),
        ("trusted_proxies = ['proxy.lan']", "trusted_proxies: \"proxy.lan\""),
        ("trusted_proxies = ['192.0.2.1/33']", "trusted_proxies"),
        ("log_format = 'xml'", "log_format"),
    ] {
        let error = registry(&format!("{REGISTRY}{more}\n")).expect_err(more);
        assert!(error.contains(key), "{key} is not named in: {error}");
    }
}

#[test]
fn a_proxy_is_named_by_its_address_or_its_network() {
    let line = "trusted_proxies = ['192.0.2.7', '2001:db8::7', '10.0.0.0/8']\n";
    let config = registry(&format!("{REGISTRY}{line}")).expect(line);
    let trusted: Vec<_> =
        config.connections.trusted_proxies.iter().map(ToString::to_string).collect();
    assert_eq!(trusted, ["192.0.2.7/32", "2001:db8::7/128", "10.0.0.0/8"]);
}

#[test]
fn what_takes_effect_at_the_next_start_is_named_by_its_key_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let read = |more: &str| registry_in(folder.path(), &format!("{REGISTRY}{more}\n"));
    let before = read("").expect("a good file");
    for (more, named) in [
        ("[limits]\nuploads_max = 1", Some("limits.uploads_max")),
        ("[limits]\nconnections_max = 1", Some("limits.connections_max")),
        ("[limits]\nconnections_per_network_max = 1", Some("limits.connections_per_network_max")),
        ("[limits]\nconnection_idle_secs_max = 1", Some("limits.connection_idle_secs_max")),
        ("[limits]\ntransfer_bytes_per_sec_min = 1", Some("limits.transfer_bytes_per_sec_min")),
        ("[limits]\nbody_idle_secs_max = 1", Some("limits.body_idle_secs_max")),
        ("log_format = 'json'", Some("log_format")),
        ("service = 'another'", Some("service")),
        ("trusted_proxies = ['192.0.2.7']", Some("trusted_proxies")),
        ("log = 'debug'", None),
        ("read_only = true", None),
        ("[limits]\nmanifest_bytes_max = 1", None),
        ("[collection]\ngrace_secs = 1", None),
    ] {
        let differences = before.fixed_differences(&read(more).expect(more));
        assert_eq!(differences, Vec::from_iter(named), "{more}");
    }
}

#[test]
fn a_realm_that_passwords_would_go_to_in_the_clear_is_refused() {
    for (listen, url, key) in [
        ("127.0.0.1:0", "http://reg.test", Some("public_urls")),
        ("127.0.0.1:0", "http://192.0.2.1:5000", Some("public_urls")),
        ("127.0.0.1:0", "http://localhost.evil.test", Some("public_urls")),
        ("0.0.0.0:0", "https://reg.test", Some("tls")),
        ("[::]:0", "https://reg.test", Some("tls")),
        ("127.0.0.1:0", "reg.test", Some("public_urls")),
        ("127.0.0.1:0", "https://reg.test/v2", Some("public_urls")),
        ("127.0.0.1:0", "https://u:p@reg.test", Some("public_urls")),
        ("127.0.0.1:0", "ftp://reg.test", Some("public_urls")),
        ("127.0.0.1:0", "http://localhost:5000", None),
        ("127.0.0.1:0", "http://127.0.0.1:5000", None),
        ("[::1]:0", "http://[::1]:5000", None),
    ] {
        let read = registry(&format!("listen = '{listen}'\npublic_urls = ['{url}']\n"));
        match (read, key) {
            (Ok(_), None) => {}
            (Err(error), Some(key)) => assert!(error.contains(key), "{key} is not in: {error}"),
            (read, _) => panic!("{listen} {url}: {read:?}"),
        }
        let allowed = format!("listen = '{listen}'\npublic_urls = ['http://reg.test']\n");
        registry(&format!("{allowed}insecure_http = true\n")).expect("said so");
    }
}

#[test]
fn auth_server_refuses_what_it_does_not_know_or_cannot_mean_by_name() {
    auth("").expect("an empty file");
    for (text, key) in [
        ("isuer = 'x'", "isuer"),
        ("issuer = ''", "issuer"),
        ("services = []", "services"),
        ("services = ['']", "services"),
        ("token_life_secs = 59", "token_life_secs"),
        ("token_life_secs = 86401", "token_life_secs"),
        ("key_algorithm = 'HS256'", "key_algorithm"),
        ("key_algorithm = 'none'", "key_algorithm"),
        ("[limits]\nqueue = 1", "queue"),
        ("[public]\nlisten = '127.0.0.1:0'", "certificate"),
        ("[public]\nlisten = '127.0.0.1:0'\ncertificate = 'a'\nkey = 'b'\nrealm = 'x'", "realm"),
    ] {
        let error = auth(text).expect_err(text);
        assert!(error.contains(key), "{key} is not named in: {error}");
    }
}

#[test]
fn a_file_that_is_missing_or_no_toml_is_named() {
    let missing = Path::new("/nowhere/registry.toml");
    let error = Config::read(missing).expect_err("missing");
    assert!(chain(&error).contains("/nowhere/registry.toml"));
    let error = auth_server::config::Config::load(missing).expect_err("missing");
    assert!(chain(&error).contains("/nowhere/registry.toml"));
    assert!(registry("listen = ").expect_err("no TOML").contains("registry.toml"));
    assert!(auth("issuer = ").expect_err("no TOML").contains("auth.toml"));
}

/// The example as it stands, and with every key that is commented out put in force.
fn example(name: &str) -> [String; 2] {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/config").join(name);
    let text = fs::read_to_string(path).expect("the example");
    let lines = text.lines().map(|line| line.strip_prefix("#: ").unwrap_or(line));
    let all = lines.collect::<Vec<_>>().join("\n");
    [text, all]
}

#[test]
fn the_example_files_parse() {
    for text in example("registry.example.toml") {
        registry(&text).expect("registry.example.toml");
    }
    for text in example("auth.example.toml") {
        auth(&text).expect("auth.example.toml");
    }
}
