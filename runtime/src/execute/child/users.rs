//! Users by the container's own files: `/etc/passwd` and `/etc/group`, as passwd(5) and group(5) have them.
//!
//! They are the image's: read beneath the root without following magic links, bounded, and only if they are files.

use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{FileType, OFlags, fstat};
use rustix::io::Errno;

use crate::limits::SMALL_FILE_BYTES;
use crate::plan::{Identity, UserName};
use crate::rootfs::{Links, Root};
use crate::spec::Id;

/// A user or group that was asked for by name.
#[derive(Debug, thiserror::Error)]
pub(in crate::execute) enum UserError {
    #[error("find {what} {name:?} in {file} of the container: give a number, or a name that is there")]
    Unknown { what: &'static str, name: String, file: &'static str },
    #[error("read {file} of the container")]
    Read { file: &'static str, source: io::Error },
}

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

/// Where the user `uid` is at home: the sixth field of the first line, as login(1) takes it; `/` without one.
pub(super) fn home(root: &Root, uid: u32) -> String {
    let home = read(root, PASSWD).ok().and_then(|text| home_of(&text, uid));
    home.unwrap_or_else(|| "/".into())
}

/// `identity` as `name` has it: a user by name has the group of their line, and is in those that list them, unless a group
/// is asked for too.
pub(super) fn look_up(root: &Root, name: &UserName, identity: &Identity) -> Result<Identity, UserError> {
    let read = |file| read(root, file).map_err(|errno| UserError::Read { file, source: errno.into() });
    let mut found = identity.clone();
    if let Ok(Id(uid)) = name.user.parse() {
        found.uid = uid;
    } else {
        let user = || UserError::Unknown { what: "user", name: name.user.clone(), file: PASSWD };
        (found.uid, found.gid) = find_user(&read(PASSWD)?, &name.user).ok_or_else(user)?;
        if name.group.is_none() {
            found.groups.extend(groups_of(&read(GROUP).unwrap_or_default(), &name.user));
        }
    }
    if let Some(group) = &name.group {
        found.gid = match group.parse() {
            Ok(Id(gid)) => gid,
            Err(_) => {
                let unknown = || UserError::Unknown { what: "group", name: group.clone(), file: GROUP };
                find_group(&read(GROUP)?, group).ok_or_else(unknown)?
            }
        };
    }
    Ok(found)
}

fn read(root: &Root, path: &'static str) -> Result<String, Errno> {
    // Not to wait for the other end of a FIFO.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = root.open(Path::new(path), flags, Links::Inside)?;
    if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(Errno::INVAL);
    }
    let mut text = Vec::new();
    let read = std::fs::File::from(file).take(SMALL_FILE_BYTES).read_to_end(&mut text);
    read.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn home_of(passwd: &str, uid: u32) -> Option<String> {
    let home = passwd.lines().find_map(|line| {
        let mut fields = line.split(':').skip(2);
        (fields.next()?.parse() == Ok(uid)).then(|| fields.nth(2)).flatten()
    })?;
    (!home.is_empty() && !home.contains('\0')).then(|| home.to_owned())
}

/// User and group of the first line with this name. One whose numbers are nobody's is passed over.
fn find_user(passwd: &str, name: &str) -> Option<(u32, u32)> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let is_it = fields.next()? == name;
        let (uid, gid) = (fields.nth(1)?.parse::<Id>().ok()?.0, fields.next()?.parse::<Id>().ok()?.0);
        is_it.then_some((uid, gid))
    })
}

fn find_group(group: &str, name: &str) -> Option<u32> {
    group.lines().find_map(|line| {
        let mut fields = line.split(':');
        let is_it = fields.next()? == name;
        let Id(gid) = fields.nth(1)?.parse().ok()?;
        is_it.then_some(gid)
    })
}

fn groups_of(group: &str, user: &str) -> Vec<u32> {
    let lists = |line: &str| {
        let mut fields = line.split(':').skip(2);
        let Id(gid) = fields.next()?.parse().ok()?;
        fields.next()?.split(',').any(|member| member.trim() == user).then_some(gid)
    };
    group.lines().filter_map(lists).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nshort:x:7\n\nme:x:7:8::/home/me\nagain:x:7:7::/no:\n\
                          none:x:8:8:::\nmany:x:4294967296:0::/:\nminus:x:-1:0::/:\nlast:x:4294967295:0::/:\n";
    const GROUP: &str = "root:x:0:\nwheel:x:10:root,me\nshort:x\nvideo:x:44:me\nnobody:x:4294967295:me\n";

    #[test]
    fn a_home_is_the_sixth_field_of_the_users_first_line() {
        for (uid, home) in [(0, Some("/root")), (7, Some("/home/me")), (8, None), (9, None)] {
            assert_eq!(home_of(PASSWD, uid).as_deref(), home, "{uid}");
        }
    }

    #[test]
    fn a_name_is_found_with_its_groups_and_numbers_of_nobody_are_not() {
        for (name, found) in [
            ("root", Some((0, 0))),
            ("me", Some((7, 8))),
            ("short", None),
            ("many", None),
            ("minus", None),
            ("last", None),
            ("", None),
        ] {
            assert_eq!(find_user(PASSWD, name), found, "{name}");
        }
        for (name, found) in [("wheel", Some(10)), ("short", None), ("nobody", None), ("absent", None)] {
            assert_eq!(find_group(GROUP, name), found, "{name}");
        }
        assert_eq!(groups_of(GROUP, "me"), [10, 44]);
    }
}
