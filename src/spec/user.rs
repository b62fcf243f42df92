//! The image's `User`, resolved to numbers by the image's own passwd and group files.
//!
//! The runtime knows numbers only. A name that the files lack is an error, never uid 0.

/// Numbers up to here are accepted, as docker does: larger ones mean different things to different
/// programs.
const LARGEST_ID: u32 = i32::MAX.unsigned_abs();

/// Who the task's command runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedUser {
    /// User id inside and outside the container.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids, in the order of the group file.
    pub additional_gids: Vec<u32>,
    /// Home directory; `/` if the passwd file names none.
    pub home: String,
}

/// Why the image's user cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UserError {
    /// The name is not in the image's passwd file.
    #[error(
        "find user {name:?} of the image in its /etc/passwd; add the user to the image or name it by number"
    )]
    UnknownUser {
        /// The name as the image gives it.
        name: String,
    },
    /// The group's name is not in the image's group file.
    #[error(
        "find group {name:?} of the image in its /etc/group; add the group to the image or name it by number"
    )]
    UnknownGroup {
        /// The name as the image gives it.
        name: String,
    },
    /// The number is negative or too large.
    #[error("use the image's user or group number {text:?}: it has to be 0 to {LARGEST_ID}")]
    OutOfRange {
        /// The number as the image, its passwd or its group file gives it.
        text: String,
    },
}

/// Resolves an image's `User` field: empty, `user`, `user:group`, each a name or a number.
///
/// `passwd` and `group` are the contents of the image's files, empty if it has none.
///
/// # Errors
///
/// [`UserError`] when a name is unknown or a number is out of range.
pub fn resolve_user(user: &str, passwd: &[u8], group: &[u8]) -> Result<ResolvedUser, UserError> {
    let (name, group_name) = match user.split_once(':') {
        Some((name, group_name)) => (name, Some(group_name).filter(|name| !name.is_empty())),
        None => (user, None),
    };
    let name = if name.is_empty() { "0" } else { name };
    let number = number(name)?;
    let entry = records(passwd).find(|fields| match number {
        Some(uid) => field(fields, 2) == uid.to_string(),
        None => field(fields, 0) == name,
    });
    let (uid, own_gid) = match (&entry, number) {
        (Some(fields), _) => (listed(field(fields, 2))?, listed(field(fields, 3))?),
        (None, Some(uid)) => (uid, 0),
        (None, None) => return Err(UserError::UnknownUser { name: name.to_owned() }),
    };
    let (gid, additional_gids) = match group_name {
        Some(group_name) => (find_group(group_name, group)?, Vec::new()),
        None => {
            let login = entry.as_ref().map_or("", |fields| field(fields, 0));
            (own_gid, memberships(login, own_gid, group)?)
        }
    };
    let home = entry.as_ref().map_or("", |fields| field(fields, 5));
    let home = if home.is_empty() { "/" } else { home }.to_owned();
    Ok(ResolvedUser { uid, gid, additional_gids, home })
}

fn find_group(name: &str, group: &[u8]) -> Result<u32, UserError> {
    if let Some(gid) = number(name)? {
        return Ok(gid);
    }
    match records(group).find(|fields| field(fields, 0) == name) {
        Some(fields) => listed(field(&fields, 2)),
        None => Err(UserError::UnknownGroup { name: name.to_owned() }),
    }
}

/// The groups that list `login` as a member.
fn memberships(login: &str, own_gid: u32, group: &[u8]) -> Result<Vec<u32>, UserError> {
    if login.is_empty() {
        return Ok(Vec::new());
    }
    let mut gids = Vec::new();
    for fields in records(group) {
        if field(&fields, 3).split(',').any(|member| member == login) {
            let gid = listed(field(&fields, 2))?;
            if gid != own_gid && !gids.contains(&gid) {
                gids.push(gid);
            }
        }
    }
    Ok(gids)
}

/// The lines of a passwd or group file as their fields. Lines that are not UTF-8 name nobody that
/// an image's configuration, which is JSON, could name.
fn records(file: &[u8]) -> impl Iterator<Item = Vec<&str>> {
    file.split(|byte| *byte == b'\n')
        .filter_map(|line| std::str::from_utf8(line).ok())
        .map(|line| line.trim().split(':').collect())
}

fn field<'a>(fields: &[&'a str], index: usize) -> &'a str {
    fields.get(index).copied().unwrap_or("")
}

/// `None` for a name; an error for what looks like a number and is not a usable one.
fn number(text: &str) -> Result<Option<u32>, UserError> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    listed(text).map(Some)
}

/// A number that stands in a file or in the image's configuration.
fn listed(text: &str) -> Result<u32, UserError> {
    match text.parse::<u32>() {
        Ok(id) if id <= LARGEST_ID && !text.starts_with('+') => Ok(id),
        _ => Err(UserError::OutOfRange { text: text.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\nbob:x:1000:1001::/home/bob:/bin/sh\n\
        broken\nhuge:x:4294967295:1::/:\nnohome:x:7:8:::\n";
    const GROUP: &[u8] = b"root:x:0:\nstaff:x:50:bob,root\naudio:x:29:bob\nbob:x:1001:bob\nbad:x:-4:\n";

    fn user(uid: u32, gid: u32, additional_gids: &[u32], home: &str) -> ResolvedUser {
        ResolvedUser { uid, gid, additional_gids: additional_gids.to_vec(), home: home.to_owned() }
    }

    #[test]
    fn users_resolve_as_docker_resolves_them() {
        let cases = [
            ("", user(0, 0, &[50], "/root")),
            ("root", user(0, 0, &[50], "/root")),
            ("bob", user(1000, 1001, &[50, 29], "/home/bob")),
            ("1000", user(1000, 1001, &[50, 29], "/home/bob")),
            ("bob:staff", user(1000, 50, &[], "/home/bob")),
            ("bob:77", user(1000, 77, &[], "/home/bob")),
            ("bob:", user(1000, 1001, &[50, 29], "/home/bob")),
            ("4242", user(4242, 0, &[], "/")),
            ("4242:4343", user(4242, 4343, &[], "/")),
            (":staff", user(0, 50, &[], "/root")),
            ("nohome", user(7, 8, &[], "/")),
        ];
        for (name, expected) in cases {
            assert_eq!(resolve_user(name, PASSWD, GROUP), Ok(expected), "{name:?}");
        }
        assert_eq!(resolve_user("", b"", b""), Ok(user(0, 0, &[], "/")));
    }

    #[test]
    fn a_line_may_be_as_long_as_its_file() {
        let members: Vec<String> = (0..20_000).map(|number| format!("member{number:06}")).collect();
        let group = format!("big:x:77:{},bob\nafter:x:78:bob\n", members.join(","));
        let bob = resolve_user("bob", PASSWD, group.as_bytes()).unwrap();
        assert_eq!(bob.additional_gids, [77, 78]);
    }

    #[test]
    fn s17_a_user_that_cannot_be_resolved_is_an_error_and_never_uid_0() {
        let out_of_range = |text: &str| UserError::OutOfRange { text: text.to_owned() };
        let cases = [
            ("4294967296", out_of_range("4294967296")),
            ("2147483648", out_of_range("2147483648")),
            ("-1", out_of_range("-1")),
            ("0:-1", out_of_range("-1")),
            ("+5", out_of_range("+5")),
            ("huge", out_of_range("4294967295")),
            ("bob:bad", out_of_range("-4")),
            ("mallory", UserError::UnknownUser { name: "mallory".to_owned() }),
            ("broken", out_of_range("")),
            ("bob:nobody", UserError::UnknownGroup { name: "nobody".to_owned() }),
            ("99999999999999999999", out_of_range("99999999999999999999")),
        ];
        for (name, expected) in cases {
            assert_eq!(resolve_user(name, PASSWD, GROUP), Err(expected), "{name:?}");
        }
    }
}
