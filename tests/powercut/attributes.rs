//! What the kernel calls what the model has.

use std::time::SystemTime;

use fuser::{Errno, FileAttr, FileType, INodeNo, Request, TimeOrNow};

use crate::model::{Attributes, Error, Kind, Status};

pub(crate) const BLOCK_BYTES: u32 = 4096;

/// The bits of a mode that are rights.
const RIGHTS: u32 = 0o7777;

pub(crate) fn errno(error: Error) -> Errno {
    match error {
        Error::Missing => Errno::ENOENT,
        Error::Exists => Errno::EEXIST,
        Error::NotDirectory => Errno::ENOTDIR,
        Error::IsDirectory => Errno::EISDIR,
        Error::NotEmpty => Errno::ENOTEMPTY,
        Error::Stale => Errno::ESTALE,
        Error::TooLarge => Errno::EFBIG,
    }
}

pub(crate) fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::Directory => FileType::Directory,
        Kind::File => FileType::RegularFile,
        Kind::Pipe => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
    }
}

pub(crate) fn attr(status: &Status) -> FileAttr {
    let Attributes { mode, uid, gid, accessed, modified } = status.attributes;
    FileAttr {
        ino: INodeNo(status.ino),
        size: status.size,
        blocks: status.size.div_ceil(512),
        atime: accessed,
        mtime: modified,
        ctime: modified,
        crtime: modified,
        kind: file_type(status.kind),
        perm: mode,
        nlink: status.links,
        uid,
        gid,
        rdev: 0,
        blksize: BLOCK_BYTES,
        flags: 0,
    }
}

/// The attributes of what a request makes.
pub(crate) fn of(request: &Request, mode: u32) -> Attributes {
    fresh(rights(mode), request.uid(), request.gid())
}

pub(crate) fn fresh(mode: u16, uid: u32, gid: u32) -> Attributes {
    let now = now();
    Attributes { mode, uid, gid, accessed: now, modified: now }
}

pub(crate) fn rights(mode: u32) -> u16 {
    u16::try_from(mode & RIGHTS).unwrap_or_default()
}

pub(crate) fn time(time: TimeOrNow) -> SystemTime {
    match time {
        TimeOrNow::SpecificTime(time) => time,
        TimeOrNow::Now => now(),
    }
}

#[expect(clippy::disallowed_methods, reason = "files are stamped with the machine's time")]
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}
