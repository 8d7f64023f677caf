//! The way to the registry, which breaks when somebody kills it, and only then.

use harness::{Client, Response, client::Call, stack::PASSWORD};
use tokio::sync::watch;

use crate::{site::State, tally::Violation};

/// What a client reaches the registry by.
pub(crate) struct Wire {
    state: watch::Receiver<State>,
    /// The generation that its owner has looked at.
    seen: u32,
    /// The token that requests carry.
    pub(crate) token: String,
}

impl Wire {
    /// A way to the servers, which nobody has looked at yet.
    pub(crate) fn new(state: watch::Receiver<State>) -> Self {
        Self { state, seen: 0, token: String::new() }
    }

    /// Begins a request with the token.
    pub(crate) fn call(&self, method: &str, target: impl Into<String>) -> Call {
        self.client().call(method, target).bearer(&self.token)
    }

    /// Sends a request. `None` when the exchange broke off because the registry was killed, or its client was
    /// told to come again because what that stands on was gone.
    ///
    /// # Errors
    /// When it broke off and nobody had killed the registry.
    pub(crate) async fn send(&self, call: Call) -> Result<Option<Response>, Violation> {
        let (starts, was_up) = {
            let state = self.state.borrow();
            (state.registry_starts, state.registry_is_up)
        };
        let answer = call.attempt().await;
        let is_up = || was_up && self.state.borrow().registry_is_up;
        let answer = answer.filter(|answer| answer.status != 503 || is_up());
        if answer.is_none() && was_up {
            let now = self.state.borrow();
            if now.registry_is_up && now.registry_starts == starts {
                return Err(Violation::new("an exchange broke off with no server killed"));
            }
        }
        Ok(answer)
    }

    /// Sends a request while all servers are up.
    ///
    /// # Errors
    /// When it breaks off.
    pub(crate) async fn ask(&self, call: Call) -> Result<Response, Violation> {
        let answer = call.attempt().await;
        answer.ok_or_else(|| Violation::new("an exchange broke off while the servers were up"))
    }

    /// Whether `auth-server` is down and the registry is not.
    pub(crate) fn is_registry_alone(&self) -> bool {
        let state = self.state.borrow();
        state.registry_is_up && !state.auth_is_up
    }

    /// Whether servers were restarted since the last look.
    pub(crate) fn is_news(&self) -> bool {
        self.state.borrow().generation > self.seen
    }

    /// Waits for a restart that was not looked at yet.
    ///
    /// # Errors
    /// When there will be none.
    pub(crate) async fn news(&mut self) -> Result<(), Violation> {
        let seen = self.seen;
        let state = self.state.wait_for(|state| state.generation > seen).await;
        state.map(|_| ()).map_err(|_| Violation::new("the servers were not restarted"))
    }

    /// The present generation has been looked at. Gives it.
    pub(crate) fn looked(&mut self) -> u32 {
        self.seen = self.state.borrow().generation;
        self.seen
    }

    /// Waits until somebody kills `auth-server`.
    pub(crate) async fn auth_killed(&mut self) {
        let _ = self.state.wait_for(|state| !state.auth_is_up).await;
    }

    /// Asks for a token, with user and password.
    ///
    /// # Errors
    /// When the exchange breaks off.
    pub(crate) async fn sign_in(
        &self,
        user: &str,
        password: &str,
        scopes: &[String],
    ) -> Result<Response, Violation> {
        let mut target = "/token?service=berth".to_owned();
        for scope in scopes {
            target.push_str("&scope=");
            target.push_str(scope);
        }
        self.ask(self.client().call("GET", target).basic(user, password)).await
    }

    /// A token of the user who may do everything.
    ///
    /// # Errors
    /// When there is none to be had.
    pub(crate) async fn fresh_token(&self, repository: &str) -> Result<String, Violation> {
        let scope = format!("repository:{repository}:*");
        let answer = self.sign_in("andrew", PASSWORD, &[scope]).await?;
        expect(&answer, 200, "a token")?;
        Ok(answer.json()["token"].as_str().unwrap_or_default().to_owned())
    }

    fn client(&self) -> Client {
        self.state.borrow().client.clone()
    }
}

/// Whether the answer has this status.
///
/// # Errors
/// When it has another, with the answer.
pub(crate) fn expect(answer: &Response, status: u16, what: &str) -> Result<(), Violation> {
    if answer.status.as_u16() == status {
        return Ok(());
    }
    let body = String::from_utf8_lossy(&answer.body[..answer.body.len().min(300)]).into_owned();
    Err(Violation::new(format!("{what}: {} in place of {status}: {body}", answer.status)))
}
