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
    timer: AsyncFd<OwnedFd>,
}

impl Deadline {
    /// `duration` from now, which is more than nothing. Inside a tokio runtime only.
    ///
    /// # Errors
    ///
    /// When the kernel has no timer.
    pub fn after(duration: Duration) -> io::Result<Deadline> {
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
        Ok(Deadline { timer: readable(timer)? })
    }

    /// Waits for it.
    ///
    /// # Errors
    ///
    /// When it cannot be waited for.
    pub async fn passed(&self) -> io::Result<()> {
        self.timer.readable().await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_deadline_passes_when_its_time_has_come_and_not_before() {
        let long = Deadline::after(Duration::from_secs(3_000_000)).unwrap();
        let short = Deadline::after(Duration::from_millis(5)).unwrap();
        tokio::select! {
            result = long.passed() => panic!("{result:?}"),
            result = short.passed() => result.unwrap(),
        }
    }
}
