//! The worker's side: starts the process, hands it every task, and does both again when it dies.
//!
//! ```text
//!   Idle ──a task──► Starting ──────────► Running ◄── orders, reports
//!    ▲                  │ cannot be started   │ it dies, says nonsense, or does not answer
//!    │ no task          ▼                     ▼
//!    └────────────── Waiting ◄── Undoing ◄── Killing
//! ```
//!
//! One task of the event loop, which holds everything; it hears [`Command`]s, and what each state waits for, at the same
//! time, and waits for nothing else. A task that begins when the process cannot be started is told why, and fails; those
//! that were served before wait for the next attempt, and their connections with them.
//!
//! While there are tasks, a process that has nothing to say is asked whether it hears: one wake-up of both every
//! [`PING_TIME`].

mod held;
mod line;
mod openings;
mod process;
mod questions;
mod root;
mod state;
mod surroundings;

use std::collections::BTreeMap;
use std::future::pending;
use std::io;
use std::net::TcpListener;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use self::held::KillError;
pub use self::process::Ground;
use self::process::StartError;
use self::questions::{END_ANSWER_TIME, Question, Questions};
use self::state::{Happened, Rest, State};
use super::Caller;
use super::messages::{Order, Report, Sending};
use crate::event::{Event, Events};
use crate::text::{chain, escaped};

/// Until a process that has said nothing is asked whether it hears.
const PING_TIME: Duration = Duration::from_secs(20);

/// Before a process is started again that has not run for [`STEADY`]: after the first failure, and at most.
const WAITS: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(30)];

/// A process that has run for so long was well: the next failure is the first again.
const STEADY: Duration = Duration::from_secs(60);

/// What a keeper is told.
#[derive(Debug)]
pub(super) enum Command {
    /// A task is to be served.
    Begin { task: u64, client: Box<Client> },
    /// Its credentials have changed.
    Renew { task: u64 },
    /// It is over. Who asks hears when nobody is connected any more; nothing if that cannot be told.
    End { task: u64, ended: Option<oneshot::Sender<()>> },
    /// The worker is.
    Stop { stopped: oneshot::Sender<()> },
}

/// What there is to hand over of a task.
#[derive(Debug)]
pub(super) struct Client {
    /// The worker's own copy: connections wait in it while there is no process.
    pub(super) listener: TcpListener,
    pub(super) caller: Caller,
    /// Who waits for it to be served.
    pub(super) begun: Option<oneshot::Sender<Result<(), String>>>,
}

/// See the module's head.
pub(super) struct Keeper {
    ground: Ground,
    events: Events,
    commands: mpsc::UnboundedReceiver<Command>,
    clients: BTreeMap<u64, Client>,
    state: State,
    /// What the process is asked for.
    questions: Questions,
    /// When it has last said something.
    heard: Instant,
    /// Those that hear when the process that is being ended is gone.
    leaving: Vec<oneshot::Sender<()>>,
    /// Until the next attempt.
    wait: Duration,
    /// The worker's log knows that it does not go well.
    is_told: bool,
    /// Nothing is begun any more.
    is_stopping: bool,
    /// Who hears when all is over.
    stopped: Option<oneshot::Sender<()>>,
}

impl Keeper {
    /// Starts one; gives the way to it. Inside a tokio runtime only.
    pub(super) fn start(ground: Ground, events: Events) -> mpsc::UnboundedSender<Command> {
        let (sender, commands) = mpsc::unbounded_channel();
        let keeper = Keeper {
            ground,
            events,
            commands,
            clients: BTreeMap::new(),
            state: State::Idle,
            questions: Questions::default(),
            heard: Instant::now(),
            leaving: Vec::new(),
            wait: Duration::ZERO,
            is_told: false,
            is_stopping: false,
            stopped: None,
        };
        tokio::spawn(keeper.keep());
        sender
    }

    async fn keep(mut self) {
        while !(self.is_stopping && matches!(self.state, State::Idle)) {
            self.ask();
            let (overdue, quiet) = (self.questions.deadline(), self.quiet_until());
            tokio::select! {
                command = self.commands.recv(), if !self.is_stopping => match command {
                    Some(command) => self.obey(command),
                    // The worker has gone without a word.
                    None => self.stop(),
                },
                happened = self.state.next() => self.go_on(happened),
                () = at(overdue) => self.lose("it does not answer"),
                () = at(quiet) => self.questions.push(Question::Ping),
            }
        }
        if let Some(stopped) = self.stopped {
            // Who has asked may have given up.
            stopped.send(()).unwrap_or_default();
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Begin { task, client } => {
                self.clients.insert(task, *client);
                match self.state {
                    State::Idle => self.state = State::start(&self.ground, &self.events),
                    State::Running(..) => self.questions.push(Question::Begin(task)),
                    // All are handed over when there is a process again.
                    State::Starting(..) | State::Killing(_) | State::Undoing(..) | State::Waiting(_) => {}
                }
            }
            Command::Renew { task } => {
                if matches!(self.state, State::Running(..)) {
                    self.questions.push(Question::Renew(task));
                }
            }
            Command::End { task, ended } => self.end(task, ended),
            Command::Stop { stopped } => {
                self.stopped = Some(stopped);
                self.stop();
            }
        }
    }

    fn go_on(&mut self, happened: Happened) {
        match happened {
            Happened::Started(Ok(process)) => {
                self.state = State::Running(process, Instant::now());
                self.heard = Instant::now();
                self.clients.keys().for_each(|task| self.questions.push(Question::Begin(*task)));
                if self.is_stopping {
                    self.kill();
                }
            }
            Happened::Started(Err(StartError::GivenUp)) => self.rest(),
            Happened::Started(Err(error)) => {
                let why = chain(&error);
                for client in self.clients.values_mut() {
                    client.answer(Err(why.clone()));
                }
                self.tell(&format!("failed to start the proxy for tasks: {why}"));
                self.rest();
            }
            Happened::Reported(report) => self.hear(report),
            Happened::Sent => self.questions.sent(),
            Happened::Lost(why) => self.lose(&why),
            Happened::Killed(held, killed) => {
                let rest = match killed {
                    Ok(()) => {
                        self.let_leave();
                        Rest::Gone
                    }
                    // Its monitor may have more success, and then it is undone as well.
                    Err(error) => {
                        self.tell_remains(&error);
                        Rest::Alive
                    }
                };
                self.state = State::undo(*held, rest);
            }
            Happened::Undone(undone) => {
                match undone {
                    Ok(()) => self.let_leave(),
                    Err(error) => {
                        let message = &format!("failed to {}", chain(&error));
                        self.events.emit(&Event::Warning { message });
                        // Nobody is told that it is gone.
                        self.leaving.clear();
                    }
                }
                self.rest();
            }
            Happened::Waited => {
                self.state = if self.clients.is_empty() {
                    State::Idle
                } else {
                    State::start(&self.ground, &self.events)
                };
            }
        }
    }

    /// Sends what is to be sent next, if the process has taken in what was before.
    fn ask(&mut self) {
        while matches!(self.state, State::Running(..))
            && let Some(question) = self.questions.next()
        {
            match self.order(&question) {
                Ok(Some(order)) => {
                    self.questions.send(question);
                    if let State::Running(process, _) = &mut self.state {
                        process.line().send(order);
                    }
                }
                // The task has ended meanwhile.
                Ok(None) => {}
                Err(error) => self.refuse(&question, &error),
            }
        }
    }

    /// What the process is told; nothing of a task that is not there any more.
    fn order(&mut self, question: &Question) -> io::Result<Option<Sending>> {
        let (order, listener) = match question {
            Question::Begin(task) => {
                let Some(client) = self.clients.get_mut(task) else { return Ok(None) };
                let listener = client.hand_over()?;
                let Caller { address, credentials, scopes } = &mut client.caller;
                let credentials = (&*credentials.borrow_and_update()).into();
                let (task, address, scopes) = (*task, *address, scopes.clone());
                (Order::Begin { task, address, scopes, credentials }, Some(listener.into()))
            }
            Question::Renew(task) => {
                let Some(client) = self.clients.get_mut(task) else { return Ok(None) };
                let credentials = (&*client.caller.credentials.borrow_and_update()).into();
                (Order::Renew { task: *task, credentials }, None)
            }
            Question::End(task, ..) => (Order::End { task: *task }, None),
            Question::Ping => (Order::Ping, None),
        };
        Sending::of(&order, listener).map(Some)
    }

    /// What cannot be sent for a task is that task's affair, and no other's.
    fn refuse(&mut self, question: &Question, error: &io::Error) {
        match question {
            Question::Begin(task) => self.turn_away(*task, &format!("hand the task over: {error}")),
            Question::Renew(_) => {
                let message = &format!("failed to hand a task's new credentials to its proxy: {error}");
                self.events.emit(&Event::Warning { message });
            }
            Question::End(..) | Question::Ping => {}
        }
    }

    /// A task that cannot be served hears so. If nobody asks any more, it was served before, by another process: whoever
    /// connects is refused then, and does not wait for ever.
    fn turn_away(&mut self, task: u64, why: &str) {
        let Some(client) = self.clients.get_mut(&task) else { return };
        if !client.answer(Err(why.to_owned())) {
            self.clients.remove(&task);
            let message = &format!("a task that runs has no proxy any more: failed to {why}");
            self.events.emit(&Event::Warning { message });
        }
    }

    fn end(&mut self, task: u64, ended: Option<oneshot::Sender<()>>) {
        // The worker's copy goes last but one: the process's own when it has heard of it.
        let was_there = self.clients.remove(&task).is_some();
        match self.state {
            State::Running(..) if was_there => {
                self.questions.push(Question::End(task, ended, Instant::now() + END_ANSWER_TIME));
            }
            // It may still have connections of the task's.
            State::Killing(_) | State::Undoing(_, Rest::Alive) => self.leaving.extend(ended),
            State::Idle
            | State::Starting(..)
            | State::Waiting(_)
            | State::Undoing(_, Rest::Gone)
            | State::Running(..) => ended.into_iter().for_each(|ended| ended.send(()).unwrap_or_default()),
        }
    }

    /// What the process says has to be the answer to what it was asked first.
    fn hear(&mut self, report: Report) {
        self.heard = Instant::now();
        match (self.questions.answered(&report), report) {
            (Some(Question::Begin(task)), Report::Failed { why, .. }) => {
                self.turn_away(task, &escaped(&why).to_string());
            }
            (Some(Question::Begin(task)), _) => {
                // It goes well again.
                self.is_told = false;
                if let Some(client) = self.clients.get_mut(&task) {
                    client.answer(Ok(()));
                }
            }
            (Some(Question::End(_, ended, _)), _) => {
                ended.into_iter().for_each(|ended| ended.send(()).unwrap_or_default());
            }
            (Some(Question::Renew(_) | Question::Ping), _) => {}
            (None, _) => self.lose("it answers what nobody has asked"),
        }
    }

    /// Ends a process that does not do what it should, or is gone already.
    fn lose(&mut self, why: &str) {
        let State::Running(process, since) = &self.state else { return };
        if since.elapsed() > STEADY {
            self.wait = Duration::ZERO;
            self.is_told = false;
        }
        let why = match process.last_words() {
            words if words.is_empty() => why.to_owned(),
            words => format!("{why} ({})", escaped(&words)),
        };
        self.tell(&format!("the proxy for tasks has ended: {why}; it is started again, and requests wait"));
        self.kill();
    }

    /// Whatever it is at.
    fn kill(&mut self) {
        self.leaving.extend(self.questions.give_up());
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Running(process, _) => self.state = State::kill(Box::new(process.let_go())),
            other => self.state = other,
        }
    }

    fn let_leave(&mut self) {
        for leaving in self.leaving.drain(..) {
            leaving.send(()).unwrap_or_default();
        }
    }

    fn tell_remains(&self, error: &KillError) {
        let message = &format!(
            "failed to {}: it may still be connected for tasks that have ended, with their credentials",
            chain(error)
        );
        self.events.emit(&Event::Warning { message });
    }

    /// Until the next attempt, if anybody needs one.
    fn rest(&mut self) {
        if self.clients.is_empty() {
            self.state = State::Idle;
            return;
        }
        self.state = State::wait(self.wait);
        let [first, longest] = WAITS;
        self.wait = longest.min(first.max(self.wait * 2));
    }

    /// When a process that has nothing to do is asked whether it hears, if anybody needs it.
    fn quiet_until(&self) -> Option<Instant> {
        let is_needed = matches!(self.state, State::Running(..)) && !self.clients.is_empty();
        (is_needed && self.questions.is_empty()).then(|| self.heard + PING_TIME)
    }

    /// Says it once, until it goes well again.
    fn tell(&mut self, message: &str) {
        if !self.is_told {
            self.is_told = true;
            self.events.emit(&Event::Warning { message });
        }
    }

    /// Ends whatever there is.
    fn stop(&mut self) {
        self.is_stopping = true;
        self.clients.clear();
        match &mut self.state {
            State::Running(..) => self.kill(),
            State::Starting(_, wanting) => drop(wanting.take()),
            State::Waiting(_) => self.state = State::Idle,
            State::Idle | State::Killing(_) | State::Undoing(..) => {}
        }
    }
}

impl Client {
    /// A copy of the listener that does not block. All copies are one open socket: a process that had it before may have
    /// had it otherwise, and the one thread of the next would wait in it for ever.
    fn hand_over(&self) -> io::Result<TcpListener> {
        self.listener.set_nonblocking(true)?;
        self.listener.try_clone()
    }

    /// Whether there was anybody who asked.
    fn answer(&mut self, answer: Result<(), String>) -> bool {
        // Who waited may have given up.
        self.begun.take().map(|begun| begun.send(answer).unwrap_or_default()).is_some()
    }
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use rustix::fs::{OFlags, fcntl_getfl};
    use tokio::sync::watch;

    use super::*;
    use crate::queue::Credentials;

    #[test]
    fn a_listener_that_a_process_has_had_blocking_is_handed_over_as_it_has_to_be() {
        let credentials =
            Credentials { client_id: "task".to_owned(), access_token: "hush".to_owned(), certificate: None };
        let (_changing, credentials) = watch::channel(credentials);
        let caller = Caller { address: Ipv4Addr::LOCALHOST, credentials, scopes: Vec::new() };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let client = Client { listener, caller, begun: None };
        for _process in 0..2 {
            let handed = client.hand_over().unwrap();
            assert!(fcntl_getfl(&handed).unwrap().contains(OFlags::NONBLOCK));
            handed.set_nonblocking(false).unwrap();
        }
    }
}
