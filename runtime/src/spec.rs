//! Reads `config.json`, and says what becomes of everything in it.
//!
//! Each type below is an object of the OCI runtime specification 1.3 and lists its properties:
//!
//! | what stands there | what becomes of it |
//! |---|---|
//! | a property that is carried out | it is a field |
//! | a known one that is not | refused by name with what to do instead, unless it asks for nothing: null, empty, false, 0, -1 |
//! | one of another platform | passed over |
//! | an unknown one, anywhere | a line of the log, if there is one: config.md, "Extensibility", forbids an error |
//! | an unknown value: a member of an enumeration, an option, a path's or namespace's kind | refused by name |
//! | an unknown capability | a warning, as less is granted than asked for: config.md, "Linux Process", forbids an error |
//! | an unknown system call in a filter | passed over: a profile is written for many kernels |
//! | a value missing, of a wrong type, or out of range | refused by name |
//!
//! All findings come at once. What depends on several values is looked at by [`crate::plan`].

mod linux;
mod process;
mod read;
mod resources;
mod seccomp;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, OFlags};
use serde_json::Value;

use crate::limits::{CONFIG_BYTES, FINDING_CHARACTERS, FINDINGS};
use crate::open;

pub use linux::{
    DeviceEntry, DeviceType, Domain, IdMapping, Linux, MountEntry, Namespace, NamespaceEntry, Personality,
    Root,
};
pub use process::{ConsoleSize, Hook, Hooks, PosixLimit, Process, User};
pub use read::{Notes, Read, read};
pub(crate) use read::{Others, object, segment, shown};
pub use resources::{
    BlockIo, Cpu, DeviceRule, HugePageLimit, InterfacePriority, Memory, NetworkClass, Pids, RdmaLimits,
    Resources, ThrottleDevice, WeightDevice,
};
pub use seccomp::{Action, Architecture, Condition, FilterFlag, Operator, Seccomp, SyscallRule};

object! {
    /// The whole of `config.json`.
    #[derive(Default)]
    Spec {
        version: String = "ociVersion",
        root: Option<Root> = "root",
        mounts: Vec<MountEntry> = "mounts",
        process: Option<Process> = "process",
        hostname: Option<String> = "hostname",
        domainname: Option<String> = "domainname",
        hooks: Hooks = "hooks",
        annotations: BTreeMap<String, String> = "annotations",
        linux: Linux = "linux",
    } elsewhere { "solaris", "windows", "freebsd", "vm", "zos" }
}

/// The number of a user or group. The kernel takes 2³² - 1 for "leave it as it is", and numbers from 2³¹ on
/// are negative to many programs: neither is anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Id(pub u32);

impl Id {
    /// The largest.
    pub const MAX: u32 = i32::MAX.cast_unsigned();
}

impl std::str::FromStr for Id {
    type Err = ();

    fn from_str(text: &str) -> Result<Id, ()> {
        text.parse().ok().filter(|number| *number <= Id::MAX).map(Id).ok_or(())
    }
}

impl Read for Id {
    fn read(value: &mut Value, notes: &mut Notes) -> Option<Id> {
        let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
        number.filter(|number| *number <= Id::MAX).map(Id).or_else(|| {
            notes.refuse(format!("{} is no user or group: they go from 0 to {}", shown(value), Id::MAX))
        })
    }
}

/// One thing wrong with a Spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// JSON pointer of the property, `/linux/seccomp/flags/0`.
    pub pointer: String,
    /// What is wrong with it, and what to do.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.pointer, self.message)
    }
}

/// Findings so far. Of more than [`FINDINGS`] only the number is kept.
#[derive(Default)]
pub(crate) struct Findings {
    list: Vec<Finding>,
    more: usize,
}

impl Findings {
    pub(crate) fn add(&mut self, pointer: impl Into<String>, message: impl Into<String>) {
        if self.list.len() == FINDINGS {
            self.more += 1;
            return;
        }
        self.list.push(Finding { pointer: one_line(&pointer.into()), message: one_line(&message.into()) });
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    /// Puts a key before the pointers of those after the first `known`.
    pub(crate) fn move_below(&mut self, key: &dyn fmt::Display, known: usize) {
        for finding in self.list.iter_mut().skip(known) {
            finding.pointer.insert_str(0, &one_line(&format!("/{key}")));
        }
    }

    pub(crate) fn into_list(mut self) -> Vec<Finding> {
        for finding in self.list.iter_mut().filter(|finding| finding.pointer.is_empty()) {
            finding.pointer.push('/');
        }
        if self.more > 0 {
            self.list.push(Finding { pointer: "/".into(), message: format!("and {} more", self.more) });
        }
        self.list
    }
}

/// `text` on one line, and not too long: it may repeat what the Spec says.
fn one_line(text: &str) -> String {
    let mut line = on_one_line(text.chars().take(FINDING_CHARACTERS));
    line.push_str(if text.chars().nth(FINDING_CHARACTERS).is_some() { "…" } else { "" });
    line
}

/// What is no printable character is escaped: a path may hold a line break.
pub(crate) fn on_one_line(text: impl Iterator<Item = char>) -> String {
    let mut line = String::new();
    for character in text {
        match character.is_control() {
            true => line.extend(character.escape_debug()),
            false => line.push(character),
        }
    }
    line
}

/// Prints findings on one line.
pub(crate) fn join(findings: &[Finding]) -> String {
    findings.iter().map(Finding::to_string).collect::<Vec<_>>().join("; ")
}

/// A Spec, with what was left out of account.
#[derive(Debug)]
pub struct Loaded {
    /// The Spec.
    pub spec: Spec,
    /// What of the known properties is not carried out: capabilities.
    pub warnings: Vec<Finding>,
    /// Properties that a later version or somebody's extension may know. Ignoring them is what the specification
    /// demands, so that they are told to a log only.
    pub unknown: Vec<Finding>,
    /// The file that it was read from; empty if there was none.
    pub text: Vec<u8>,
}

/// Why a bundle has no usable Spec.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// There is no readable `config.json`.
    #[error("read {}: is this the bundle's directory?", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// More than [`CONFIG_BYTES`].
    #[error("read {}: it is larger than {CONFIG_BYTES} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Not JSON.
    #[error("parse {}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where, by line and column.
        source: serde_json::Error,
    },
    /// JSON, but not a Spec that this runtime can honour.
    #[error("accept {}: {}", path.display(), join(findings))]
    Refused {
        /// The file.
        path: PathBuf,
        /// Everything that is wrong with it.
        findings: Vec<Finding>,
    },
}

/// Loads `config.json` of the bundle at `bundle`.
///
/// # Errors
///
/// The file cannot be read, is too large, is not JSON, or asks for what is not there.
pub fn load(bundle: &Path) -> Result<Loaded, LoadError> {
    let path = bundle.join(CONFIG);
    let file = open::regular(CWD, &path, OFlags::RDONLY)
        .map_err(|source| LoadError::Read { path: path.clone(), source })?;
    load_text(read_text(file, &path)?, &path)
}

/// The name of the file in a bundle.
pub(crate) const CONFIG: &str = "config.json";

/// Reads the text of a `config.json`, opened at `path`.
///
/// # Errors
///
/// It cannot be read or is too large.
pub(crate) fn read_text(file: File, path: &Path) -> Result<Vec<u8>, LoadError> {
    let read = |source| LoadError::Read { path: path.to_owned(), source };
    let mut text = Vec::with_capacity(64 << 10);
    file.take(CONFIG_BYTES + 1).read_to_end(&mut text).map_err(read)?;
    if text.len() as u64 > CONFIG_BYTES {
        return Err(LoadError::TooLarge { path: path.to_owned() });
    }
    Ok(text)
}

/// Reads the Spec in `text`, which is that of the file at `path`.
///
/// # Errors
///
/// It is not JSON, or asks for what is not there.
pub(crate) fn load_text(text: Vec<u8>, path: &Path) -> Result<Loaded, LoadError> {
    let path = || path.to_owned();
    let value: Value =
        serde_json::from_slice(&text).map_err(|source| LoadError::Json { path: path(), source })?;
    let loaded = parse(value).map_err(|findings| LoadError::Refused { path: path(), findings })?;
    Ok(Loaded { text, ..loaded })
}

/// A part of a Spec that stands by itself, as of [`Loaded`].
#[derive(Debug)]
pub(crate) struct Part<T> {
    pub value: T,
    pub warnings: Vec<Finding>,
    pub unknown: Vec<Finding>,
}

/// The process of `exec --process`, which is what `process` is in a Spec.
#[derive(Debug)]
pub(crate) struct GivenProcess {
    pub process: Process,
    /// Whether it says anything of capabilities.
    pub has_capabilities: bool,
}

/// Reads the process in `text`, which is that of the file at `path`.
///
/// # Errors
///
/// It is not JSON, or asks for what is not there.
pub(crate) fn load_process(text: &[u8], path: &Path) -> Result<Part<GivenProcess>, LoadError> {
    load_part(text, path, |value, notes| {
        let has_capabilities = value.get("capabilities").is_some_and(|sets| !sets.is_null());
        notes.at("process", |notes| {
            let mut process = Process::read(value, notes)?;
            keep_grounded(&mut process, notes);
            Some(GivenProcess { process, has_capabilities })
        })
    })
}

/// Reads what `linux.resources` is in a Spec.
///
/// # Errors
///
/// As [`load_process`].
pub(crate) fn load_resources(text: &[u8], path: &Path) -> Result<Part<Resources>, LoadError> {
    load_part(text, path, Resources::read)
}

fn load_part<T>(
    text: &[u8],
    path: &Path,
    read: impl FnOnce(&mut Value, &mut Notes) -> Option<T>,
) -> Result<Part<T>, LoadError> {
    let path = || path.to_owned();
    let mut value: Value =
        serde_json::from_slice(text).map_err(|source| LoadError::Json { path: path(), source })?;
    let mut notes = Notes::default();
    match (read(&mut value, &mut notes), notes.refused.into_list()) {
        (Some(value), refused) if refused.is_empty() => {
            let (warnings, unknown) = (notes.ignored.into_list(), notes.unknown.into_list());
            Ok(Part { value, warnings, unknown })
        }
        (_, findings) => Err(LoadError::Refused { path: path(), findings }),
    }
}

/// Takes from the ambient capabilities what the kernel would not grant.
fn keep_grounded(process: &mut Process, notes: &mut Notes) {
    let taken = process.capabilities.take_ambient_without_ground();
    if !taken.is_empty() {
        let message = format!("{taken}: not granted, as what is not permitted and inheritable cannot be");
        notes.ignored.add("/capabilities/ambient", message);
    }
}

/// Reads a Spec from JSON.
///
/// # Errors
///
/// Everything in it that is refused.
pub fn parse(mut value: Value) -> Result<Loaded, Vec<Finding>> {
    let mut notes = Notes::default();
    let mut spec = Spec::read(&mut value, &mut notes);
    if let Some(process) = spec.as_mut().and_then(|spec| spec.process.as_mut()) {
        notes.at("process", |notes| keep_grounded(process, notes));
    }
    match (spec, notes.refused.into_list()) {
        (Some(spec), refused) if refused.is_empty() => {
            let (warnings, unknown) = (notes.ignored.into_list(), notes.unknown.into_list());
            Ok(Loaded { spec, text: Vec::new(), warnings, unknown })
        }
        (_, refused) => Err(refused),
    }
}

#[cfg(test)]
mod tests;
