//! Signals, on a thread of their own: they are heard also while the worker's only loop does something else.
//!
//! A second Ctrl-C leaves at once: with the worker's end its monitors kill the containers, and a clean-up undoes what is
//! left.

use std::io;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::INTERRUPTED;
use crate::cli::operator::Operator;

/// What somebody asks for by a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Ctrl-C.
    FromTheKeyboard,
    /// SIGTERM, or the terminal is closed.
    ToEnd,
}

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

/// Starts to tell `listener` of signals, on the signals' own thread.
///
/// # Errors
///
/// When they cannot be listened to.
pub(super) fn listen(operator: Operator, listener: impl Fn(Asked) + Send + 'static) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_io().build()?;
    let signals = {
        let _context = runtime.enter();
        Signals::take()?
    };
    let thread = std::thread::Builder::new().name("signals".to_owned());
    thread.spawn(move || pass_on(&runtime, signals, &listener, &operator)).map(drop)
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
    async fn next(&mut self) -> Asked {
        let Signals { interrupt, terminate, hangup, .. } = self;
        let hung_up = async {
            match hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = interrupt.recv() => Asked::FromTheKeyboard,
            _ = terminate.recv() => Asked::ToEnd,
            _ = hung_up => Asked::ToEnd,
        }
    }
}

/// Ends with the process.
fn pass_on(runtime: &Runtime, mut signals: Signals, listener: &dyn Fn(Asked), operator: &Operator) {
    let mut keyboard = 0;
    loop {
        let asked = runtime.block_on(signals.next());
        if asked == Asked::FromTheKeyboard {
            keyboard += 1;
        }
        if keyboard > 1 {
            leave(operator);
        }
        listener(asked);
    }
}

/// Whatever the rest of the process waits for.
fn leave(operator: &Operator) {
    operator.explain(
        "left at once, as Ctrl-C came twice: what runs is killed; \"docker-worker cleanup\" undoes what is left",
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
