//! The name of a key's file: its algorithm, when it was made, and a number where that is not
//! enough to tell two apart. It has a grammar, so no path is made of anything else.

use std::{fmt, str::FromStr};

use berth_shared::{clock::UnixSeconds, text::through_text};
use serde::{Deserialize, Serialize};

use super::settings::KeyAlgorithm;

/// `es256-1790000000.pem`, or `es256-1790000000-1.pem` for a second one of that time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct KeyFile {
    pub(super) algorithm: KeyAlgorithm,
    pub(super) made: UnixSeconds,
    pub(super) number: u32,
}

/// It is no name of a key's file.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} names no key")]
pub(super) struct NoKeyFile(String);

impl fmt::Display for KeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.algorithm.word(), self.made.get())?;
        if self.number > 0 {
            write!(f, "-{}", self.number)?;
        }
        f.write_str(".pem")
    }
}

impl FromStr for KeyFile {
    type Err = NoKeyFile;

    fn from_str(name: &str) -> Result<Self, NoKeyFile> {
        let read = || {
            let (word, rest) = name.strip_suffix(".pem")?.split_once('-')?;
            let mut algorithms = [KeyAlgorithm::Es256, KeyAlgorithm::EdDsa].into_iter();
            let algorithm = algorithms.find(|algorithm| algorithm.word() == word)?;
            let (made, number) = rest.split_once('-').unwrap_or((rest, "0"));
            let (made, number) = (UnixSeconds::new(made.parse().ok()?), number.parse().ok()?);
            let file = Self { algorithm, made, number };
            // One file has one name.
            (file.to_string() == name).then_some(file)
        };
        read().ok_or_else(|| NoKeyFile(name.to_owned()))
    }
}

impl KeyFile {
    /// What the key is called where it is no file.
    pub(super) fn name(&self) -> String {
        self.to_string().trim_end_matches(".pem").to_owned()
    }

    /// Reads [`name`](Self::name).
    pub(super) fn named(name: &str) -> Result<Self, NoKeyFile> {
        format!("{name}.pem").parse().map_err(|_| NoKeyFile(name.to_owned()))
    }
}

through_text!(KeyFile: NoKeyFile);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written_and_no_others() {
        for name in ["es256-1790000000.pem", "eddsa-5.pem", "es256-5-1.pem"] {
            let file: KeyFile = name.parse().unwrap();
            assert_eq!(file.to_string(), name);
            assert_eq!(KeyFile::named(&file.name()).unwrap(), file);
        }
        for name in [
            "es256.pem",
            "es256-.pem",
            "es256-5",
            "rs256-5.pem",
            "es256-05.pem",
            "es256-5-0.pem",
            "es256-+5.pem",
            "es256-5-.pem",
            "x/es256-5.pem",
            ".es256-5.pem",
            "es256-5.pem.bak",
        ] {
            assert!(name.parse::<KeyFile>().is_err(), "{name}");
        }
    }
}
