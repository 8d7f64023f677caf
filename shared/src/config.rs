//! Reading a configuration file: what was read is valid, and every mistake names its key.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _},
};

use crate::{
    files::{SMALL_FILE_BYTES_MAX, read_at_most, text_of},
    unix_owner,
};

/// The configuration cannot be used; the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read, or root does not take settings from there.
    #[error(transparent)]
    Owner(#[from] unix_owner::Error),
    /// The text is not TOML of the known keys; the source names line and key.
    #[error("{}: {source}", path.display())]
    Parse {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// A value makes no sense.
    #[error("{key}: {reason}")]
    Value {
        /// The key, with its table.
        key: &'static str,
        /// What is wrong, and what would be right.
        reason: String,
    },
}

impl ConfigError {
    /// A value that makes no sense.
    pub fn value(key: &'static str, reason: impl Into<String>) -> Self {
        Self::Value { key, reason: reason.into() }
    }
}

/// Reads `path` into a settings struct, which should refuse unknown keys.
///
/// # Errors
/// When the file is missing, is no TOML, or holds an unknown key.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    let failed = |source| unix_owner::Error::ReadSettings { path: path.to_owned(), source };
    let bytes = read_at_most(path, SMALL_FILE_BYTES_MAX).map_err(failed)?;
    parse(path, &text_of(bytes).map_err(failed)?)
}

/// Reads the text of the file `path` into a settings struct.
///
/// # Errors
/// When it is no TOML, or holds an unknown key.
pub fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|mut source: toml::de::Error| {
        source.set_input(Some(&hidden(text)));
        ConfigError::Parse { path: path.to_owned(), source: Box::new(source) }
    })
}

/// The text without the values that may be secrets which do not belong there: a mistake is told with its
/// line, and that goes to a log.
fn hidden(text: &str) -> String {
    let hide = |line: &str| match line.split_once('=') {
        Some((key, value))
            if value.contains('@') || key.contains("password") || key.contains("secret") =>
        {
            // As long as it was, so that what is told of it points there.
            let stars: String =
                value.bytes().map(|b| if b == b'\n' { '\n' } else { '*' }).collect();
            format!("{key}={stars}")
        }
        _ => line.to_owned(),
    };
    text.split_inclusive('\n').map(hide).collect()
}

/// Reads an address to listen on; for `#[serde(deserialize_with)]`.
///
/// # Errors
/// When it is none, with what one looks like.
pub fn address<'de, D: Deserializer<'de>>(value: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(value)?;
    text.parse().map_err(|_| {
        let help = "write an address with its port, such as [::]:5000 or 127.0.0.1:5000";
        D::Error::custom(format!("{text:?} is nothing to listen on: {help}"))
    })
}

/// `path` as seen from the folder in which the configuration file `config` lies.
pub fn beside(config: &Path, path: &Path) -> PathBuf {
    config.parent().unwrap_or(Path::new("")).join(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Settings {
        #[expect(dead_code, reason = "it is read in vain")]
        url: String,
    }

    #[test]
    fn a_mistake_names_its_key_and_tells_no_secret() {
        for (text, key) in [
            ("url = \"postgres://berth:s3cr3t@db/berth\n", "url"),
            ("url = 's'\npassword = \"s3cr3t\"\n", "password"),
            ("url = 's'\nclient_secret = 's3cr3t'", "client_secret"),
            ("url = 7\n", "url = 7"),
        ] {
            let error = parse::<Settings>(Path::new("registry.toml"), text).unwrap_err();
            let told = error.to_string();
            assert!(told.contains(key) && !told.contains("s3cr3t"), "{told}");
        }
    }
}
