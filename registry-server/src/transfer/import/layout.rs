//! The store of `distribution` (registry:2 and registry:3) on disk, read and never written.
//!
//! Whatever stands in it was written by somebody else: a name is parsed before a path is made of
//! it, and the system itself follows no link out of the store. What cannot be used is a [`Fault`],
//! and the rest goes on; only what the system does not let us read ends the reading.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use berth_shared::{
    clock::UnixSeconds,
    digest::{Algorithm, Digest},
    files::path_of,
    name::RepositoryName,
    tag::Tag,
    unix_owner::{Error, Place},
};
use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2},
    unistd::{UnlinkatFlags, unlinkat},
};

/// Where a store begins, below the directory that its configuration names.
const ROOT: &str = "docker/registry/v2";

/// More than the longest link: `sha512:` and 128 digits.
const LINK_BYTES_MAX: u64 = 256;

/// The longest path below `repositories` that can still be a name, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// Something in the store that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where, as a path below the store's root.
    pub place: String,
    /// What is wrong there.
    pub what: String,
    /// What is lost by it.
    pub about: About,
}

/// What a fault takes away, besides every manifest that needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum About {
    /// Nothing that has a name.
    Nothing,
    /// A manifest or blob.
    Content(Digest),
    /// A tag alone.
    Tag(Tag),
}

/// What was found, and what could not be used.
#[derive(Debug)]
pub struct Found<T> {
    /// What can be used, in order.
    pub entries: Vec<T>,
    /// What cannot.
    pub faults: Vec<Fault>,
}

impl<T> Default for Found<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), faults: Vec::new() }
    }
}

impl<T> Found<T> {
    fn fault(&mut self, place: &str, what: impl Into<String>, about: About) {
        self.faults.push(Fault { place: place.to_owned(), what: what.into(), about });
    }
}

/// A tag and what it points to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagLink {
    /// Its name.
    pub tag: Tag,
    /// The manifest.
    pub digest: Digest,
    /// When it was last moved.
    pub written: UnixSeconds,
}

/// Reads what a link file holds: exactly a digest.
///
/// # Errors
/// When it holds anything else.
pub fn parse_link(bytes: &[u8]) -> Result<Digest, &'static str> {
    // A crash of the registry leaves these behind.
    if bytes.is_empty() {
        return Err("the link is empty");
    }
    let digest = str::from_utf8(bytes).ok().and_then(|text| text.parse().ok());
    digest.ok_or("the link is no digest")
}

/// A store on disk.
#[derive(Debug)]
pub struct OldStore {
    place: Place,
    /// What people call it.
    root: PathBuf,
}

impl OldStore {
    /// Finds the store in `directory`, which is the one that the old registry's configuration
    /// names, or the `docker/registry/v2` in it. `None` when there is none.
    ///
    /// # Errors
    /// When the system does not let it be read.
    pub fn open(directory: &Path) -> io::Result<Option<Self>> {
        for root in [directory.join(ROOT), directory.to_owned()] {
            let place = match Place::open(&root) {
                Ok(Some(place)) => place,
                Ok(None) => continue,
                Err(Error::Io { source, .. }) => match source.kind() {
                    io::ErrorKind::NotADirectory => continue,
                    _ => return Err(source),
                },
                Err(error) => return Err(io::Error::other(error)),
            };
            let store = Self { place, root };
            match store.open_in("repositories", OFlag::O_PATH) {
                Ok(found) if found.metadata()?.is_dir() => return Ok(Some(store)),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
                _ => {}
            }
        }
        Ok(None)
    }

    /// The names of all repositories, in byte order.
    ///
    /// # Errors
    /// When the system does not let them be read.
    pub fn repositories(&self) -> io::Result<Found<RepositoryName>> {
        let mut found = Found::default();
        let mut waiting = vec![String::new()];
        while let Some(name) = waiting.pop() {
            let place = below("repositories", &name);
            let mut has_manifests = false;
            for entry in self.list(&place, &mut found)? {
                if entry == "_manifests" {
                    has_manifests = true;
                } else if !entry.starts_with('_') {
                    waiting.push(below(&name, &entry));
                }
            }
            if name.len() > NAME_BYTES_MAX {
                found.fault(&place, "the path is too long for a name", About::Nothing);
                waiting.retain(|it| !it.starts_with(&format!("{name}/")));
            } else if has_manifests {
                match name.parse() {
                    Ok(name) => found.entries.push(name),
                    Err(_) => {
                        found.fault(&place, "this is no repository name", About::Nothing);
                    }
                }
            }
        }
        found.entries.sort();
        Ok(found)
    }

    /// The digests of a repository's manifests. Those that were deleted are left out.
    ///
    /// # Errors
    /// When the system does not let them be read.
    pub fn revisions(&self, repository: &RepositoryName) -> io::Result<Found<Digest>> {
        let mut found = Found::default();
        let place = format!("repositories/{repository}/_manifests/revisions");
        for algorithm in self.list(&place, &mut found)? {
            let place = below(&place, &algorithm);
            if algorithm.parse::<Algorithm>().is_err() {
                found.fault(&place, "this is no digest algorithm that is known", About::Nothing);
                continue;
            }
            for hex in self.list(&place, &mut found)? {
                let Ok(digest) = format!("{algorithm}:{hex}").parse::<Digest>() else {
                    found.fault(&below(&place, &hex), "this is no digest", About::Nothing);
                    continue;
                };
                let place = below(&below(&place, &hex), "link");
                let about = About::Content(digest.clone());
                match self.link(&place)? {
                    // Deleting a manifest takes the link and leaves its directory.
                    None => {}
                    Some(Ok((named, _))) if named == digest => found.entries.push(digest),
                    Some(Ok(_)) => found.fault(&place, "the link names another digest", about),
                    Some(Err(what)) => found.fault(&place, what, about),
                }
            }
        }
        Ok(found)
    }

    /// The tags of a repository.
    ///
    /// # Errors
    /// When the system does not let them be read.
    pub fn tags(&self, repository: &RepositoryName) -> io::Result<Found<TagLink>> {
        let mut found = Found::default();
        let place = format!("repositories/{repository}/_manifests/tags");
        for name in self.list(&place, &mut found)? {
            let place = below(&below(&place, &name), "current/link");
            let Ok(tag) = name.parse::<Tag>() else {
                found.fault(&place, "this is no tag", About::Nothing);
                continue;
            };
            match self.link(&place)? {
                Some(Ok((digest, written))) => found.entries.push(TagLink { tag, digest, written }),
                Some(Err(what)) => found.fault(&place, what, About::Tag(tag)),
                None => found.fault(&place, "the tag has no link", About::Tag(tag)),
            }
        }
        Ok(found)
    }

    /// Where the bytes of `digest` lie, below the root.
    #[must_use]
    pub fn place_of(digest: &Digest) -> String {
        let hex = digest.hex();
        format!("blobs/{}/{}/{hex}/data", digest.algorithm().name(), &hex[..2])
    }

    /// Opens the bytes of `digest`.
    ///
    /// # Errors
    /// The inner one says what is wrong with them; the outer one that they may not be read.
    pub fn blob(&self, digest: &Digest) -> io::Result<Result<Content, String>> {
        let file = match self.open_file(&Self::place_of(digest)) {
            Ok(file) => file,
            Err(error) => return fault_of(error),
        };
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Ok(Err("is no file".to_owned()));
        }
        if meta.len() == 0 && digest.algorithm().digest(b"") != *digest {
            return Ok(Err("has zero bytes".to_owned()));
        }
        Ok(Ok(Content { file, meta }))
    }

    /// The same, as people call it.
    #[must_use]
    pub fn path_of(&self, digest: &Digest) -> PathBuf {
        self.root.join(Self::place_of(digest))
    }

    /// Removes the name under which the bytes of `digest` lie.
    ///
    /// # Errors
    /// When the system does not let it.
    pub fn give_up(&self, digest: &Digest) -> io::Result<()> {
        let place = Self::place_of(digest);
        let (directory, name) = place.rsplit_once('/').unwrap_or(("", &place));
        let directory = self.open_in(directory, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
        self.place.within(|| Ok(unlinkat(&directory, name, UnlinkatFlags::NoRemoveDir)?))
    }

    /// Whether a file is of whoever owns the store, as root sees it.
    #[must_use]
    pub fn owns(&self, file: &fs::Metadata) -> bool {
        self.place.identity().owns(file)
    }

    /// The names in a directory, in byte order; none when it is not there. Whatever is no directory
    /// is a fault.
    fn list<T>(&self, place: &str, found: &mut Found<T>) -> io::Result<Vec<String>> {
        let listed = self
            .open_in(place, OFlag::O_DIRECTORY)
            .and_then(|directory| self.place.within(|| fs::read_dir(path_of(&directory))));
        let entries = match listed {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => {
                if let Err(what) = fault_of::<()>(error)? {
                    found.fault(place, what, About::Nothing);
                }
                return Ok(Vec::new());
            }
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry?;
            let kind = entry.file_type()?;
            let (name, what) = match entry.file_name().into_string() {
                Ok(name) if kind.is_dir() => {
                    names.push(name);
                    continue;
                }
                Ok(name) if kind.is_symlink() => {
                    (name, "this is a symbolic link, and those are not followed")
                }
                Ok(name) => (name, "this is no directory"),
                Err(name) => (name.to_string_lossy().into_owned(), "the name is not UTF-8"),
            };
            found.fault(&below(place, &name), what, About::Nothing);
        }
        names.sort();
        Ok(names)
    }

    /// Reads a link, and when it was written. `None` when it is not there.
    fn link(&self, place: &str) -> io::Result<Option<Result<(Digest, UnixSeconds), String>>> {
        let read = || -> io::Result<_> {
            let file = self.open_file(place)?;
            let mut bytes = Vec::new();
            (&file).take(LINK_BYTES_MAX).read_to_end(&mut bytes)?;
            Ok((bytes, UnixSeconds::new(file.metadata()?.mtime())))
        };
        match read() {
            Ok((bytes, written)) => {
                let link = parse_link(&bytes).map_err(ToOwned::to_owned);
                Ok(Some(link.map(|digest| (digest, written))))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => fault_of(error).map(Some),
        }
    }

    /// Opens a file without waiting, as a pipe would make us.
    fn open_file(&self, place: &str) -> io::Result<File> {
        self.open_in(place, OFlag::O_NONBLOCK)
    }

    /// Opens what lies at `place`. Links are followed, but not out of the store.
    fn open_in(&self, place: &str, flags: OFlag) -> io::Result<File> {
        let place = if place.is_empty() { "." } else { place };
        let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(resolve);
        let open = || loop {
            match openat2(self.place.handle(), place, how) {
                // Something was renamed meanwhile, and the system could not be sure.
                Err(Errno::EAGAIN) => {}
                Err(Errno::EXDEV) => {
                    return Err(io::Error::other("a symbolic link leads out of the store"));
                }
                opened => return Ok(opened?.into()),
            }
        };
        self.place.within(open)
    }
}

/// The bytes of a blob or manifest.
#[derive(Debug)]
pub struct Content {
    /// The open file.
    pub file: File,
    /// What the system says about it.
    pub meta: fs::Metadata,
}

/// What is wrong with one entry, in words; not being allowed to read is wrong with all of them.
fn fault_of<T>(error: io::Error) -> io::Result<Result<T, String>> {
    match error.kind() {
        io::ErrorKind::PermissionDenied => Err(error),
        io::ErrorKind::NotFound => Ok(Err("is missing".to_owned())),
        _ => Ok(Err(format!("cannot be read: {error}"))),
    }
}

fn below(place: &str, name: &str) -> String {
    match (place, name) {
        ("", name) => name.to_owned(),
        (place, "") => place.to_owned(),
        (place, name) => format!("{place}/{name}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_link_is_a_digest_or_nothing(bytes: Vec<u8>) {
            if let Ok(digest) = parse_link(&bytes) {
                prop_assert_eq!(digest.as_str().as_bytes(), &bytes[..]);
            }
        }
    }

    #[test]
    fn a_link_that_leads_elsewhere_is_no_digest() {
        let digest = Algorithm::Sha256.digest(b"");
        assert_eq!(parse_link(digest.as_str().as_bytes()), Ok(digest.clone()));
        assert_eq!(parse_link(b""), Err("the link is empty"));
        for hostile in ["../../..", "sha256:../../../etc/passwd", &format!("{digest}\n")] {
            assert_eq!(parse_link(hostile.as_bytes()), Err("the link is no digest"), "{hostile}");
        }
    }
}
