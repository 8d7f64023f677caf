//! The public URLs of the registry's settings, and the hosts in them.

use auth_server::{files, host::Host};
use http::Uri;
use toml_edit::{Array, DocumentMut, Item, Value};

use super::layout::Layout;

/// The port of the first run, unless another is asked for.
pub(super) const PORT_DEFAULT: u16 = 5000;

/// The hosts of the settings that are there, if any.
pub(super) fn hosts_in(layout: &Layout) -> Vec<Host> {
    let text = files::read(&layout.registry_toml).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.parse().map_or_else(|_| Vec::new(), |document| read_urls(&urls_in(&document)).0)
}

/// The public URLs, as they stand there.
pub(super) fn urls_in(document: &DocumentMut) -> Vec<String> {
    let urls = document.get("public_urls").and_then(Item::as_array);
    urls.into_iter()
        .flat_map(Array::iter)
        .filter_map(|url| url.as_str().map(str::to_owned))
        .collect()
}

/// The hosts of the URLs, and the port of the first.
pub(super) fn read_urls(urls: &[String]) -> (Vec<Host>, u16) {
    let mut hosts = Vec::new();
    let mut port = None;
    for url in urls {
        let Ok(uri) = url.parse::<Uri>() else { continue };
        let plain = uri.authority().filter(|authority| !authority.as_str().contains('@'));
        if let Some(Ok(host)) = plain.map(|authority| authority.host().parse()) {
            hosts.push(host);
            port.get_or_insert(uri.port_u16().unwrap_or(443));
        }
    }
    (hosts, port.unwrap_or(PORT_DEFAULT))
}

/// Makes these the public URLs.
pub(super) fn set_urls(document: &mut DocumentMut, urls: &[String]) {
    let urls: Array = urls.iter().map(String::as_str).collect();
    set(document, "public_urls", urls.into());
}

/// Puts a value in place of another, between what is written around that.
pub(super) fn set(document: &mut DocumentMut, key: &str, mut new: Value) {
    if let Some(old) = document.get(key).and_then(Item::as_value) {
        *new.decor_mut() = old.decor().clone();
    }
    document[key] = new.into();
}
