//! A timer on the boot-time clock: a task's limit goes on while the host is suspended, and does not
//! move when somebody sets the wall clock.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

use crate::readiness::readable;

/// A point in the future.
#[derive(Debug)]
pub struct Deadline {
    timer: io::Result<AsyncFd<OwnedFd>>,
}

impl Deadline {
    /// `duration` from now. Inside a tokio runtime only.
    pub fn after(duration: Duration) -> Deadline {
        Deadline { timer: start(duration) }
    }

    /// Waits for it.
    ///
    /// # Errors
    ///
    /// When the kernel had no timer.
    pub async fn passed(&self) -> io::Result<()> {
        match &self.timer {
            Ok(timer) => timer.readable().await.map(drop),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        }
    }
}

fn start(duration: Duration) -> io::Result<AsyncFd<OwnedFd>> {
    let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
    let timer = timerfd_create(TimerfdClockId::Boottime, flags)?;
    let once = Itimerspec {
        it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
        it_value: Timespec {
            tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(duration.subsec_nanos()),
        },
    };
    timerfd_settime(&timer, TimerfdTimerFlags::empty(), &once)?;
    readable(timer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_deadline_passes_when_its_time_has_come_and_not_before() {
        let long = Deadline::after(Duration::from_secs(3_000_000));
        let short = Deadline::after(Duration::from_millis(5));
        tokio::select! {
            result = long.passed() => panic!("{result:?}"),
            result = short.passed() => result.unwrap(),
        }
    }
}
