//! The two settings files: written once, and after that changed in as little as was asked for.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
};

use auth_server::{config::Config, files, host::Host};
use toml_edit::{DocumentMut, Item};

use super::{
    Arguments, Steps, certificate,
    layout::{Layout, named_from},
    urls::{PORT_DEFAULT, read_urls, set, set_urls, urls_in},
};
use crate::report::Failure;

/// The settings of auth-server, written first if they are missing.
pub(super) fn auth(layout: &Layout, steps: &mut Steps) -> Result<Config, Failure> {
    let path = &layout.auth_toml;
    if !path.exists() {
        let text = auth_text(layout);
        if !steps.begin(path.display().to_string()) {
            return Ok(Config {
                htpasswd: layout.htpasswd.clone(),
                data: layout.auth_data.clone(),
                socket: layout.socket.clone(),
                ..Config::default()
            });
        }
        files::replace(path, text.as_bytes(), files::PRIVATE)?;
    }
    Ok(Config::load(path)?)
}

/// Writes the settings of registry-server if they are missing, and otherwise the addresses that
/// were asked for. Gives the public URLs.
pub(super) fn registry(
    arguments: &Arguments,
    layout: &Layout,
    certificate: &certificate::Plan,
    steps: &mut Steps,
) -> Result<Vec<String>, Failure> {
    let path = &layout.registry_toml;
    if path.exists() {
        return update(arguments, certificate, layout, steps);
    }
    let port = arguments.port.flatten().unwrap_or(PORT_DEFAULT);
    let urls: Vec<_> = certificate.wanted.iter().map(|host| host.origin(port)).collect();
    let listen =
        arguments.listen.map_or_else(|| format!("[::]:{port}"), |address| address.to_string());
    let text = registry_text(layout, &urls, &listen);
    if steps.begin(format!("{} for {}", path.display(), urls.join(", "))) {
        files::replace(path, text.as_bytes(), files::PRIVATE)?;
    }
    remark_on_reach(steps, path, &listen, &certificate.wanted, port);
    Ok(urls)
}

/// Says what clients of these hosts and this port would not reach of where the settings listen,
/// unless a proxy stands in front.
fn remark_on_reach(steps: &mut Steps, path: &Path, listen: &str, hosts: &[Host], port: u16) {
    let Ok(address) = listen.parse::<SocketAddr>() else { return };
    let path = path.display();
    if address.ip() == Ipv4Addr::UNSPECIFIED && hosts.iter().any(Host::is_ipv6) {
        steps.remark(format!(
            "{path} listens on {listen}, where nothing arrives by IPv6: write [::]:{port} there"
        ));
    }
    if address.ip().is_loopback() && !hosts.iter().all(Host::is_local) {
        steps.remark(format!(
            "{path} listens on {listen}, which this machine alone reaches: right behind a proxy on \
             it, else write [::]:{port} there"
        ));
    } else if address.port() != port {
        steps.remark(format!(
            "{path} listens on port {}, while clients come to port {port}: right behind a proxy, \
             else give --port {0}",
            address.port()
        ));
    }
}

fn update(
    arguments: &Arguments,
    certificate: &certificate::Plan,
    layout: &Layout,
    steps: &mut Steps,
) -> Result<Vec<String>, Failure> {
    let path = &layout.registry_toml;
    let text = String::from_utf8_lossy(&files::read(path)?).into_owned();
    let mut document: DocumentMut =
        text.parse().map_err(|error| Failure::refused(format!("{}: {error}", path.display())))?;
    let old = urls_in(&document);
    let (old_hosts, old_port) = read_urls(&old);
    let listen = &listen_in(&document);
    if let Some(asked) = arguments.listen.filter(|asked| asked.to_string() != *listen) {
        let path = path.display();
        steps.remark(format!("{path} still listens on {listen}: write {asked} there yourself"));
    }
    if certificate.asked.is_none() && arguments.port.flatten().is_none() {
        return Ok(old);
    }
    let has_dropped = certificate.hosts_dropped().iter().any(|host| old_hosts.contains(host));
    let hosts = certificate.asked.clone().unwrap_or(old_hosts);
    let port = arguments.port.flatten().unwrap_or(old_port);
    let wanted: Vec<_> = hosts.iter().map(|host| host.origin(port)).collect();
    // URLs that somebody has added stay, as long as what is asked for is there and comes first.
    let is_there = old.first() == wanted.first() && wanted.iter().all(|url| old.contains(url));
    // Those of hosts that the certificate is to name no more go.
    if wanted.is_empty() || (is_there && !has_dropped) {
        remark_on_reach(steps, path, listen, &hosts, port);
        return Ok(old);
    }
    set_urls(&mut document, &wanted);
    if arguments.listen.is_none() && old_port != port {
        set_listen_port(&mut document, old_port, port);
    }
    if steps.begin(format!("public_urls in {} {}", path.display(), wanted.join(", "))) {
        files::replace(path, document.to_string().as_bytes(), files::PRIVATE)?;
        steps.remark("a registry-server that runs reads its settings when it starts: restart it");
    }
    remark_on_reach(steps, path, &listen_in(&document), &hosts, port);
    Ok(wanted)
}

fn listen_in(document: &DocumentMut) -> String {
    document.get("listen").and_then(Item::as_str).unwrap_or_default().to_owned()
}

/// Moves the listener along with the port of the URLs, if it was on that port.
fn set_listen_port(document: &mut DocumentMut, old: u16, new: u16) {
    if let Some(address) = listen_in(document).strip_suffix(&format!(":{old}")) {
        set(document, "listen", format!("{address}:{new}").into());
    }
}

fn quoted(text: &str) -> String {
    toml_edit::Value::from(text).to_string()
}

fn auth_text(layout: &Layout) -> String {
    let from = |target| quoted(&named_from(&layout.auth_toml, target));
    format!(
        include_str!("auth.toml.template"),
        htpasswd = from(&layout.htpasswd),
        data = from(&layout.auth_data),
        socket = from(&layout.socket),
        certs = from(&layout.certificates.certs),
        ca = from(&layout.certificates.ca),
    )
}

fn registry_text(layout: &Layout, urls: &[String], listen: &str) -> String {
    let from = |target| quoted(&named_from(&layout.registry_toml, target));
    let urls: Vec<_> = urls.iter().map(|url| quoted(url)).collect();
    format!(
        include_str!("registry.toml.template"),
        listen = quoted(listen),
        urls = urls.join(", "),
        data = from(&layout.registry_data),
        socket = from(&layout.socket),
        certificate = from(&layout.certificates.server_pem()),
        key = from(&layout.certificates.server_key()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_rewritten_and_all_else_stays() {
        let text = "# mine\nlisten = \"[::]:5000\" # all\n# why\npublic_urls = [\"https://a:5000\"] # x\ndata = \".\"\n";
        let mut document: DocumentMut = text.parse().unwrap();
        assert_eq!(read_urls(&urls_in(&document)).1, 5000);
        set_urls(&mut document, &["https://b".to_owned(), "https://[::1]".to_owned()]);
        set_listen_port(&mut document, 5000, 443);
        let expected = text
            .replace("\"https://a:5000\"", "\"https://b\", \"https://[::1]\"")
            .replace(":5000\"", ":443\"");
        assert_eq!(document.to_string(), expected);
        let (hosts, port) = read_urls(&urls_in(&document));
        assert_eq!((hosts.len(), port), (2, 443));
    }
}
