//! The tree of a file system whose power can fail: what a program did and did not sync is lost.
//!
//! It is as forgetful as POSIX allows. A sync of a file keeps its bytes, length and attributes, not
//! its name; a sync of a directory keeps the names in that directory, not the files behind them.
//! A rename from one directory to another is kept by halves if only one of them was synced, where
//! most disks would keep both or none. Knows nothing of FUSE.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    time::SystemTime,
};

use crate::content::Content;

/// The number of a node. None is used twice.
pub(crate) type Ino = u64;

/// The number of the root directory.
pub(crate) const ROOT: Ino = 1;

/// The longest file, in bytes: files are kept in memory, whole.
const FILE_BYTES_MAX: u64 = 8 << 30;

type Entries = BTreeMap<OsString, Ino>;

/// Why something cannot be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Error {
    /// No such name.
    Missing,
    /// The name is taken.
    Exists,
    /// A directory is needed.
    NotDirectory,
    /// Anything but a directory is needed.
    IsDirectory,
    /// The directory has entries.
    NotEmpty,
    /// The node, or the handle to it, is from before a cut.
    Stale,
    /// The file would be too long.
    TooLarge,
}

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    File,
    Pipe,
    Socket,
}

/// What is known of a node beside its bytes and its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) accessed: SystemTime,
    pub(crate) modified: SystemTime,
}

/// What `stat` tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) ino: Ino,
    pub(crate) kind: Kind,
    pub(crate) attributes: Attributes,
    /// In bytes.
    pub(crate) size: u64,
    pub(crate) links: u32,
}

/// A value as programs see it, and as the disk would have it.
#[derive(Debug)]
struct Kept<T> {
    volatile: T,
    durable: T,
}

impl<T: Clone> Kept<T> {
    fn new(value: T) -> Self {
        Self { volatile: value.clone(), durable: value }
    }

    fn sync(&mut self) {
        self.durable.clone_from(&self.volatile);
    }

    fn cut(&mut self) {
        self.volatile.clone_from(&self.durable);
    }
}

#[derive(Debug)]
struct Node {
    kind: Kind,
    attributes: Kept<Attributes>,
    /// Empty but for files.
    content: Content,
    /// Empty but for directories.
    entries: Kept<Entries>,
    /// How many entries name the node.
    links: Kept<u32>,
    /// How often the kernel was told of the node, and did not forget it.
    lookups: u64,
}

/// The tree.
#[derive(Debug)]
pub(crate) struct Model {
    nodes: BTreeMap<Ino, Node>,
    last: Ino,
}

impl Model {
    /// An empty tree, durably there.
    pub(crate) fn new(root: Attributes) -> Self {
        let mut node = Node::new(Kind::Directory, root);
        node.links = Kept::new(1);
        Self { nodes: BTreeMap::from([(ROOT, node)]), last: ROOT }
    }

    /// The node that `name` in `parent` means.
    pub(crate) fn lookup(&self, parent: Ino, name: &OsStr) -> Result<Ino, Error> {
        self.entries(parent)?.get(name).copied().ok_or(Error::Missing)
    }

    /// What is known of a node.
    pub(crate) fn status(&self, ino: Ino) -> Result<Status, Error> {
        let node = self.node(ino)?;
        Ok(Status {
            ino,
            kind: node.kind,
            attributes: node.attributes.volatile,
            size: node.content.len() as u64,
            links: node.links.volatile + u32::from(node.kind == Kind::Directory),
        })
    }

    /// The names in a directory, in order.
    pub(crate) fn list(&self, ino: Ino) -> Result<Vec<(OsString, Ino, Kind)>, Error> {
        let entries = self.entries(ino)?;
        entries.iter().map(|(name, &ino)| Ok((name.clone(), ino, self.node(ino)?.kind))).collect()
    }

    /// At most `size` bytes of a file, from `offset`.
    pub(crate) fn read(&self, ino: Ino, offset: u64, size: usize) -> Result<&[u8], Error> {
        Ok(self.node(ino)?.content.read(length(offset)?, size))
    }

    /// Writes to a file, not durably.
    pub(crate) fn write(&mut self, ino: Ino, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        length(offset.saturating_add(bytes.len() as u64))?;
        self.node_mut(ino)?.content.write(length(offset)?, bytes);
        Ok(())
    }

    /// Cuts a file off or lengthens it, not durably.
    pub(crate) fn truncate(&mut self, ino: Ino, size: u64) -> Result<(), Error> {
        self.node_mut(ino)?.content.resize(length(size)?);
        Ok(())
    }

    /// The attributes, to be changed, not durably.
    pub(crate) fn attributes(&mut self, ino: Ino) -> Result<&mut Attributes, Error> {
        Ok(&mut self.node_mut(ino)?.attributes.volatile)
    }

    /// Makes a node and names it, not durably.
    pub(crate) fn create(
        &mut self,
        parent: Ino,
        name: &OsStr,
        kind: Kind,
        attributes: Attributes,
    ) -> Result<Ino, Error> {
        if self.entries(parent)?.contains_key(name) {
            return Err(Error::Exists);
        }
        self.last += 1;
        self.nodes.insert(self.last, Node::new(kind, attributes));
        self.name(parent, name, self.last)?;
        Ok(self.last)
    }

    /// Gives a node that is no directory one more name, not durably.
    pub(crate) fn link(&mut self, ino: Ino, parent: Ino, name: &OsStr) -> Result<Ino, Error> {
        if self.node(ino)?.kind == Kind::Directory {
            return Err(Error::IsDirectory);
        }
        if self.entries(parent)?.contains_key(name) {
            return Err(Error::Exists);
        }
        self.name(parent, name, ino)?;
        Ok(ino)
    }

    /// Takes a name from a node that is no directory, not durably.
    pub(crate) fn unlink(&mut self, parent: Ino, name: &OsStr) -> Result<(), Error> {
        let ino = self.lookup(parent, name)?;
        if self.node(ino)?.kind == Kind::Directory {
            return Err(Error::IsDirectory);
        }
        self.unname(parent, name)
    }

    /// Removes an empty directory, not durably.
    pub(crate) fn rmdir(&mut self, parent: Ino, name: &OsStr) -> Result<(), Error> {
        let ino = self.lookup(parent, name)?;
        if !self.entries(ino)?.is_empty() {
            return Err(Error::NotEmpty);
        }
        self.unname(parent, name)
    }

    /// Moves a name, over another one if there is one, not durably.
    /// That a directory is not moved into itself is for the kernel to see.
    pub(crate) fn rename(
        &mut self,
        (parent, name): (Ino, &OsStr),
        (new_parent, new_name): (Ino, &OsStr),
    ) -> Result<(), Error> {
        let ino = self.lookup(parent, name)?;
        match self.lookup(new_parent, new_name) {
            // POSIX: two names of one file stay as they are.
            Ok(target) if target == ino => return Ok(()),
            Ok(target) => {
                let is_directory = |ino| Ok(self.node(ino)?.kind == Kind::Directory);
                match (is_directory(ino)?, is_directory(target)?) {
                    (true, true) => self.rmdir(new_parent, new_name)?,
                    (true, false) => return Err(Error::NotDirectory),
                    (false, _) => self.unlink(new_parent, new_name)?,
                }
            }
            Err(Error::Missing) => {}
            Err(error) => return Err(error),
        }
        self.name(new_parent, new_name, ino)?;
        self.unname(parent, name)
    }

    /// Makes a node durable: a file's bytes and length, or a directory's names; and its attributes.
    pub(crate) fn sync(&mut self, ino: Ino) -> Result<(), Error> {
        let node = self.node_mut(ino)?;
        node.attributes.sync();
        node.content.sync();
        let old = std::mem::take(&mut node.entries.durable);
        node.entries.sync();
        let new: Vec<Ino> = node.entries.durable.values().copied().collect();
        for named in new {
            self.node_mut(named)?.links.durable += 1;
        }
        for named in old.into_values() {
            if let Some(node) = self.nodes.get_mut(&named) {
                node.links.durable -= 1;
            }
            self.drop_if_unused(named);
        }
        Ok(())
    }

    /// The kernel was told of a node.
    pub(crate) fn remember(&mut self, ino: Ino) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.lookups += 1;
        }
    }

    /// The kernel forgot what it was told, `lookups` times.
    pub(crate) fn forget(&mut self, ino: Ino, lookups: u64) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.lookups = node.lookups.saturating_sub(lookups);
        }
        self.drop_if_unused(ino);
    }

    /// The power fails. Gives the number of pages and names that were forgotten; `survives` picks
    /// the unsynced pages that were on the disk all the same.
    pub(crate) fn cut(&mut self, survives: &mut dyn FnMut() -> bool) -> usize {
        let mut forgotten = 0;
        for node in self.nodes.values_mut() {
            forgotten += differences(&node.entries) + node.content.cut(survives);
            node.entries.cut();
            node.attributes.cut();
            node.links = Kept::new(0);
        }
        self.recount();
        forgotten
    }

    /// The numbers of all nodes.
    pub(crate) fn inos(&self) -> Vec<Ino> {
        self.nodes.keys().copied().collect()
    }

    /// Counts the links, from the root; what cannot be reached is gone.
    fn recount(&mut self) {
        let mut reached = BTreeSet::new();
        let mut links = vec![ROOT];
        while let Some(ino) = links.pop() {
            let Some(node) = self.nodes.get_mut(&ino) else { continue };
            node.links = Kept::new(node.links.durable + 1);
            if reached.insert(ino) {
                links.extend(node.entries.durable.values());
            }
        }
        self.nodes.retain(|ino, _| reached.contains(ino));
    }

    fn name(&mut self, parent: Ino, name: &OsStr, ino: Ino) -> Result<(), Error> {
        self.node_mut(ino)?.links.volatile += 1;
        self.node_mut(parent)?.entries.volatile.insert(name.to_owned(), ino);
        Ok(())
    }

    fn unname(&mut self, parent: Ino, name: &OsStr) -> Result<(), Error> {
        let removed = self.node_mut(parent)?.entries.volatile.remove(name);
        let ino = removed.ok_or(Error::Missing)?;
        self.node_mut(ino)?.links.volatile -= 1;
        self.drop_if_unused(ino);
        Ok(())
    }

    /// Drops a node that no entry names, not even durably, and that the kernel does not use.
    fn drop_if_unused(&mut self, ino: Ino) {
        let is_unused =
            |node: &Node| node.lookups + u64::from(node.links.volatile + node.links.durable) == 0;
        if self.nodes.get(&ino).is_some_and(is_unused) {
            self.nodes.remove(&ino);
        }
    }

    fn entries(&self, ino: Ino) -> Result<&Entries, Error> {
        let node = self.node(ino)?;
        match node.kind {
            Kind::Directory => Ok(&node.entries.volatile),
            Kind::File | Kind::Pipe | Kind::Socket => Err(Error::NotDirectory),
        }
    }

    fn node(&self, ino: Ino) -> Result<&Node, Error> {
        self.nodes.get(&ino).ok_or(Error::Stale)
    }

    fn node_mut(&mut self, ino: Ino) -> Result<&mut Node, Error> {
        self.nodes.get_mut(&ino).ok_or(Error::Stale)
    }
}

impl Node {
    fn new(kind: Kind, attributes: Attributes) -> Self {
        Self {
            kind,
            attributes: Kept::new(attributes),
            content: Content::default(),
            entries: Kept::new(Entries::new()),
            links: Kept::new(0),
            lookups: 0,
        }
    }
}

/// A length in memory, if it is not too long.
fn length(bytes: u64) -> Result<usize, Error> {
    if bytes > FILE_BYTES_MAX {
        return Err(Error::TooLarge);
    }
    usize::try_from(bytes).map_err(|_| Error::TooLarge)
}

/// How many names mean something else durably.
fn differences(entries: &Kept<Entries>) -> usize {
    let Kept { volatile, durable } = entries;
    let new = volatile.iter().filter(|(name, ino)| durable.get(*name) != Some(*ino));
    new.count() + durable.keys().filter(|name| !volatile.contains_key(*name)).count()
}
