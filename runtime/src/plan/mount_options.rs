//! `options` of a mount, as mount(8) and the OCI runtime specification (config.md, "Linux mount options")
//! spell them, sorted by what carries them out: attributes of the mount, its propagation, and data for
//! the file system.

use std::fmt;

use crate::limits::DATA_BYTES;
use crate::mount_attr as attr;
pub use crate::mount_attr::Depth;
use crate::spec::Id;

/// Attributes to set and to clear.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Bits to set.
    pub set: u64,
    /// Bits to clear.
    pub clear: u64,
}

impl Attributes {
    /// There is nothing to change.
    pub fn is_empty(self) -> bool {
        self == Attributes::default()
    }

    /// As if the options of `change` came behind those of `self`.
    pub fn apply(&mut self, change: Attributes) {
        // The last of two contradicting options wins, as in mount(8).
        self.set = (self.set & !change.clear) | change.set;
        // The access time modes stay in `clear`: the kernel changes them only as a whole.
        self.clear = (self.clear & !(change.set & !attr::ATIME)) | change.clear;
    }
}

impl fmt::Display for Attributes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [(&str, u64, u64); 8] = [
            ("ro", attr::RDONLY, attr::RDONLY),
            ("nosuid", attr::NOSUID, attr::NOSUID),
            ("nodev", attr::NODEV, attr::NODEV),
            ("noexec", attr::NOEXEC, attr::NOEXEC),
            ("noatime", attr::ATIME, attr::NOATIME),
            ("strictatime", attr::ATIME, attr::STRICTATIME),
            ("nodiratime", attr::NODIRATIME, attr::NODIRATIME),
            ("nosymfollow", attr::NOSYMFOLLOW, attr::NOSYMFOLLOW),
        ];
        let set: Vec<_> =
            NAMES.iter().filter(|(_, mask, bits)| self.set & mask == *bits).map(|(name, ..)| *name).collect();
        out.write_str(if set.is_empty() { "rw" } else { "" })?;
        out.write_str(&set.join(","))
    }
}

/// Where mount events go, `MS_SHARED` and its siblings of mount(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// Nowhere, and none come in.
    Private,
    /// They come in and do not go out.
    Slave,
    /// Both ways.
    Shared,
    /// As private, and no bind of it can be made.
    Unbindable,
}

impl Propagation {
    /// As options spell it: `rslave` for the tree.
    pub fn spelled(self, depth: Depth) -> String {
        let recursive = if depth == Depth::Recursive { "r" } else { "" };
        format!("{recursive}{}", self.name())
    }

    fn name(self) -> &'static str {
        match self {
            Propagation::Private => "private",
            Propagation::Slave => "slave",
            Propagation::Shared => "shared",
            Propagation::Unbindable => "unbindable",
        }
    }

    /// Reads `private` (this mount) or `rprivate` (the tree), and so on.
    pub fn parse(text: &str) -> Option<(Propagation, Depth)> {
        let all = [Propagation::Private, Propagation::Slave, Propagation::Shared, Propagation::Unbindable];
        all.into_iter().find_map(|propagation| match text.strip_suffix(propagation.name()) {
            Some("") => Some((propagation, Depth::One)),
            Some("r") => Some((propagation, Depth::Recursive)),
            _ => None,
        })
    }
}

/// All options of one mount, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// `bind` or `rbind` among them.
    pub bind: Option<Depth>,
    /// For this mount.
    pub attributes: Attributes,
    /// For this mount and those below it (`rro`, `rnosuid`, …).
    pub recursive: Attributes,
    /// If asked for; private otherwise.
    pub propagation: Option<(Propagation, Depth)>,
    /// Where in the list a tmpfs is told to start with what is at its mount point.
    pub copy_up: Option<usize>,
    /// For the file system: `size=64m`, `newinstance`.
    pub data: Vec<Data>,
}

/// An option that only a file system can know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Data {
    /// Its index in the list.
    pub index: usize,
    /// Its name.
    pub key: String,
    /// What stands behind the `=`.
    pub value: Option<String>,
}

/// An option that cannot be honoured, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Its index in the list.
    pub index: usize,
    /// Why, and what to do.
    pub message: String,
}

/// Sorts `options`.
///
/// # Errors
///
/// Every option that cannot be honoured.
pub fn parse<S: AsRef<str>>(options: &[S]) -> Result<Options, Vec<Refused>> {
    let mut parsed = Options::default();
    let mut refused = Vec::new();
    for (index, option) in options.iter().enumerate() {
        if let Err(message) = parsed.add(index, option.as_ref()) {
            refused.push(Refused { index, message });
        }
    }
    if refused.is_empty() { Ok(parsed) } else { Err(refused) }
}

impl Options {
    fn add(&mut self, index: usize, option: &str) -> Result<(), String> {
        if let Some(change) = attribute(option) {
            self.attributes.apply(change);
        } else if let Some(change) = option.strip_prefix('r').and_then(attribute) {
            self.recursive.apply(change);
        } else if let Some(propagation) = Propagation::parse(option) {
            self.propagation = Some(propagation);
        } else {
            match option {
                "bind" => self.bind = Some(Depth::One),
                "rbind" => self.bind = Some(Depth::Recursive),
                "tmpcopyup" => self.copy_up = Some(index),
                // The kernel's own choice, what it only reports, and a number that only its NFS server sees.
                "defaults" | "async" | "silent" | "loud" | "nomand" | "iversion" | "noiversion"
                | "nolazytime" => {}
                "idmap" | "ridmap" | "remount" | "" => {
                    return Err(format!("option {option:?} is not there yet: leave it out"));
                }
                other => self.data.push(Data::parse(index, other)?),
            }
        }
        Ok(())
    }
}

impl Data {
    fn parse(index: usize, option: &str) -> Result<Data, String> {
        let (key, value) = match option.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (option, None),
        };
        if key.len().max(value.map_or(0, str::len)) > DATA_BYTES {
            return Err(format!(
                "option {key:?} is longer than the {DATA_BYTES} bytes that fsconfig(2) takes"
            ));
        }
        // As everywhere: 2³² - 1 is nobody, and larger than 2³¹ a negative number to many.
        let is_id = matches!(key, "uid" | "gid");
        let number = value.and_then(|value| value.parse::<u64>().ok());
        if is_id && number.is_some_and(|number| number > u64::from(Id::MAX)) {
            return Err(format!("option {option:?} names no user or group: they go up to {}", Id::MAX));
        }
        Ok(Data { index, key: key.to_owned(), value: value.map(str::to_owned) })
    }
}

fn attribute(option: &str) -> Option<Attributes> {
    let set = |bits| Some(Attributes { set: bits, clear: 0 });
    let clear = |bits| Some(Attributes { set: 0, clear: bits });
    let access_time = |bits| Some(Attributes { set: bits, clear: attr::ATIME });
    match option {
        "ro" => set(attr::RDONLY),
        "rw" => clear(attr::RDONLY),
        "nosuid" => set(attr::NOSUID),
        "suid" => clear(attr::NOSUID),
        "nodev" => set(attr::NODEV),
        "dev" => clear(attr::NODEV),
        "noexec" => set(attr::NOEXEC),
        "exec" => clear(attr::NOEXEC),
        "nosymfollow" => set(attr::NOSYMFOLLOW),
        "symfollow" => clear(attr::NOSYMFOLLOW),
        "nodiratime" => set(attr::NODIRATIME),
        "diratime" => clear(attr::NODIRATIME),
        "noatime" => access_time(attr::NOATIME),
        "strictatime" => access_time(attr::STRICTATIME),
        "relatime" | "atime" | "nostrictatime" => access_time(0),
        // Relative access times are the kernel's choice, and what is left without them.
        "norelatime" => Some(Attributes::default()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(options: &[&str], set: u64, clear: u64) {
        let parsed = parse(options).unwrap();
        assert_eq!(parsed.attributes, Attributes { set, clear }, "{options:?}");
    }

    #[test]
    fn the_last_of_two_contradicting_options_wins() {
        check(&[], 0, 0);
        check(&["ro"], attr::RDONLY, 0);
        check(&["ro", "rw"], 0, attr::RDONLY);
        check(&["rw", "ro"], attr::RDONLY, 0);
        check(&["noatime", "strictatime"], attr::STRICTATIME, attr::ATIME);
        check(&["nosuid", "noexec", "nodev"], attr::NOSUID | attr::NOEXEC | attr::NODEV, 0);
    }

    #[test]
    fn recursive_options_are_kept_apart_and_bind_is_not_taken_for_one() {
        let parsed = parse(&["rbind", "rro", "ro", "rslave"]).unwrap();
        assert_eq!(parsed.bind, Some(Depth::Recursive));
        assert_eq!(parsed.recursive.set, attr::RDONLY);
        assert_eq!(parsed.propagation, Some((Propagation::Slave, Depth::Recursive)));
    }

    #[test]
    fn what_is_not_understood_here_is_data_for_the_file_system() {
        let parsed = parse(&["size=64m", "newinstance", "ptmxmode=0666"]).unwrap();
        let names: Vec<_> =
            parsed.data.iter().map(|data| (data.key.as_str(), data.value.as_deref())).collect();
        assert_eq!(names, [("size", Some("64m")), ("newinstance", None), ("ptmxmode", Some("0666"))]);
    }

    #[test]
    fn options_that_cannot_be_honoured_are_all_named() {
        let long = format!("lowerdir={}", "x".repeat(256));
        let options = ["ro", "idmap", "remount", "uid=4294967295", "gid=2147483648", "uid=5", &long];
        let refused = parse(&options).unwrap_err();
        assert_eq!(refused.iter().map(|refused| refused.index).collect::<Vec<_>>(), [1, 2, 3, 4, 6]);
    }
}
