//! The oracle, counted: who may not learns nothing from the work either that a request makes.
//!
//! In a binary of its own, since what is counted is the work of the whole process.

use std::{
    fs::{self, File},
    path::PathBuf,
    time::Duration,
};

use bytes::Bytes;
use harness::{
    Response, Secret,
    client::Call,
    events::{Event, Recording},
    image::{INDEX, Image, MANIFEST, digest_of, push_blob, put_manifest},
    stack::PASSWORD,
};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use serde_json::{Value, json};

/// How often a comparison is tried. The servers look after each other every two seconds, which
/// disturbs a comparison now and then; a difference of their own making shows every time.
const TRIES: usize = 10;

/// How long nothing must happen before a request counts as over.
const QUIET: Duration = Duration::from_millis(5);

/// What the audit writes comes after the answers, in batches and whatever they were; and who looks
/// at the database after that asks whether it was the policy that changed. Its transactions are told
/// from others by what is in them, so that no beginning and no end counts.
const AUDITS: [&str; 5] = ["audit", "policy_version", "BEGIN", "COMMIT", "ROLLBACK"];

/// The work that some requests made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Work {
    bcrypt: u64,
    queries: usize,
    storage: usize,
}

/// What can be seen of some requests, from outside and from the time that they take.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    answers: Vec<String>,
    work: Work,
}

struct Counter {
    secret: Secret,
    recording: Recording,
}

impl Counter {
    /// Sends the requests one after the other.
    async fn watch(&self, calls: Vec<Call>) -> Seen {
        self.settle().await;
        let auth = &self.secret.stack.auth;
        let (_, before) = (self.recording.take(), auth.bcrypt_runs());
        let mut answers = Vec::new();
        for call in calls {
            answers.push(self.without_names(&call.send().await));
        }
        self.settle().await;
        let bcrypt = auth.bcrypt_runs() - before;
        let events = self.recording.take();
        let is_counted = |event: &&Event| !AUDITS.iter().any(|word| event.text.contains(word));
        let events: Vec<_> = events.iter().filter(is_counted).collect();
        let count = |target| events.iter().filter(|event| event.target == target).count();
        let work = Work { bcrypt, queries: count("sqlx::query"), storage: count("berth::storage") };
        Seen { answers, work }
    }

    /// What tells this answer from one alike and was the client's own word, or chance, made equal.
    fn without_names(&self, answer: &Response) -> String {
        let text = answer.comparable().replace("absent", "secret");
        let known = digest_of(&self.secret.image.layer);
        let text = text.replace(digest_of(b"nothing").as_str(), known.as_str());
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let random = [answer.find_header("docker-upload-uuid"), body["token"].as_str()];
        random.into_iter().flatten().fold(text, |text, random| text.replace(random, "random"))
    }

    async fn settle(&self) {
        loop {
            let before = self.recording.len();
            tokio::time::sleep(QUIET).await;
            if self.recording.len() == before {
                return;
            }
        }
    }

    /// Asserts that all of `alike` look the same. They are made anew for each try, which is told
    /// its number, so that what is remembered of one try need not help the next.
    async fn compare(&self, what: &str, alike: impl Fn(usize) -> Vec<Vec<Call>>) -> Work {
        let mut seen = Vec::new();
        for number in 0..TRIES {
            seen.clear();
            for calls in alike(number) {
                seen.push(self.watch(calls).await);
            }
            assert!(seen.len() > 1, "nothing to compare");
            if seen.iter().all(|it| *it == seen[0]) {
                return seen[0].work;
            }
        }
        panic!("{what}: {seen:#?}");
    }

    fn call(&self, method: &str, target: &str, token: Option<&String>) -> Call {
        let call = self.secret.stack.client.call(method, target);
        match token {
            Some(token) => call.bearer(token),
            None => call,
        }
    }

    /// Who has no right to a repository, whatever they do.
    async fn without_rights(&self) {
        let methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];
        for stranger in self.secret.strangers() {
            for (there, not_there) in self.secret.pairs() {
                let all = |name: &str, path: &str| {
                    let target = format!("/v2/{name}/{path}");
                    let send = |method| self.call(method, &target, stranger.token.as_ref());
                    methods.map(send).into()
                };
                let what = format!("{}: {there}", stranger.name);
                let work = self.compare(&what, |_| {
                    vec![all("secret", &there), all("secret", &not_there), all("absent", &there)]
                });
                let work = work.await;
                assert_eq!((work.bcrypt, work.storage), (0, 0), "{what}");
            }
        }
    }

    /// Who has every right to one repository, and asks there for what lies in another.
    async fn with_rights_elsewhere(&self) {
        let known = digest_of(&self.secret.image.layer);
        let unknown = digest_of(b"nothing");
        let token = self.secret.stack.forged_token("andrew", &["repository:public:*"]);
        for (method, path) in [
            ("GET", "blobs/DIGEST"),
            ("HEAD", "blobs/DIGEST"),
            ("DELETE", "blobs/DIGEST"),
            ("GET", "manifests/DIGEST"),
            ("DELETE", "manifests/DIGEST"),
            ("GET", "referrers/DIGEST"),
            ("POST", "blobs/uploads/?digest=DIGEST"),
            ("PUT", "manifests/v1"),
        ] {
            let work = self.compare(path, |_| {
                let ask = |digest: &str| {
                    let target = format!("/v2/public/{}", path.replace("DIGEST", digest));
                    let call = self.call(method, &target, Some(&token));
                    let layer = json!({ "mediaType": "a/b", "digest": digest, "size": 1 });
                    let manifest = json!({ "schemaVersion": 2, "layers": [layer] });
                    let body = if method == "PUT" { manifest.to_string() } else { String::new() };
                    vec![call.header("content-type", MANIFEST).body(body)]
                };
                vec![ask(known.as_str()), ask(unknown.as_str())]
            });
            assert!(work.await.queries > 0, "{method} {path}");
        }
    }

    /// Who would mount what may not be pulled. Each subject asks once, since its rights are
    /// remembered for a while.
    async fn mounts(&self) {
        for number in 0..20 {
            self.secret.stack.grant("everyone", &format!("team-{number}/**:pull")).await;
        }
        let known = digest_of(&self.secret.image.layer);
        let unknown = digest_of(b"nothing");
        let anywhere = [format!("mount={known}"), format!("mount={unknown}")];
        let from = [
            format!("mount={known}&from=secret"),
            format!("mount={unknown}&from=secret"),
            format!("mount={known}&from=absent"),
        ];
        for (kind, queries) in [("anywhere", &anywhere[..]), ("from", &from[..])] {
            let work = self.compare(kind, |number| {
                let ask = |(index, query): (usize, &String)| {
                    let user = format!("{kind}-{number}-{index}");
                    let scopes = ["repository:public:pull,push"];
                    let token = self.secret.stack.forged_token(&user, &scopes);
                    let target = format!("/v2/public/blobs/uploads/?{query}");
                    vec![self.call("POST", &target, Some(&token))]
                };
                queries.iter().enumerate().map(ask).collect()
            });
            assert!(work.await.queries > 0, "{kind}");
        }
    }

    /// What a push costs the writer does not grow with what it names by more than its bytes.
    async fn indexes(&self) {
        let token = self.secret.stack.forged_token("owner", &["repository:indexed:*"]);
        let client = &self.secret.stack.client;
        let mut named = Vec::new();
        for number in 0..200 {
            let image = Image::new(&format!("named {}", number % 2));
            if number < 2 {
                image.push(client, &token, "indexed", &format!("v{number}")).await;
            }
            let annotations = json!({ "number": number.to_string() });
            let manifest = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [{
                "mediaType": MANIFEST, "digest": image.digest().as_str(),
                "size": image.manifest.len(), "annotations": annotations }] });
            let bytes = manifest.to_string();
            let digest = digest_of(bytes.as_bytes());
            named.push(
                json!({ "mediaType": INDEX, "digest": digest.as_str(), "size": bytes.len() }),
            );
            let put = put_manifest(client, &token, "indexed", digest.as_str(), INDEX, bytes.into());
            put.await.expect(201);
        }
        let put = async |count: usize, number: usize| {
            let annotations = json!({ "try": number.to_string() });
            let index = json!({ "schemaVersion": 2, "mediaType": INDEX,
                                "manifests": named[..count], "annotations": annotations });
            let bytes = index.to_string();
            let target = format!("/v2/indexed/manifests/{}", digest_of(bytes.as_bytes()));
            let call = self.call("PUT", &target, Some(&token));
            self.watch(vec![call.header("content-type", INDEX).body(bytes)]).await.work
        };
        let mut seen = Vec::new();
        for number in 0..TRIES {
            let (few, many) = (put(2, number).await, put(200, number).await);
            if many == few && few.queries > 0 {
                return;
            }
            seen.push((few, many));
        }
        panic!("an index of many: {seen:?}");
    }

    /// What is not in memory of a blob is waited for, and what lies behind it is read at once again.
    async fn downloads(&self) {
        let stack = &self.secret.stack;
        let token = stack.forged_token("owner", &["repository:large:*"]);
        let blob = Bytes::from(vec![b'x'; 8 << 20]);
        let digest = digest_of(&blob);
        push_blob(&stack.client, &token, "large", &blob).await;
        let is_whole = |path: &PathBuf| fs::metadata(path).is_ok_and(|it| it.len() == 8 << 20);
        let object = stack.objects().into_iter().find(is_whole).expect("the object");
        let object = File::open(object).expect("opening");
        let evict = PosixFadviseAdvice::POSIX_FADV_DONTNEED;
        posix_fadvise(&object, 2 << 20, 128 << 10, evict).expect("evicting");
        let _ = self.recording.take();
        let target = format!("/v2/large/blobs/{digest}");
        assert_eq!(self.call("GET", &target, Some(&token)).send().await.body, blob);
        let events = self.recording.take();
        let reads = |operation: &str| {
            let word = format!("operation=\"{operation}\"");
            events.iter().filter(|event| event.text.contains(&word)).count()
        };
        let (waited, tried) = (reads("reading"), reads("reading from memory"));
        assert!(waited <= 8 && tried >= 100, "{waited} waited for the disk, of {tried}");
    }

    /// The token endpoint knows neither repositories nor, for whoever does not, users.
    async fn sign_ins(&self) {
        let ask = |name: &str| {
            let target = format!("/token?scope=repository:{name}:pull,push");
            self.secret.stack.client.call("GET", target)
        };
        for credentials in [None, Some(("andrew", PASSWORD))] {
            let what = format!("{credentials:?}");
            let work = self.compare(&what, |_| {
                let sign = |call: Call| match credentials {
                    Some((user, password)) => vec![call.basic(user, password)],
                    None => vec![call],
                };
                vec![sign(ask("secret")), sign(ask("absent"))]
            });
            assert!(work.await.queries > 0, "{what}");
        }
        let long = "x".repeat(73);
        // A wrong password is checked once; those that cannot be passwords are all the same one.
        for (password, checks) in [("wrong", 1..=1), ("", 0..=1), (long.as_str(), 0..=0)] {
            let work = self.compare("wrong credentials", |number| {
                let password = if password == "wrong" {
                    format!("wrong {number}")
                } else {
                    password.to_owned()
                };
                let send = |user: &str| vec![ask("secret").basic(user, &password)];
                vec![send("andrew"), send("nobody"), send("no such/name")]
            });
            assert!(checks.contains(&work.await.bcrypt), "{password:?}");
        }
    }

    /// The counters count.
    async fn with_rights(&self) {
        let token = self.secret.stack.forged_token("owner", &["repository:secret:*"]);
        let layer = digest_of(&self.secret.image.layer);
        for (target, storage) in [("manifests/v1".to_owned(), 0), (format!("blobs/{layer}"), 1)] {
            let target = format!("/v2/secret/{target}");
            let seen = self.watch(vec![self.call("GET", &target, Some(&token))]).await;
            assert!(seen.work.queries > 0, "{target}: {seen:?}");
            assert!(seen.work.storage >= storage, "{target}: {seen:?}");
        }
        let sign_in = self.secret.stack.client.call("GET", "/token").basic("andrew", PASSWORD);
        let seen = self.watch(vec![sign_in]).await;
        assert!(seen.work.bcrypt == 1 && seen.work.queries > 0, "{seen:?}");
    }
}

#[tokio::test]
async fn what_is_there_and_what_is_not_cost_the_same() {
    let recording = Recording::start();
    let counter = Counter { secret: Secret::start().await, recording };
    counter.with_rights().await;
    counter.without_rights().await;
    counter.with_rights_elsewhere().await;
    counter.mounts().await;
    counter.indexes().await;
    counter.downloads().await;
    counter.sign_ins().await;
}
