//! The tree as FUSE serves it.
//!
//! The kernel keeps no name and no attribute (a lifetime of zero), and the pages of a file only
//! while it is open, so that a cut leaves nothing behind. Locks and shared mappings are the
//! kernel's own. Handles carry the number of cuts before them: those of an earlier life are stale.

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use fuser::{
    Errno, FileAttr, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, LockOwner, OpenFlags,
    RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry,
    ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use nix::sys::stat::SFlag;

use crate::{
    attributes::{BLOCK_BYTES, attr, errno, file_type, fresh, now, of, rights, time},
    model::{Error, Ino, Kind, Model},
};

/// How long the kernel may believe what it was told.
const LIFETIME: Duration = Duration::ZERO;

/// Numbers are never used twice, so all nodes are of one generation.
const GENERATION: Generation = Generation(0);

/// The space that is told to be there, and to be free: 64 GiB.
const BLOCKS: u64 = (64 << 30) / BLOCK_BYTES as u64;

const NAME_BYTES_MAX: u32 = 255;

type Listing = Vec<(OsString, Ino, Kind)>;

/// The file system, for the session that serves it.
#[derive(Debug)]
pub(crate) struct Forgetful(Shared);

/// The file system, for who cuts its power.
#[derive(Debug, Clone)]
pub(crate) struct Shared(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    model: Model,
    /// How often the power failed: the handle of every file opened since.
    cuts: u64,
    /// What open directories held when they were read from the start, by handle. A listing that
    /// stands still lets entries be removed while it is read.
    listings: HashMap<u64, Listing>,
    last_listing: u64,
}

impl Forgetful {
    /// An empty file system, of the user of this process.
    pub(crate) fn new() -> Self {
        let (uid, gid) = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
        let model = Model::new(fresh(0o755, uid, gid));
        let state = State { model, cuts: 0, listings: HashMap::new(), last_listing: 0 };
        Self(Shared(Arc::new(Mutex::new(state))))
    }

    pub(crate) fn shared(&self) -> Shared {
        self.0.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }
}

impl Shared {
    /// The numbers of all nodes.
    pub(crate) fn inos(&self) -> Vec<INodeNo> {
        self.lock().model.inos().into_iter().map(INodeNo).collect()
    }

    /// The power fails; see [`Model::cut`].
    pub(crate) fn cut(&self, survives: &mut dyn FnMut() -> bool) -> usize {
        let mut state = self.lock();
        state.cuts += 1;
        state.listings.clear();
        state.model.cut(survives)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The tree, for the holder of a file's handle.
    fn by_file(&mut self, handle: FileHandle) -> Result<&mut Model, Error> {
        if handle.0 == self.cuts { Ok(&mut self.model) } else { Err(Error::Stale) }
    }

    /// What the kernel is told of a node that it found or made.
    fn found(&mut self, ino: Result<Ino, Error>) -> Result<FileAttr, Error> {
        let status = self.model.status(ino?)?;
        self.model.remember(status.ino);
        Ok(attr(&status))
    }

    fn listing(&mut self, ino: Ino, handle: u64, offset: u64) -> Result<&Listing, Error> {
        let listing = self.listings.get_mut(&handle).ok_or(Error::Stale)?;
        if offset == 0 {
            *listing = self.model.list(ino)?;
        }
        Ok(listing)
    }
}

impl Filesystem for Forgetful {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let mut state = self.lock();
        let ino = state.model.lookup(parent.0, name);
        entry(reply, state.found(ino));
    }

    fn forget(&self, _: &Request, ino: INodeNo, lookups: u64) {
        self.lock().model.forget(ino.0, lookups);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.lock().model.status(ino.0) {
            Ok(status) => reply.attr(&LIFETIME, &attr(&status)),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        accessed: Option<TimeOrNow>,
        modified: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let change = |model: &mut Model| {
            let resized = size.map(|size| model.truncate(ino.0, size)).transpose()?;
            let attributes = model.attributes(ino.0)?;
            attributes.mode = mode.map_or(attributes.mode, rights);
            attributes.uid = uid.unwrap_or(attributes.uid);
            attributes.gid = gid.unwrap_or(attributes.gid);
            attributes.accessed = accessed.map_or(attributes.accessed, time);
            attributes.modified =
                modified.or(resized.map(|()| TimeOrNow::Now)).map_or(attributes.modified, time);
            model.status(ino.0)
        };
        match change(&mut self.lock().model) {
            Ok(status) => reply.attr(&LIFETIME, &attr(&status)),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        let kind = match SFlag::from_bits_truncate(mode) & SFlag::S_IFMT {
            SFlag::S_IFREG => Kind::File,
            SFlag::S_IFSOCK => Kind::Socket,
            SFlag::S_IFIFO => Kind::Pipe,
            _ => return reply.error(Errno::EPERM),
        };
        let mut state = self.lock();
        let ino = state.model.create(parent.0, name, kind, of(request, mode));
        entry(reply, state.found(ino));
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let mut state = self.lock();
        let ino = state.model.create(parent.0, name, Kind::Directory, of(request, mode));
        entry(reply, state.found(ino));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.lock().model.unlink(parent.0, name));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.lock().model.rmdir(parent.0, name));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let model = &mut self.lock().model;
        if flags.intersects(!RenameFlags::RENAME_NOREPLACE) {
            return reply.error(Errno::EINVAL);
        }
        if !flags.is_empty() && model.lookup(new_parent.0, new_name).is_ok() {
            return reply.error(Errno::EEXIST);
        }
        empty(reply, model.rename((parent.0, name), (new_parent.0, new_name)));
    }

    fn link(&self, _: &Request, ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let mut state = self.lock();
        let ino = state.model.link(ino.0, parent.0, name);
        entry(reply, state.found(ino));
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let mut state = self.lock();
        let ino = state.model.create(parent.0, name, Kind::File, of(request, mode));
        let handle = FileHandle(state.cuts);
        match state.found(ino) {
            Ok(attr) => reply.created(&LIFETIME, &attr, GENERATION, handle, FopenFlags::empty()),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // Without FOPEN_KEEP_CACHE: the kernel drops the pages that it has of the file.
        reply.opened(FileHandle(self.lock().cuts), FopenFlags::empty());
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut state = self.lock();
        match state.by_file(handle).and_then(|model| model.read(ino.0, offset, size as usize)) {
            Ok(bytes) => reply.data(bytes),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        bytes: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let write = |model: &mut Model| {
            model.write(ino.0, offset, bytes)?;
            model.attributes(ino.0)?.modified = now();
            Ok(())
        };
        match self.lock().by_file(handle).and_then(write) {
            // A request is at most 16 MiB long.
            Ok(()) => reply.written(u32::try_from(bytes.len()).unwrap_or(u32::MAX)),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        empty(reply, self.lock().by_file(handle).and_then(|model| model.sync(ino.0)));
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let mut state = self.lock();
        state.last_listing += 1;
        let handle = state.last_listing;
        state.listings.insert(handle, Listing::new());
        reply.opened(FileHandle(handle), FopenFlags::empty());
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let mut state = self.lock();
        let listing = match state.listing(ino.0, handle.0, offset) {
            Ok(listing) => listing,
            Err(error) => return reply.error(errno(error)),
        };
        // The kernel knows the parent itself; its number here is never looked at.
        let dots = [".", ".."].map(|name| (OsStr::new(name), ino.0, Kind::Directory));
        let names = listing.iter().map(|(name, ino, kind)| (name.as_os_str(), *ino, *kind));
        for (place, (name, ino, kind)) in (1_u64..).zip(dots.into_iter().chain(names)) {
            if place > offset && reply.add(INodeNo(ino), place, file_type(kind), name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.lock().listings.remove(&handle.0);
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        let mut state = self.lock();
        if !state.listings.contains_key(&handle.0) {
            return reply.error(Errno::ESTALE);
        }
        empty(reply, state.model.sync(ino.0));
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let files = u64::from(u32::MAX);
        reply.statfs(
            BLOCKS,
            BLOCKS,
            BLOCKS,
            files,
            files,
            BLOCK_BYTES,
            NAME_BYTES_MAX,
            BLOCK_BYTES,
        );
    }
}

fn entry(reply: ReplyEntry, found: Result<FileAttr, Error>) {
    match found {
        Ok(attr) => reply.entry(&LIFETIME, &attr, GENERATION),
        Err(error) => reply.error(errno(error)),
    }
}

fn empty(reply: ReplyEmpty, done: Result<(), Error>) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(error)),
    }
}
