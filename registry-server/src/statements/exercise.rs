//! Everything that makes statements, done once.

use std::{path::Path, time::Duration};

use serde_json::json;

use crate::{
    data::Home,
    faults::{
        listening,
        operations::{
            self, BLOB, OPERATIONS, digest_of, image, index, permit, push, pusher, referrer,
            shares, tag,
        },
        sound,
    },
    metadata::{Database, lease::Kind, repository::RepositoryId, upload::UploadId},
    reach::Reach,
    registry::{
        Error, Registry,
        event::Events,
        lease::{Lease, Sign, Work},
        list::PageRequest,
        manifest::AsOf,
        upload::Progress,
        verify,
    },
    storage::{Dead, Location},
    transfer,
};
use berth_shared::{
    clock::{Clock, UnixSeconds},
    digest::{Algorithm, Digest},
    name::RepositoryName,
    rights::{Rights, Rule},
    subject::Grantee,
};

/// Rules on pulling.
pub(super) fn rights(rules: impl IntoIterator<Item = (&'static str, String)>) -> Rights {
    let rule = |(effect, pattern): (&str, String)| Rule {
        grantee: Grantee::Everyone,
        pattern: pattern.parse().unwrap(),
        effect: effect.parse().unwrap(),
        actions: "pull".parse().unwrap(),
        expires: None,
    };
    Rights { rules: rules.into_iter().map(rule).collect() }
}

/// Does everything.
pub(super) async fn everything() {
    for operation in OPERATIONS {
        let directory = tempfile::tempdir().unwrap();
        let clock = Clock::set(Clock::system().now());
        let registry = sound(directory.path(), &clock).await;
        (operation.prepare)(&registry, &clock).await.unwrap();
        (operation.act)(&registry).await.unwrap();
        (operation.done)(&registry).await.unwrap();
        registry.database().close().await;
    }
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::set(Clock::system().now());
    let registry = sound(directory.path(), &clock).await;
    operations::litter(&registry, &clock).await.unwrap();
    operations::put(&registry, &tag("list"), index()).await.unwrap();
    read(&registry).await;
    touch(&registry, &clock).await;
    share(registry.database(), &clock).await;
    damage_and_repair(&registry, directory.path(), &clock).await;
    operations::litter(&registry, &clock).await.unwrap();
    move_about(&registry, directory.path(), &clock).await;
    name_much().await;
}

/// More than stands in one statement.
async fn name_much() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::set(Clock::system().now());
    let registry = sound(directory.path(), &clock).await;
    operations::push_image(&registry).await.unwrap();
    let many = |media_type: &str| {
        let named = (0..300).map(|number| {
            json!({ "mediaType": media_type, "digest": super::large::digest(number).as_str(), "size": 1 })
        });
        named.collect::<Vec<_>>()
    };
    // These may be missing, and are named all the same.
    let layers = many("application/vnd.oci.image.layer.nondistributable.v1.tar");
    let image = json!({ "schemaVersion": 2, "layers": layers }).to_string();
    operations::put(&registry, &tag("foreign"), image.into()).await.unwrap();
    for (list, media_type) in
        [("layers", "a/b"), ("manifests", "application/vnd.oci.image.manifest.v1+json")]
    {
        let manifest = json!({ "schemaVersion": 2, list: many(media_type) }).to_string();
        let refused = operations::put(&registry, &tag("missing"), manifest.into()).await;
        let Err(Error::ManifestReferencesUnknown(missing)) = refused else {
            panic!("{refused:?}");
        };
        let all: Vec<Digest> = (0..300).map(super::large::digest).collect();
        assert_eq!(missing, all);
    }
    registry.database().close().await;
}

/// What servers say to each other that share a registry.
async fn share(database: &Database, clock: &Clock) {
    let lease = Lease::take(database, clock, Work::Totals, UnixSeconds::MAX).await.unwrap();
    database.keep_totals(database.totals().await.unwrap(), clock.now()).await.unwrap();
    assert_eq!(
        database.kept_totals().await.unwrap(),
        Some((clock.now(), database.totals().await.unwrap()))
    );
    lease.unwrap().done(clock.now()).await;
    let hold = Sign::show(Kind::Hold, database, clock).await.unwrap();
    assert!(database.has_lease(Kind::Hold, clock.now()).await.unwrap());
    hold.end().await;
    let name = Kind::Presence.name("one".to_owned());
    assert!(!database.keep_lease(&name, clock.now(), clock.now()).await.unwrap());
    database.name_origin("one".to_owned()).await.unwrap();
    database.set_read_only(Some(clock.now())).await.unwrap();
    assert_eq!(database.read_only_since().await.unwrap(), Some(clock.now()));
    let location = Location::fresh().unwrap();
    let buried = Dead::of(location.clone(), 1);
    database.bury_all(vec![buried], clock.now() + 1000).await.unwrap();
    database.import(Vec::new(), vec![location.clone()], clock.now()).await.unwrap();
    // It may be gone by now.
    database.import(Vec::new(), vec![location], clock.now()).await.unwrap_err();
    let id = UploadId::fresh().unwrap();
    let app = permit("app");
    let whose = (app.repository(), app.subject().claim());
    let claimed = database.claim_upload(&id, whose, clock.now(), clock.now()).await.unwrap();
    assert!(claimed.is_none());
}

async fn read(registry: &Registry) {
    let page = PageRequest { limit: 10, last: String::new() };
    let app = permit("app");
    let memory = shares(registry).memory;
    registry.check().await.unwrap();
    registry.lists.tags(&app, &page, &memory).await.unwrap();
    registry.lists.tags(&permit("absent"), &page, &memory).await.unwrap_err();
    registry.lists.catalog(&Rights::everything(), &page, &memory).await.unwrap();
    let database = registry.database();
    for rights in [Rights::everything(), rights([("allow", "app".to_owned())])] {
        let reach = Reach::of(&rights, UnixSeconds::new(0));
        let found = database.mount_sources(&reach, &digest_of(&BLOB), 10).await.unwrap();
        assert!(found.iter().any(|source| source.holds));
    }
    let totals = database.totals().await.unwrap();
    assert_eq!((totals.repositories, totals.manifests, totals.uploads), (2, 2, 1));
    assert_eq!((totals.tags, totals.blobs.count), (2, 3));
    assert_eq!(
        database.tags_above(app.repository(), &digest_of(&image()), 10, 10).await.unwrap(),
        ["list"]
    );
    assert!(database.tags_extent(app.repository(), "", 10).await.unwrap().is_some());
    database.manifest(app.repository(), &digest_of(&image())).await.unwrap().unwrap();
    let subject = digest_of(&image());
    operations::put(registry, &tag("signature"), referrer(&subject)).await.unwrap();
    for artifact_type in [None, Some("a/signature")] {
        let found = registry.lists.referrers(&app, &subject, artifact_type, &page, &memory).await;
        assert_eq!(found.unwrap().items.len(), 1);
    }
    database.empty_repositories(RepositoryId::default(), 10).await.unwrap();
    assert_eq!(database.origin().await.unwrap(), None);
    assert!(!database.name_origin("it".to_owned()).await.unwrap().at_store);
    database.put_at_store(true).await.unwrap();
    assert!(database.origin().await.unwrap().unwrap().at_store);
    database.put_at_store(false).await.unwrap();
}

/// What clients are told is there, is touched.
async fn touch(registry: &Registry, clock: &Clock) {
    clock.advance(Duration::from_secs(10 * 60));
    let app = permit("app");
    registry.blobs.find_sound(&app, &digest_of(&BLOB)).await.unwrap();
    let image = tag(digest_of(&image()).as_str());
    drop(
        registry
            .manifests
            .find(&app, &image, AsOf::Lately, &shares(registry).memory)
            .await
            .unwrap(),
    );
}

async fn damage_and_repair(registry: &Registry, root: &Path, clock: &Clock) {
    let blob = registry.blobs.find(&permit("app"), &digest_of(&BLOB)).await.unwrap();
    let location = blob.location.as_str();
    let object = root.join("objects").join(&location[..2]).join(location);
    let right = std::fs::read(&object).unwrap();
    let verify = async |repair: bool| {
        let options = verify::Options { repair, bytes_per_sec_max: None };
        listening(async |events| registry.verifier.verify(options, &events).await).await.unwrap()
    };
    std::fs::write(&object, vec![0; right.len()]).unwrap();
    assert_eq!(verify(false).await.damaged, 1);
    std::fs::write(&object, right).unwrap();
    assert_eq!(verify(true).await.repaired, 1);
    // A push of what is damaged takes its place.
    std::fs::write(&object, "").unwrap();
    assert_eq!(verify(false).await.damaged, 1);
    push(registry, "app", &BLOB, Algorithm::Sha256).await.unwrap();
    // Verification by the clock, and a session that nobody goes on with.
    let mut settings = registry.settings();
    settings.verification.every = Some(Duration::from_secs(60));
    registry.change_settings(settings);
    clock.advance(Duration::from_secs(60 * 60));
    listening(async |events| registry.verifier.verify_due(&events).await).await.unwrap();
    let app = permit("app");
    let started = registry.uploads.start(&app, pusher(&app), Algorithm::Sha256).await;
    let Progress { id, .. } = started.unwrap();
    clock.advance(Duration::from_secs(60 * 60));
    registry.uploads.progress(&permit("app"), &id).await.unwrap_err();
    listening(async |events| registry.collector.collect_dry(&events).await).await.unwrap();
    listening(async |events| registry.collector.collect(&events).await).await.unwrap();
}

/// What comes and goes other than by the API.
async fn move_about(registry: &Registry, root: &Path, clock: &Clock) {
    let app: RepositoryName = "app".parse().unwrap();
    registry.database().tag_since(&app, &"v1".parse().unwrap()).await.unwrap().unwrap();
    registry.database().close().await;
    let database = Database::open_beside(&root.join("registry.db")).await.unwrap();
    assert!(database.holdings().await.unwrap().len() > 1);
    database.holding(&app).await.unwrap().unwrap();
    assert!(database.images(&app).await.unwrap().len() > 1);
    database.shared_bytes().await.unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let to = |name: &str| elsewhere.path().join(name);
    let home = |data: &Path| Home { data: data.to_owned(), database: None, store: None };
    listening(async |events| {
        transfer::export::export(home(root), app.clone(), None, to("layout"), clock.clone(), events)
            .await
    })
    .await
    .unwrap();
    let made = async |events| {
        transfer::backup::backup(home(root), to("backup"), clock.clone(), events).await
    };
    listening(made).await.unwrap();
    std::fs::create_dir(to("restored")).unwrap();
    let restored = async |events| {
        transfer::restore::restore(home(&to("restored")), to("backup"), clock.clone(), events).await
    };
    listening(restored).await.unwrap();
    let registry = sound(root, clock).await;
    let image = tag(digest_of(&image()).as_str());
    let delete = async |events: Events| {
        registry.deletion.delete(&app, Some(&tag("v1")), false, &events).await?;
        registry.deletion.delete(&app, Some(&image), true, &events).await
    };
    listening(delete).await.unwrap();
    registry.database().close().await;
}
