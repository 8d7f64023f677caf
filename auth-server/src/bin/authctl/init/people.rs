//! The first user, or the users of an htpasswd file that is taken over.

use std::path::PathBuf;

use auth_server::{
    admin::{Admin, users},
    files,
    users::{
        NEW_COST, PASSWORD_BYTES_MAX, Password,
        edit::{Editor, HEADER},
        htpasswd::Htpasswd,
    },
};
use berth_shared::{
    action::Actions,
    rights::{Effect, Rule},
    subject::{Grantee, UserName},
};
use zeroize::Zeroizing;

use super::{Arguments, Steps, given};
use crate::{
    report::{Failure, refuse_if},
    secret,
};

/// The first user's name, unless another is asked for.
const USER_DEFAULT: &str = "andrew";

/// Whom to make.
pub(super) enum Plan {
    /// Nobody.
    Nobody,
    /// One user, with this password or a random one.
    One(UserName, Option<Password>),
    /// The users of a file.
    TakeOver(PathBuf, Vec<u8>),
}

/// Who was made, and whose name to show in examples.
#[derive(Default)]
pub(super) struct Made {
    /// A user who can sign in, if there is any.
    pub(super) user: Option<UserName>,
    /// The password, if it was made up here and nobody has seen it.
    pub(super) password: Option<Zeroizing<String>>,
}

impl Plan {
    pub(super) fn new(arguments: &Arguments) -> Result<Self, Failure> {
        if let Some(path) = given(arguments.htpasswd.as_ref()) {
            let bytes = files::read(&path)?;
            let is_blank = Htpasswd::parse(&bytes).is_blank;
            refuse_if(is_blank, || format!("{} is empty", path.display()))?;
            return Ok(Self::TakeOver(path, bytes));
        }
        if arguments.no_user {
            return Ok(Self::Nobody);
        }
        let name = arguments.user.as_deref().filter(|name| !name.is_empty());
        let name = name.unwrap_or(USER_DEFAULT).parse();
        let name = name.map_err(|error| Failure::usage(format!("--user: {error}")))?;
        let password = if arguments.password_stdin {
            Some(secret::from_stdin()?)
        } else {
            secret::from_environment()?
        };
        Ok(Self::One(name, password))
    }

    /// Grants before users: a user who is there has been given everything, so a run that was
    /// killed in between is completed by the next.
    pub(super) async fn carry_out(self, admin: &Admin, steps: &mut Steps) -> Result<Made, Failure> {
        if admin.config.server.is_some() {
            return self.carry_out_in_database(admin, steps).await;
        }
        let path = &admin.config.htpasswd;
        let shown = path.display();
        let old = files::read(path).ok().map(|bytes| Htpasswd::parse(&bytes));
        let holds_nobody =
            old.as_ref().is_none_or(|old| old.users.is_empty() && old.problems.is_empty());
        let mut password = None;
        match self {
            Self::TakeOver(source, bytes) if holds_nobody => {
                let source = source.display();
                if steps.begin(format!("{shown} from {source}, and the grant everyone **:*")) {
                    give_everything(admin, Grantee::Everyone).await?;
                    let mut whole = bytes.clone();
                    // A last line without an end could be taken for one that is being written.
                    if !whole.ends_with(b"\n") {
                        whole.push(b'\n');
                    }
                    files::replace(path, &whole, files::PRIVATE)?;
                }
                for problem in Htpasswd::parse(&bytes).problems {
                    steps.remark(format!("  {source}, {problem}"));
                }
                steps.remark(format!("  from now on Berth reads {shown}: mend lines there"));
                steps.remark(format!(
                    "  passwords of more than {PASSWORD_BYTES_MAX} bytes, of which htpasswd and docker-registry \
                     look at the first {PASSWORD_BYTES_MAX}, are refused: authctl user passwd NAME sets another"
                ));
            }
            Self::TakeOver(source, _) => steps.remark(format!(
                "{shown} has users already: those of {} are not taken over",
                source.display()
            )),
            Self::One(name, given) if old.is_none() => {
                if steps.begin(format!("the user {name} with the grant **:*")) {
                    give_everything(admin, Grantee::User(name.clone())).await?;
                    let chosen = match given {
                        Some(given) => given,
                        None => Password::new(password.insert(secret::random()?).clone())?,
                    };
                    let mut editor = Editor::open(path)?;
                    editor.set(&name, &chosen.hash(NEW_COST)?);
                    editor.save()?;
                }
            }
            Self::Nobody if old.is_none() => {
                if steps.begin(format!("{shown} without users")) {
                    files::replace(path, HEADER.as_bytes(), files::PRIVATE)?;
                }
            }
            Self::One(..) | Self::Nobody => {}
        }
        let users = admin.users();
        if !steps.is_dry {
            admin.database().await?.reconcile_users(&users.fingerprints()).await?;
        }
        Ok(Made { user: users.users.into_keys().next(), password })
    }
}

impl Plan {
    /// The same where the users are in a database that servers share: the first user, if there is none.
    async fn carry_out_in_database(
        self,
        admin: &Admin,
        steps: &mut Steps,
    ) -> Result<Made, Failure> {
        let mut password = None;
        admin.policy().await?;
        let holds_nobody = admin.users().users.is_empty();
        match self {
            Self::TakeOver(source, _) => steps.remark(format!(
                "{} has the users: authctl user import {}",
                admin.place_of_users(),
                source.display()
            )),
            Self::One(name, given) if holds_nobody => {
                if steps.begin(format!("the user {name} with the grant **:*")) {
                    give_everything(admin, Grantee::User(name.clone())).await?;
                    let chosen = match given {
                        Some(given) => given,
                        None => Password::new(password.insert(secret::random()?).clone())?,
                    };
                    users::add(admin, &name, &chosen, &[]).await?;
                    admin.policy().await?;
                }
            }
            Self::One(..) | Self::Nobody => {}
        }
        Ok(Made { user: admin.users().users.into_keys().next(), password })
    }
}

async fn give_everything(admin: &Admin, grantee: Grantee) -> Result<(), Failure> {
    let pattern = "**".parse()?;
    let effect = Effect::Allow;
    let rule = Rule { grantee, pattern, effect, actions: Actions::ALL, expires: None };
    Ok(admin.database().await?.add_rules(&[rule], admin.now()).await?)
}
