//! Putting a backup in place: everything is made ready beside the data and checked there, then
//! swapped in by renaming, and swapped back when one of the renames fails.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use berth_shared::{
    clock::{Clock, UnixSeconds},
    files::{directory_of, sync_directory, unfinished},
};
use tempfile::{NamedTempFile, TempDir};

use super::{Contents, DATABASE, Error, HTPASSWD, KEYS, hash, read_contents, refuse_server};
use crate::{
    audit::{Act, Author},
    config::Config,
    database::{Database, snapshot::last_sequence},
    files::{self, FileError, PRIVATE},
    run,
};

/// Puts a backup in place of what the server of `config` knows. Every token that is out becomes
/// void, since what was revoked after the backup is not known any more. The audit is that of the
/// backup, and goes on with `by` having restored it. With `force` what is
/// there is moved aside.
///
/// # Errors
/// When the backup is damaged, the server runs, something is there and `force` is not set, or a
/// place cannot be written to; then nothing has changed.
pub async fn restore(
    config: &Config,
    from: &Path,
    force: bool,
    by: &Author,
) -> Result<Contents, Error> {
    refuse_server(config)?;
    let contents = read_contents(from)?;
    files::make_directory(&config.data)?;
    let _lock = run::lock(&config.data)?;
    // A link to the users' file stays one.
    let htpasswd = fs::canonicalize(&config.htpasswd).unwrap_or_else(|_| config.htpasswd.clone());
    let old = [config.keys().directory, htpasswd.clone(), config.database()];
    if let Some(there) = old.iter().find(|path| path.exists() && !force) {
        return Err(Error::Exists(there.clone()));
    }
    let staged = stage(config, from, &contents, by).await?;
    // Beside its place, which may be on another file system or another user's to write.
    let users = stage_users(&files::read(&staged.path().join(HTPASSWD))?, &htpasswd)?;
    let [keys, _, database] = &old;
    let swaps = [
        (staged.path().join(KEYS), keys.as_path()),
        (users.path().to_owned(), &htpasswd),
        (staged.path().join(DATABASE), database),
    ];
    swap(&swaps)?;
    Ok(contents)
}

/// Looks whether a backup could be restored, and restores nothing. The server may run.
///
/// # Errors
/// When the backup is damaged, or of a newer version.
pub async fn check(config: &Config, from: &Path, now: UnixSeconds) -> Result<Contents, Error> {
    let contents = read_contents(from)?;
    files::make_directory(&config.data)?;
    stage(config, from, &contents, &Author::process(Clock::set(now))).await?;
    Ok(contents)
}

/// Copies the backup beside the data and makes it ready there: nothing that is in use is touched.
/// What is compared with the hashes is what was copied.
async fn stage(
    config: &Config,
    from: &Path,
    contents: &Contents,
    by: &Author,
) -> Result<TempDir, Error> {
    let failed = |source| FileError::new("writing", &config.data, source);
    let staged =
        tempfile::Builder::new().prefix("restore-").tempdir_in(&config.data).map_err(failed)?;
    let path = staged.path();
    files::make_directory(&path.join(KEYS))?;
    for (name, digest) in &contents.files {
        let file = from.join(&contents.directory).join(name);
        let bytes = match files::read_long(&file) {
            Err(error) if error.is_forbidden() => return Err(error.into()),
            Ok(bytes) if hash(&bytes) == *digest => bytes,
            _ => return Err(Error::Damaged(file)),
        };
        files::replace(&path.join(name), &bytes, PRIVATE)?;
    }
    let database = Database::open(&path.join(DATABASE)).await?.acting(by.clone());
    database.check().await?;
    if let Some(found) = database.foreign_schema().await? {
        let path = from.join(&contents.directory).join(DATABASE);
        return Err(Error::ForeignSchema { path, found });
    }
    // No token that is out carries more than the database in place says. Where that is lost, the
    // time in seconds stands for it: the sequence counts acts of administration, and those are
    // fewer than seconds.
    let last = last_sequence(&config.database()).await.unwrap_or_default();
    database.void_all_tokens(by.clock.now().get().max(last)).await?;
    database.record(&Act::Restore(&contents.made)).await?;
    database.close().await?;
    Ok(staged)
}

fn stage_users(bytes: &[u8], htpasswd: &Path) -> Result<NamedTempFile, FileError> {
    let directory = directory_of(htpasswd);
    files::make_directory(directory)?;
    let failed = |source| FileError::new("writing", htpasswd, source);
    let mut file = unfinished(htpasswd, PRIVATE).map_err(failed)?;
    let written = file.write_all(bytes).and_then(|()| file.as_file().sync_all());
    written.map_err(failed)?;
    Ok(file)
}

/// Moves what is at each place aside and the new thing there, the database last. Either all of it
/// happens or, as far as the system lets it, none.
fn swap(swaps: &[(PathBuf, &Path)]) -> Result<(), FileError> {
    let mut moves = Moves::default();
    let result = swaps.iter().try_for_each(|(new, place)| {
        moves.aside(place)?;
        moves.rename(new.clone(), place.to_path_buf())?;
        let directory = directory_of(place);
        sync_directory(directory).map_err(|source| FileError::new("syncing", directory, source))
    });
    match result {
        Ok(()) => Ok(()),
        Err(error) => moves.undo().and(Err(error)),
    }
}

/// Renames that were done, in their order.
#[derive(Default)]
struct Moves(Vec<(PathBuf, PathBuf)>);

impl Moves {
    fn rename(&mut self, from: PathBuf, to: PathBuf) -> Result<(), FileError> {
        fs::rename(&from, &to).map_err(|source| FileError::new("placing", &to, source))?;
        self.0.push((from, to));
        Ok(())
    }

    /// Moves `path`, and what SQLite keeps beside a database, to a name that is free.
    fn aside(&mut self, path: &Path) -> Result<(), FileError> {
        let with = |suffix: &str| {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        };
        let free = (1..)
            .map(|number| format!(".before-restore-{number}"))
            .find(|suffix| !with(suffix).exists())
            .unwrap_or_default();
        for side in ["", "-wal", "-shm"] {
            if with(side).exists() {
                self.rename(with(side), with(&format!("{free}{side}")))?;
            }
        }
        Ok(())
    }

    /// Takes everything back, the last first.
    fn undo(self) -> Result<(), FileError> {
        for (from, to) in self.0.iter().rev() {
            fs::rename(to, from).map_err(|source| FileError::new("putting back", from, source))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_swap_that_fails_is_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for (name, text) in [("a", "old"), ("b", "old"), ("b-wal", "old"), ("new-a", "new")] {
            fs::write(at(name), text).unwrap();
        }
        let (a, b) = (at("a"), at("b"));
        let swaps = [(at("new-a"), a.as_path()), (at("missing"), b.as_path())];
        swap(&swaps).unwrap_err();
        for (name, text) in [("a", "old"), ("b", "old"), ("b-wal", "old"), ("new-a", "new")] {
            assert_eq!(fs::read_to_string(at(name)).unwrap(), text);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4);

        fs::write(at("missing"), "new").unwrap();
        swap(&swaps).unwrap();
        for (name, text) in [("a", "new"), ("a.before-restore-1", "old"), ("b", "new")] {
            assert_eq!(fs::read_to_string(at(name)).unwrap(), text);
        }
        assert!(at("b.before-restore-1-wal").exists() && !at("b-wal").exists());
    }
}
