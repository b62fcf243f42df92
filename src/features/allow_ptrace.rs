//! `allowPtrace`: gdb, strace and sanitizers in a task, also on processes of other users and on those that are no children.
//!
//! The task has CAP_SYS_PTRACE, and with it what the filter keeps for that. It reaches the processes that the task can see,
//! which are its own; and where there is AppArmor, so says a profile of the task's own, which nobody else's processes are in.

use super::{Feature, FeatureError, FeatureRow, RunContext, Wishes};
use crate::apparmor_profiles::Sharing;
use crate::known_features::ALLOW_PTRACE;
use crate::spec::ContainerRequest;
use oci_spec::runtime::Capability;

/// Its row of the table.
pub(super) const ROW: FeatureRow = FeatureRow { feature: &ALLOW_PTRACE, start };

struct AllowPtrace;

fn start(_wishes: &Wishes<'_>) -> Box<dyn Feature> {
    Box::new(AllowPtrace)
}

impl Feature for AllowPtrace {
    fn profile(&self) -> Sharing {
        Sharing::Own
    }

    fn configure(
        &mut self,
        _run: &RunContext,
        request: &mut ContainerRequest<'_>,
    ) -> Result<(), FeatureError> {
        request.capabilities.push(Capability::SysPtrace);
        Ok(())
    }
}
