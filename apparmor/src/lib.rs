//! AppArmor as a container worker and its runtime need it: is it there, a profile's text ([`profile`]), its compilation
//! ([`parser`]), what the kernel has of it ([`policy`]), and what to write so that the next `execve` enters it.
//!
//! Entering is the runtime's: it writes through a descriptor of its own procfs that it opened before any file of the
//! container could be in the way.
//!
//! Sources: the kernel's `Documentation/admin-guide/LSM/apparmor.rst`, `security/apparmor/lsm.c`.
#![forbid(unsafe_code)]

pub mod parser;
pub mod policy;
pub mod profile;

use std::fs;
use std::io;
use std::path::Path;

/// Where the kernel says whether AppArmor is on: `Y` or `N`; absent in a kernel without it.
pub const ENABLED: &str = "/sys/module/apparmor/parameters/enabled";

/// Below `/proc/thread-self`, in order of preference: where [`enter_on_exec`] is written.
///
/// The first exists since Linux 5.1 and is AppArmor's alone; the second belongs to whichever
/// security module shows its labels there.
pub const EXEC_ATTRIBUTES: [&str; 2] = ["attr/apparmor/exec", "attr/exec"];

/// Below `/proc/thread-self`, as [`EXEC_ATTRIBUTES`]: where the kernel says what this thread is confined by.
pub const CURRENT_ATTRIBUTES: [&str; 2] = ["attr/apparmor/current", "attr/current"];

/// The longest profile name taken from a Spec, in bytes.
pub const MAX_NAME: usize = 255;

/// Why a profile cannot be entered.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ProfileNameError {
    /// Nothing would be confined.
    #[error("use an empty AppArmor profile name; leave the field out to run without a profile")]
    Empty,
    /// Longer than [`MAX_NAME`].
    #[error("use an AppArmor profile name of {0} bytes; at most {MAX_NAME} are allowed")]
    TooLong(usize),
    /// The kernel would read two names, or half of one.
    #[error("use AppArmor profile {0:?}: a name has no spaces or control characters")]
    Characters(String),
}

/// Whether the running kernel enforces AppArmor profiles.
///
/// # Errors
///
/// Any failure to read the parameter, except that it is not there.
pub fn is_enabled() -> io::Result<bool> {
    read_enabled(Path::new(ENABLED))
}

/// The name of the profile that a process is in, of what one of [`CURRENT_ATTRIBUTES`] holds, `NAME (MODE)`; `None` for one
/// that is in none.
pub fn outer_profile(current: &str) -> Option<&str> {
    let current = current.trim_end_matches(['\n', '\0']);
    let name = current.rsplit_once(" (").map_or(current, |(name, _)| name);
    (!name.is_empty() && name != "unconfined").then_some(name)
}

/// The profile that this thread is in, by the procfs of its own mount namespace. Only where [`is_enabled`].
///
/// # Errors
///
/// Any failure to read it.
pub fn own_profile() -> io::Result<Option<String>> {
    let [own, shared] = CURRENT_ATTRIBUTES.map(|name| Path::new("/proc/thread-self").join(name));
    let read = match fs::read_to_string(own) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::read_to_string(shared),
        read => read,
    };
    Ok(outer_profile(&read?).map(str::to_owned))
}

/// What one `write` to an exec attribute must carry so that the next `execve` of this thread enters
/// `profile`. A thread that is in a profile already gets the other one on top of it, so that both confine. The kernel
/// answers `ENOENT` if it is not loaded, `EACCES` if the outer one does not allow it.
///
/// # Errors
///
/// [`ProfileNameError`] for a name that the kernel would misread.
pub fn enter_on_exec(profile: &str, outer: Option<&str>) -> Result<String, ProfileNameError> {
    if profile.is_empty() {
        return Err(ProfileNameError::Empty);
    }
    if profile.len() > MAX_NAME {
        return Err(ProfileNameError::TooLong(profile.len()));
    }
    if profile.contains(|character: char| character.is_whitespace() || character.is_control()) {
        return Err(ProfileNameError::Characters(profile.to_owned()));
    }
    let verb = if outer.is_some() { "stack" } else { "exec" };
    Ok(format!("{verb} {profile}"))
}

fn read_enabled(parameter: &Path) -> io::Result<bool> {
    match fs::read_to_string(parameter) {
        Ok(text) => Ok(text.trim_end() == "Y"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_the_module_is_not_an_error() {
        assert!(!read_enabled(Path::new("/sys/module/no-such-module/parameters/enabled")).unwrap());
    }

    #[test]
    fn a_profile_name_that_the_kernel_would_misread_is_refused() {
        let long = "p".repeat(MAX_NAME + 1);
        let cases = [
            ("docker-worker-default", Ok("exec docker-worker-default")),
            ("unconfined", Ok("exec unconfined")),
            ("a//&b", Ok("exec a//&b")),
            ("", Err(ProfileNameError::Empty)),
            ("a b", Err(ProfileNameError::Characters("a b".into()))),
            ("a\nb", Err(ProfileNameError::Characters("a\nb".into()))),
            ("a\0", Err(ProfileNameError::Characters("a\0".into()))),
            (long.as_str(), Err(ProfileNameError::TooLong(MAX_NAME + 1))),
        ];
        for (profile, expected) in cases {
            assert_eq!(enter_on_exec(profile, None), expected.map(str::to_owned), "{profile:?}");
        }
    }

    #[test]
    fn whoever_is_confined_already_stays_so() {
        for (current, outer) in [
            ("unconfined\n", None),
            ("unconfined", None),
            ("", None),
            ("lxc-container-default (enforce)\n", Some("lxc-container-default")),
            ("a//&b (mixed)", Some("a//&b")),
            (":ns://unconfined (enforce)", Some(":ns://unconfined")),
        ] {
            assert_eq!(outer_profile(current), outer, "{current:?}");
        }
        assert_eq!(enter_on_exec("p", Some("lxc")).unwrap(), "stack p");
    }
}
