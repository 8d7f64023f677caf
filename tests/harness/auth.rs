//! What a test does to the auth server's users, rights and keys past the command line, wherever these are.

use std::{path::Path, thread};

use auth_server::{
    admin::Admin,
    audit::{Act, Author},
    config::Config,
    database::Database,
    keys::SigningKeys,
    users::edit::Editor,
};
use berth_shared::clock::Clock;

use crate::postgres;

/// Has the auth servers of tests keep everything in PostgreSQL, where that is set.
const SHARED: &str = "BERTH_TEST_AUTH_POSTGRES";

/// bcrypt at the lowest cost: tests check passwords often.
const BCRYPT_COST: u32 = 4;

/// What seals the keys of every test.
const SEALING_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8\n";

/// Whether all tests that do not say have it in PostgreSQL.
#[expect(clippy::disallowed_methods, reason = "a test has no other settings")]
pub(crate) fn is_shared() -> bool {
    std::env::var(SHARED).is_ok()
}

/// The tables of `auth.toml` that lead to a place of its own in PostgreSQL, with what seals keys in `root`.
///
/// # Panics
/// When the tests are told of no server.
pub(crate) async fn tables(root: &Path) -> String {
    std::fs::write(root.join("sealing.key"), SEALING_KEY).expect("what seals keys");
    format!("{}[keys]\nsealed_with = 'sealing.key'\n", postgres::fresh_table().await)
}

pub(crate) fn config(root: &Path) -> Config {
    Config::load(&root.join("auth.toml")).expect("auth.toml")
}

/// A handle to the database of the auth server in `root`, as `authctl` opens one.
pub(crate) async fn database(root: &Path) -> Database {
    match &config(root).server {
        Some(server) => Database::connect(server).await.expect("the auth database"),
        None => Database::open(&root.join("auth/auth.db")).await.expect("the auth database"),
    }
}

/// Gives a user a password.
pub(crate) fn set_password(root: &Path, user: &str, password: &str) {
    let hash = bcrypt::hash(password, BCRYPT_COST).expect("a hash");
    let user = user.parse().expect("a user name");
    if config(root).server.is_none() {
        let mut editor = Editor::open(&root.join("htpasswd")).expect("the htpasswd file");
        editor.set(&user, &hash);
        return editor.save().expect("saving the htpasswd file");
    }
    aside(async {
        let database = database(root).await;
        let policy = database.policy().await.expect("the policy");
        let is_there = policy.users.as_ref().is_some_and(|users| users.contains_key(&user));
        let act = if is_there { Act::UserPassword(&user) } else { Act::UserAdd(&user) };
        assert!(database.put_user(&user, &hash, is_there, &act).await.expect("a password"));
    });
}

/// The signing keys.
pub(crate) fn signing_keys(root: &Path, clock: &Clock) -> SigningKeys {
    let admin = Admin::new(config(root), Author::process(clock.clone()));
    aside(async { admin.keys().await.expect("the keys").open().await.expect("the keys") })
}

/// Does it in a thread of its own, for who cannot wait in theirs.
fn aside<T: Send>(work: impl Future<Output = T> + Send) -> T {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(work)
    };
    thread::scope(|scope| scope.spawn(run).join().expect("a thread"))
}
