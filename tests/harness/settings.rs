//! The settings files of both servers.

use std::{fs, path::Path};

use crate::{client::HOST, link, stack::Options};

/// The settings of one of the registry-servers.
pub(crate) fn settings_of(replica: usize) -> String {
    if replica == 0 { "registry.toml".to_owned() } else { format!("registry-{replica}.toml") }
}

/// Writes those of the auth server.
pub(crate) fn write_auth_config(root: &Path, options: &Options) {
    let text = format!("{}\n{}", options.auth, link::auth_table(options));
    fs::write(root.join("auth.toml"), text).expect("auth.toml");
}

/// Writes those of the registry, one for each of the places.
pub(crate) fn write_registry_configs(root: &Path, options: &Options, places: &[String]) {
    // What is deleted stays in a bucket for a while, and tests of collection look at once.
    const AT_ONCE: &str = "[collection]\ndeleted_objects_kept_secs = 0\n";
    let limits = match options.registry_limits.contains("[collection]\n") {
        true => options.registry_limits.replace("[collection]\n", AT_ONCE),
        false => format!("{}\n{AT_ONCE}", options.registry_limits),
    };
    for (replica, places) in places.iter().enumerate() {
        let data = if replica == 0 { String::new() } else { format!("data = 'data-{replica}'\n") };
        let registry = format!(
            "listen = '127.0.0.1:0'\n{data}\
         public_urls = ['https://{HOST}', 'https://other.test:5000']\n\
         {}\n\
         [tls]\ncertificate = 'server.pem'\nkey = 'server.key'\n\
         {places}\
         [limits]\n{}\n{}\n",
            options.registry,
            if options.registry_limits.contains("free_bytes_min") {
                ""
            } else {
                "free_bytes_min = 0"
            },
            limits
        );
        fs::write(root.join(settings_of(replica)), registry).expect("registry.toml");
    }
}

/// How many servers serve a registry whose rows and objects are elsewhere, where that is to be another number
/// than one.
const REPLICAS: &str = "BERTH_TEST_REPLICAS";

/// Whether all tests that do not say have the link in place of the socket, where that is set.
const LINK: &str = "BERTH_TEST_LINK";

#[expect(clippy::disallowed_methods, reason = "a test has no other settings")]
pub(crate) fn over_link() -> bool {
    std::env::var(LINK).is_ok()
}

/// How many others there are to be.
#[expect(clippy::disallowed_methods, reason = "a test has no other settings")]
pub(crate) fn others() -> usize {
    let replicas = std::env::var(REPLICAS).ok().and_then(|number| number.parse().ok());
    replicas.unwrap_or(1_usize).saturating_sub(1)
}
