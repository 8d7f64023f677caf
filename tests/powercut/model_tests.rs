//! What a cut leaves of a tree.

use std::{ffi::OsStr, time::UNIX_EPOCH};

use crate::model::{Attributes, Error, Ino, Kind, Model, ROOT};

const ATTRIBUTES: Attributes =
    Attributes { mode: 0o644, uid: 1, gid: 2, accessed: UNIX_EPOCH, modified: UNIX_EPOCH };

/// A tree, spoken to in short words: files of the root, by name.
struct Tree(Model);

impl Tree {
    /// An empty tree.
    fn empty() -> Self {
        Self(Model::new(ATTRIBUTES))
    }

    /// A tree in which `a` holds `old`, durably.
    fn with_a() -> Self {
        let mut tree = Self::empty();
        tree.act("create a, write a old, sync a, sync /");
        tree
    }

    fn ino(&self, name: &str) -> Ino {
        self.0.lookup(ROOT, OsStr::new(name)).expect("a name")
    }

    /// Does what `story` tells: steps with commas between them.
    fn act(&mut self, story: &str) {
        for step in story.split(", ").filter(|step| !step.is_empty()) {
            let done = match step.split(' ').collect::<Vec<_>>()[..] {
                ["create", name] => {
                    self.0.create(ROOT, OsStr::new(name), Kind::File, ATTRIBUTES).map(|_| ())
                }
                ["write", name, text] => {
                    let ino = self.ino(name);
                    self.0.truncate(ino, 0).and_then(|()| self.0.write(ino, 0, text.as_bytes()))
                }
                ["sync", "/"] => self.0.sync(ROOT),
                ["sync", name] => self.0.sync(self.ino(name)),
                ["rename", name, new] => {
                    self.0.rename((ROOT, OsStr::new(name)), (ROOT, OsStr::new(new)))
                }
                ["link", name, new] => {
                    self.0.link(self.ino(name), ROOT, OsStr::new(new)).map(|_| ())
                }
                ["unlink", name] => self.0.unlink(ROOT, OsStr::new(name)),
                _ => panic!("no such step: {step}"),
            };
            assert_eq!(done, Ok(()), "{step}");
        }
    }

    fn cut(&mut self) -> usize {
        self.0.cut(&mut || false)
    }

    /// The files of the root, as `name=text`.
    fn shown(&self) -> String {
        let text = |ino| String::from_utf8_lossy(self.0.read(ino, 0, 99).expect("a file"));
        let files = self.0.list(ROOT).expect("the root").into_iter();
        let shown = files.map(|(name, ino, _)| format!("{}={}", name.display(), text(ino)));
        shown.collect::<Vec<_>>().join(" ")
    }
}

#[test]
fn a_cut_leaves_what_was_synced() {
    // What was done to a tree in which `a` holds `old`, what is left, and how much is forgotten.
    let cases = [
        ("", "a=old", 0),
        ("write a new", "a=old", 1),
        ("write a new, sync a", "a=new", 0),
        ("write a new, sync /", "a=old", 1),
        ("write a new, sync a, write a newer", "a=new", 1),
        // A new file needs its bytes and its name.
        ("create b, write b new", "a=old", 2),
        ("create b, write b new, sync b", "a=old", 1),
        ("create b, write b new, sync /", "a=old b=", 1),
        ("create b, write b new, sync b, sync /", "a=old b=new", 0),
        // A replacement needs the directory, and the bytes before it.
        ("create t, write t new, sync t, rename t a", "a=old", 1),
        ("create t, write t new, sync t, rename t a, sync /", "a=new", 0),
        ("create t, write t new, rename t a, sync /", "a=", 1),
        ("rename a b", "a=old", 2),
        ("rename a b, sync /", "b=old", 0),
        // Names come and go with the directory.
        ("link a b", "a=old", 1),
        ("link a b, sync /", "a=old b=old", 0),
        ("link a b, rename a b, sync /", "a=old b=old", 0),
        ("unlink a", "a=old", 1),
        ("unlink a, sync /", "", 0),
        ("unlink a, create a, write a new, sync a", "a=old", 1),
        ("write a new, unlink a", "a=old", 2),
    ];
    for (story, left, forgotten) in cases {
        let mut tree = Tree::with_a();
        tree.act(story);
        assert_eq!(tree.cut(), forgotten, "{story}");
        assert_eq!(tree.shown(), left, "{story}");
        assert_eq!(tree.cut(), 0, "{story}, and a second cut");
        assert_eq!(tree.shown(), left, "{story}, and a second cut");
    }
}

#[test]
fn attributes_are_kept_by_a_sync_of_the_file() {
    for (is_synced, mode) in [(false, 0o644), (true, 0o600)] {
        let mut tree = Tree::with_a();
        let ino = tree.ino("a");
        tree.0.attributes(ino).expect("a file").mode = 0o600;
        if is_synced {
            tree.act("sync a");
        }
        tree.cut();
        assert_eq!(tree.0.status(ino).expect("a file").attributes.mode, mode);
    }
}

#[test]
fn a_directory_is_lost_with_all_that_it_holds() {
    for (is_parent_synced, found) in [(false, Err(Error::Missing)), (true, Ok(true))] {
        let Tree(mut model) = Tree::empty();
        let (d, f) = (OsStr::new("d"), OsStr::new("f"));
        let directory = model.create(ROOT, d, Kind::Directory, ATTRIBUTES).expect("new");
        let file = model.create(directory, f, Kind::File, ATTRIBUTES).expect("new");
        model.sync(file).expect("a file");
        model.sync(directory).expect("a directory");
        if is_parent_synced {
            model.sync(ROOT).expect("the root");
        }
        model.cut(&mut || false);
        assert_eq!(model.lookup(ROOT, d).map(|ino| ino == directory), found);
        assert_eq!(model.status(file).is_ok(), is_parent_synced);
    }
}

#[test]
fn half_of_a_move_between_directories_may_be_kept() {
    for (is_source_synced, names) in [(true, 0), (false, 2)] {
        let Tree(mut model) = Tree::with_a();
        let (a, d) = (OsStr::new("a"), OsStr::new("d"));
        let directory = model.create(ROOT, d, Kind::Directory, ATTRIBUTES).expect("new");
        model.sync(ROOT).expect("the root");
        let file = model.lookup(ROOT, a).expect("a file");
        model.rename((ROOT, a), (directory, a)).expect("a move");
        model.sync(if is_source_synced { ROOT } else { directory }).expect("a directory");
        model.cut(&mut || false);
        assert_eq!(model.status(file).map_or(0, |status| status.links), names);
    }
}

#[test]
fn what_is_in_the_way_is_told() {
    let Tree(mut model) = Tree::with_a();
    let (a, d, none) = (OsStr::new("a"), OsStr::new("d"), OsStr::new("none"));
    let file = model.lookup(ROOT, a).expect("a file");
    let directory = model.create(ROOT, d, Kind::Directory, ATTRIBUTES).expect("new");
    model.link(file, directory, a).expect("a second name");
    assert_eq!(model.create(ROOT, a, Kind::File, ATTRIBUTES), Err(Error::Exists));
    assert_eq!(model.create(file, a, Kind::File, ATTRIBUTES), Err(Error::NotDirectory));
    assert_eq!(model.link(file, ROOT, a), Err(Error::Exists));
    assert_eq!(model.link(directory, ROOT, none), Err(Error::IsDirectory));
    assert_eq!(model.unlink(ROOT, d), Err(Error::IsDirectory));
    assert_eq!(model.unlink(ROOT, none), Err(Error::Missing));
    assert_eq!(model.rmdir(ROOT, a), Err(Error::NotDirectory));
    assert_eq!(model.rmdir(ROOT, d), Err(Error::NotEmpty));
    assert_eq!(model.rename((ROOT, d), (ROOT, a)), Err(Error::NotDirectory));
    assert_eq!(model.rename((ROOT, a), (ROOT, d)), Err(Error::IsDirectory));
    assert_eq!(model.rename((ROOT, none), (ROOT, a)), Err(Error::Missing));
    assert_eq!(model.truncate(file, u64::MAX), Err(Error::TooLarge));
    assert_eq!(model.write(file, u64::MAX, b"x"), Err(Error::TooLarge));
    assert_eq!(model.status(99), Err(Error::Stale));
}

#[test]
fn a_node_is_dropped_when_neither_disk_nor_kernel_has_it() {
    let mut tree = Tree::with_a();
    let ino = tree.ino("a");
    tree.0.remember(ino);
    tree.act("unlink a");
    tree.act("sync /");
    assert!(tree.0.read(ino, 0, 3).is_ok(), "open files outlive their names");
    tree.0.forget(ino, 1);
    assert_eq!(tree.0.status(ino), Err(Error::Stale));

    let mut tree = Tree::with_a();
    tree.act("unlink a");
    assert_eq!(tree.0.inos().len(), 2, "it may come back");
    tree.act("sync /");
    assert_eq!(tree.0.inos(), [ROOT]);
}
