//! Signals, on a thread of their own: they are heard also while the worker's only loop does something else.
//!
//! Ctrl-C cancels, SIGTERM and a closed terminal shut down. A second Ctrl-C leaves at once: with the worker's end its
//! monitor kills the container, and a clean-up undoes what is left.

use std::io;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::INTERRUPTED;
use crate::cli::operator::Operator;
use crate::interrupt::{Interrupt, Interrupter};

/// What is listened to.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// Where it is not ignored: `nohup` asks for that.
    hangup: Option<Signal>,
    /// Taken, so that a write beyond `ulimit -f` is an error and not the worker's death. What it starts has the usual
    /// disposition again, as no handler outlives execve(2).
    _file_size: Signal,
}

/// Starts to turn signals into interrupts.
///
/// # Errors
///
/// When they cannot be listened to.
pub(super) fn listen(interrupter: Interrupter, operator: Operator) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_io().build()?;
    let signals = {
        let _context = runtime.enter();
        Signals::take()?
    };
    let thread = std::thread::Builder::new().name("signals".to_owned());
    thread.spawn(move || pass_on(&runtime, signals, &interrupter, &operator)).map(drop)
}

impl Signals {
    fn take() -> io::Result<Signals> {
        let is_ignored = is_ignored(rustix::process::Signal::HUP)?;
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: if is_ignored { None } else { Some(signal(SignalKind::hangup())?) },
            _file_size: signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?,
        })
    }

    /// The next one, as what it asks for.
    async fn next(&mut self) -> Interrupt {
        let Signals { interrupt, terminate, hangup, .. } = self;
        let hung_up = async {
            match hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = interrupt.recv() => Interrupt::CancelledHere,
            _ = terminate.recv() => Interrupt::Shutdown,
            _ = hung_up => Interrupt::Shutdown,
        }
    }
}

/// Ends with the process.
fn pass_on(runtime: &Runtime, mut signals: Signals, interrupter: &Interrupter, operator: &Operator) {
    let mut keyboard = 0;
    loop {
        let interrupt = runtime.block_on(signals.next());
        if interrupt == Interrupt::CancelledHere {
            keyboard += 1;
        }
        if keyboard > 1 {
            leave(operator);
        }
        interrupter.interrupt(interrupt);
    }
}

/// Whatever the rest of the process waits for.
fn leave(operator: &Operator) {
    operator.explain(
        "left at once, as Ctrl-C came twice: the container is killed; \"docker-worker cleanup\" undoes what is left",
    );
    operator.out().finish();
    #[expect(clippy::disallowed_methods, reason = "main may wait for something that does not end")]
    std::process::exit(i32::from(INTERRUPTED));
}

/// Whether whoever started this process asked it not to mind a signal.
fn is_ignored(signal: rustix::process::Signal) -> io::Result<bool> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let mask =
        mask.ok_or_else(|| io::Error::other("/proc/self/status does not say which signals are ignored"))?;
    Ok(mask >> (signal.as_raw() - 1) & 1 == 1)
}
