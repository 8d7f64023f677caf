//! The program as a kubelet runs it: a request on standard input, an answer or a refusal.

use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};

const HOST: &str = "reg.homelab.lan:5000";
const TOKEN: &str = "header.claims.signature";

fn run(arguments: &[&str], asked: &[u8]) -> Output {
    let mut provider = Command::new(env!("CARGO_BIN_EXE_berth-credential-provider"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program");
    // It may refuse before it has read all.
    let _ = provider.stdin.take().expect("a pipe").write_all(asked);
    provider.wait_with_output().expect("its end")
}

/// A kubelet's request, changed.
fn request(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut request = json!({
        "kind": "CredentialProviderRequest",
        "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
        "image": format!("{HOST}/team/app"),
        "serviceAccountToken": TOKEN,
        "serviceAccountAnnotations": { "berth/trust": "builder", "other/one": "x" },
    });
    change(&mut request);
    request.to_string().into_bytes()
}

#[test]
fn the_token_is_the_password_of_the_accounts_trust() {
    let hosts = ["--host", "other.lan", "--host", HOST];
    let with = |more: &[&'static str]| [&hosts[..], more].concat();
    let unnamed = |request: &mut Value| request["serviceAccountAnnotations"] = json!({});
    let elsewhere = |request: &mut Value| {
        request["serviceAccountAnnotations"] = json!({ "team/name": "robot.ci" });
    };
    for (arguments, asked, user) in [
        (with(&[]), request(|_| {}), "robot.builder"),
        (with(&["--trust", "common"]), request(|_| {}), "robot.builder"),
        (with(&["--trust", "common"]), request(unnamed), "robot.common"),
        (with(&["--annotation", "team/name"]), request(elsewhere), "robot.ci"),
    ] {
        let output = run(&arguments, &asked);
        assert!(output.status.success(), "{output:?}");
        let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let expected = json!({
            "kind": "CredentialProviderResponse",
            "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
            "cacheKeyType": "Registry",
            "cacheDuration": "0s",
            "auth": { HOST: { "username": user, "password": TOKEN } },
        });
        assert_eq!(answer, expected);
    }
}

#[test]
fn whatever_else_is_asked_is_refused_with_what_to_do_and_without_the_token() {
    let garbage = vec![0xff; 64];
    let long = [b"{\"kind\": \"".to_vec(), vec![b'x'; 2 * 1024 * 1024]].concat();
    let on = |image: &str| request(|request| request["image"] = json!(image));
    let with = |key: &str, value: Value| request(|request| request[key] = value);
    for (asked, said) in [
        (Vec::new(), "has no CredentialProviderRequest"),
        (garbage, "has no CredentialProviderRequest"),
        (b"[]".to_vec(), "has no CredentialProviderRequest"),
        (json!(TOKEN).to_string().into(), "has no CredentialProviderRequest"),
        (with("serviceAccountAnnotations", json!(TOKEN)), "has no CredentialProviderRequest"),
        (long, "more than 1 MiB"),
        (with("apiVersion", json!("credentialprovider.kubelet.k8s.io/v2")), "set apiVersion to"),
        (with("apiVersion", json!("x".repeat(500_000))), "set apiVersion to"),
        (with("kind", json!("Pod")), "set apiVersion to"),
        (on(&"x".repeat(500_000)), "--host"),
        (on("docker.io/library/nginx"), "--host"),
        (on("nginx"), "--host"),
        (on(""), "--host"),
        (on("reg.homelab.lan/team/app"), "--host"),
        (on("reg.homelab.lan:5000.evil.org/team/app"), "--host"),
        (on("evil.org/reg.homelab.lan:5000/team/app"), "--host"),
        (with("serviceAccountToken", json!("")), "tokenAttributes"),
        (
            request(|it| drop(it.as_object_mut().unwrap().remove("serviceAccountToken"))),
            "tokenAttributes",
        ),
        (with("serviceAccountAnnotations", json!({})), "kubectl annotate serviceaccount"),
        (with("serviceAccountAnnotations", json!({ "berth/trust": "" })), "kubectl annotate"),
        (with("serviceAccountAnnotations", json!({ "berth/trust": "a b" })), "cannot be the name"),
    ] {
        let output = run(&["--host", HOST], &asked);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.len() < 1000, "{said}: {} bytes", told.len());
        assert_eq!(output.status.code(), Some(1), "{said}: {told}");
        assert!(told.contains(said), "{said}: {told}");
        assert!(!told.contains(TOKEN) && output.stdout.is_empty(), "{told}");
    }
}

#[test]
fn it_says_what_it_is_for_and_needs_a_host() {
    let help = run(&["--help"], b"");
    let text = String::from_utf8_lossy(&help.stdout);
    assert!(help.status.success() && text.contains("matchImages") && text.contains("--host"));
    for wrong in
        [&[][..], &["--host", "https://reg.homelab.lan"], &["--host", "*.lan"], &["--host", ""]]
    {
        assert_eq!(run(wrong, b"").status.code(), Some(2), "{wrong:?}");
    }
}
