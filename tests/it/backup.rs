//! Backups while the server runs, and what restoring them brings back.

use std::{
    fs,
    path::{Path, PathBuf},
    pin::Pin,
};

use berth_shared::clock::Clock;
use harness::{
    Stack,
    image::{Image, digest_of, push_blob},
};
use registry_server::{
    config::Config,
    data::{CONTROL_SOCKET, Home},
    jobs::{Job, event::Told},
    registry::event::{Event, Events},
    server::Server,
    transfer::{self, backup, restore},
};

/// How far the clock goes until nothing is young any more.
const AGES: std::time::Duration = std::time::Duration::from_secs(90 * 24 * 3600);

type Work<T> = Pin<Box<dyn Future<Output = Result<T, transfer::Error>> + Send>>;

/// Collects what is told meanwhile.
async fn told<T: Send + 'static>(
    work: impl FnOnce(Events) -> Work<T>,
) -> (Result<T, transfer::Error>, Vec<Event>) {
    let (events, mut received) = Events::channel();
    let work = tokio::spawn(work(events));
    let mut told = Vec::new();
    while let Some(event) = received.recv().await {
        told.push(event);
    }
    (work.await.expect("the work panicked"), told)
}

/// A stack with a directory to back up to.
struct Bench {
    stack: Stack,
    to: PathBuf,
    token: String,
}

impl Bench {
    async fn new() -> Self {
        let stack = Stack::start().await;
        let to = stack.root().join("backup");
        let token = stack.forged_token("andrew", &["repository:team/app:*"]);
        Self { stack, to, token }
    }

    fn data(&self) -> PathBuf {
        self.stack.root().join("registry")
    }

    async fn push(&self, name: &str) -> Image {
        let image = Image::new(name);
        image.push(&self.stack.client, &self.token, "team/app", name).await;
        image
    }

    async fn try_backup(&self) -> (Result<backup::Summary, transfer::Error>, Vec<Event>) {
        let (home, to, clock) = (self.stack.home(), self.to.clone(), self.stack.clock.clone());
        told(|events| Box::pin(backup::backup(home, to, clock, events))).await
    }

    async fn backup(&self) -> backup::Summary {
        self.try_backup().await.0.expect("a backup")
    }

    async fn try_restore(&self) -> (Result<restore::Summary, transfer::Error>, Vec<Event>) {
        let (home, from, clock) = (self.stack.home(), self.to.clone(), self.stack.clock.clone());
        told(|events| Box::pin(restore::restore(home, from, clock, events))).await
    }

    /// Refused, and in which words.
    async fn refuses_to_restore(&self) -> String {
        self.try_restore().await.0.expect_err("a refusal").to_string()
    }

    async fn lose_everything(&mut self) {
        self.stack.stop_registry().await;
        fs::remove_dir_all(self.data()).expect("removing the data");
    }

    /// The registry as it was in the backup.
    async fn lose_and_restore(&mut self) -> (restore::Summary, Vec<Event>) {
        self.lose_everything().await;
        let (restored, events) = self.try_restore().await;
        let restored = restored.expect("restoring");
        self.stack.start_registry().await;
        (restored, events)
    }

    async fn tags(&self) -> Vec<String> {
        let answer = self.stack.client.get(&self.token, "/v2/team/app/tags/list").await;
        if answer.status == 404 {
            return Vec::new();
        }
        let tags = answer.expect(200).json()["tags"].clone();
        tags.as_array().expect("tags").iter().map(|it| it.as_str().expect("one").into()).collect()
    }

    /// Manifest and blobs come back as they were pushed.
    async fn pulls(&self, name: &str) {
        let (image, client) = (Image::new(name), &self.stack.client);
        let get = async |target: String| client.get(&self.token, target).await.expect(200).body;
        assert_eq!(get(format!("/v2/team/app/manifests/{name}")).await, image.manifest);
        for blob in [image.config, image.layer] {
            assert_eq!(get(format!("/v2/team/app/blobs/{}", digest_of(&blob))).await, blob);
        }
    }

    async fn job(&self, job: Job) {
        let socket = self.data().join(CONTROL_SOCKET);
        let mut events = job.ask(&socket).await.expect("the control socket");
        while let Some(event) = events.recv().await {
            assert!(!matches!(event, Told::Failed { .. }), "{event:?}");
        }
    }

    /// Deletes everything and lets collection take its bytes.
    async fn delete_and_collect(&mut self) {
        self.job(Job::Delete {
            repository: "team/app".parse().expect("a name"),
            reference: None,
            force: false,
        })
        .await;
        self.stack.clock.advance(AGES);
        self.job(Job::Collect { dry_run: false }).await;
        self.token = self.stack.forged_token("andrew", &["repository:team/app:*"]);
    }

    /// The file that holds the bytes in the backup.
    fn object_with(&self, bytes: &[u8]) -> PathBuf {
        let found = objects(&self.to.join("objects"))
            .into_iter()
            .find(|it| fs::read(it).expect("an object") == bytes);
        found.expect("an object with these bytes")
    }
}

fn objects(root: &Path) -> Vec<PathBuf> {
    let list = |folder: PathBuf| fs::read_dir(folder).expect("a folder").map(|it| it.expect("one"));
    list(root.to_owned()).flat_map(|shard| list(shard.path())).map(|it| it.path()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_taken_while_pushes_go_on_is_whole() {
    let mut bench = Bench::new().await;
    for number in 0..5 {
        bench.push(&format!("before-{number}")).await;
    }
    let (client, token) = (bench.stack.client.clone(), bench.token.clone());
    let pushes = tokio::spawn(async move {
        for number in 0..30 {
            let name = format!("during-{number:02}");
            Image::new(&name).push(&client, &token, "team/app", &name).await;
        }
    });
    harness::eventually("pushes are under way", async || {
        bench.tags().await.contains(&"during-03".to_owned()).then_some(())
    })
    .await;
    let backed_up = bench.backup().await;
    pushes.await.expect("the pushes");
    assert_eq!(backed_up.missing, 0);
    let (restored, _) = bench.lose_and_restore().await;
    assert_eq!(restored.damaged, 0);
    let tags = bench.tags().await;
    assert!(tags.len() >= 9, "{tags:?}");
    for tag in tags {
        bench.pulls(&tag).await;
    }
}

#[tokio::test]
async fn what_is_collected_after_the_backup_is_still_in_it() {
    let mut bench = Bench::new().await;
    bench.push("one").await;
    assert_eq!(bench.backup().await.blobs, 2);
    // That anything goes also shows that the backup's hold has ended.
    bench.delete_and_collect().await;
    assert!(bench.stack.objects().is_empty(), "{:?}", bench.stack.objects());
    assert_eq!(objects(&bench.to.join("objects")).len(), 2);
    bench.lose_and_restore().await;
    bench.pulls("one").await;
}

#[tokio::test]
async fn a_second_backup_adds_what_is_new_and_removes_what_is_gone() {
    let mut bench = Bench::new().await;
    bench.push("one").await;
    let first = bench.backup().await;
    assert_eq!((first.blobs, first.added, first.removed), (2, 2, 0));
    bench.push("two").await;
    let second = bench.backup().await;
    assert_eq!((second.blobs, second.added, second.removed), (4, 2, 0));
    assert_eq!(bench.backup().await.added, 0);
    bench.delete_and_collect().await;
    bench.push("three").await;
    let last = bench.backup().await;
    assert_eq!((last.manifests, last.blobs, last.added, last.removed), (1, 2, 2, 4));
    assert_eq!(objects(&bench.to.join("objects")).len(), 2);
}

#[tokio::test]
async fn a_backup_that_was_broken_off_leaves_the_one_before_whole() {
    let mut bench = Bench::new().await;
    bench.push("one").await;
    bench.backup().await;
    // What an attempt leaves behind that ends before its database takes its place.
    fs::write(bench.to.join("registry.db.new"), "half a database").expect("a file");
    fs::write(bench.to.join("registry.db.new-journal"), "half a journal").expect("a file");
    let object = format!("objects/ab/ab{}", "0".repeat(30));
    fs::write(bench.to.join(&object), "a later object").expect("a file");
    fs::write(bench.to.join(format!("{object}.partial")), "half an object").expect("a file");
    bench.lose_and_restore().await;
    bench.pulls("one").await;
    bench.push("two").await;
    let next = bench.backup().await;
    assert_eq!((next.blobs, next.added, next.removed), (4, 2, 1));
    assert_eq!(objects(&bench.to.join("objects")).len(), 4);
    assert!(!bench.to.join("registry.db.new").exists());
    bench.lose_and_restore().await;
    bench.pulls("two").await;
}

#[tokio::test]
async fn a_backup_without_a_server_takes_its_place() {
    let mut bench = Bench::new().await;
    bench.push("one").await;
    bench.stack.stop_registry().await;
    assert_eq!(bench.backup().await.blobs, 2);
    bench.stack.start_registry().await;
    bench.lose_and_restore().await;
    bench.pulls("one").await;
}

#[tokio::test]
async fn a_missing_object_is_told_and_the_rest_is_backed_up() {
    let mut bench = Bench::new().await;
    let image = bench.push("one").await;
    bench.push("two").await;
    for object in bench.stack.objects() {
        if fs::read(&object).expect("an object") == image.layer {
            fs::remove_file(object).expect("removing it");
        }
    }
    let (backed_up, events) = bench.try_backup().await;
    let backed_up = backed_up.expect("a backup");
    assert_eq!((backed_up.missing, backed_up.added), (1, 3));
    let is_it = |event: &Event| {
        matches!(event, Event::Damaged { digest, images, .. }
        if *digest == digest_of(&image.layer) && images[..] == ["team/app:one"])
    };
    assert!(events.iter().any(is_it), "{events:?}");
    let (restored, _) = bench.lose_and_restore().await;
    assert_eq!(restored.damaged, 1);
    bench.pulls("two").await;
}

#[tokio::test]
async fn a_directory_of_something_else_is_no_place_for_a_backup() {
    let bench = Bench::new().await;
    bench.push("one").await;
    fs::create_dir(&bench.to).expect("a directory");
    fs::write(bench.to.join("letter.txt"), "mine").expect("a file");
    let refused = bench.try_backup().await.0.expect_err("a refusal").to_string();
    assert!(refused.contains("neither empty nor a backup"), "{refused}");
    let all = fs::read_dir(&bench.to).expect("the directory").count();
    assert_eq!(all, 1, "something was written");
}

#[tokio::test]
async fn upload_sessions_are_not_backed_up() {
    let mut bench = Bench::new().await;
    bench.push("one").await;
    let client = bench.stack.client.clone();
    let location = harness::image::start_upload(&client, &bench.token, "team/app").await;
    bench.backup().await;
    bench.lose_and_restore().await;
    bench.stack.client.get(&bench.token, location).await.expect_error(404, "BLOB_UPLOAD_UNKNOWN");
}

#[tokio::test]
async fn restoring_refuses_a_running_server_and_a_registry_that_is_there() {
    let mut bench = Bench::new().await;
    bench.push("one").await;
    bench.backup().await;
    let refused = bench.refuses_to_restore().await;
    assert!(refused.contains("in use by another registry-server"), "{refused}");
    bench.stack.stop_registry().await;
    let refused = bench.refuses_to_restore().await;
    assert!(refused.contains("a registry is there already"), "{refused}");
    // A journal alone would be replayed into the restored database.
    fs::remove_file(bench.data().join("registry.db")).expect("removing the database");
    fs::write(bench.data().join("registry.db-wal"), "old").expect("a journal");
    let refused = bench.refuses_to_restore().await;
    assert!(refused.contains("registry.db-wal"), "{refused}");
}

#[tokio::test]
async fn restoring_refuses_what_is_no_backup_or_a_newer_one() {
    let mut bench = Bench::new().await;
    bench.push("one").await;
    bench.backup().await;
    bench.lose_everything().await;
    let description = bench.to.join("backup.json");
    let written = fs::read_to_string(&description).expect("a description");
    fs::write(&description, written.replace("\"format\": 1", "\"format\": 2")).expect("a file");
    let refused = bench.refuses_to_restore().await;
    assert!(refused.contains("newer version"), "{refused}");
    fs::remove_file(&description).expect("removing it");
    let refused = bench.refuses_to_restore().await;
    assert!(refused.contains("is no backup"), "{refused}");
    assert!(!bench.data().exists(), "something was made");
    fs::write(&description, written).expect("a file");
    // A page in the middle of the database.
    let database = bench.to.join("registry.db");
    let mut bytes = fs::read(&database).expect("a database");
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 4096].fill(0xff);
    fs::write(&database, bytes).expect("a database");
    bench.try_restore().await.0.expect_err("a damaged database");
    assert!(!bench.data().join("registry.db").exists(), "a damaged database was restored");
}

#[tokio::test]
async fn what_is_damaged_in_a_backup_is_told_and_can_be_pushed_again() {
    let mut bench = Bench::new().await;
    let (one, two) = (bench.push("one").await, bench.push("two").await);
    bench.push("three").await;
    bench.backup().await;
    bench.lose_everything().await;
    let other = vec![b'x'; one.layer.len()];
    fs::write(bench.object_with(&one.layer), other).expect("other bytes");
    fs::remove_file(bench.object_with(&two.config)).expect("removing an object");
    let (restored, events) = bench.try_restore().await;
    assert_eq!(restored.expect("restoring").damaged, 2);
    let named: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Damaged { images, .. } => Some(images.join(" ")),
            _ => None,
        })
        .collect();
    assert!(named.contains(&"team/app:one".into()) && named.contains(&"team/app:two".into()));
    bench.stack.start_registry().await;
    bench.pulls("three").await;
    for blob in [one.layer, two.config] {
        let target = format!("/v2/team/app/blobs/{}", digest_of(&blob));
        bench.stack.client.head(&bench.token, target).await.expect(404);
        push_blob(&bench.stack.client, &bench.token, "team/app", &blob).await;
    }
    bench.pulls("one").await;
    bench.pulls("two").await;
}

#[tokio::test]
async fn restoring_goes_on_where_it_was_broken_off() {
    let mut bench = Bench::new().await;
    let image = bench.push("one").await;
    bench.backup().await;
    bench.lose_everything().await;
    bench.try_restore().await.0.expect("restoring");
    // As it is before the end: no database yet, one object short, and one missing.
    let data = bench.data();
    fs::rename(data.join("registry.db"), data.join("registry.db.restoring")).expect("renaming");
    for object in bench.stack.objects() {
        let is_layer = fs::read(&object).expect("an object") == image.layer;
        fs::remove_file(&object).expect("removing an object");
        if is_layer {
            fs::write(&object, "half").expect("a short object");
        }
    }
    assert_eq!(bench.try_restore().await.0.expect("going on").damaged, 0);
    bench.stack.start_registry().await;
    bench.pulls("one").await;
}

#[tokio::test]
async fn half_of_a_restored_backup_is_not_served_and_not_taken_for_all_there_is() {
    let mut bench = Bench::new().await;
    bench.push("one").await;
    bench.backup().await;
    bench.lose_everything().await;
    // As one that was killed leaves it.
    fs::create_dir_all(bench.data().join("objects")).expect("a directory");
    fs::copy(bench.to.join("registry.db"), bench.data().join("registry.db.restoring"))
        .expect("rows");
    let config = Config::read(&bench.stack.root().join("registry.toml")).expect("settings");
    let started = Server::start(config, bench.stack.clock.clone()).await;
    let refused = started.err().expect("a refusal").to_string();
    assert!(refused.contains("go on with registry-server restore"), "{refused}");
    bench.stack.home().open_beside().await.expect_err("half of a registry");
    bench.try_backup().await.0.expect_err("half of a registry");
    bench.try_restore().await.0.expect("going on");
    bench.stack.start_registry().await;
    bench.pulls("one").await;
}

#[tokio::test]
async fn an_empty_registry_takes_no_backup_away_and_an_empty_backup_is_none() {
    let mut bench = Bench::new().await;
    bench.push("one").await;
    bench.backup().await;
    bench.lose_everything().await;
    bench.stack.start_registry().await;
    let refused = bench.try_backup().await.0.expect_err("a refusal").to_string();
    assert!(refused.contains("name another directory"), "{refused}");
    bench.lose_everything().await;
    let whole = fs::read(bench.to.join("registry.db")).expect("rows");
    fs::write(bench.to.join("registry.db"), b"").expect("none");
    let refused = bench.refuses_to_restore().await;
    assert!(refused.contains("not the one that the backup was made with"), "{refused}");
    // What was refused keeps no server from starting.
    assert!(!bench.data().join("registry.db.restoring").exists());
    fs::write(bench.to.join("registry.db"), whole).expect("rows");
    bench.try_restore().await.0.expect("restoring");
    bench.stack.start_registry().await;
    bench.pulls("one").await;
}

#[tokio::test]
async fn what_does_not_exist_is_neither_backed_up_nor_made() {
    let nowhere = tempfile::tempdir().expect("a directory");
    let home = Home { data: nowhere.path().join("data"), database: None, store: None };
    let to = nowhere.path().join("to");
    let clock = Clock::system();
    let (backed_up, _) = told(|events| Box::pin(backup::backup(home, to, clock, events))).await;
    let refused = backed_up.expect_err("a refusal").to_string();
    assert!(refused.contains("holds no registry"), "{refused}");
    assert_eq!(fs::read_dir(nowhere.path()).expect("the directory").count(), 0);
}
