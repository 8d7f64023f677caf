//! Where a password comes from: the terminal, standard input, the environment of `init`, or
//! chance. Never the command line, which every user of the machine can read.

use std::{
    io::{self, IsTerminal, Read},
    time::Duration,
};

use auth_server::users::{PASSWORD_BYTES_MAX, Password};
use nix::sys::termios::{SetArg, tcgetattr, tcsetattr};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::timeout,
};
use zeroize::Zeroizing;

use crate::report::{Failure, refuse_if};

/// Letters and digits that nobody mistakes for one another.
const ALPHABET: &[u8] = b"abcdefghjkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789";

/// Some 115 random bits.
const RANDOM_LENGTH: usize = 20;

/// How long it may take to make the terminal hide what is typed.
const HIDING_TIME_MAX: Duration = Duration::from_secs(1);

/// The exit code of whatever Ctrl-C ended.
const INTERRUPTED: i32 = 130;

/// Asks on the terminal, twice. Whoever ends it with Ctrl-C gets their terminal back as it was.
pub(crate) async fn prompt(name: &str) -> Result<Password, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::usage(
            "there is no terminal to ask for the password on: use --password-stdin",
        ));
    }
    let terminal = std::fs::File::open("/dev/tty")?;
    let before = tcgetattr(&terminal)?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let first = format!("New password for {name}: ");
    let mut asked =
        tokio::task::spawn_blocking(move || -> io::Result<Result<Password, Failure>> {
            let ask = |prompt: &str| rpassword::prompt_password(prompt).map(Zeroizing::new);
            let password = match Password::new(ask(&first)?) {
                Ok(password) => password,
                Err(unfit) => return Ok(Err(unfit.into())),
            };
            let is_same = ask("Once more: ")?.as_bytes() == password.as_bytes();
            Ok(is_same
                .then_some(password)
                .ok_or_else(|| Failure::refused("the two passwords differ")))
        });
    tokio::select! {
        asked = &mut asked => match asked? {
            // Typed while the terminal is raw, Ctrl-C is no signal.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            asked => return asked?,
        },
        // Typed before that, it is one, and the thread is about to hide what is typed: only behind
        // that the terminal stays as it is made.
        _ = interrupted.recv() => drop(timeout(HIDING_TIME_MAX, asked).await),
    }
    let _ = tcsetattr(&terminal, SetArg::TCSANOW, &before);
    eprintln!();
    leave()
}

#[expect(clippy::disallowed_methods, reason = "nothing ends the thread that reads the terminal")]
fn leave() -> ! {
    std::process::exit(INTERRUPTED)
}

/// Reads one line from standard input.
pub(crate) fn from_stdin() -> Result<Password, Failure> {
    let mut text = Zeroizing::new(String::new());
    // The longest password, and room to see that it is longer, or that there is a second line.
    let most = u64::try_from(PASSWORD_BYTES_MAX + 3).unwrap_or(u64::MAX);
    io::stdin().lock().take(most).read_to_string(&mut text)?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = Zeroizing::new(line.strip_suffix('\r').unwrap_or(line).to_owned());
    refuse_if(line.contains('\n'), || "there is more than one line on standard input".into())?;
    Ok(Password::new(line)?)
}

/// `BERTH_PASSWORD`, if it says anything. Read by hand, since an argument parser would offer an
/// argument for it as well.
pub(crate) fn from_environment() -> Result<Option<Password>, Failure> {
    let text = std::env::var_os("BERTH_PASSWORD").unwrap_or_default().into_string();
    let text = text.map_err(|_| Failure::refused("BERTH_PASSWORD is not UTF-8"))?;
    Ok(if text.is_empty() { None } else { Some(Password::new(Zeroizing::new(text))?) })
}

/// A password that nobody has chosen.
pub(crate) fn random() -> Result<Zeroizing<String>, Failure> {
    auth_server::random::text(ALPHABET, RANDOM_LENGTH)
        .map_err(|_| Failure::refused("the system gives no randomness"))
}
