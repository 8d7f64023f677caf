//! Somebody who administers users and grants with `authctl` while `auth-server` is killed.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use fastrand::Rng;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    authctl::Authctl,
    known::Known,
    tally::{Fact, Tally, Violation},
    wire::{Wire, expect},
};

/// How many users there are at most: each is looked at after each restart.
const PEOPLE_MAX: usize = 4;

/// How many repositories each user may be granted.
const REPOSITORIES: u32 = 4;

/// A user, as far as `authctl` said.
struct Person {
    name: String,
    /// `None` while there is no such user.
    password: Known<Option<String>>,
    /// A password that was replaced, or whose user was removed.
    former: Option<String>,
    /// By repository, whether it may be pulled.
    grants: BTreeMap<String, Known<bool>>,
}

/// The administrator and their memory.
pub(crate) struct Administrator {
    pub(crate) wire: Wire,
    pub(crate) authctl: Authctl,
    pub(crate) random: Rng,
    people: Vec<Person>,
    tally: Tally,
    looked: mpsc::Sender<u32>,
}

impl Administrator {
    /// One who has done nothing yet.
    pub(crate) fn new(
        wire: Wire,
        authctl: Authctl,
        random: Rng,
        looked: mpsc::Sender<u32>,
    ) -> Self {
        Self { wire, authctl, random, people: Vec::new(), tally: Tally::default(), looked }
    }

    /// Works until told to stop. Gives what was counted.
    ///
    /// # Errors
    /// What must not happen.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<Tally, Violation> {
        while !stop.is_cancelled() {
            if self.wire.is_news() {
                self.look().await?;
            }
            if !self.act().await? {
                self.wire.news().await?;
            }
        }
        self.check().await?;
        Ok(self.tally)
    }

    async fn look(&mut self) -> Result<(), Violation> {
        self.check().await?;
        let generation = self.wire.looked();
        let _ = self.looked.send(generation).await;
        Ok(())
    }

    /// One change. `false` when it was killed.
    async fn act(&mut self) -> Result<bool, Violation> {
        // Those who were removed stay in mind until somebody has tried their password.
        let is_user = |at: &usize| matches!(self.people[*at].password.certain(), Some(Some(_)));
        let users: Vec<usize> = (0..self.people.len()).filter(is_user).collect();
        if users.len() < PEOPLE_MAX {
            return self.add().await;
        }
        let at = users[self.random.usize(..users.len())];
        match self.random.u32(0..8) {
            0 => self.remove(at).await,
            1 => self.change_password(at).await,
            _ => self.change_grant(at).await,
        }
    }

    async fn add(&mut self) -> Result<bool, Violation> {
        let name = format!("user{:08x}", self.random.u32(..));
        let (password, granted) = (self.password(), repository(&name, 0));
        let grant = format!("{granted}:pull");
        let words = ["user", "add", &name, "--password-stdin", "--grant", &grant];
        let done = self.administer(&words, &password).await?;
        let mut person = Person {
            password: Known::is(None),
            former: None,
            grants: (0..REPOSITORIES)
                .map(|number| (repository(&name, number), Known::is(false)))
                .collect(),
            name,
        };
        person.password.change(Some(password), done);
        if let Some(grant) = person.grants.get_mut(&granted) {
            grant.change(true, done);
        }
        self.people.push(person);
        Ok(done)
    }

    async fn remove(&mut self, at: usize) -> Result<bool, Violation> {
        let name = self.people[at].name.clone();
        let done = self.administer(&["user", "remove", &name], "").await?;
        let person = &mut self.people[at];
        if done {
            person.former = person.password.certain().cloned().flatten();
        }
        person.password.change(None, done);
        for grant in person.grants.values_mut() {
            grant.change(false, done);
        }
        Ok(done)
    }

    async fn change_password(&mut self, at: usize) -> Result<bool, Violation> {
        let (name, password) = (self.people[at].name.clone(), self.password());
        let done =
            self.administer(&["user", "passwd", &name, "--password-stdin"], &password).await?;
        let person = &mut self.people[at];
        if done {
            person.former = person.password.certain().cloned().flatten();
        }
        person.password.change(Some(password), done);
        Ok(done)
    }

    async fn change_grant(&mut self, at: usize) -> Result<bool, Violation> {
        let name = self.people[at].name.clone();
        let repository = repository(&name, self.random.u32(0..REPOSITORIES));
        let Some(holds) = self.people[at].grants.get(&repository).and_then(Known::certain).copied()
        else {
            return Ok(true);
        };
        let verb = if holds { "revoke" } else { "grant" };
        let done = self.administer(&[verb, &name, &format!("{repository}:pull")], "").await?;
        if let Some(grant) = self.people[at].grants.get_mut(&repository) {
            grant.change(!holds, done);
        }
        Ok(done)
    }

    /// Runs `authctl`, unless `auth-server` is killed meanwhile: then it is killed too.
    async fn administer(&mut self, words: &[&str], input: &str) -> Result<bool, Violation> {
        let running = self.authctl.spawn(words, input).await?;
        let Some(status) = running.end(self.wire.auth_killed()).await? else {
            self.tally.count(Fact::AdministrationKilled);
            return Ok(false);
        };
        if !status.success() {
            return Err(Violation::new(format!("authctl {words:?}: {status}")));
        }
        self.tally.count(Fact::Administered);
        Ok(true)
    }

    /// Everybody signs in with the password and gets the rights that were acknowledged.
    async fn check(&mut self) -> Result<(), Violation> {
        for mut person in std::mem::take(&mut self.people) {
            let scopes: Vec<_> =
                person.grants.keys().map(|name| format!("repository:{name}:pull")).collect();
            let mut seen = None;
            let mut token = String::new();
            for password in person.password.candidates().iter().flatten() {
                let answer = self.wire.sign_in(&person.name, password, &scopes).await?;
                if answer.status != 401 {
                    expect(&answer, 200, "a user's token")?;
                    answer.json()["token"].as_str().unwrap_or_default().clone_into(&mut token);
                    seen = Some(password.clone());
                }
            }
            if let Some(former) =
                person.former.take().filter(|former| seen.as_ref() != Some(former))
            {
                let answer = self.wire.sign_in(&person.name, &former, &scopes).await?;
                expect(&answer, 401, "a token for a password that is not good any more")?;
            }
            let is_there = seen.is_some();
            person.password.settle(seen).map_err(|words| {
                Violation::new(format!("the password of {}: {words}", person.name))
            })?;
            if is_there {
                let rights = rights_in(&token);
                for (repository, grant) in &mut person.grants {
                    grant.settle(rights.contains(repository)).map_err(|words| {
                        Violation::new(format!(
                            "the grant {} {repository}:pull: {words}",
                            person.name
                        ))
                    })?;
                }
                self.tally.count(Fact::SignedIn);
                self.people.push(person);
            }
        }
        Ok(())
    }

    fn password(&mut self) -> String {
        format!("{:016x}", self.random.u64(..))
    }
}

fn repository(name: &str, number: u32) -> String {
    format!("people/{name}/{number}")
}

/// The repositories that a token gives rights on.
fn rights_in(token: &str) -> Vec<String> {
    let claims = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    let claims: Value =
        claims.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    let access = claims["access"].as_array().cloned().unwrap_or_default();
    let name = |entry: &Value| {
        let may_pull = entry["actions"].as_array().is_some_and(|them| !them.is_empty());
        entry["name"].as_str().filter(|_| may_pull).map(str::to_owned)
    };
    access.iter().filter_map(name).collect()
}
