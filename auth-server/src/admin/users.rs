//! Who may sign in with a password: the users of the htpasswd file or, where several servers share the database,
//! of a table there.

use berth_shared::{
    rights::Rule,
    subject::{Grantee, UserName},
};

use super::{Admin, Error, rules};
use crate::{
    audit::Act,
    database::user_table::UserChanges,
    users::{
        NEW_COST, Password,
        edit::Editor,
        htpasswd::{Htpasswd, Problem},
    },
};

/// A user who can sign in.
#[derive(Debug, Clone)]
pub struct User {
    /// What the user is called.
    pub name: UserName,
    /// How many rules name the user.
    pub rules: usize,
    /// What checking the password costs bcrypt.
    pub cost: u32,
}

/// Whether a user of this name can be added.
///
/// # Errors
/// [`Error::UserThere`] when not, and when the file cannot be used.
pub async fn check_new(admin: &Admin, name: &UserName) -> Result<(), Error> {
    check(admin, name, false).await
}

/// Whether there is a user of this name.
///
/// # Errors
/// [`Error::NoUser`] when not, and when the file cannot be used.
pub async fn check_there(admin: &Admin, name: &UserName) -> Result<(), Error> {
    check(admin, name, true).await
}

/// Adds a user with their first rules. Gives back those that name the user from then on.
///
/// # Errors
/// As [`check_new`], and when file or database cannot be written to.
pub async fn add(
    admin: &Admin,
    name: &UserName,
    password: &Password,
    rules: &[Rule],
) -> Result<Vec<Rule>, Error> {
    set(admin, name, password, false, &Act::UserAdd(name)).await?;
    rules::add(admin, &Grantee::User(name.clone()), rules).await
}

/// Gives a user a new password, and voids the tokens of the old one.
///
/// # Errors
/// As [`check_there`], and when file or database cannot be written to.
pub async fn set_password(
    admin: &Admin,
    name: &UserName,
    password: &Password,
) -> Result<(), Error> {
    set(admin, name, password, true, &Act::UserPassword(name)).await
}

/// Removes a user and all rules of that name, and voids the tokens; in a dry run nothing is done.
/// Gives back how many rules there were.
///
/// # Errors
/// [`Error::NothingOfUser`] when there is nothing to remove, and when file or database cannot be
/// written to.
pub async fn remove(admin: &Admin, name: &UserName, dry_run: bool) -> Result<usize, Error> {
    let database = admin.database().await?;
    let rules = rules::naming(admin, &Grantee::User(name.clone())).await?.len();
    let nothing = || Err(Error::NothingOfUser(name.clone(), admin.place_of_users()));
    if database.is_shared() {
        let policy = admin.policy().await?;
        let has = policy.users.as_deref().is_some_and(|users| users.contains_key(name));
        if !has && rules == 0 {
            return nothing();
        }
        if !dry_run {
            database.delete_user(name).await?;
        }
        return Ok(rules);
    }
    let mut editor = admin.editor()?;
    if !editor.has_line(name) && rules == 0 {
        return nothing();
    }
    if !dry_run {
        // The user first: a crash in between leaves rules of nobody, which a list shows.
        editor.remove(name);
        let save = || editor.save().map_err(Error::from);
        database.remove_user(&editor.parse().fingerprints(), name, save).await?;
    }
    Ok(rules)
}

/// The users, and the lines of the file that cannot be used.
///
/// # Errors
/// When the database cannot be used.
pub async fn list(admin: &Admin) -> Result<(Vec<User>, Vec<Problem>), Error> {
    let policy = admin.policy().await?;
    let file = admin.users();
    let count = |name: &UserName| policy.rules_naming(&Grantee::User(name.clone())).len();
    let users = file.users.iter().map(|(name, hash)| User {
        name: name.clone(),
        rules: count(name),
        cost: hash.cost(),
    });
    Ok((users.collect(), file.problems))
}

/// Makes the database's users those of an htpasswd file with this text: those who are not there are added, and
/// with `prune` those go who are there alone, with their rules. Gives back what was changed, or in a dry run what
/// would be.
///
/// # Errors
/// When a line cannot be used, when the users are in a file themselves, and when the database cannot be
/// written to; nothing is changed then.
pub async fn apply(
    admin: &Admin,
    file: &str,
    text: &[u8],
    prune: bool,
    dry_run: bool,
) -> Result<UserChanges, Error> {
    let database = admin.database().await?;
    if !database.is_shared() {
        return Err(Error::UsersInFile(admin.place_of_users()));
    }
    let read = Htpasswd::parse(text);
    // A file that is missing, blank or cut changes nothing, here as where it is read by the server.
    if read.users.is_empty() {
        return Err(Error::NoUsersInFile(file.to_owned()));
    }
    if let Some(problem) = read.problems.into_iter().find(Problem::is_skipped) {
        return Err(Error::UsersFile(file.to_owned(), problem));
    }
    let desired = read.users.iter().map(|(name, hash)| (name.clone(), hash.as_str().to_owned()));
    Ok(database.apply_users(&desired.collect(), prune, dry_run).await?)
}

/// Refuses where the user is there or not, other than it should be.
async fn check(admin: &Admin, name: &UserName, is_there: bool) -> Result<(), Error> {
    // Where they are in a file, no database is opened for it, nor made.
    if admin.config.server.is_none() {
        return editor(admin, name, is_there).map(drop);
    }
    let policy = admin.policy().await?;
    // By name: a hash that cannot be used is mended by a new password.
    let has = policy.users.as_deref().is_some_and(|users| users.contains_key(name));
    match (has, is_there) {
        (true, false) => Err(Error::UserThere(name.clone())),
        (false, true) => Err(Error::NoUser(name.clone(), admin.place_of_users())),
        _ => Ok(()),
    }
}

/// The users' file under its lock, where the user is there or not, as it should be.
fn editor(admin: &Admin, name: &UserName, is_there: bool) -> Result<Editor, Error> {
    let editor = admin.editor()?;
    match (editor.has_line(name), is_there) {
        (true, false) => Err(Error::UserThere(name.clone())),
        (false, true) => Err(Error::NoUser(name.clone(), admin.place_of_users())),
        _ => Ok(editor),
    }
}

/// Saves the file with the user's new line, and writes down by which act.
async fn set(
    admin: &Admin,
    name: &UserName,
    password: &Password,
    is_there: bool,
    act: &Act<'_>,
) -> Result<(), Error> {
    let hash = password.hash(NEW_COST)?;
    let database = admin.database().await?;
    if database.is_shared() {
        let is_done = database.put_user(name, &hash, is_there, act).await?;
        if !is_done {
            check(admin, name, is_there).await?;
            return Err(Error::UserMeanwhile(name.clone()));
        }
        return Ok(());
    }
    // Looked at under the lock: somebody may have added or removed the user meanwhile.
    let mut editor = editor(admin, name, is_there)?;
    editor.set(name, &hash);
    let save = || editor.save().map_err(Error::from);
    database.set_user(&editor.parse().fingerprints(), name, act, save).await
}
