//! Keys in a database through their whole life, as those in files in `keys/tests.rs`.

use std::{fs, path::Path, sync::Arc, time::Duration};

use berth_shared::{
    clock::{Clock, UnixSeconds},
    subject::Subject,
};

use super::{
    change::{opened, resealed, rotated},
    *,
};
use crate::{
    audit::Author,
    database::{
        audit::Filter,
        signing_keys::{
            KeyChange, SealedKey,
            tests::{ANSWER, Server, database_with_keys},
        },
    },
    keys::{KeyAlgorithm, KeyIds, KeyState, NEXT_AGE_SECS_MIN, samples},
};

const NOW: UnixSeconds = UnixSeconds::new(1_790_000_000);

/// Long enough for a next key to be known everywhere.
const WAIT: Duration = Duration::from_secs(NEXT_AGE_SECS_MIN.unsigned_abs());

fn settings(dir: &Path) -> Settings {
    berth_shared::crypto::install();
    let sealed_with = dir.join("sealing.key");
    if !sealed_with.exists() {
        Sealer::make(&sealed_with).unwrap();
    }
    Settings {
        directory: dir.join("keys"),
        sealed_with: Some(sealed_with),
        algorithm: KeyAlgorithm::default(),
        ids: KeyIds::default(),
        token_life_secs: 900,
    }
}

fn states_of(keys: &SigningKeys) -> Vec<KeyState> {
    keys.list().map(|key| key.state).collect()
}

fn id_of(keys: &SigningKeys, state: KeyState) -> String {
    keys.of(state).unwrap().id.clone()
}

async fn events(database: &Database) -> Vec<String> {
    let rows = database.list_rows(&Filter::default(), 100).await.unwrap();
    rows.into_iter().map(|row| row.event).collect()
}

#[tokio::test]
async fn keys_are_made_once_rotated_in_order_and_dropped_when_their_time_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let (settings, clock) = (settings(dir.path()), Clock::set(NOW));
    let sealer = settings.sealer().unwrap();
    let database = database_with_keys(dir.path()).await;
    let missing = read_in(&database, &sealer, &settings).await.err().unwrap();
    assert!(missing.to_string().contains("start auth-server"), "{missing}");
    let first = open_in(&database, &sealer, &settings, &clock).await.unwrap();
    assert_eq!(states_of(&first), [KeyState::Active, KeyState::Next]);
    let again = open_in(&database, &sealer, &settings, &clock).await.unwrap();
    assert_eq!(first.jwks(), again.jwks());
    assert!(!settings.directory.exists() && first.files().next().is_none());
    let next = id_of(&first, KeyState::Next);

    let rotate =
        async |how, is_dry| rotate_in(&database, &sealer, &settings, how, is_dry, &clock).await;
    for is_dry in [true, false] {
        let early = rotate(How::InOrder, is_dry).await.unwrap_err();
        assert!(matches!(early, KeyError::TooYoung(at) if at == NOW + NEXT_AGE_SECS_MIN));
    }
    clock.advance(WAIT);
    let planned = rotate(How::InOrder, true).await.unwrap();
    assert_eq!(planned.active.unwrap().id, next);
    assert_eq!(read_in(&database, &sealer, &settings).await.unwrap().jwks(), first.jwks());
    let rotated = rotate(How::InOrder, false).await.unwrap();
    assert_eq!(rotated.active.unwrap().id, next);
    assert_eq!(events(&database).await, ["key.rotate", "key.retire"]);
    // The second of two comes too early.
    rotate(How::InOrder, false).await.unwrap_err();
    assert_eq!(database.policy().await.unwrap().sequence, 0, "no token is void");

    let until = rotated.retired.unwrap().until.unwrap();
    clock.advance(Duration::from_secs((until - clock.now() - 1).unsigned_abs()));
    tend_in(&database, &settings, &clock).await.unwrap();
    assert_eq!(read_in(&database, &sealer, &settings).await.unwrap().list().count(), 3);
    clock.advance(Duration::from_secs(1));
    tend_in(&database, &settings, &clock).await.unwrap();
    let last = read_in(&database, &sealer, &settings).await.unwrap();
    assert_eq!(states_of(&last), [KeyState::Active, KeyState::Next]);
    assert_eq!(last.active_id(), next);
}

#[tokio::test]
async fn leaked_keys_go_with_every_token_and_the_audit_knows() {
    let dir = tempfile::tempdir().unwrap();
    let (settings, clock) = (settings(dir.path()), Clock::set(NOW));
    let sealer = settings.sealer().unwrap();
    let database = database_with_keys(dir.path()).await.acting(Author::server(clock.clone()));
    open_in(&database, &sealer, &settings, &clock).await.unwrap();
    rotate_in(&database, &sealer, &settings, How::Now, false, &clock).await.unwrap();
    let before = read_in(&database, &sealer, &settings).await.unwrap();
    let rotated = rotate_in(&database, &sealer, &settings, How::Compromised, false, &clock);
    assert_eq!(rotated.await.unwrap().dropped.len(), 3);
    let after = read_in(&database, &sealer, &settings).await.unwrap();
    assert_eq!(states_of(&after), [KeyState::Active, KeyState::Next]);
    assert!(before.list().all(|old| after.list().all(|new| new.id != old.id)));
    let dropped = ["key.compromised"; 3];
    let expected = [&["key.rotate", "key.retire"][..], &dropped, &["key.rotate"]].concat();
    assert_eq!(events(&database).await, expected);
    let policy = database.policy().await.unwrap();
    for grantee in ["everyone", "anonymous"] {
        assert!(policy.revocations.counters.contains_key(&grantee.parse().unwrap()), "{grantee}");
    }
    assert!(policy.sequence > 0 && policy.rights(&Subject::Anonymous).rules.is_empty());
}

#[tokio::test]
async fn what_seals_is_changed_under_keys_that_stay() {
    let dir = tempfile::tempdir().unwrap();
    let (settings, clock) = (settings(dir.path()), Clock::set(NOW));
    let path = settings.sealed_with.clone().unwrap();
    let database = database_with_keys(dir.path()).await;
    let old = settings.sealer().unwrap();
    let keys = open_in(&database, &old, &settings, &clock).await.unwrap();
    Sealer::add(&path).unwrap();
    let both = settings.sealer().unwrap();
    assert_eq!(read_in(&database, &both, &settings).await.unwrap().jwks(), keys.jwks());
    assert_eq!(reseal(&database, &both).await.unwrap(), 2);
    assert_eq!(events(&database).await, ["key.reseal"]);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.lines().next().unwrap()).unwrap();
    let new = settings.sealer().unwrap();
    assert_eq!(read_in(&database, &new, &settings).await.unwrap().jwks(), keys.jwks());
    let error = read_in(&database, &old, &settings).await.err().unwrap().to_string();
    for part in ["es256-1790000000", "sealing.key", "rotate --compromised"] {
        assert!(error.contains(part), "{error}");
    }
}

#[tokio::test]
async fn keys_that_nobody_opens_any_more_make_room_for_new_ones_when_told() {
    let dir = tempfile::tempdir().unwrap();
    let (settings, clock) = (settings(dir.path()), Clock::set(NOW));
    let database = database_with_keys(dir.path()).await;
    open_in(&database, &settings.sealer().unwrap(), &settings, &clock).await.unwrap();
    fs::remove_file(settings.sealed_with.as_ref().unwrap()).unwrap();
    let error = settings.sealer().err().unwrap().to_string();
    assert!(error.contains("sealing.key") && error.contains("authctl key seal"), "{error}");
    Sealer::make(settings.sealed_with.as_ref().unwrap()).unwrap();
    let other = settings.sealer().unwrap();
    assert!(matches!(
        open_in(&database, &other, &settings, &clock).await,
        Err(KeyError::Row { .. })
    ));
    for how in [How::InOrder, How::Now] {
        let refused = rotate_in(&database, &other, &settings, how, false, &clock).await;
        assert!(matches!(refused, Err(KeyError::Row { .. })));
    }
    reseal(&database, &other).await.unwrap_err();
    let rotated = rotate_in(&database, &other, &settings, How::Compromised, false, &clock);
    let dropped: Vec<_> = rotated.await.unwrap().dropped.into_iter().map(|key| key.id).collect();
    assert_eq!(dropped, ["es256-1790000000", "es256-1790000000-1"]);
    assert_eq!(read_in(&database, &other, &settings).await.unwrap().list().count(), 2);
}

#[tokio::test]
async fn a_row_that_was_changed_by_hand_is_refused_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let (settings, clock) = (settings(dir.path()), Clock::set(NOW));
    let sealer = settings.sealer().unwrap();
    let database = database_with_keys(dir.path()).await;
    open_in(&database, &sealer, &settings, &clock).await.unwrap();
    let rows = database.signing_keys().await.unwrap();
    let refused = |rows: &[SealedKey], number| {
        let refused = of_rows(rows, &sealer, &settings).err();
        assert!(matches!(refused, Some(KeyError::Row { .. })), "{number}");
        // As the error says, there is a way out.
        let change = rotated(rows, &sealer, &settings, How::Compromised, NOW).unwrap();
        assert!(change.voids_tokens && change.done.dropped.len() == 2, "{number}");
        of_rows(&change.keys, &sealer, &settings).unwrap();
    };
    let changes: [fn(&mut [SealedKey]); 6] = [
        |rows| rows[0].sealed[20] ^= 1,
        |rows| {
            let (first, second) = (rows[0].sealed.clone(), rows[1].sealed.clone());
            (rows[0].sealed, rows[1].sealed) = (second, first);
        },
        |rows| "eddsa".clone_into(&mut rows[0].algorithm),
        |rows| "lost".clone_into(&mut rows[0].state),
        |rows| "es256-1.pem".clone_into(&mut rows[0].name),
        |rows| rows[0].made = UnixSeconds::new(7),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut changed = rows.clone();
        change(&mut changed);
        refused(&changed, number);
    }
    let mut two = rows.clone();
    "active".clone_into(&mut two[0].state);
    "active".clone_into(&mut two[1].state);
    refused(&two, 6);
    of_rows(&rows, &sealer, &settings).unwrap();
}

#[test]
fn a_row_of_a_known_sample_key_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    let sealer = settings.sealer().unwrap();
    for (algorithm, der) in samples::tests::pkcs8() {
        let algorithm = algorithm.word().to_owned();
        let name = format!("{algorithm}-5");
        let row = SealedKey {
            sealed: sealer.seal(&der, &name, &algorithm).unwrap(),
            name,
            algorithm,
            state: KeyState::Active.word().to_owned(),
            made: UnixSeconds::new(5),
            since: UnixSeconds::new(5),
            token_life_secs: 900,
            until: None,
        };
        let refused = opened(&[row], &sealer, &settings, NOW).err().unwrap().to_string();
        assert!(refused.contains("is printed in"), "{refused}");
    }
}

#[tokio::test]
async fn a_running_server_opens_rows_once_and_others_with_the_file_of_then() {
    let dir = tempfile::tempdir().unwrap();
    let (settings, clock) = (settings(dir.path()), Clock::set(NOW));
    let path = settings.sealed_with.clone().unwrap();
    let database = database_with_keys(dir.path()).await;
    let live = LiveRows::new(settings.clone());
    assert!(matches!(live.of(&[]), Err(KeyError::NoKey(_))));
    open_in(&database, &settings.sealer().unwrap(), &settings, &clock).await.unwrap();
    let rows = database.signing_keys().await.unwrap();
    let keys = live.of(&rows).unwrap();
    assert!(Arc::ptr_eq(&keys, &live.of(&rows).unwrap()));
    Sealer::add(&path).unwrap();
    reseal(&database, &settings.sealer().unwrap()).await.unwrap();
    let resealed = database.signing_keys().await.unwrap();
    assert_eq!(live.of(&resealed).unwrap().jwks(), keys.jwks());
    fs::remove_file(&path).unwrap();
    live.of(&resealed).unwrap();
    assert!(matches!(live.of(&rows), Err(KeyError::Seal(_))));
    let shown = format!("{rows:?}");
    assert!(shown.contains("es256-1790000000") && !shown.contains("sealed"), "{shown}");
}

#[tokio::test]
async fn servers_that_start_at_once_have_the_same_keys() {
    let dir = tempfile::tempdir().unwrap();
    let (settings, clock) = (settings(dir.path()), Clock::set(NOW));
    let sealer = settings.sealer().unwrap();
    let (one, two) = (database_with_keys(dir.path()).await, database_with_keys(dir.path()).await);
    let (one, two) = tokio::join!(
        open_in(&one, &sealer, &settings, &clock),
        open_in(&two, &sealer, &settings, &clock)
    );
    assert_eq!(one.unwrap().jwks(), two.unwrap().jwks());
}

#[tokio::test]
#[ignore = "needs PostgreSQL: BERTH_TEST_POSTGRES"]
async fn on_postgres_keys_live_as_in_files() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    let (server, sealer) = (Server::fresh().await, settings.sealer().unwrap());
    let open = |rows: &[SealedKey]| opened(rows, &sealer, &settings, NOW);
    let (one, two) = tokio::join!(server.change(open), server.change(open));
    let ((one, _), (two, _)) = (one.unwrap(), two.unwrap());
    assert_eq!(one.jwks(), two.jwks());
    assert_eq!(states_of(&one), [KeyState::Active, KeyState::Next]);

    let at = async |how, now: UnixSeconds| {
        let rotate = |rows: &[SealedKey]| rotated(rows, &sealer, &settings, how, now);
        server.change(rotate).await
    };
    let version = server.version().await;
    assert!(matches!(at(How::InOrder, NOW + 1).await, Err(KeyError::TooYoung(_))));
    assert_eq!(server.version().await, version);
    let later = NOW + NEXT_AGE_SECS_MIN;
    let (first, second) = tokio::join!(at(How::InOrder, later), at(How::InOrder, later));
    let (done, refused) = if first.is_ok() { (first, second) } else { (second, first) };
    let (done, voids_tokens) = done.unwrap();
    assert_eq!(done.active.unwrap().id, id_of(&one, KeyState::Next));
    assert!(!voids_tokens && matches!(refused, Err(KeyError::TooYoung(_))));
    assert!(server.version().await > version);
    let (done, voids_tokens) = at(How::Now, later + 1).await.unwrap();
    assert!(!voids_tokens && done.dropped.is_empty());
    assert_eq!(server.keys().await.len(), 4);

    let mut connection = server.connect().await;
    let mut connection = Connection::Postgres(&mut connection, ANSWER);
    let kept = keys_within(&mut connection, &sealer, &settings).await.unwrap();
    assert_eq!(kept.active_id(), done.active.unwrap().id);
    Sealer::add(settings.sealed_with.as_ref().unwrap()).unwrap();
    let both = settings.sealer().unwrap();
    let (count, _) = server.change(|rows| resealed(rows, &both)).await.unwrap();
    assert_eq!(count, 4);
    let refused = of_rows(&server.keys().await, &sealer, &settings).err();
    assert!(matches!(refused, Some(KeyError::Row { .. })), "the old line alone opens nothing");
    let keys = of_rows(&server.keys().await, &both, &settings).unwrap();
    assert_eq!(keys.jwks(), kept.jwks());

    let (done, voids_tokens) = at(How::Compromised, later + 2).await.unwrap();
    assert!(voids_tokens);
    assert_eq!(done.dropped.len(), 4);
    let keys = of_rows(&server.keys().await, &sealer, &settings).unwrap();
    assert_eq!(states_of(&keys), [KeyState::Active, KeyState::Next]);
    let over = |rows: &[SealedKey]| -> Result<KeyChange<SigningKeys>, KeyError> {
        opened(rows, &sealer, &settings, later + 1_000_000)
    };
    assert_eq!(server.change(over).await.unwrap().0.jwks(), keys.jwks());
}
