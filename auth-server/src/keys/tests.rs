//! Keys through their whole life, in a directory of their own.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use berth_shared::{
    claims::Audience,
    clock::Clock,
    keys::KeySet,
    token::{Refusal, Verifier},
};

use super::*;

const NOW: UnixSeconds = UnixSeconds::new(1_790_000_000);

/// Long enough for a next key to be known everywhere.
const WAIT: Duration = Duration::from_secs(NEXT_AGE_SECS_MIN.unsigned_abs());

fn settings(dir: &Path) -> Settings {
    berth_shared::crypto::install();
    Settings {
        directory: dir.join("keys"),
        sealed_with: None,
        algorithm: KeyAlgorithm::default(),
        ids: KeyIds::default(),
        token_life_secs: 900,
    }
}

fn claims() -> ClaimSet {
    ClaimSet {
        iss: "berth".to_owned(),
        sub: "andrew".to_owned(),
        aud: Audience::One("berth".to_owned()),
        exp: UnixSeconds::new(1000),
        nbf: UnixSeconds::new(0),
        iat: UnixSeconds::new(0),
        jti: "x".to_owned(),
        access: Vec::new(),
        counter: 3,
        secret_expires: None,
    }
}

fn verify(keys: &SigningKeys, token: &str) -> Result<(), Refusal> {
    let verifier = Verifier {
        issuer: "berth".to_owned(),
        service: "berth".to_owned(),
        foreign_subjects: false,
    };
    let set = KeySet::from_json(keys.jwks().as_bytes()).unwrap();
    verifier
        .verify(&set, token, UnixSeconds::new(0))
        .map(|verified| assert_eq!(verified.claims, claims()))
}

fn shown(keys: &SigningKeys) -> Vec<(KeyAlgorithm, KeyState)> {
    keys.list().map(|key| (key.algorithm, key.state)).collect()
}

fn id_of(keys: &SigningKeys, state: KeyState) -> String {
    keys.list().find(|key| key.state == state).unwrap().id.clone()
}

fn files_in(directory: &Path) -> Vec<String> {
    let names = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> =
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_next_key_is_published_before_it_signs_and_a_retired_one_after() {
    let dir = tempfile::tempdir().unwrap();
    let (settings, clock) = (settings(dir.path()), Clock::set(NOW));
    let first = SigningKeys::open(&settings, &clock).unwrap();
    let es256 = KeyAlgorithm::Es256;
    assert_eq!(shown(&first), [(es256, KeyState::Active), (es256, KeyState::Next)]);
    let (next, old) = (id_of(&first, KeyState::Next), first.sign(&claims()).unwrap());

    let early = rotate(&settings, How::InOrder, false, &clock).unwrap_err();
    assert!(matches!(early, KeyError::TooYoung(at) if at == NOW + NEXT_AGE_SECS_MIN), "{early}");
    clock.advance(WAIT - Duration::from_secs(1));
    rotate(&settings, How::InOrder, false, &clock).unwrap_err();
    clock.advance(Duration::from_secs(1));
    let rotated = rotate(&settings, How::InOrder, false, &clock).unwrap();
    assert_eq!(rotated.active.unwrap().id, next);
    let until = rotated.retired.unwrap().until.unwrap();
    assert_eq!(until, clock.now() + 900 + 86_400 + 120);

    let second = SigningKeys::read(&settings, &clock).unwrap();
    assert_eq!(second.active_id(), next);
    verify(&first, &second.sign(&claims()).unwrap()).unwrap();
    verify(&second, &old).unwrap();
    clock.advance(Duration::from_secs((until - clock.now() - 1).unsigned_abs()));
    assert_eq!(SigningKeys::open(&settings, &clock).unwrap().list().count(), 3);
    clock.advance(Duration::from_secs(1));
    let third = SigningKeys::open(&settings, &clock).unwrap();
    assert_eq!(verify(&third, &old).unwrap_err(), Refusal::UnknownKey);
    // Two keys and the states.
    assert_eq!(files_in(&settings.directory).len(), 3);
}

#[test]
fn compromised_keys_are_dropped_at_once_all_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let (settings, clock) = (settings(dir.path()), Clock::set(NOW));
    let first = SigningKeys::open(&settings, &clock).unwrap();
    let old = first.sign(&claims()).unwrap();
    rotate(&settings, How::Now, false, &clock).unwrap();
    let before = SigningKeys::read(&settings, &clock).unwrap();
    verify(&before, &old).unwrap();
    let rotated = rotate(&settings, How::Compromised, false, &clock).unwrap();
    assert_eq!((rotated.dropped.len(), rotated.retired), (3, None));
    let after = SigningKeys::read(&settings, &clock).unwrap();
    assert_eq!(after.list().count(), 2);
    for token in [old, before.sign(&claims()).unwrap()] {
        assert_eq!(verify(&after, &token).unwrap_err(), Refusal::UnknownKey);
    }
    for key in before.list() {
        assert!(after.list().all(|it| it.id != key.id));
    }
    assert_eq!(files_in(&settings.directory).len(), 3);
}

#[test]
fn a_dry_run_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (settings, clock) = (settings(dir.path()), Clock::set(NOW));
    rotate(&settings, How::Now, true, &clock).unwrap_err();
    assert!(!settings.directory.exists());
    let keys = SigningKeys::open(&settings, &clock).unwrap();
    let before =
        (files_in(&settings.directory), fs::read(settings.directory.join("states.json")).unwrap());
    rotate(&settings, How::InOrder, true, &clock).unwrap_err();
    for how in [How::Now, How::Compromised] {
        let plan = rotate(&settings, how, true, &clock).unwrap();
        assert_eq!(plan.retired.is_some(), how == How::Now);
    }
    let after =
        (files_in(&settings.directory), fs::read(settings.directory.join("states.json")).unwrap());
    assert_eq!(before, after);
    assert_eq!(SigningKeys::read(&settings, &clock).unwrap().active_id(), keys.active_id());
}

#[test]
fn another_algorithm_takes_effect_once_its_key_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let (es256, clock) = (settings(dir.path()), Clock::set(NOW));
    let eddsa = Settings { algorithm: KeyAlgorithm::EdDsa, ..es256.clone() };
    let first = SigningKeys::open(&es256, &clock).unwrap();
    let old = first.sign(&claims()).unwrap();
    let published = SigningKeys::open(&eddsa, &clock).unwrap();
    assert_eq!(published.active_id(), first.active_id());
    let (es, ed) = (KeyAlgorithm::Es256, KeyAlgorithm::EdDsa);
    assert_eq!(shown(&published), [(es, KeyState::Active), (ed, KeyState::Next)]);
    let live = LiveKeys::open(&eddsa, &clock).unwrap();
    clock.advance(WAIT - Duration::from_secs(1));
    live.tend().unwrap();
    assert_eq!(live.fresh().active_id(), first.active_id());
    clock.advance(Duration::from_secs(1));
    live.tend().unwrap();
    let changed = live.fresh();
    let expected = [(ed, KeyState::Active), (ed, KeyState::Next), (es, KeyState::Retired)];
    assert_eq!(shown(&changed), expected);
    for token in [old, changed.sign(&claims()).unwrap()] {
        verify(&changed, &token).unwrap();
    }
    verify(&published, &changed.sign(&claims()).unwrap()).unwrap();
}

#[test]
fn keys_of_an_older_berth_are_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let (settings, clock) = (settings(dir.path()), Clock::set(NOW));
    let made = SigningKeys::open(&settings, &clock).unwrap();
    // What the version before has left: keys alone, of which the newest signs.
    fs::remove_file(settings.directory.join("states.json")).unwrap();
    let (newest, older) = (made.files().next().unwrap().0, made.files().nth(1).unwrap().0);
    fs::rename(older, settings.directory.join("es256-5.pem")).unwrap();
    let keys = SigningKeys::open(&settings, &clock).unwrap();
    assert_eq!(keys.files().next().unwrap().0, newest);
    let states: Vec<_> = keys.list().map(|key| key.state).collect();
    assert_eq!(states, [KeyState::Active, KeyState::Next, KeyState::Retired]);
    verify(&keys, &made.sign(&claims()).unwrap()).unwrap();
}

/// The directory at each point at which a rotation can be cut off: new keys without states that
/// name them, and new states with keys that they name no longer.
#[test]
fn a_rotation_that_was_cut_off_anywhere_leaves_keys_that_work() {
    for how in [How::Now, How::Compromised] {
        let dir = tempfile::tempdir().unwrap();
        let (settings, clock) = (settings(dir.path()), Clock::set(NOW));
        SigningKeys::open(&settings, &clock).unwrap();
        rotate(&settings, How::Now, false, &clock).unwrap();
        let directory = &settings.directory;
        let contents = || -> Vec<(String, Vec<u8>)> {
            let read = |name: &String| fs::read(directory.join(name)).unwrap();
            files_in(directory).iter().map(|name| (name.clone(), read(name))).collect()
        };
        let before = contents();
        let old = SigningKeys::read(&settings, &clock).unwrap();
        rotate(&settings, how, false, &clock).unwrap();
        let after = contents();
        let new = SigningKeys::read(&settings, &clock).unwrap();
        let fresh: Vec<_> =
            after.iter().filter(|(name, _)| !before.iter().any(|it| it.0 == *name)).collect();
        let gone: Vec<_> =
            before.iter().filter(|(name, _)| !after.iter().any(|it| it.0 == *name)).collect();
        assert!(!fresh.is_empty() && gone.is_empty() == (how == How::Now));
        let lay = |files: &[&(String, Vec<u8>)]| {
            fs::remove_dir_all(directory).unwrap();
            fs::create_dir(directory).unwrap();
            for (name, bytes) in files {
                let path = directory.join(name);
                fs::write(&path, bytes).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            }
        };
        let half = (".unfinished-x".to_owned(), b"-----BEGIN".to_vec());
        for count in 0..=fresh.len() {
            let files: Vec<_> = before.iter().chain(fresh[..count].iter().copied()).collect();
            lay(&[&files[..], &[&half]].concat());
            let keys = SigningKeys::read(&settings, &clock).unwrap();
            assert_eq!(keys.active_id(), old.active_id());
            let keys = SigningKeys::open(&settings, &clock).unwrap();
            assert_eq!(keys.jwks(), old.jwks());
            assert_eq!(files_in(directory).len(), before.len() + 1, "the unused ones are gone");
        }
        for count in 0..=gone.len() {
            let files: Vec<_> = after.iter().chain(gone[..count].iter().copied()).collect();
            lay(&files);
            let keys = SigningKeys::open(&settings, &clock).unwrap();
            assert_eq!(keys.jwks(), new.jwks());
            assert_eq!(files_in(directory).len(), after.len());
        }
    }
}

#[test]
fn a_running_server_takes_a_rotation_into_use_at_the_next_token() {
    let dir = tempfile::tempdir().unwrap();
    let (settings, clock) = (settings(dir.path()), Clock::set(NOW));
    let live = LiveKeys::open(&settings, &clock).unwrap();
    for how in [How::Now, How::Compromised, How::Now] {
        let before = live.fresh();
        assert_eq!(before.jwks(), live.fresh().jwks());
        let rotated = rotate(&settings, how, false, &clock).unwrap();
        assert_eq!(live.fresh().active_id(), rotated.active.unwrap().id);
        assert_ne!(live.fresh().active_id(), before.active_id());
    }
}

#[test]
fn keys_that_cannot_be_read_leave_the_old_ones_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let (settings, clock) = (settings(dir.path()), Clock::set(NOW));
    let live = LiveKeys::open(&settings, &clock).unwrap();
    let (id, states) =
        (live.fresh().active_id().to_owned(), settings.directory.join("states.json"));
    fs::write(&states, "{").unwrap();
    assert_eq!(live.fresh().active_id(), id);
    assert!(matches!(SigningKeys::open(&settings, &clock), Err(KeyError::States { .. })));
    fs::remove_dir_all(&settings.directory).unwrap();
    assert_eq!(live.fresh().active_id(), id);
    SigningKeys::open(&settings, &clock).unwrap();
    assert_ne!(live.fresh().active_id(), id);
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (settings, clock) = (settings(dir.path()), Clock::set(NOW));
    let keys = SigningKeys::open(&settings, &clock).unwrap();
    for name in files_in(&settings.directory) {
        let mode = fs::metadata(settings.directory.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    assert_eq!(fs::metadata(&settings.directory).unwrap().permissions().mode() & 0o777, 0o700);
    let file = keys.files().next().unwrap().0;
    for mode in [0o640, 0o604, 0o620] {
        fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
        let error = SigningKeys::open(&settings, &clock).err().unwrap();
        assert!(matches!(error, KeyError::Open { mode: found, .. } if found == mode), "{error}");
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }
    fs::set_permissions(file, fs::Permissions::from_mode(0o400)).unwrap();
    SigningKeys::open(&settings, &clock).unwrap();
}

#[test]
fn a_damaged_key_stops_the_start_and_a_foreign_file_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let (settings, clock) = (settings(dir.path()), Clock::set(NOW));
    fs::create_dir(&settings.directory).unwrap();
    fs::write(settings.directory.join(".tmpXYZ"), "half").unwrap();
    let keys = SigningKeys::open(&settings, &clock).unwrap();
    fs::write(keys.files().next().unwrap().0, "nonsense").unwrap();
    let error = SigningKeys::open(&settings, &clock);
    assert!(matches!(error, Err(KeyError::Unusable(_))));
}
