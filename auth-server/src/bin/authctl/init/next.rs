//! What to type next: how to sign in, and how clients are told to trust the CA.

use std::path::Path;

use auth_server::host::Host;

use super::people::Made;

/// What to do now, at `urls`. The certificate of `ca` is to be trusted, if there is one of Berth's.
pub(super) fn text(urls: &[String], ca: Option<&Path>, made: &Made) -> String {
    let authorities = urls.iter().map(|url| url.split_once("://").map_or(&**url, |(_, it)| it));
    // Image names with an IPv6 address are none for docker and podman.
    let named = authorities.clone().find(|host| !host.starts_with('['));
    let host = named.or(authorities.clone().next()).unwrap_or("localhost:5000");
    let mut text = String::new();
    if let (Some(user), Some(password)) = (&made.user, made.password.as_deref()) {
        text.push_str(&format!("The password of {user}, shown this once:\n\n  {password}\n\n"));
    }
    match &made.user {
        Some(user) => text.push_str(&format!("Sign in:\n\n  docker login {host} -u {user}\n\n")),
        None => text.push_str(&format!(
            "Nobody can sign in yet; add a user, then sign in:\n\n  authctl user add NAME --grant \
             '**:*'\n  docker login {host} -u NAME\n\n"
        )),
    }
    if host.starts_with('[') {
        text.push_str(
            "docker and podman take no IPv6 address in the name of an image: give the machine a name \
             and run init again with --host NAME; crane and curl go on as it is.\n\n",
        );
    }
    text.push_str(&match ca {
        Some(ca) => trust(host, ca),
        None => "The certificate is your own: clients that trust its issuer need nothing more."
            .to_owned(),
    });
    text
}

fn trust(host: &str, ca: &Path) -> String {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let local = if name.parse::<Host>().is_ok_and(|host| host.is_local()) {
        "\n\nDocker does not check the certificate of localhost and 127.0.0.0/8; there it needs none of \
         this."
    } else {
        ""
    };
    let text = format!(include_str!("trust.txt"), host = host, ca = ca.display());
    text.trim_end().to_owned() + local
}
