//! The profiles that the kernel has: loading, unloading, and telling ours from others' of the same name.
//!
//! The kernel takes a compiled profile in one write, all of it or nothing, and refuses a name that is there. It unloads by
//! name only; a process in a profile that is unloaded is *unconfined* from then on.
//!
//! Sources: `security/apparmor/apparmorfs.c`, `policy.c` of Linux.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::parser;
use crate::profile::{OwnName, REQUIRED};

/// Where securityfs shows AppArmor.
const PLACE: &str = "/sys/kernel/security/apparmor";

/// Bytes of a file of the kernel's that are looked at.
const FILE_BYTES: u64 = 4096;

/// Which profile of a name it is: one that somebody has loaded or changed since is another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity(String);

/// Why profiles cannot be used on this host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// The kernel has no AppArmor, or it is switched off.
    #[error("this host has no AppArmor")]
    Off,
    /// Whether it has cannot be seen.
    #[error("whether this host has AppArmor cannot be read in {ENABLED}: {why}", ENABLED = crate::ENABLED)]
    Unknown {
        /// The kernel's answer.
        why: String,
    },
    /// Its files are not there.
    #[error(
        "AppArmor's files are not in {PLACE}: mount securityfs there (mount -t securityfs securityfs /sys/kernel/security)"
    )]
    NotMounted,
    /// They cannot be written to.
    #[error(
        "profiles cannot be loaded by {PLACE}/.load: {why}; mount securityfs writable, and run the worker with CAP_MAC_ADMIN"
    )]
    NotWritable {
        /// The kernel's answer.
        why: String,
    },
    /// The kernel does not mediate what the profile is about.
    #[error("the kernel's AppArmor does not mediate {class}: boot a newer kernel")]
    Lacks {
        /// What it lacks.
        class: &'static str,
    },
    /// Nobody can compile a profile.
    #[error("apparmor_parser is not there: install the package apparmor")]
    NoParser,
}

/// Why the kernel's profiles are not as they should be.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// It does not take the profile.
    #[error("load the AppArmor profile {name}")]
    Load {
        /// Its name.
        name: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// It keeps the profile.
    #[error("unload the AppArmor profile {name}")]
    Unload {
        /// Its name.
        name: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// It does not say which profiles there are.
    #[error("look for the AppArmor profile {name} in {}", path.display())]
    Look {
        /// Its name.
        name: String,
        /// Where.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl Identity {
    /// An identity that was written down.
    pub fn from_text(text: String) -> Identity {
        Identity(text)
    }

    /// To be written down.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The parser of this host, if profiles can be used here.
///
/// # Errors
///
/// [`Unusable`]
pub fn usable() -> Result<PathBuf, Unusable> {
    let enabled = crate::is_enabled().map_err(|error| Unusable::Unknown { why: error.to_string() })?;
    if !enabled {
        return Err(Unusable::Off);
    }
    Place::of_this_host().usable()?;
    parser::find().ok_or(Unusable::NoParser)
}

/// Gives the kernel a profile that is new to it. Which one it is then is asked by [`find`].
///
/// # Errors
///
/// [`PolicyError::Load`]; `AlreadyExists` where there is one of that name.
pub fn load(name: &OwnName, compiled: &[u8]) -> Result<(), PolicyError> {
    let failed = |source| PolicyError::Load { name: name.to_string(), source };
    let mut file = Place::of_this_host().open(".load").map_err(failed)?;
    // In one call: the kernel takes what comes with it for the whole.
    let count = file.write(compiled).map_err(failed)?;
    if count == compiled.len() && count > 0 { Ok(()) } else { Err(failed(io::ErrorKind::WriteZero.into())) }
}

/// Which profile of this name the kernel has.
///
/// # Errors
///
/// [`PolicyError::Look`]
pub fn find(name: &OwnName) -> Result<Option<Identity>, PolicyError> {
    Place::of_this_host().find(name.as_str())
}

/// Takes a profile from the kernel, if there is one of this name, and if it is the one that `identity` is of. Whatever
/// runs in it is unconfined from then on. "Already gone" is success.
///
/// # Errors
///
/// [`PolicyError`]; it may still be there.
pub fn unload(name: &OwnName, identity: Option<&Identity>) -> Result<(), PolicyError> {
    let place = Place::of_this_host();
    match place.find(name.as_str())? {
        Some(found) if identity.is_none_or(|identity| *identity == found) => {}
        // It is gone, or somebody else's.
        Some(_) | None => return Ok(()),
    }
    let failed = |source| PolicyError::Unload { name: name.to_string(), source };
    let mut file = place.open(".remove").map_err(failed)?;
    match file.write_all(name.as_str().as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// AppArmor's directory.
struct Place(PathBuf);

impl Place {
    fn of_this_host() -> Place {
        Place(PLACE.into())
    }

    fn usable(&self) -> Result<(), Unusable> {
        if !self.0.join("features").is_dir() {
            return Err(Unusable::NotMounted);
        }
        for class in REQUIRED {
            if !self.0.join("features").join(class).is_file() {
                return Err(Unusable::Lacks { class });
            }
        }
        // To open it is what the kernel checks; nothing is written.
        self.open(".load").map(drop).map_err(|error| Unusable::NotWritable { why: error.to_string() })
    }

    fn open(&self, name: &str) -> io::Result<File> {
        File::options().write(true).open(self.0.join(name))
    }

    /// A profile has a directory whose name is the profile's and the number that the kernel gave it when it was loaded.
    fn find(&self, name: &str) -> Result<Option<Identity>, PolicyError> {
        let path = self.0.join("policy/profiles");
        let failed = |source| PolicyError::Look { name: name.to_owned(), path: path.clone(), source };
        for entry in fs::read_dir(&path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let directory = entry.file_name();
            let number = directory.to_str().and_then(|it| it.strip_prefix(name)?.strip_prefix('.'));
            let Some(number) = number.filter(|it| it.bytes().all(|byte| byte.is_ascii_digit())) else {
                continue;
            };
            return Ok(Some(Identity(format!("{number} {}", content_hash(&entry.path()).map_err(failed)?))));
        }
        Ok(None)
    }
}

/// The kernel's hash of a profile, by whichever method; a kernel that is not told to has none.
fn content_hash(profile: &Path) -> io::Result<String> {
    for method in ["sha256", "sha1"] {
        match File::open(profile.join(method)) {
            Ok(file) => {
                let mut text = String::new();
                file.take(FILE_BYTES).read_to_string(&mut text)?;
                return Ok(text.trim_end().to_owned());
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(String::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory as the kernel shows it.
    fn place() -> (tempfile::TempDir, Place) {
        let directory = tempfile::tempdir().unwrap();
        let place = Place(directory.path().to_owned());
        for class in REQUIRED {
            let file = place.0.join("features").join(class);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "").unwrap();
        }
        fs::create_dir_all(place.0.join("policy/profiles")).unwrap();
        fs::write(place.0.join(".load"), "").unwrap();
        (directory, place)
    }

    #[test]
    fn what_keeps_profiles_from_being_used_is_named() {
        let (_directory, whole) = place();
        assert_eq!(whole.usable(), Ok(()));
        assert_eq!(Place("/nonexistent".into()).usable(), Err(Unusable::NotMounted));
        fs::remove_file(whole.0.join(".load")).unwrap();
        assert!(matches!(whole.usable(), Err(Unusable::NotWritable { .. })));
        fs::remove_file(whole.0.join("features/ptrace/mask")).unwrap();
        assert_eq!(whole.usable(), Err(Unusable::Lacks { class: "ptrace/mask" }));
    }

    #[test]
    fn a_profile_that_was_loaded_again_or_changed_is_another_one() {
        let (_directory, place) = place();
        let profiles = place.0.join("policy/profiles");
        let name = "docker-worker-a";
        for others in ["docker-worker-a-b.1", "docker-worker-a.x", "docker-worker-a", "docker-worker-a.b.2"] {
            fs::create_dir(profiles.join(others)).unwrap();
        }
        assert_eq!(place.find(name).unwrap(), None);
        fs::create_dir(profiles.join("docker-worker-a.7")).unwrap();
        let without_hash = place.find(name).unwrap().unwrap();
        fs::write(profiles.join("docker-worker-a.7/sha1"), "0a1b\n").unwrap();
        let with_hash = place.find(name).unwrap().unwrap();
        assert_ne!(without_hash, with_hash);
        assert_eq!(Identity::from_text(with_hash.as_str().to_owned()), with_hash);
        fs::rename(profiles.join("docker-worker-a.7"), profiles.join("docker-worker-a.8")).unwrap();
        assert_ne!(place.find(name).unwrap().unwrap(), with_hash);
    }
}
