//! The link between both servers, where a test has one: what the auth server needs is in `root/link`, and
//! what the registry needs in `root/link-there`, as on another machine.

use std::{fs, net::SocketAddr, path::Path};

use auth_server::link_files::LinkFiles;
use berth_shared::clock::Clock;
use rustls::pki_types::{CertificateDer, pem::PemObject};

use crate::{
    client::{Client, HOST},
    stack::Options,
};

/// Where the auth server listens at first.
const ANY_PORT: &str = "listen = '127.0.0.1:0' # the link";

/// The table in `auth.toml`.
pub(crate) fn auth_table(options: &Options) -> String {
    if !options.link {
        return String::new();
    }
    format!(
        "[link]\n{ANY_PORT}\ncertificate = 'link/server.pem'\nkey = 'link/server.key'\n\
         secret_file = 'link/secret'\n"
    )
}

/// The table in `registry.toml`.
pub(crate) fn table(address: SocketAddr) -> String {
    format!(
        "[link]\nurl = 'https://{address}'\nca = 'link-there/ca.pem'\n\
         secret_file = 'link-there/secret'\n"
    )
}

/// Makes what both sides need.
///
/// # Panics
/// When it cannot be written.
pub fn make(root: &Path, clock: &Clock) {
    let hosts = ["127.0.0.1", HOST].map(|host| host.parse().expect("a host"));
    LinkFiles::at(&root.join("link")).make(&hosts, false, clock).expect("the link's files");
    fs::create_dir_all(root.join("link-there")).expect("a directory");
    for file in ["ca.pem", "secret"] {
        bring(root, file);
    }
}

/// Copies a file of the auth server's to where the registry has it.
///
/// # Panics
/// When it cannot be copied.
pub fn bring(root: &Path, file: &str) {
    let (here, there) = (root.join("link").join(file), root.join("link-there").join(file));
    fs::copy(here, there).expect("copying");
}

/// Has the auth server listen there at its next start too.
pub(crate) fn stay(root: &Path, address: SocketAddr) {
    let path = root.join("auth.toml");
    let text = fs::read_to_string(&path).expect("auth.toml");
    fs::write(&path, text.replace(ANY_PORT, &format!("listen = '{address}'"))).expect("auth.toml");
}

/// A client of the link at `address`, which trusts its CA.
///
/// # Panics
/// When there is no CA.
#[must_use]
pub fn client(root: &Path, address: SocketAddr, alpn: &[&str]) -> Client {
    let ca = CertificateDer::from_pem_file(root.join("link/ca.pem")).expect("the link's CA");
    Client::new(address, &ca, alpn)
}
