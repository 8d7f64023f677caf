//! Attacks: what the service's own user can plant for root to follow. What root's verbs make of it
//! is seen in `tests/interop/attacks.sh`; here is what they stand on, raced.

use std::{
    fs::{self, File, Permissions},
    io::Read,
    os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use berth_shared::{
    files::open_regular,
    unix_owner::{Error, Identity, Place, Settings},
};
use nix::unistd::geteuid;
use tempfile::TempDir;

/// The service's user.
const SERVICE: u32 = 10001;

/// How often root tries while the other side swaps.
const TURNS: u32 = 10_000;

const SECRET: &str = "root:SECRET-HASH:19000";

/// A directory of the service's user, and one of root's that the user cannot look into.
struct Ground {
    theirs: PathBuf,
    victim: PathBuf,
    _dir: TempDir,
}

impl Ground {
    /// `None` where this is not root, and has nothing to lose.
    fn new() -> Option<Self> {
        if !geteuid().is_root() {
            println!("skipped: only root can be led astray");
            return None;
        }
        let dir = tempfile::tempdir().expect("a directory");
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).expect("open to all");
        let (theirs, victim) = (dir.path().join("theirs"), dir.path().join("victim"));
        for path in [&theirs, &victim] {
            fs::create_dir(path).expect("a directory");
        }
        fs::set_permissions(&victim, Permissions::from_mode(0o700)).expect("closed");
        fs::write(victim.join("secret"), SECRET).expect("a secret");
        fs::set_permissions(victim.join("secret"), Permissions::from_mode(0o600)).expect("closed");
        chown(&theirs, Some(SERVICE), Some(SERVICE)).expect("chown");
        Some(Self { theirs, victim, _dir: dir })
    }

    fn is_unharmed(&self) {
        let names: Vec<_> = fs::read_dir(&self.victim).expect("reading").flatten().collect();
        assert_eq!(names.len(), 1, "{names:?}");
        let secret = fs::read_to_string(self.victim.join("secret")).expect("the secret");
        assert_eq!(secret, SECRET);
    }

    /// Works as the service's user: what is at `name` is a link to `target` every other moment.
    fn swap(&self, name: &str, target: &Path, stop: &Arc<AtomicBool>) -> JoinHandle<u32> {
        let path = self.theirs.join(name);
        let (aside, link) = (path.with_extension("aside"), path.with_extension("link"));
        let (service, target) = (Identity::of(&self.theirs).expect("theirs"), target.to_owned());
        let stop = Arc::clone(stop);
        thread::spawn(move || {
            let _assumed = service.assume().expect("the service's user");
            let mut turns = 0;
            while !stop.load(Ordering::Relaxed) {
                symlink(&target, &link).expect("a link");
                // What root has made there meanwhile may be in the way.
                let is_aside = fs::rename(&path, &aside).is_ok();
                let _ = fs::rename(&link, &path);
                thread::yield_now();
                let _ = fs::remove_file(&path);
                if is_aside {
                    let _ = fs::rename(&aside, &path);
                    let _ = fs::remove_dir_all(&aside);
                }
                let _ = fs::remove_file(&link);
                turns += 1;
            }
            turns
        })
    }
}

#[test]
fn who_a_thread_is_ends_with_what_was_to_be_done() {
    let Some(ground) = Ground::new() else { return };
    let service = Identity::of(&ground.theirs).expect("theirs");
    let secret = ground.victim.join("secret");
    let made = service.within(|| {
        assert!(File::open(&secret).is_err());
        let root = Identity::of_root().within(|| File::open(&secret));
        assert!(root.is_ok() && File::open(&secret).is_err());
        // A thread is who made it.
        let made = thread::spawn(move || service.is_current()).join();
        assert!(made.expect("a thread"));
        File::create_new(ground.theirs.join("file"))?.metadata()
    });
    let made = made.expect("a file");
    assert_eq!((made.uid(), made.gid()), (SERVICE, SERVICE));
    assert!(File::open(&secret).is_ok() && !service.is_current());
}

#[test]
fn who_owns_a_directory_decides_and_a_link_of_others_is_refused() {
    let Some(ground) = Ground::new() else { return };
    let (settings, data) = (ground.theirs.join("auth.toml"), ground.theirs.join("data"));
    fs::write(&settings, "").expect("settings");
    chown(&settings, Some(SERVICE), Some(SERVICE)).expect("chown");
    let settings = Settings::read(&settings).expect("settings");
    let of = |directory: &Path| Identity::of_server(&settings, directory, "auth.db");
    let theirs = of(&ground.theirs).expect("theirs");
    assert_eq!(theirs.foreign().map(|owner| owner.user), Some(SERVICE));
    // Missing: whoever owns what is around it makes it.
    assert_eq!(of(&data).expect("theirs"), theirs);
    assert!(matches!(of(&ground.victim), Err(Error::ForeignSettings { user: SERVICE, .. })));
    theirs.within(|| symlink(&ground.victim, &data)).expect("a link");
    assert!(matches!(of(&data), Err(Error::Symlink(link)) if link == data));
    assert!(matches!(Place::open(&data), Err(Error::Symlink(_))));
    theirs.within(|| symlink(&ground.victim, ground.theirs.join("auth.db"))).expect("a link");
    assert!(matches!(of(&ground.theirs), Err(Error::Symlink(_))));
    // Root's own, where somebody else could put another in its place.
    fs::create_dir(ground.theirs.join("roots")).expect("a directory");
    let roots = Identity::of(&ground.theirs.join("roots"));
    assert!(matches!(roots, Err(Error::Replaceable { user: SERVICE, .. })));
    let place = Place::open(&ground.theirs.join("roots")).expect("a place").expect("there");
    theirs
        .within(|| fs::rename(ground.theirs.join("roots"), ground.theirs.join("moved")))
        .expect("a rename");
    fs::write(place.path().join("file"), "").expect("a file");
    assert!(ground.theirs.join("moved/file").exists() && !place.is_reached_by_name());
}

/// A line of the file that a link led to was shown to root, as a mistake in the settings.
#[test]
fn root_reads_settings_as_the_owner_of_their_directory() {
    let Some(ground) = Ground::new() else { return };
    let theirs = |name: &str| ground.theirs.join(name);
    let roots = |name: &str| ground.victim.with_file_name(name);
    let read = |path: &Path| match Settings::read(path) {
        Ok(settings) => settings.text().to_owned(),
        Err(error) => error.to_string(),
    };
    for (name, mode) in [("good", 0o600), ("open", 0o666)] {
        fs::write(theirs(name), name).expect("settings");
        chown(theirs(name), Some(SERVICE), Some(SERVICE)).expect("chown");
        fs::set_permissions(theirs(name), Permissions::from_mode(mode)).expect("a mode");
    }
    let secret = ground.victim.join("secret");
    fs::hard_link(&secret, theirs("hard")).expect("a hard link");
    symlink(theirs("good"), roots("link")).expect("root's link");
    for path in [theirs("good"), roots("link")] {
        assert_eq!(read(&path), "good", "{}", path.display());
    }
    // The same link is somebody else's, in a directory of root's and in one of theirs.
    symlink(&secret, theirs("link")).expect("a link");
    symlink(theirs("good"), roots("laid")).expect("a link");
    for link in [theirs("link"), roots("laid")] {
        lchown(&link, Some(SERVICE), Some(SERVICE)).expect("chown");
    }
    for (path, words) in [
        (theirs("link"), "symbolic link"),
        (roots("laid"), "symbolic link"),
        (theirs("hard"), "Permission denied"),
        (theirs("open"), "chmod go-w"),
    ] {
        let told = read(&path);
        let is_kept = told.contains(words) && !told.contains("SECRET");
        assert!(is_kept, "{}: {told}", path.display());
    }
    assert_eq!(read(&secret), SECRET);
    ground.is_unharmed();
}

#[test]
fn in_ten_thousand_turns_of_a_race_nothing_of_roots_is_made_written_or_read() {
    let Some(ground) = Ground::new() else { return };
    let stop = Arc::new(AtomicBool::new(false));
    let (data, file) = (ground.theirs.join("data"), ground.theirs.join("file"));
    let service = Identity::of(&ground.theirs).expect("theirs");
    service
        .within(|| fs::create_dir(&data).and_then(|()| fs::write(&file, "harmless")))
        .expect("what is swapped");
    let settings = ground.theirs.join("auth.toml");
    service.within(|| fs::write(&settings, "")).expect("settings");
    let settings = Settings::read(&settings).expect("settings");
    let attackers = [
        ground.swap("data", &ground.victim, &stop),
        ground.swap("file", &ground.victim.join("secret"), &stop),
    ];
    let (mut made, mut read) = (0, 0);
    for turn in 0..TURNS {
        if let Ok(Some(place)) = Place::open(&data) {
            assert_eq!(place.identity(), service, "turn {turn}");
            let path = place.path().join(format!("made-{turn}"));
            made += u32::from(place.within(|| fs::write(&path, "by root")).is_ok());
        }
        if let Ok(identity) = Identity::of_server(&settings, &data, "auth.db") {
            assert_eq!(identity, service, "turn {turn}");
        }
        if let Ok(mut file) = service.within(|| open_regular(&file)) {
            let mut text = String::new();
            file.read_to_string(&mut text).expect("reading");
            assert_eq!(text, "harmless", "turn {turn}");
            read += 1;
        }
    }
    stop.store(true, Ordering::Relaxed);
    let turns = attackers.map(|attacker| attacker.join().expect("the attacker"));
    println!("{made} made and {read} read in {TURNS} turns, beside {turns:?} of the attackers");
    assert!(turns.iter().all(|turns| *turns > 0));
    assert!(made > 0 && read > 0, "root was refused every time, so that nothing is shown");
    ground.is_unharmed();
}
