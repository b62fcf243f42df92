//! The first process: what runs, as whom, where, within which rlimits.

use oci_spec::runtime::{PosixRlimit, PosixRlimitBuilder, PosixRlimitType, Process, User};

use super::{ContainerRequest, Profile, security};

/// How much likelier than the worker's own processes the kernel ends a container's when memory is short.
fn oom_score_adjustment(profile: Profile) -> i32 {
    match profile {
        Profile::Task => 100,
        Profile::Sidecar => 50,
        Profile::Proxy => 0,
    }
}

/// Why nothing can be run.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// Neither the payload nor the image names a command.
    #[error(
        "find a command to run: the payload has none, and the image has neither an entry point nor a command; add `command` to the payload"
    )]
    NoCommand,
    /// The first word is empty, so no program can have that name.
    #[error("find a command to run: its first word is empty; name a program in `command` of the payload")]
    EmptyWord,
    /// A limit of the profile cannot be written as OCI wants it.
    #[error("write the limit {name}")]
    Rlimit {
        /// Which one.
        name: &'static str,
        /// Why not.
        source: oci_spec::OciSpecError,
    },
}

/// The largest values that this host lets the worker set, by resource; what is not listed is not
/// bounded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RlimitCeilings {
    /// Hard limits of the worker itself, where it may not raise them.
    pub hard: Vec<(PosixRlimitType, u64)>,
}

impl RlimitCeilings {
    /// The largest value of one; `u64::MAX` is no bound.
    pub fn of(&self, kind: PosixRlimitType) -> u64 {
        self.hard.iter().find(|(known, _)| *known == kind).map_or(u64::MAX, |(_, hard)| *hard)
    }
}

/// One rlimit of the profile: both values are wanted, the host may allow less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WantedRlimit {
    /// Which resource.
    pub kind: PosixRlimitType,
    /// The name that people know it by.
    pub name: &'static str,
    /// The value that a process gets at first.
    pub soft: u64,
    /// The value that it may raise it to.
    pub hard: u64,
}

const fn wanted(kind: PosixRlimitType, name: &'static str, soft: u64, hard: u64) -> WantedRlimit {
    WantedRlimit { kind, name, soft, hard }
}

/// The rlimits of every task: a fixed list, so that none comes from the operator's shell.
pub const RLIMITS: &[WantedRlimit] = &[
    wanted(PosixRlimitType::RlimitNofile, "NOFILE", 1_048_576, 1_048_576),
    wanted(PosixRlimitType::RlimitCore, "CORE", 0, 0),
    wanted(PosixRlimitType::RlimitNproc, "NPROC", u64::MAX, u64::MAX),
    wanted(PosixRlimitType::RlimitMemlock, "MEMLOCK", 8 << 20, 8 << 20),
    wanted(PosixRlimitType::RlimitStack, "STACK", 8 << 20, u64::MAX),
    wanted(PosixRlimitType::RlimitAs, "AS", u64::MAX, u64::MAX),
    wanted(PosixRlimitType::RlimitCpu, "CPU", u64::MAX, u64::MAX),
    wanted(PosixRlimitType::RlimitData, "DATA", u64::MAX, u64::MAX),
    wanted(PosixRlimitType::RlimitFsize, "FSIZE", u64::MAX, u64::MAX),
];

/// Open files of the proxy: what its own bounds come to for hundreds of tasks, and no more.
const PROXY_OPEN_FILES: u64 = 16_384;

/// What a task does not get because the host does not let the worker set it: for its log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clamped {
    /// The name that people know the limit by.
    pub name: &'static str,
    /// What the profile wants.
    pub wanted: u64,
    /// What the task gets.
    pub given: u64,
}

/// Which rlimits of the profile this host does not let the worker set in full.
///
/// Only what a task can notice is named: that it may have fewer open files or processes.
pub fn clamped(ceilings: &RlimitCeilings) -> Vec<Clamped> {
    RLIMITS
        .iter()
        .filter(|limit| limit.hard > ceilings.of(limit.kind))
        .map(|limit| Clamped { name: limit.name, wanted: limit.hard, given: ceilings.of(limit.kind) })
        .collect()
}

/// The process section.
///
/// # Errors
///
/// [`ProcessError`] when there is nothing to run.
pub(super) fn process(request: ContainerRequest<'_>) -> Result<Process, ProcessError> {
    let args = arguments(&request)?;
    let cwd = working_directory(&request.image.working_dir);
    let capabilities = security::capabilities(&request);
    let apparmor = request.apparmor.map(str::to_owned);
    let mut process = Process::default();
    process
        .set_terminal(Some(request.profile == Profile::Task))
        .set_user(user(request.user))
        .set_args(Some(args))
        .set_env(Some(request.environment))
        .set_cwd(cwd.into())
        .set_capabilities(Some(capabilities))
        .set_apparmor_profile(apparmor)
        .set_rlimits(Some(rlimits(request.profile, request.ceilings)?))
        .set_no_new_privileges(Some(request.profile == Profile::Proxy))
        .set_oom_score_adj(Some(oom_score_adjustment(request.profile)));
    Ok(process)
}

/// The working directory that an image names; `/` if none, and a relative one is below `/`.
pub fn working_directory(image_says: &str) -> String {
    match image_says {
        "" => "/".to_owned(),
        absolute if absolute.starts_with('/') => absolute.to_owned(),
        relative => format!("/{relative}"),
    }
}

/// The image's entry point, then the payload's command or else the image's. An entry point of one empty word is
/// none: so it is written, with docker, to drop the one of a base image.
fn arguments(request: &ContainerRequest<'_>) -> Result<Vec<String>, ProcessError> {
    let command: &[String] = if request.command.is_empty() { &request.image.cmd } else { request.command };
    let entry_point = match request.image.entrypoint.as_slice() {
        [only] if only.is_empty() => &[],
        words => words,
    };
    let arguments = [entry_point, command].concat();
    match arguments.first() {
        None => Err(ProcessError::NoCommand),
        Some(program) if program.is_empty() => Err(ProcessError::EmptyWord),
        Some(_) => Ok(arguments),
    }
}

fn user(resolved: &super::ResolvedUser) -> User {
    // The primary group is a supplementary one as well, as Docker has it since CVE-2022-36109: else a file that
    // denies that group something would let in a process that runs a set-group-id program.
    let gids = std::iter::once(resolved.gid).chain(resolved.additional_gids.iter().copied());
    let mut user = User::default();
    user.set_uid(resolved.uid).set_gid(resolved.gid).set_additional_gids(Some(gids.collect()));
    user
}

fn rlimits(profile: Profile, ceilings: &RlimitCeilings) -> Result<Vec<PosixRlimit>, ProcessError> {
    let clamp = |limit: &WantedRlimit| {
        let ceiling = ceilings.of(limit.kind);
        let ceiling = match (profile, limit.kind) {
            (Profile::Proxy, PosixRlimitType::RlimitNofile) => ceiling.min(PROXY_OPEN_FILES),
            (Profile::Task | Profile::Sidecar | Profile::Proxy, _) => ceiling,
        };
        PosixRlimitBuilder::default()
            .typ(limit.kind)
            .hard(limit.hard.min(ceiling))
            .soft(limit.soft.min(ceiling))
            .build()
            .map_err(|source| ProcessError::Rlimit { name: limit.name, source })
    };
    RLIMITS.iter().map(clamp).collect()
}
