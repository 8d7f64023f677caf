//! The certificate that Berth made is renewed by the running server and served by the registry;
//! any other is left alone, and all of them are counted down.

use std::{fs, time::Duration};

use auth_server::certs::{CertificateFiles, Found};
use berth_shared::clock::Clock;
use harness::{Client, Stack, client::HOST, events::Recording, eventually, stack::Options};
use rustls::pki_types::{CertificateDer, pem::PemObject};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long before now the certificate of a test is made: 44 of its 397 days are left.
const AGE: u32 = 353;

const SETTINGS: &str = "[certificates]\ndirectory = '.'\nca = 'ca'\n";

async fn served(client: &Client) -> Option<CertificateDer<'static>> {
    let stream = client.try_connect().await.ok()?;
    Some(stream.get_ref().1.peer_certificates()?.first()?.clone().into_owned())
}

#[tokio::test]
async fn the_running_servers_renew_berths_certificate_by_themselves() {
    let made = Clock::system().now() - i64::from(AGE) * 24 * 60 * 60;
    let options =
        Options { auth: SETTINGS.to_owned(), clock: Clock::set(made), ..Options::default() };
    let stack = Stack::with(options).await;
    let files = CertificateFiles { certs: stack.root().to_owned(), ca: stack.root().join("ca") };
    for file in [files.server_pem(), files.server_key()] {
        fs::remove_file(file).expect("removing");
    }
    let hosts = vec![HOST.parse().expect("a host")];
    files.issue(&hosts, &stack.clock).expect("a certificate");
    let key = fs::read(files.server_key()).expect("the key");
    let ca = CertificateDer::from_pem_file(files.ca_pem()).expect("the CA");
    let client = Client::new(stack.client.address(), &ca, &[]);
    let old = eventually("Berth's certificate is served", || served(&client)).await;

    stack.clock.advance(AGE * DAY);
    let new = eventually("the renewed certificate is served", async || {
        served(&client).await.filter(|served| *served != old)
    })
    .await;
    let found = files.find(&stack.clock).expect("a certificate");
    assert_eq!(found, Found::Berths { hosts, is_ending: false, is_of_key: true });
    assert_eq!(CertificateDer::from_pem_file(files.server_pem()).expect("a certificate"), new);
    assert_eq!(fs::read(files.server_key()).expect("the key"), key);
    assert_eq!(CertificateDer::from_pem_file(files.ca_pem()).expect("the CA"), ca);
}

/// A wrong path, or a CA key that was taken away, is told at the start and not when the
/// certificate ends.
#[tokio::test]
async fn what_is_not_looked_after_is_told_at_the_start() {
    for (settings, told) in [
        ("[certificates]\ndirectory = 'no-such-place'\n", "there is no certificate"),
        (SETTINGS, "is not renewed here"),
    ] {
        let recording = Recording::start();
        let options = Options { auth: settings.to_owned(), ..Options::default() };
        let stack = Stack::with(options).await;
        let place = stack.root().display().to_string();
        eventually(told, async || {
            let events = recording.take();
            events
                .iter()
                .any(|event| event.text.contains(told) && event.text.contains(&place))
                .then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn an_owners_certificate_is_left_alone_however_old_it_is() {
    let metrics = "metrics = { listen = \"127.0.0.1:0\" }\n";
    let auth = format!("{metrics}{SETTINGS}");
    let options = Options { auth, registry: metrics.to_owned(), ..Options::default() };
    let stack = Stack::with(options).await;
    let path = stack.root().join("server.pem");
    let own = fs::read(&path).expect("the certificate");
    stack.clock.advance(3_000 * 365 * DAY);
    // Both servers have looked once they have counted down.
    for address in [stack.metrics_address(), stack.auth_metrics_address()] {
        eventually("the certificate is counted down", async || {
            let text = crate::metrics::read(address).await;
            let line = "berth_certificate_remaining_seconds{certificate=\"server\"} ";
            text.lines().any(|it| it.starts_with(line)).then_some(())
        })
        .await;
    }
    assert_eq!(fs::read(&path).expect("the certificate"), own);
}
