//! What a further process of a container that runs must be, before it is let in.

use std::path::PathBuf;

use super::process::{self, Administers, Execution, Identity, Terminal, UserName};
use super::{Findings, PlanError};
use crate::capabilities::CapabilitySets;
use crate::spec::{Domain, Namespace, PosixLimit, Process, Spec};

/// All that the usher and the process itself do, in this order ([`crate::execute`]'s `exec`).
#[derive(Debug, Clone, PartialEq)]
pub struct ExecPlan {
    /// Prepared for its execve(2).
    pub label: Option<String>,
    /// The OOM killer's preference.
    pub oom_score: Option<i32>,
    /// The container has a user namespace of its own, whose root it becomes on the way.
    pub has_user_namespace: bool,
    /// The pty, if one is asked for.
    pub terminal: Option<Terminal>,
    /// Who it is in the end, but for what the container's files say of `user`.
    pub identity: Identity,
    /// Asked for by name.
    pub user: Option<UserName>,
    /// The limits, which are in force from the last moment on.
    pub rlimits: Vec<PosixLimit>,
    /// Its working directory, which exists.
    pub cwd: PathBuf,
    /// `HOME` is looked up.
    pub needs_home: bool,
    /// The bounding set, and what is held until the filter is installed.
    pub capabilities: CapabilitySets,
    /// Set-uid programs give it nothing.
    pub no_new_privileges: bool,
    /// What uname(2) says.
    pub domain: Option<Domain>,
    /// What comes last.
    pub last: Execution,
}

/// Plans `process` as one of the container that was made from `spec`: what the process does not say of itself is the
/// container's, as its filter is.
///
/// # Errors
///
/// Every finding at once.
pub fn plan_exec(spec: &Spec, process: &Process, user: Option<UserName>) -> Result<ExecPlan, PlanError> {
    let mut findings = Findings::default();
    process::check_process(process, &mut findings);
    let filter = super::filter(spec, &mut findings);
    let findings = findings.into_list();
    if !findings.is_empty() {
        return Err(PlanError { findings });
    }
    let administers = process::administers(process, filter.as_ref());
    let sets = process.capabilities.clone();
    // Hooks belong to the container's own command.
    let last = Execution { has_hooks: false, ..process::execution(spec, process, administers, filter) };
    Ok(ExecPlan {
        label: process.apparmor_profile.clone(),
        oom_score: process.oom_score_adj,
        has_user_namespace: spec.linux.namespaces.iter().any(|one| one.kind == Namespace::User),
        terminal: process::terminal(process),
        identity: process::identity(process),
        user,
        rlimits: process.rlimits.clone(),
        cwd: process.cwd.clone(),
        needs_home: process::needs_home(process),
        capabilities: match administers {
            Administers::Yes => sets.with_administration(),
            Administers::No => sets,
        },
        no_new_privileges: process.no_new_privileges,
        domain: spec.linux.personality.as_ref().map(|wanted| wanted.domain),
        last,
    })
}
