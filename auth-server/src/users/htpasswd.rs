//! The text of an htpasswd file: `name:hash` in lines, bcrypt only.
//!
//! A bad line never hides the good ones: it is skipped and reported with its number. Of two lines
//! with one name the first counts, as for Apache. Reports never hold a hash.

use std::collections::BTreeMap;

use berth_shared::subject::{USER_NAME_BYTES_MAX, UserName};
use data_encoding::HEXLOWER;
use ring::digest;

/// The bcrypt costs that are accepted: `htpasswd -B` writes 5, and 14 takes a second.
pub const COSTS: std::ops::RangeInclusive<u32> = 4..=14;

/// Below this cost a user is told to set a new password.
const COST_WEAK_BELOW: u32 = 10;

/// A password as the file stores it. Has no `Debug`, so that it cannot be logged by accident.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredHash {
    text: String,
    cost: u32,
}

impl StoredHash {
    /// Reads the hash of `name`, or says what to report of the line.
    fn read(text: &str, name: &UserName) -> Result<Self, String> {
        let skipped = |what: &str| format!("skipped, {what}: authctl user passwd {name}");
        let is_bcrypt = ["$2a$", "$2b$", "$2x$", "$2y$"].iter().any(|form| text.starts_with(form));
        if !is_bcrypt {
            return Err(skipped(&format!("the password of {name} is not stored with bcrypt")));
        }
        // The crate would take "+5" for a number.
        let is_number = text.bytes().skip(4).take(2).all(|b| b.is_ascii_digit());
        let parts = is_number.then(|| text.parse::<bcrypt::HashParts>().ok()).flatten();
        let damaged = || skipped(&format!("the bcrypt hash of {name} is damaged"));
        let cost = parts.ok_or_else(damaged)?.get_cost();
        if !COSTS.contains(&cost) {
            let (least, most) = (COSTS.start(), COSTS.end());
            let what = format!("the bcrypt cost {cost} of {name} is not within {least} to {most}");
            return Err(skipped(&what));
        }
        Ok(Self { text: text.to_owned(), cost })
    }

    /// One of the right form and cost that no password is known to have.
    pub(super) fn dummy(cost: u32) -> Self {
        Self { text: format!("$2b${cost:02}${}", ".".repeat(53)), cost }
    }

    /// The hash as it stands in the file.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Its bcrypt cost.
    pub fn cost(&self) -> u32 {
        self.cost
    }

    /// Tells two stored passwords of `user` apart without holding either.
    pub fn fingerprint(&self, user: &UserName) -> String {
        let mut context = digest::Context::new(&digest::SHA256);
        for part in [user.as_str(), "\0", &self.text] {
            context.update(part.as_bytes());
        }
        HEXLOWER.encode(context.finish().as_ref())
    }
}

/// What is wrong with one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct Problem {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong.
    what: String,
    /// Whether nobody signs in by it for that.
    is_skipped: bool,
}

impl Problem {
    /// Whether nobody signs in by the line for that.
    pub fn is_skipped(&self) -> bool {
        self.is_skipped
    }
}

/// A name as a report shows it. One that looks like a hash is none that anybody has: the line is the
/// wrong way round.
fn named(name: &str) -> String {
    let beginning: String = name.chars().take(USER_NAME_BYTES_MAX).collect();
    if name.starts_with('$') {
        "a hash in place of a name".to_owned()
    } else {
        format!("{beginning:?}")
    }
}

/// An htpasswd file as it was read.
#[derive(Clone, Default)]
pub struct Htpasswd {
    /// The users who can sign in.
    pub users: BTreeMap<UserName, StoredHash>,
    /// What to report, by line.
    pub problems: Vec<Problem>,
    /// There is nothing in the file but white space.
    pub is_blank: bool,
    /// The last line has no end and cannot be used: the file is being written.
    pub is_cut: bool,
}

impl Htpasswd {
    /// A file of these users, each with a hash as it stands in one.
    pub fn of_table(users: &BTreeMap<UserName, String>) -> Self {
        let lines = users.iter().map(|(name, hash)| format!("{name}:{hash}\n"));
        Self::parse(lines.collect::<String>().as_bytes())
    }

    /// Reads the bytes of a file.
    pub fn parse(bytes: &[u8]) -> Self {
        let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
        let mut file = Self { is_blank: bytes.trim_ascii().is_empty(), ..Self::default() };
        let lines = bytes.split(|byte| *byte == b'\n');
        let last = lines.clone().count();
        for (number, line) in (1..).zip(lines) {
            let read = read_line(line);
            // What follows the last newline is empty, unless the file ends without one.
            file.is_cut |= number == last && read.is_err();
            file.take(number, read);
        }
        file
    }

    fn take(&mut self, line: usize, read: Result<Option<(UserName, StoredHash)>, String>) {
        let (name, hash) = match read {
            Ok(Some(user)) => user,
            Ok(None) => return,
            Err(what) => return self.problems.push(Problem { line, what, is_skipped: true }),
        };
        if self.users.contains_key(&name) {
            let what = format!("skipped, {name} stands in an earlier line, which counts");
            return self.problems.push(Problem { line, what, is_skipped: true });
        }
        if hash.cost < COST_WEAK_BELOW {
            let (cost, mend) = (hash.cost, "a new password is stored better");
            let what = format!(
                "the bcrypt cost {cost} of {name} is low, {mend}: authctl user passwd {name}"
            );
            self.problems.push(Problem { line, what, is_skipped: false });
        }
        self.users.insert(name, hash);
    }

    /// The users and the fingerprints of their stored passwords.
    pub fn fingerprints(&self) -> BTreeMap<UserName, String> {
        self.users.iter().map(|(name, hash)| (name.clone(), hash.fingerprint(name))).collect()
    }
}

/// The name before the first colon; nothing for blank lines and comments.
pub(super) fn name_in(line: &[u8]) -> Option<&[u8]> {
    let line = line.trim_ascii();
    let is_content = !line.is_empty() && !line.starts_with(b"#");
    is_content.then(|| line.split(|byte| *byte == b':').next().unwrap_or_default())
}

/// The user of a line, or what is wrong with it.
fn read_line(line: &[u8]) -> Result<Option<(UserName, StoredHash)>, String> {
    if name_in(line).is_none() {
        return Ok(None);
    }
    let shape = || "skipped, it is not name:hash".to_owned();
    let line = std::str::from_utf8(line).map_err(|_| shape())?.trim_ascii();
    let (name, rest) = line.split_once(':').ok_or_else(shape)?;
    // What follows a second colon is a comment, for Apache and nginx alike.
    let hash = rest.split(':').next().unwrap_or_default();
    let name: UserName = name.parse().map_err(|reason| {
        let mend = "write another in its place, or type authctl user add NAME";
        format!("skipped, {} is {reason}; {mend}", named(name))
    })?;
    let hash = StoredHash::read(hash, &name)?;
    Ok(Some((name, hash)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "$2y$10$.....................................................";

    fn hash() -> String {
        HASH.to_owned()
    }

    fn names(file: &Htpasswd) -> Vec<&str> {
        file.users.keys().map(UserName::as_str).collect()
    }

    #[test]
    fn good_lines_are_read_and_bad_ones_reported_by_number() {
        let hash = hash();
        let text = format!(
            "\u{feff}# people\r\n\r\nandrew:{hash}\r\nlena:{hash}:Lena of sales\n\
             old:$apr1$x$yyyyyyyyyyyyyyyyyyyyyy\nsha:{{SHA}}AAAA\nplain:secret\nandrew:{hash}\n\
             no colon\n:{hash}\neveryone:{hash}\nshort:{}\ncheap:{}\ndear:{}\nstrange:{}\n",
            &hash[..59],
            hash.replace("$10$", "$05$"),
            hash.replace("$10$", "$15$"),
            hash.replace("$10$", "$+5$"),
        );
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(b"\xff\xfe:x\n");
        let file = Htpasswd::parse(&bytes);
        assert_eq!(names(&file), ["andrew", "cheap", "lena"]);
        let lines: Vec<_> = file.problems.iter().map(|problem| problem.line).collect();
        assert_eq!(lines, [5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);
        assert!(!file.is_cut && !file.is_blank);
        for problem in &file.problems {
            let text = problem.to_string();
            assert!(!text.contains("secret") && !text.contains("$2") && !text.contains("apr1"));
        }
        assert!(file.problems[0].to_string().ends_with("authctl user passwd old"));
    }

    #[test]
    fn a_name_that_cannot_be_one_is_shown_with_what_to_type_and_a_hash_is_not() {
        let hash = hash();
        let text = format!("CORP\\bob:{hash}\njane doe:{hash}\njürgen:{hash}\n{hash}:ann\n");
        let problems = Htpasswd::parse(text.as_bytes()).problems;
        let told: Vec<_> = problems.iter().map(ToString::to_string).collect();
        for (line, name) in ["\"CORP\\\\bob\"", "\"jane doe\"", "\"jürgen\""].iter().enumerate() {
            assert!(told[line].contains(name), "{}", told[line]);
            assert!(told[line].contains("authctl user add NAME"), "{}", told[line]);
        }
        assert!(
            told[3].contains("a hash in place of a name") && !told[3].contains("$2y"),
            "{told:?}"
        );
    }

    #[test]
    fn cut_and_blank_files_are_recognised() {
        let hash = hash();
        for (text, is_cut, is_blank, users) in [
            (String::new(), false, true, 0),
            (" \r\n\n".to_owned(), false, true, 0),
            ("# nobody\n".to_owned(), false, false, 0),
            (format!("a:{hash}"), false, false, 1),
            (format!("a:{hash}\nb:{}", &hash[..20]), true, false, 1),
            (format!("a:{hash}\nb:{}\n", &hash[..20]), false, false, 1),
            (format!("a:{hash}\nb"), true, false, 1),
            (format!("a:{hash}\n# remark"), false, false, 1),
        ] {
            let file = Htpasswd::parse(text.as_bytes());
            assert_eq!((file.is_cut, file.is_blank), (is_cut, is_blank), "{text:?}");
            assert_eq!(file.users.len(), users, "{text:?}");
        }
    }

    #[test]
    fn fingerprints_tell_users_and_passwords_apart() {
        let (a, b): (UserName, UserName) = ("a".parse().unwrap(), "b".parse().unwrap());
        let read = |hash: &str| StoredHash::read(hash, &a).ok().unwrap();
        let (one, two) = (read(HASH), read(&HASH.replace("2y", "2b")));
        assert_ne!(one.fingerprint(&a), one.fingerprint(&b));
        assert_ne!(one.fingerprint(&a), two.fingerprint(&a));
        assert_eq!(one.fingerprint(&a).len(), 64);
    }
}
