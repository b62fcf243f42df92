//! The clock of `maxRunTime`, on boot time: it goes on while the host is suspended, and does not move
//! when somebody sets the wall clock.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

use crate::background::Background;
use crate::interrupt::{Interrupt, Interrupter, Notice};
use crate::readiness::readable;

/// Interrupts a run after `limit`, whatever it does then, until the result is dropped.
///
/// # Errors
///
/// When the kernel has no timer.
pub fn limit_run_time(limit: Duration, interrupter: Interrupter) -> io::Result<Background> {
    let deadline = Deadline::after(limit)?;
    Ok(Background::start(async move {
        match deadline.passed().await {
            // A timer that cannot be waited for counts as passed: no task runs without its limit.
            Ok(()) | Err(_) => interrupter.interrupt(Interrupt::MaxRunTime, Notice::Clock),
        }
    }))
}

/// A point in the future.
#[derive(Debug)]
struct Deadline {
    timer: AsyncFd<OwnedFd>,
}

impl Deadline {
    /// `duration` from now, which is more than nothing.
    fn after(duration: Duration) -> io::Result<Deadline> {
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

    async fn passed(&self) -> io::Result<()> {
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
