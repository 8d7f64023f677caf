//! `registry-server read-only`: let pulls go on and nothing else.

use berth_shared::clock::Clock;
use clap::{Args, ValueEnum};
use registry_server::{
    config::Config,
    data::{CONTROL_SOCKET, Home},
    jobs::{
        Job,
        event::{Outcome, tell},
    },
};

use crate::output::{self, Ended, Failure};

/// Switch the running server to read-only, or back: pulls go on, pushes and deletes are refused.
///
/// The switch lasts until the server is restarted or reloaded; `read_only` in the configuration
/// lasts. The signals SIGUSR1 (on) and SIGUSR2 (off) do the same for one server.
///
/// Where several servers share a registry, in PostgreSQL and a bucket, this is said to all of them, and
/// lasts until it is switched back: on returns when each of them has heard it or takes nothing.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Whether to take no pushes.
    switch: Switch,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

pub(crate) async fn run(arguments: &Arguments, config: &Config, json: bool) -> Ended {
    let on = arguments.switch == Switch::On;
    let home = Home::of(config);
    let events = if home.is_shared() {
        tell(async move |events| home.switch(on, Clock::system(), &events).await)
    } else {
        let socket = config.data.join(CONTROL_SOCKET);
        Job::ReadOnly { on }.ask(&socket).await.map_err(|_| {
            Failure("no server runs on this data: set read_only in its configuration".to_owned())
        })?
    };
    let ended = |outcome: &Outcome| match outcome {
        Outcome::ReadOnly { on: true } => Some(("read-only: pulls go on".to_owned(), false)),
        Outcome::ReadOnly { on: false } => Some(("pushes are taken again".to_owned(), false)),
        _ => None,
    };
    output::follow(events, json, ended).await
}
