//! What becomes of the process, and what each state waits for.

use std::future::pending;
use std::pin::Pin;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep, sleep};

use super::held::{Held, KillError, UndoError};
use super::line::Heard;
use super::process::{Ground, Process, StartError};
use crate::event::Events;
use crate::proxy::messages::Report;

type Pinned<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// See the diagram of [`super`].
pub(super) enum State {
    Idle,
    /// Who drops the sender gives it up.
    Starting(Pinned<Result<Box<Process>, StartError>>, Option<oneshot::Sender<()>>),
    /// Since when.
    Running(Box<Process>, Instant),
    Killing(Pinned<(Box<Held>, Result<(), KillError>)>),
    Undoing(Pinned<Result<(), UndoError>>, Rest),
    Waiting(Pin<Box<Sleep>>),
}

/// What there is to be undone of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// A process that is gone.
    Gone,
    /// One that may run, as it could not be killed.
    Alive,
}

/// What a state has waited for.
pub(super) enum Happened {
    Started(Result<Box<Process>, StartError>),
    Reported(Report),
    /// The order that was on its way has been taken in.
    Sent,
    /// The process is gone, or does not do what it should.
    Lost(String),
    Killed(Box<Held>, Result<(), KillError>),
    Undone(Result<(), UndoError>),
    Waited,
}

impl State {
    pub(super) fn start(ground: &Ground, events: &Events) -> State {
        let (ground, events) = (ground.clone(), events.clone());
        let (wanting, given_up) = oneshot::channel();
        let starting = async move { Process::start(&ground, events, given_up).await.map(Box::new) };
        State::Starting(Box::pin(starting), Some(wanting))
    }

    pub(super) fn kill(held: Box<Held>) -> State {
        State::Killing(Box::pin(async move {
            let killed = held.kill().await;
            (held, killed)
        }))
    }

    pub(super) fn undo(held: Held, rest: Rest) -> State {
        State::Undoing(Box::pin(held.undo()), rest)
    }

    pub(super) fn wait(time: Duration) -> State {
        State::Waiting(Box::pin(sleep(time)))
    }

    /// Waits for what it waits for. May be dropped meanwhile.
    pub(super) async fn next(&mut self) -> Happened {
        match self {
            State::Idle => pending().await,
            State::Starting(starting, _) => Happened::Started(starting.await),
            State::Running(process, _) => match process.line().next().await {
                Ok(Heard::Report(report)) => Happened::Reported(report),
                Ok(Heard::Sent) => Happened::Sent,
                Ok(Heard::Gone) => Happened::Lost("its end of the socket is closed".to_owned()),
                Err(error) => Happened::Lost(error.to_string()),
            },
            State::Killing(killing) => {
                let (held, killed) = killing.await;
                Happened::Killed(held, killed)
            }
            State::Undoing(undoing, _) => Happened::Undone(undoing.await),
            State::Waiting(waiting) => {
                waiting.await;
                Happened::Waited
            }
        }
    }
}
