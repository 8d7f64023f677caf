//! Imports of stores that are made here, sound and damaged.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt, symlink},
    path::{Path, PathBuf},
    time::Duration,
};

use berth_shared::{clock::Clock, digest::Algorithm};
use futures_util::FutureExt;
use tempfile::TempDir;

use super::*;
use crate::{config::Config, registry::backend::Known};

/// A store as `distribution` writes it.
struct Old {
    folder: TempDir,
}

impl Old {
    fn new() -> Self {
        let old = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir_all(old.root().join("repositories")).unwrap();
        old
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("docker/registry/v2")
    }

    fn write(&self, place: &str, bytes: impl AsRef<[u8]>) {
        let path = self.root().join(place);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn blob(&self, bytes: &[u8]) -> Digest {
        let digest = Algorithm::Sha256.digest(bytes);
        self.write(&OldStore::place_of(&digest), bytes);
        digest
    }

    fn manifest(&self, repository: &str, content: &str) -> Digest {
        let digest = self.blob(content.as_bytes());
        let place = revision(repository, &digest);
        self.write(&place, digest.as_str());
        digest
    }

    /// An image of one layer, and its layer's digest.
    fn image(&self, repository: &str, layer: &[u8]) -> (Digest, Digest) {
        let config = self.blob(b"{}");
        let digest = self.blob(layer);
        let content = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"a/b","digest":"{config}","size":2}},
                "layers":[{{"mediaType":"a/c","digest":"{digest}","size":{}}}]}}"#,
            layer.len()
        );
        (self.manifest(repository, &content), digest)
    }

    fn index(&self, repository: &str, children: &[&Digest]) -> Digest {
        let children: Vec<String> =
            children.iter().map(|it| format!(r#"{{"mediaType":"","digest":"{it}"}}"#)).collect();
        let content = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, children.join(","));
        self.manifest(repository, &content)
    }

    fn tag(&self, repository: &str, tag: &str, link: &str) {
        let place = format!("repositories/{repository}/_manifests/tags/{tag}/current/link");
        self.write(&place, link);
    }

    /// Every file, with its bytes and the number of its inode.
    fn content(&self) -> BTreeMap<PathBuf, (Vec<u8>, u64)> {
        let mut content = BTreeMap::new();
        let mut waiting = vec![self.root()];
        while let Some(folder) = waiting.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let meta = path.symlink_metadata().unwrap();
                if meta.is_dir() {
                    waiting.push(path);
                } else if meta.is_file() {
                    content.insert(path.clone(), (fs::read(&path).unwrap(), meta.ino()));
                }
            }
        }
        content
    }
}

fn revision(repository: &str, digest: &Digest) -> String {
    format!("repositories/{repository}/_manifests/revisions/sha256/{}/link", digest.hex())
}

/// Berth, offline, on a fresh data directory.
struct Berth {
    folder: TempDir,
    offline: Offline,
}

impl Berth {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("registry.toml");
        let text = "listen = \"127.0.0.1:0\"\npublic_urls = [\"http://localhost:5000\"]\n\
                    data = \"data\"\nauth_socket = \"auth.sock\"\n";
        fs::write(&file, text).unwrap();
        let config = Config::read(&file).unwrap();
        let offline = Offline::open(&config, Clock::system()).await.unwrap();
        Self { folder, offline }
    }

    /// Imports, and gives the summary and the problems as text.
    async fn import(&self, directory: &Path, how: How, verify: bool) -> (Summary, Vec<String>) {
        let (events, mut told) = Events::channel();
        let options = Options { how, verify, owner: None };
        let listen = async {
            let mut problems = Vec::new();
            while let Some(event) = told.recv().await {
                if let Event::LeftBehind { place, what, images } = event {
                    problems.push(format!("{what} ({place}) {}", images.join(" ")));
                }
            }
            problems
        };
        let (summary, problems) =
            tokio::join!(run(&self.offline, directory, options, events), listen);
        (summary.unwrap(), problems)
    }

    async fn tag(&self, repository: &str, tag: &str) -> Option<Digest> {
        let (repository, tag) = (repository.parse().unwrap(), tag.parse().unwrap());
        self.offline.registry().database().tag(&repository, &tag).await.unwrap()
    }

    async fn manifest(&self, repository: &str, digest: &Digest) -> bool {
        let repository = repository.parse().unwrap();
        self.offline.registry().database().manifest(&repository, digest).await.unwrap().is_some()
    }

    /// Where the blob lies, if the repository holds it and it is sound.
    async fn blob(&self, repository: &str, digest: &Digest) -> Option<PathBuf> {
        let registry = self.offline.registry();
        let repository = repository.parse().unwrap();
        let linked = registry.database().linked_blob(&repository, digest).await.unwrap()?;
        let known = registry.backend.know(digest).await.unwrap();
        assert_eq!(known, Known::Sound(linked.blob.size), "{digest}");
        let location = linked.blob.location.as_str();
        let path = self.folder.path().join("data/objects").join(&location[..2]).join(location);
        assert_eq!(digest.algorithm().digest(&fs::read(&path).unwrap()), *digest);
        Some(path)
    }
}

fn has(problems: &[String], words: &[&str]) -> bool {
    problems.iter().any(|problem| words.iter().all(|word| problem.contains(word)))
}

/// BuildKit's cache of before 2025: an index of blobs.
#[tokio::test]
async fn a_cache_comes_with_its_blobs() {
    let old = Old::new();
    let (config, layer) = (old.blob(b"{\"layers\":[]}"), old.blob(b"a layer of the cache"));
    let content = format!(
        r#"{{"schemaVersion":2,"manifests":[
            {{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"{layer}","size":20}},
            {{"mediaType":"application/vnd.buildkit.cacheconfig.v0","digest":"{config}","size":13}}]}}"#
    );
    let index = old.manifest("bk/app", &content);
    old.tag("bk/app", "buildcache", index.as_str());
    let berth = Berth::new().await;
    let (summary, problems) = berth.import(old.folder.path(), How::Copy, true).await;
    assert_eq!(problems, Vec::<String>::new());
    assert_eq!((summary.manifests, summary.tags, summary.blobs), (1, 1, 2));
}

#[tokio::test]
async fn a_sound_store_is_taken_by_link_and_stays_as_it_was() {
    let old = Old::new();
    let (one, layer) = old.image("app", b"shared layer");
    let (two, _) = old.image("team/app", b"shared layer");
    let (arm, arm_layer) = old.image("team/app", b"another layer");
    let index = old.index("team/app", &[&two, &arm]);
    let outer = old.index("team/app", &[&index]);
    old.tag("app", "1", one.as_str());
    old.tag("team/app", "many", outer.as_str());
    // What deleting a manifest leaves behind.
    fs::create_dir_all(
        old.root().join("repositories/app/_manifests/revisions/sha256").join("a".repeat(64)),
    )
    .unwrap();
    let before = old.content();

    let berth = Berth::new().await;
    let (done, problems) = berth.import(old.folder.path(), How::HardLink, true).await;
    assert_eq!(problems, [""; 0]);
    let counts = (done.repositories, done.manifests, done.tags, done.blobs, done.skipped);
    assert_eq!(counts, (2, 5, 2, 3, 0));
    assert_eq!(berth.tag("app", "1").await, Some(one));
    assert_eq!(berth.tag("team/app", "many").await, Some(outer));
    let path = berth.blob("app", &layer).await.unwrap();
    assert_eq!(berth.blob("team/app", &layer).await, Some(path.clone()));
    assert!(berth.blob("app", &arm_layer).await.is_none());
    assert_eq!(before, old.content());
    let kept = &before[&old.root().join(OldStore::place_of(&layer))];
    assert_eq!(fs::metadata(path).unwrap().ino(), kept.1);

    // Named by its inner directory, and a second time: nothing is left to do.
    let (again, problems) = berth.import(&old.root(), How::HardLink, false).await;
    assert_eq!(problems, [""; 0]);
    let counts = (again.manifests, again.tags, again.blobs, again.bytes, again.present);
    assert_eq!(counts, (0, 0, 0, 0, 7));
    assert_eq!(before, old.content());
}

#[tokio::test]
async fn what_is_put_in_a_blobs_place_meanwhile_is_not_taken() {
    let old = Old::new();
    let (image, layer) = old.image("app", b"layer");
    old.tag("app", "1", image.as_str());
    let berth = Berth::new().await;
    let others: Vec<PathBuf> = ["{}".as_bytes(), b"layer"]
        .map(|bytes| old.root().join(OldStore::place_of(&Algorithm::Sha256.digest(bytes))))
        .into();
    let (events, mut told) = Events::channel();
    let options = Options { how: How::Copy, verify: true, owner: None };
    // With the queue full, what is told waits until something is heard.
    while events.say(Event::Held).now_or_never().is_some() {}
    let objects = berth.folder.path().join("data/objects");
    let is_empty = |shard: &PathBuf| fs::read_dir(shard).unwrap().next().is_none();
    let swap = async {
        told.recv().await;
        let shards: Vec<_> =
            fs::read_dir(&objects).unwrap().map(|entry| entry.unwrap().path()).collect();
        while shards.iter().all(is_empty) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // The first is being taken, and the second waits until that is told.
        for path in &others {
            let other = path.with_extension("new");
            fs::write(&other, vec![b'x'; fs::read(path).unwrap().len()]).unwrap();
            fs::rename(&other, path).unwrap();
        }
        while told.recv().await.is_some() {}
    };
    let (failed, ()) = tokio::join!(run(&berth.offline, old.folder.path(), options, events), swap);
    let failed = failed.unwrap_err();
    let is_told = matches!(&failed, Error::Io { what, .. } if what.starts_with("taking in "));
    assert!(is_told, "{failed:?}");
    assert!(berth.blob("app", &layer).await.is_none());
}

#[tokio::test]
async fn damage_is_named_with_its_images_and_left_behind() {
    let old = Old::new();
    let (good, _) = old.image("app", b"good");
    let (emptied, empty_layer) = old.image("app", b"to be emptied");
    let (missing, missing_layer) = old.image("app", b"to be removed");
    let (short, short_layer) = old.image("app", b"to be cut");
    let (child, _) = old.image("app", b"a child");
    let index = old.index("app", &[&good, &child]);
    let outer = old.index("app", &[&index]);
    let schema1 = old.manifest("app", r#"{"schemaVersion":1,"fsLayers":[]}"#);
    let (unlinked, _) = old.image("app", b"its revision link is emptied");
    for (tag, digest) in [
        ("good", &good),
        ("emptied", &emptied),
        ("missing", &missing),
        ("short", &short),
        ("outer", &outer),
        ("schema1", &schema1),
        ("unlinked", &unlinked),
    ] {
        old.tag("app", tag, digest.as_str());
    }
    old.tag("app", "hostile", "../../../../../../etc/passwd");
    old.tag("app", "empty", "");
    old.write(&OldStore::place_of(&empty_layer), "");
    fs::remove_file(old.root().join(OldStore::place_of(&missing_layer))).unwrap();
    old.write(&OldStore::place_of(&short_layer), "to be");
    fs::remove_file(old.root().join(revision("app", &child))).unwrap();
    old.write(&revision("app", &unlinked), "");

    let berth = Berth::new().await;
    let (done, problems) = berth.import(old.folder.path(), How::HardLink, false).await;
    for words in [
        &["zero bytes", "app:emptied"][..],
        &["is missing", missing_layer.as_str(), "app:missing"],
        &["has 5 bytes", "says 9", "app:short"],
        &["is missing", child.as_str(), "app:outer"],
        &["schema 1", "app:schema1"],
        &["link is empty", "app:unlinked"],
        &["link is empty", "app:empty"],
        &["no digest", "app:hostile"],
    ] {
        assert!(has(&problems, words), "{words:?} in {problems:#?}");
    }
    assert_eq!(done.problems, 8, "{problems:#?}");
    assert_eq!((done.manifests, done.tags), (1, 1));
    assert_eq!(berth.tag("app", "good").await, Some(good));
    for left in [&emptied, &missing, &short, &index, &outer, &schema1, &unlinked] {
        assert!(!berth.manifest("app", left).await, "{left}");
    }
}

#[tokio::test]
async fn symbolic_links_lead_nowhere() {
    let old = Old::new();
    let outside = tempfile::tempdir().unwrap();
    let (image, layer) = old.image("app", b"outside");
    old.tag("app", "1", image.as_str());
    let path = old.root().join(OldStore::place_of(&layer));
    fs::rename(&path, outside.path().join("data")).unwrap();
    symlink(outside.path().join("data"), &path).unwrap();
    symlink(outside.path(), old.root().join("repositories/elsewhere")).unwrap();

    let berth = Berth::new().await;
    let (done, problems) = berth.import(old.folder.path(), How::HardLink, false).await;
    assert_eq!((done.manifests, done.blobs), (0, 0));
    assert!(has(&problems, &["leads out of the store", "app:1"]), "{problems:#?}");
    assert!(has(&problems, &["symbolic link", "repositories/elsewhere"]), "{problems:#?}");
}

#[tokio::test]
async fn other_bytes_of_the_right_length_are_found_when_asked_for() {
    let old = Old::new();
    let (image, layer) = old.image("app", b"right");
    old.tag("app", "1", image.as_str());
    old.write(&OldStore::place_of(&layer), "wrong");
    let berth = Berth::new().await;
    let (done, problems) = berth.import(old.folder.path(), How::HardLink, true).await;
    assert_eq!(done.manifests, 0);
    assert!(has(&problems, &["other bytes", "app:1"]), "{problems:#?}");
}

#[tokio::test]
async fn adopting_moves_the_blobs_and_copying_leaves_them() {
    let old = Old::new();
    let (image, layer) = old.image("app", b"layer");
    old.tag("app", "1", image.as_str());
    let path = old.root().join(OldStore::place_of(&layer));

    let copied = Berth::new().await;
    copied.import(old.folder.path(), How::Copy, true).await;
    let copy = copied.blob("app", &layer).await.unwrap();
    assert_ne!(fs::metadata(copy).unwrap().ino(), fs::metadata(&path).unwrap().ino());

    let berth = Berth::new().await;
    berth.import(old.folder.path(), How::Adopt, false).await;
    assert!(!path.exists());
    assert!(berth.blob("app", &layer).await.is_some());
    // The blobs are gone from there, and known by what is here.
    let (again, problems) = berth.import(old.folder.path(), How::Adopt, false).await;
    assert_eq!((problems.len(), again.manifests, again.present), (0, 0, 2));
}

#[tokio::test]
async fn what_was_broken_off_or_pushed_meanwhile_is_taken_by_the_next_run() {
    let old = Old::new();
    let (first, layer) = old.image("app", b"first");
    let (second, second_layer) = old.image("app", b"second");
    old.tag("app", "latest", first.as_str());
    // As a run that broke off leaves it: some of it is here.
    let taken_away = old.root().join(OldStore::place_of(&second_layer));
    fs::rename(&taken_away, old.folder.path().join("aside")).unwrap();
    let berth = Berth::new().await;
    let (done, _) = berth.import(old.folder.path(), How::HardLink, false).await;
    assert_eq!((done.manifests, done.tags, done.problems), (1, 1, 1));

    fs::rename(old.folder.path().join("aside"), taken_away).unwrap();
    old.tag("app", "latest", second.as_str());
    let link = old.root().join("repositories/app/_manifests/tags/latest/current/link");
    let later = std::time::UNIX_EPOCH + Duration::from_secs(4_000_000_000);
    fs::File::options().write(true).open(link).unwrap().set_modified(later).unwrap();
    // And an object that was lost here comes again.
    fs::remove_file(berth.blob("app", &layer).await.unwrap()).unwrap();
    let (done, problems) = berth.import(old.folder.path(), How::HardLink, false).await;
    assert_eq!(problems, [""; 0]);
    assert_eq!((done.manifests, done.tags, done.blobs), (1, 1, 2));
    assert_eq!(berth.tag("app", "latest").await, Some(second));
    assert!(berth.blob("app", &layer).await.is_some());
}
