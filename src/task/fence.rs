//! The AppArmor profile that a task's container runs under, had while its image is brought.

use std::sync::Arc;

use images::store::Cancel;

use crate::apparmor_profiles::{Fence, Sharing, Use};
use crate::host::{NO_SOCKETCALL, without_profile};
use crate::spec::SocketCall;
use crate::task::error::{TaskError, end_by};
use crate::task::outcome::End;
use crate::task::run::Run;
use crate::text::{chain, escaped};

/// Puts the profile into `held`, or says in the log that there is none.
pub(super) async fn enter(
    run: &Run,
    sharing: Sharing,
    held: &mut Option<Use>,
    stop: &Cancel,
) -> Result<(), TaskError> {
    let Some(profile) = run.worker.profile.as_ref().map(Arc::clone) else { return Ok(()) };
    let (interrupts, stop) = (run.interrupts.clone(), stop.clone());
    let is_wanted = move || !stop.is_cancelled() && interrupts.current().is_none();
    let entering = {
        let (is_wanted, container) = (is_wanted.clone(), run.directory.task().clone());
        tokio::task::spawn_blocking(move || match sharing {
            Sharing::Shared => profile.enter(&is_wanted),
            Sharing::Own => profile.enter_own(&container, &is_wanted),
        })
    };
    match entering.await {
        Ok(Ok(Fence::Profile(entered))) => *held = Some(entered),
        Ok(Ok(Fence::None(why))) => {
            run.log.info(&without_profile(&escaped(&why).to_string()));
            if run.worker.config.file.socketcall() == SocketCall::Absent {
                run.log.info(NO_SOCKETCALL);
            }
        }
        Ok(Err(_)) if !is_wanted() => return Err(TaskError::interrupted()),
        Ok(Err(error)) => return Err(not_fenced(end_by(&error, End::HostUnfit), &chain(&error))),
        Err(error) => return Err(not_fenced(End::WorkerFault, &error.to_string())),
    }
    Ok(())
}

fn not_fenced(end: End, why: &str) -> TaskError {
    let why = escaped(why);
    TaskError::new(
        end,
        format!("The task's AppArmor profile is not there, so it does not start. Failed to {why}"),
    )
}
