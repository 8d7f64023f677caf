//! Both servers with a data directory of their own.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use auth_server::{AuthServer, database::Database, keys::SigningKeys};
use berth_shared::{
    claims::{Access, Audience, ClaimSet},
    clock::Clock,
    rights::{Effect, Rule},
    scope::Scope,
};
use registry_server::{config::Config, data::Home, registry::Registry};
use rustls::pki_types::CertificateDer;
use tempfile::TempDir;

use crate::{
    auth,
    authority::CertificateAuthority,
    client::Client,
    link, postgres,
    running::{Running, start_auth, start_registries},
    s3,
    settings::{others, over_link, write_auth_config, write_registry_configs},
};

/// The password of every user that a test makes without naming one.
pub const PASSWORD: &str = "correct horse";

/// What differs from the ordinary.
#[derive(Debug, Clone)]
pub struct Options {
    /// More lines for `auth.toml`.
    pub auth: String,
    /// More lines for the `[limits]` table of `registry.toml`.
    pub registry_limits: String,
    /// More lines for the top of `registry.toml`.
    pub registry: String,
    /// The `[database]` table of `registry.toml`, where it is to be another than that of all tests.
    pub database: Option<String>,
    /// Where objects are, where that is to be another than that of all tests; `Some(None)` is the data
    /// directory.
    pub store: Option<Option<s3::Place>>,
    /// Where other registry-servers of the same registry go for rows and objects, each by its tables; where
    /// the tests are told of some, as many more that go where the first does.
    pub replicas: Option<Vec<String>>,
    /// Whether the registry asks the auth server over the link, in place of the socket.
    pub link: bool,
    /// Whether the auth server keeps everything in PostgreSQL.
    pub shared_auth: bool,
    /// The clock of both servers.
    pub clock: Clock,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            auth: String::new(),
            registry_limits: String::new(),
            registry: String::new(),
            database: None,
            store: None,
            replicas: None,
            link: over_link(),
            shared_auth: auth::is_shared(),
            clock: Clock::set(Clock::system().now()),
        }
    }
}

/// Both servers, running.
pub struct Stack {
    directory: TempDir,
    /// The tables of the registry's settings that say where its rows and objects are, and those of others that
    /// serve the same.
    places: Vec<String>,
    /// The folder of the objects, and the bucket that it is of.
    objects: PathBuf,
    store: Option<s3::Place>,
    ca: CertificateAuthority,
    /// The clock of both servers, standing still until a test moves it.
    pub clock: Clock,
    /// The running auth server, for what cannot be seen from outside.
    pub auth: Arc<AuthServer>,
    auth_running: Running,
    registries: Vec<Running>,
    /// Trusts the server's CA and speaks HTTP/1.1, to one registry-server after the other.
    pub client: Client,
}

impl Stack {
    /// Both servers with the user `andrew`, who may do nothing yet.
    pub async fn start() -> Self {
        Self::with(Options::default()).await
    }

    /// Both servers with settings of the test's own.
    ///
    /// # Panics
    /// When they do not start.
    pub async fn with(mut options: Options) -> Self {
        crate::events::install();
        // Those say themselves where tokens come from.
        let says = ["auth_socket", "foreign_issuer"];
        options.link &= !says.iter().any(|word| options.registry.contains(word));
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path();
        fs::set_permissions(root, fs::Permissions::from_mode(0o700)).expect("permissions");
        let ca = CertificateAuthority::new();
        ca.issue(root);
        let database = match options.database.clone() {
            Some(database) => database,
            None => postgres::table().await.unwrap_or_default(),
        };
        let store = options.store.clone().unwrap_or_else(s3::place);
        if let Some(store) = &store {
            store.write_key(root);
        }
        let own = database + store.as_ref().map_or("", |store| &store.table);
        let others = match &options.replicas {
            Some(replicas) => replicas.clone(),
            None if own.contains("[database]") && store.is_some() => vec![own.clone(); others()],
            None => Vec::new(),
        };
        let mut places: Vec<String> = std::iter::once(own).chain(others).collect();
        let objects = match &store {
            Some(store) => store.folder.clone(),
            None => root.join("registry/objects"),
        };
        if options.link {
            link::make(root, &options.clock);
        }
        if options.shared_auth {
            options.auth = format!("{}\n{}", options.auth, auth::tables(root).await);
        }
        write_auth_config(root, &options);
        auth::set_password(root, "andrew", PASSWORD);
        let (auth, auth_running) = start_auth(root, options.clock.clone()).await;
        if let Some(address) = auth_running.link {
            // It is found there after a restart too.
            link::stay(root, address);
            places.iter_mut().for_each(|it| it.push_str(&link::table(address)));
        }
        write_registry_configs(root, &options, &places);
        let (client, registries) =
            start_registries(root, places.len(), &options.clock, &ca.certificate).await;
        let stack = Self {
            ca,
            clock: options.clock,
            auth,
            auth_running,
            registries,
            client,
            places,
            objects,
            store,
            directory,
        };
        stack.wait_until_ready().await;
        stack
    }

    /// Where both servers keep their files.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.directory.path()
    }

    /// Where the registry keeps what it has.
    ///
    /// # Panics
    /// When its settings cannot be read.
    #[must_use]
    pub fn home(&self) -> Home {
        let config = Config::read(&self.root().join("registry.toml"));
        Home::of(&config.expect("the settings"))
    }

    /// A client that offers these protocols in its TLS handshake.
    #[must_use]
    pub fn client_with(&self, alpn: &[&str]) -> Client {
        Client::new(self.client.address(), &self.ca.certificate, alpn)
    }

    /// Gives a user a password, as `authctl user passwd` does.
    pub fn set_password(&self, user: &str, password: &str) {
        auth::set_password(self.root(), user, password);
    }

    /// `authctl grant SUBJECT PATTERN:ACTIONS`, past the command line.
    ///
    /// # Panics
    /// When the database refuses.
    pub async fn grant(&self, subject: &str, rule: &str) {
        let rule = read_rule(subject, rule);
        self.auth_database().await.add_rules(&[rule], self.clock.now()).await.expect("granting");
    }

    /// A second handle to the auth server's database, as `authctl` opens one.
    ///
    /// # Panics
    /// When it cannot be opened.
    pub async fn auth_database(&self) -> Database {
        auth::database(self.root()).await
    }

    /// A token for the user with the ordinary password, as a client gets one.
    pub async fn token(&self, user: &str, scopes: &[&str]) -> String {
        let mut target = "/token?service=berth".to_owned();
        for scope in scopes {
            target.push_str("&scope=");
            target.push_str(scope);
        }
        let call = self.client.call("GET", target);
        let call = if user.is_empty() { call } else { call.basic(user, PASSWORD) };
        let answer = call.send().await.expect(200);
        answer.json()["token"].as_str().expect("a token").to_owned()
    }

    /// A token with all rights on the repository, for a user who is granted them first.
    pub async fn full_token(&self, repository: &str) -> String {
        self.grant("andrew", &format!("{repository}:*")).await;
        self.token("andrew", &[&format!("repository:{repository}:*")]).await
    }

    /// The claims of a token that would be good right now.
    #[must_use]
    pub fn good_claims(&self, user: &str, scopes: &[&str]) -> ClaimSet {
        let now = self.clock.now();
        let scopes = Scope::parse_all(scopes.iter().copied());
        ClaimSet {
            iss: "berth".into(),
            sub: user.into(),
            aud: Audience::One("berth".into()),
            exp: now + 900,
            nbf: now - 10,
            iat: now,
            jti: "test".into(),
            access: scopes.iter().map(Access::from).collect(),
            counter: u64::MAX >> 1,
            secret_expires: None,
        }
    }

    /// A token that the registry takes, with no look at what the user has been granted. `""` is
    /// nobody.
    #[must_use]
    pub fn forged_token(&self, user: &str, scopes: &[&str]) -> String {
        self.sign(&self.good_claims(user, scopes))
    }

    /// Where the objects are, if they are in a bucket.
    #[must_use]
    pub fn place(&self) -> Option<s3::Place> {
        self.store.clone()
    }

    /// Names a bucket in `registry.toml`, where the objects are to be from the next start on.
    pub fn keep_objects_at(&mut self, place: s3::Place) {
        place.write_key(self.root());
        self.places.iter_mut().for_each(|it| it.push_str(&place.table));
        self.objects.clone_from(&place.folder);
        self.store = Some(place);
        self.configure_registry("");
    }

    /// Writes `registry.toml` anew; a restart takes it into use.
    pub fn configure_registry(&self, limits: &str) {
        let options = Options { registry_limits: limits.to_owned(), ..Options::default() };
        write_registry_configs(self.root(), &options, &self.places);
    }

    /// The files that hold blobs and half-received uploads.
    ///
    /// # Panics
    /// When the store cannot be listed.
    #[must_use]
    pub fn objects(&self) -> Vec<PathBuf> {
        let list = |folder: &Path| -> Vec<PathBuf> {
            let entries = fs::read_dir(folder).expect("a folder of the store");
            entries.map(|entry| entry.expect("an entry").path()).collect()
        };
        let (folders, mut files): (Vec<_>, Vec<_>) =
            list(&self.objects).into_iter().partition(|it| it.is_dir());
        // A server removes a folder with the last that lies in it.
        files.extend(folders.iter().filter(|it| it.exists()).flat_map(|folder| list(folder)));
        files.retain(|file| !file.ends_with("registry.json"));
        files
    }

    /// Signs claims with the auth server's own key.
    ///
    /// # Panics
    /// When the key cannot be read.
    #[must_use]
    pub fn sign(&self, claims: &ClaimSet) -> String {
        self.signing_keys().sign(claims).expect("signing")
    }

    /// The auth server's signing keys.
    ///
    /// # Panics
    /// When they cannot be read.
    #[must_use]
    pub fn signing_keys(&self) -> SigningKeys {
        auth::signing_keys(self.root(), &self.clock)
    }

    /// Stops the auth server; the registry goes on.
    pub async fn stop_auth(&mut self) {
        self.auth_running.stop().await;
    }

    /// Starts the auth server again on the same data.
    pub async fn start_auth(&mut self) {
        let (auth, running) = start_auth(self.directory.path(), self.clock.clone()).await;
        self.auth = auth;
        self.auth_running = running;
    }

    /// Stops the registry; clients are turned away.
    pub async fn stop_registry(&mut self) {
        for registry in &mut self.registries {
            registry.stop().await;
        }
    }

    /// A client of one of the registry-servers.
    ///
    /// # Panics
    /// When there are not so many.
    #[must_use]
    pub fn client_of(&self, replica: usize) -> Client {
        self.client.of(vec![self.registries[replica].address.expect("a TCP address")])
    }

    /// The registry that one of the registry-servers serves, for what cannot be asked from outside.
    ///
    /// # Panics
    /// When there are not so many.
    #[must_use]
    pub fn registry_of(&self, replica: usize) -> Registry {
        self.registries[replica].registry.clone().expect("a registry")
    }

    /// Starts the registry again on the same data, on another port.
    pub async fn start_registry(&mut self) {
        self.start_registry_unready().await;
        self.wait_until_ready().await;
    }

    /// Starts the registry again without waiting until it is ready.
    pub async fn start_registry_unready(&mut self) {
        let root = self.directory.path();
        let number = self.places.len();
        let started = start_registries(root, number, &self.clock, &self.ca.certificate).await;
        (self.client, self.registries) = started;
    }

    /// Replaces the server's certificate by a new one of the same CA, and gives the new one.
    pub fn renew_certificate(&self) -> CertificateDer<'static> {
        self.ca.issue(self.root())
    }

    /// Makes a certificate and key in another folder, where no server looks.
    pub fn issue_certificate(&self, folder: &Path) -> CertificateDer<'static> {
        self.ca.issue(folder)
    }

    /// The address of the registry's metrics.
    ///
    /// # Panics
    /// When its settings ask for none.
    #[must_use]
    pub fn metrics_address(&self) -> SocketAddr {
        self.registries[0].metrics.expect("a listener for metrics")
    }

    /// The address of the auth server's metrics.
    ///
    /// # Panics
    /// When its settings ask for none.
    #[must_use]
    pub fn auth_metrics_address(&self) -> SocketAddr {
        self.auth_running.metrics.expect("a listener for metrics")
    }

    /// The address of the auth server's link.
    ///
    /// # Panics
    /// When its settings ask for none.
    #[must_use]
    pub fn link_address(&self) -> SocketAddr {
        self.auth_running.link.expect("a link")
    }

    /// A client of the auth server's own public listener.
    ///
    /// # Panics
    /// When its settings ask for none.
    #[must_use]
    pub fn auth_public_client(&self) -> Client {
        self.auth_public_client_with(&[])
    }

    /// The same, offering these protocols in its TLS handshake.
    ///
    /// # Panics
    /// When its settings ask for none.
    #[must_use]
    pub fn auth_public_client_with(&self, alpn: &[&str]) -> Client {
        let address = self.auth_running.public.expect("a public listener");
        Client::new(address, &self.ca.certificate, alpn)
    }

    /// Waits until the registry says that it is ready.
    pub async fn wait_until_ready(&self) {
        for replica in 0..self.registries.len() {
            let client = self.client_of(replica);
            crate::eventually("the registry is ready", async || {
                let answer = client.call("GET", "/readyz").send().await;
                answer.status.is_success().then_some(())
            })
            .await;
        }
    }
}

/// Reads `PATTERN:ACTIONS`.
///
/// # Panics
/// When it cannot be read.
#[must_use]
pub fn read_rule(subject: &str, rule: &str) -> Rule {
    let (pattern, actions) = rule.rsplit_once(':').expect("PATTERN:ACTIONS");
    Rule {
        grantee: subject.parse().expect("a subject"),
        pattern: pattern.parse().expect("a pattern"),
        effect: Effect::Allow,
        actions: actions.parse().expect("actions"),
        expires: None,
    }
}
