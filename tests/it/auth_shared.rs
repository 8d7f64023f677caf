//! Two auth servers on one database, with users and keys in it: what one does, the other knows with its next
//! request, and either may go.
//!
//! `tests/interop/replicas.sh` starts PostgreSQL, and runs this.

use std::{fs, sync::Arc};

use auth_server::{AuthServer, admin::Admin, audit::Author, config::Config, keys::How};
use berth_shared::link_secret::LinkSecrets;
use harness::{
    Client, Stack, eventually,
    image::Image,
    link, postgres,
    stack::{Options, PASSWORD},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::revocation::revoke;

const SCOPE: &str = "repository:app:pull,push";

/// Both, and a registry that asks the first.
struct World {
    stack: Stack,
    /// The other's way to the database.
    way: postgres::Proxy,
    other: Arc<AuthServer>,
    other_link: Client,
    shutdown: CancellationToken,
    running: JoinHandle<()>,
}

impl World {
    async fn start() -> Self {
        let options = Options { link: true, shared_auth: true, ..Options::default() };
        let stack = Stack::with(options).await;
        let (root, way) = (stack.root(), postgres::Proxy::start().await);
        let text = fs::read_to_string(root.join("auth.toml")).expect("auth.toml");
        let table = text.lines().find(|line| line.starts_with("url = 'postgres")).expect("a URL");
        let broken = way.way_to(&format!("[database]\n{table}\n"));
        let broken = broken.lines().find(|line| line.starts_with("url")).expect("a URL").to_owned();
        let text = text.replace(table, &broken);
        let listen = text.lines().find(|line| line.starts_with("listen = ")).expect("the link");
        let text = text.replace(listen, "listen = '127.0.0.1:0'");
        let text = format!("data = 'other'\nsocket = 'run/other.sock'\n{text}");
        fs::write(root.join("other.toml"), text).expect("other.toml");
        let config = Config::load(&root.join("other.toml")).expect("other.toml");
        let bound = auth_server::Bound::open(config, stack.clock.clone()).await.expect("the other");
        let other = Arc::clone(bound.server());
        let address = bound.link_address().expect("a link");
        let other_link = link::client(root, address, &[]);
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(bound.serve(shutdown.clone()));
        Self { stack, way, other, other_link, shutdown, running }
    }

    /// What the other answers to who asks for a token.
    async fn ask_other(&self, password: &str) -> harness::Response {
        let secrets =
            LinkSecrets::read(&self.stack.root().join("link/secret")).expect("the secret");
        let secret = secrets.shown().to_str().expect("text").to_owned();
        let target = format!("/token?service=berth&scope={SCOPE}");
        let call = self.other_link.call("GET", target).header("x-berth-link", secret);
        call.basic("andrew", password).send().await
    }

    async fn token_of_other(&self) -> String {
        let answer = self.ask_other(PASSWORD).await.expect(200);
        answer.json()["token"].as_str().expect("a token").to_owned()
    }

    async fn works(&self, token: &str) -> bool {
        self.stack.client.get(token, "/v2/app/manifests/v1").await.status == 200
    }

    async fn is_voided(&self, token: &str) {
        eventually("the token is void", async || (!self.works(token).await).then_some(())).await;
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL, which tests/interop/replicas.sh starts"]
async fn what_one_does_the_other_knows_with_its_next_request() {
    let world = World::start().await;
    let stack = &world.stack;
    stack.grant("andrew", "app:push").await;
    // Signed by the other, with the keys that both have.
    let token = world.token_of_other().await;
    Image::new("one").push(&stack.client, &token, "app", "v1").await;
    assert_eq!(world.other.key_id(), stack.auth.key_id());
    revoke(stack, "andrew", "app:push").await;
    world.is_voided(&token).await;
    stack.grant("andrew", "app:push").await;
    let (one, two) = (stack.token("andrew", &[SCOPE]).await, world.token_of_other().await);
    assert!(world.works(&one).await && world.works(&two).await);
    stack.set_password("andrew", "another horse");
    assert_eq!(world.ask_other(PASSWORD).await.status, 401);
    assert_eq!(world.ask_other("another horse").await.status, 200);
    world.is_voided(&one).await;
    world.is_voided(&two).await;
    stack.set_password("andrew", PASSWORD);
    // Keys that leaked are gone at both at once, and so is what they signed.
    let token = world.token_of_other().await;
    eventually("the new token works", async || world.works(&token).await.then_some(())).await;
    let config = Config::load(&stack.root().join("auth.toml")).expect("auth.toml");
    let admin = Admin::new(config, Author::process(stack.clock.clone()));
    let keys = admin.keys().await.expect("the keys");
    keys.rotate(How::Compromised, false).await.expect("rotating");
    world.is_voided(&token).await;
    for token in [world.token_of_other().await, stack.token("andrew", &[SCOPE]).await] {
        eventually("new keys are known", async || world.works(&token).await.then_some(())).await;
    }
    assert_eq!(world.other.key_id(), stack.auth.key_id());
    let rows = stack.auth_database().await.rows_after(0, 1000).await.expect("the audit");
    assert!(rows.iter().map(|row| row.id).eq(1..=rows.len() as i64), "no number is missing");
    let events: Vec<_> = rows.iter().map(|row| row.event.as_str()).collect();
    assert!(events.contains(&"key.compromised") && events.contains(&"user.passwd"), "{events:?}");
}

#[tokio::test]
#[ignore = "needs PostgreSQL, which tests/interop/replicas.sh starts"]
async fn either_may_go_and_who_cannot_see_the_database_gives_nobody_a_token() {
    let mut world = World::start().await;
    world.stack.grant("andrew", "app:push").await;
    world.way.cut();
    let answer = world.ask_other(PASSWORD).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    let nobody = world.ask_other("wrong").await;
    assert_eq!(nobody.status, 503, "not even a refusal");
    world.stack.token("andrew", &[SCOPE]).await;
    world.way.open();
    eventually("it is back by itself", async || {
        (world.ask_other(PASSWORD).await.status == 200).then_some(())
    })
    .await;
    world.stack.stop_auth().await;
    world.token_of_other().await;
    world.stack.start_auth().await;
    world.shutdown.cancel();
    world.running.await.expect("the other ends");
    eventually("sign-in goes on", async || {
        let call = world.stack.client.call("GET", "/token?service=berth");
        (call.basic("andrew", PASSWORD).send().await.status == 200).then_some(())
    })
    .await;
}
