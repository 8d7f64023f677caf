//! Who may sign in with a password.

use berth_shared::{
    rights::Rule,
    subject::{Grantee, UserName},
};

use super::{Admin, Error, rules};
use crate::{
    audit::Act,
    users::{NEW_COST, Password, edit::Editor, htpasswd::Problem},
};

/// A user of the htpasswd file.
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
pub fn check_new(admin: &Admin, name: &UserName) -> Result<(), Error> {
    editor(admin, name, false).map(drop)
}

/// Whether there is a user of this name.
///
/// # Errors
/// [`Error::NoUser`] when not, and when the file cannot be used.
pub fn check_there(admin: &Admin, name: &UserName) -> Result<(), Error> {
    editor(admin, name, true).map(drop)
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
    let mut editor = admin.editor()?;
    let rules = rules::naming(admin, &Grantee::User(name.clone())).await?.len();
    if !editor.has_line(name) && rules == 0 {
        return Err(Error::NothingOfUser(name.clone(), admin.config.htpasswd.clone()));
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
    let file = admin.users();
    let policy = admin.policy().await?;
    let count = |name: &UserName| policy.rules_naming(&Grantee::User(name.clone())).len();
    let users = file.users.iter().map(|(name, hash)| User {
        name: name.clone(),
        rules: count(name),
        cost: hash.cost(),
    });
    Ok((users.collect(), file.problems))
}

/// The users' file under its lock, where the user is there or not, as it should be.
fn editor(admin: &Admin, name: &UserName, is_there: bool) -> Result<Editor, Error> {
    let editor = admin.editor()?;
    match (editor.has_line(name), is_there) {
        (true, false) => Err(Error::UserThere(name.clone())),
        (false, true) => Err(Error::NoUser(name.clone(), admin.config.htpasswd.clone())),
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
    // Looked at under the lock: somebody may have added or removed the user meanwhile.
    let mut editor = editor(admin, name, is_there)?;
    editor.set(name, &hash);
    let save = || editor.save().map_err(Error::from);
    database.set_user(&editor.parse().fingerprints(), name, act, save).await
}
