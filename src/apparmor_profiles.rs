//! AppArmor profiles that the worker has loaded: the one that all of its tasks run under, and those that belong to one
//! container.
//!
//! ```text
//!   journal: unload NAME ─► load ─► journal: which one it is ─► containers run in it ─► (all gone) ─► unload
//! ```
//!
//! Each has a directory with a journal, in which the unloading is written down before the profile is loaded: the worker
//! process's own for the profile of all tasks, in the container's for a container's. So whoever cleans up after a killed
//! worker finds it, and takes it from the kernel *after* the containers, because what runs in a profile that is unloaded is
//! confined by nothing from then on.
//!
//! Names are random. The profile of that name that is found later counts as ours only as long as nobody has loaded it
//! anew or changed it; another's is neither entered nor unloaded.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use apparmor::parser::{self, CompileError};
use apparmor::policy::{self, Identity, PolicyError};
use apparmor::profile::{self, OuterError, OwnName, OwnNameError};
use runtime::journal::{Journal, JournalError, Keeper, UndoStep};
use runtime::undo::{UndoError, undo_all};

use crate::directories::Directories;
use crate::random::random_hex;
use crate::run_directory::process::ProcessDirectory;
use crate::run_directory::{ContainerDirectory, RunDirectoryError};
use crate::text::chain;

/// Random bytes in a name.
const NAME_BYTES: usize = 16;

/// Until somebody looks again whether another one has loaded the profile.
const LOOK: Duration = Duration::from_millis(5);

/// Whose a profile is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// All containers' of a worker that have none of their own.
    Default,
    /// One container's.
    Container,
}

/// Why there is no profile to run under, or why one is still there.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// It has no place.
    #[error(transparent)]
    Directory(#[from] RunDirectoryError),
    /// It has no name.
    #[error("make a name for an AppArmor profile")]
    Random(#[source] io::Error),
    /// Its name is none of ours.
    #[error(transparent)]
    Name(#[from] OwnNameError),
    /// A file or directory of its.
    #[error("make or open {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// What the worker itself is confined by.
    #[error("read which AppArmor profile the worker is in")]
    Own(#[source] io::Error),
    /// That cannot be named.
    #[error(transparent)]
    Outer(#[from] OuterError),
    /// It is not compiled.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// Its journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The kernel's answer.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The kernel took it, and does not have it.
    #[error("find the AppArmor profile {0} again, which was loaded just now")]
    Vanished(String),
    /// It cannot be taken back.
    #[error(transparent)]
    Undo(#[from] UndoError),
}

/// A profile that the kernel has. Dropping the value unloads nothing: its journal says what is to be undone.
#[derive(Debug)]
pub struct LoadedProfile {
    name: OwnName,
    identity: Identity,
    journal: Journal,
}

impl LoadedProfile {
    /// Loads a profile for this container alone: what runs in it can be traced from there and from nowhere else. A clean-up
    /// finds it with the container. Blocks, for as long as it is `wanted`.
    ///
    /// # Errors
    ///
    /// [`ProfileError`], also when the container has one.
    pub fn for_container(
        parser: &Path,
        container: &ContainerDirectory,
        wanted: &dyn Fn() -> bool,
    ) -> Result<LoadedProfile, ProfileError> {
        let place = container.profile();
        let made = DirBuilder::new().mode(0o700).create(&place);
        made.map_err(|source| ProfileError::File { path: place.clone(), source })?;
        LoadedProfile::load((parser, Kind::Container), &place, wanted)
    }

    /// `place` is a directory that somebody looks through who cleans up.
    fn load(
        (parser, kind): (&Path, Kind),
        place: &Path,
        wanted: &dyn Fn() -> bool,
    ) -> Result<LoadedProfile, ProfileError> {
        let kind = match kind {
            Kind::Default => "default",
            Kind::Container => "container",
        };
        let random = random_hex(NAME_BYTES).map_err(ProfileError::Random)?;
        let name = OwnName::new(&format!("{}{kind}-{random}", OwnName::PREFIX))?;
        let outer = apparmor::own_profile().map_err(ProfileError::Own)?;
        let compiled = parser::compile(parser, &profile::text(&name, outer.as_deref())?, place, wanted)?;
        let directory =
            File::open(place).map_err(|source| ProfileError::File { path: place.to_owned(), source })?;
        let mut journal = Journal::create(directory.as_fd(), place, Keeper::Caller)?;
        let step = |identity: Option<&Identity>| UndoStep::UnloadProfile {
            name: name.to_string(),
            identity: identity.map(|identity| identity.as_str().to_owned()),
        };
        journal.record(&step(None))?;
        if let Err(error) = policy::load(&name, &compiled) {
            // If there is one of this name, it is somebody else's.
            journal.amend(None)?;
            return Err(error.into());
        }
        let known = which(&name).and_then(|identity| {
            journal.amend(Some(&step(Some(&identity))))?;
            Ok(identity)
        });
        match known {
            Ok(identity) => Ok(LoadedProfile { name, identity, journal }),
            Err(error) => {
                // Nothing runs in it yet.
                undo_all(&journal)?;
                Err(error)
            }
        }
    }

    /// By which it is entered.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// Whether the kernel still has it as it was loaded.
    fn is_there(&self) -> Result<bool, PolicyError> {
        Ok(policy::find(&self.name)?.as_ref() == Some(&self.identity))
    }

    /// Takes it from the kernel, where nothing may run in it any more. "Already gone" is success.
    ///
    /// # Errors
    ///
    /// [`ProfileError::Undo`]; the journal stays, so that a clean-up tries again.
    pub fn unload(self) -> Result<(), ProfileError> {
        Ok(undo_all(&self.journal)?)
    }
}

/// Which profile it is that was loaded just now.
fn which(name: &OwnName) -> Result<Identity, ProfileError> {
    policy::find(name)?.ok_or_else(|| ProfileError::Vanished(name.to_string()))
}

/// The profile that all containers of this worker process run under.
#[derive(Debug)]
pub struct DefaultProfile {
    directories: Directories,
    parser: PathBuf,
    necessity: Necessity,
    state: Mutex<State>,
}

/// What becomes of tasks where there is no profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Necessity {
    /// They run without one, and their log says so.
    Wanted,
    /// They do not run.
    Required,
}

#[derive(Debug)]
enum State {
    /// Nobody has asked for it.
    New,
    /// It could not be had, and this worker does without from then on.
    Missing(String),
    /// It was there.
    Loaded(Shared),
}

/// The profile, and how many use it.
#[derive(Debug)]
struct Shared {
    profile: LoadedProfile,
    directory: ProcessDirectory,
    users: Arc<AtomicUsize>,
}

/// Who is in a container's profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// All containers of the worker that need none of their own.
    Shared,
    /// This container alone.
    Own,
}

/// What a container runs under.
#[derive(Debug)]
pub enum Fence {
    /// The profile.
    Profile(Use),
    /// None, and the reason.
    None(String),
}

/// That a container runs in the profile. If it is dropped, something may still do so, and the profile stays for a clean-up.
#[derive(Debug)]
#[must_use = "the profile stays until it is given back"]
pub struct Use {
    name: String,
    held: Held,
}

#[derive(Debug)]
enum Held {
    /// How many others have it.
    Shared(Arc<AtomicUsize>),
    Own(LoadedProfile),
}

impl Use {
    /// The profile's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Nothing runs in it any more: one that is the container's alone is unloaded.
    ///
    /// # Errors
    ///
    /// [`ProfileError::Undo`]; a clean-up tries again.
    pub fn give_back(self) -> Result<(), ProfileError> {
        match self.held {
            Held::Shared(users) => {
                users.fetch_sub(1, Ordering::Relaxed);
                Ok(())
            }
            Held::Own(profile) => profile.unload(),
        }
    }
}

impl DefaultProfile {
    /// Nothing is loaded before somebody asks for it.
    pub fn new(directories: &Directories, parser: &Path, necessity: Necessity) -> DefaultProfile {
        let (directories, parser) = (directories.clone(), parser.to_owned());
        DefaultProfile { directories, parser, necessity, state: Mutex::new(State::New) }
    }

    /// Waits for whoever is loading it, while that is `wanted`.
    fn state(&self, wanted: &dyn Fn() -> bool) -> Result<MutexGuard<'_, State>, ProfileError> {
        loop {
            match self.state.try_lock() {
                Ok(state) => return Ok(state),
                Err(TryLockError::Poisoned(poisoned)) => return Ok(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) if wanted() => std::thread::park_timeout(LOOK),
                Err(TryLockError::WouldBlock) => return Err(CompileError::Unwanted.into()),
            }
        }
    }

    /// The profile for one more container. It is loaded if nobody has asked before, and again, under another name, if
    /// somebody has removed or changed it since. Blocks, for as long as it is `wanted`.
    ///
    /// # Errors
    ///
    /// [`ProfileError`]: the container may not start. Where the profile is only wanted, that is so once it has been had.
    pub fn enter(&self, wanted: &dyn Fn() -> bool) -> Result<Fence, ProfileError> {
        let mut state = self.state(wanted)?;
        let shared = match &*state {
            State::Missing(why) => return Ok(Fence::None(why.clone())),
            State::New => match (self.load(wanted), self.necessity) {
                (Ok(shared), _) => shared,
                // The next one may want it longer.
                (Err(error @ ProfileError::Compile(CompileError::Unwanted)), _) => return Err(error),
                (Err(error), Necessity::Required) => return Err(error),
                (Err(error), Necessity::Wanted) => {
                    let why = format!("failed to {}", chain(&error));
                    *state = State::Missing(why.clone());
                    return Ok(Fence::None(why));
                }
            },
            State::Loaded(shared) if shared.profile.is_there()? => {
                return Ok(Fence::Profile(shared.one_more()));
            }
            State::Loaded(_) => self.load(wanted)?,
        };
        let taken = shared.one_more();
        if let State::Loaded(lost) = std::mem::replace(&mut *state, State::Loaded(shared)) {
            // It is not in the kernel any more, so nobody runs in it: its journal has nothing to say.
            lost.unload()?;
        }
        Ok(Fence::Profile(taken))
    }

    /// A profile for this container alone, where others get the one of all. Blocks, for as long as it is `wanted`.
    ///
    /// # Errors
    ///
    /// [`ProfileError`]: the container may not start.
    pub fn enter_own(
        &self,
        container: &ContainerDirectory,
        wanted: &dyn Fn() -> bool,
    ) -> Result<Fence, ProfileError> {
        // Whether there can be profiles here is found out once, by that one.
        match self.enter(wanted)? {
            Fence::None(why) => return Ok(Fence::None(why)),
            Fence::Profile(shared) => shared.give_back()?,
        }
        let profile = LoadedProfile::for_container(&self.parser, container, wanted)?;
        Ok(Fence::Profile(Use { name: profile.name().to_owned(), held: Held::Own(profile) }))
    }

    fn load(&self, wanted: &dyn Fn() -> bool) -> Result<Shared, ProfileError> {
        let mut directory = ProcessDirectory::create(&self.directories, wanted)?;
        directory.keep();
        let loaded = LoadedProfile::load((&self.parser, Kind::Default), directory.path(), wanted);
        match loaded {
            Ok(profile) => Ok(Shared { profile, directory, users: Arc::default() }),
            Err(error) => {
                // What cannot be undone has its journal, and that stays.
                if !matches!(error, ProfileError::Undo(_)) {
                    directory.let_go();
                }
                Err(error)
            }
        }
    }

    /// Unloads it, unless something may still run in it: then a clean-up does so after that. Call when no container will
    /// be started any more.
    ///
    /// # Errors
    ///
    /// [`ProfileError::Undo`]; a clean-up tries again.
    pub fn close(&self) -> Result<(), ProfileError> {
        // Nobody loads it any more, or for some seconds at most.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *state, State::New) {
            State::Loaded(shared) if shared.users.load(Ordering::Relaxed) == 0 => shared.unload(),
            State::Loaded(_) | State::New | State::Missing(_) => Ok(()),
        }
    }
}

impl Shared {
    fn one_more(&self) -> Use {
        self.users.fetch_add(1, Ordering::Relaxed);
        Use { name: self.profile.name().to_owned(), held: Held::Shared(Arc::clone(&self.users)) }
    }

    fn unload(self) -> Result<(), ProfileError> {
        let Shared { profile, mut directory, .. } = self;
        profile.unload()?;
        directory.let_go();
        Ok(())
    }
}
