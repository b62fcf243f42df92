//! The worker's side: starts the process, hands it every task, and does both again when it dies.
//!
//! ```text
//!   Idle ──a task──► Starting ──────────► Running ◄── orders, reports
//!    ▲                  │ cannot be started   │ it dies, says nonsense, or does not answer
//!    │ no task          ▼                     ▼
//!    └────────────── Waiting ◄──────────── Ending: killed, undone
//! ```
//!
//! One task of the event loop, which holds everything; it hears [`Command`]s, and what each state waits for, at the same
//! time. A task that begins when the process cannot be started is told why, and fails; those that were served before wait
//! for the next attempt, and their connections with them.

mod openings;
mod process;
mod root;
mod surroundings;

use std::collections::{BTreeMap, VecDeque};
use std::future::pending;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

pub use self::process::Ground;
use self::process::{Process, StartError};
use super::Caller;
use super::messages::{Order, Report};
use crate::event::{Event, Events};
use crate::text::{chain, escaped};

/// How long the process may take to answer. It answers in turn, and closes connections without waiting for anybody.
const ANSWER_TIME: Duration = Duration::from_secs(15);

/// Before a process is started again that has not run for [`STEADY`]: after the first failure, and at most.
const WAITS: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(30)];

/// A process that has run for so long was well: the next failure is the first again.
const STEADY: Duration = Duration::from_secs(60);

/// What a keeper is told.
#[derive(Debug)]
pub(super) enum Command {
    /// A task is to be served.
    Begin { task: u64, door: Box<Door> },
    /// Its credentials have changed.
    Renew { task: u64 },
    /// It is over. Who asks hears when nobody is connected any more.
    End { task: u64, ended: Option<oneshot::Sender<()>> },
    /// The worker is.
    Stop { stopped: oneshot::Sender<()> },
}

/// What there is to hand over of a task.
#[derive(Debug)]
pub(super) struct Door {
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
    doors: BTreeMap<u64, Door>,
    state: State,
    /// What a process has been asked for that has not been answered, in this order, and until when it has to be.
    asked: VecDeque<(Asked, Instant)>,
    /// Those that hear when the process that is being ended is gone.
    leaving: Vec<oneshot::Sender<()>>,
    /// Until the next attempt.
    wait: Duration,
    /// The worker's log knows that it does not go well.
    is_told: bool,
}

type Pinned<T> = Pin<Box<dyn Future<Output = T> + Send>>;

enum State {
    Idle,
    Starting(Pinned<Result<Box<Process>, StartError>>),
    Running(Box<Process>, Instant),
    Ending(Pinned<()>),
    Waiting(Pin<Box<Sleep>>),
}

enum Asked {
    Begin(u64),
    End(u64, Option<oneshot::Sender<()>>),
}

/// What a state has waited for.
enum Happened {
    Started(Result<Box<Process>, StartError>),
    Reported(Report),
    /// It is gone, or does not do what it should.
    Lost(String),
    Gone,
    Waited,
}

impl Keeper {
    /// Starts one; gives the way to it. Inside a tokio runtime only.
    pub(super) fn start(ground: Ground, events: Events) -> mpsc::UnboundedSender<Command> {
        let (sender, commands) = mpsc::unbounded_channel();
        let keeper = Keeper {
            ground,
            events,
            commands,
            doors: BTreeMap::new(),
            state: State::Idle,
            asked: VecDeque::new(),
            leaving: Vec::new(),
            wait: Duration::ZERO,
            is_told: false,
        };
        tokio::spawn(keeper.keep());
        sender
    }

    async fn keep(mut self) {
        loop {
            let overdue = self.asked.front().map(|(_, until)| *until);
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(Command::Stop { stopped }) => {
                        self.stop().await;
                        // Who has asked may have given up.
                        stopped.send(()).unwrap_or_default();
                        return;
                    }
                    // The worker has gone without a word.
                    None => return self.stop().await,
                    Some(command) => self.obey(command).await,
                },
                happened = self.state.next() => self.go_on(happened).await,
                () = at(overdue) => self.lose("it does not answer".to_owned()),
            }
        }
    }

    async fn obey(&mut self, command: Command) {
        match command {
            Command::Begin { task, door } => {
                self.doors.insert(task, *door);
                match self.state {
                    State::Idle => self.state = State::start(&self.ground),
                    State::Running(..) => self.hand_over(task).await,
                    State::Starting(_) | State::Ending(_) | State::Waiting(_) => {}
                }
            }
            Command::Renew { task } => self.renew(task).await,
            Command::End { task, ended } => self.end(task, ended).await,
            Command::Stop { .. } => {}
        }
    }

    async fn go_on(&mut self, happened: Happened) {
        match happened {
            Happened::Started(Ok(process)) => {
                self.state = State::Running(process, Instant::now());
                let tasks: Vec<u64> = self.doors.keys().copied().collect();
                for task in tasks {
                    self.hand_over(task).await;
                }
            }
            Happened::Started(Err(error)) => {
                let why = chain(&error);
                for door in self.doors.values_mut() {
                    door.answer(Err(why.clone()));
                }
                self.tell(&format!("failed to start the proxy for tasks: {why}"));
                self.wait_or_rest();
            }
            Happened::Reported(report) => self.hear(report),
            Happened::Lost(why) => self.lose(why),
            Happened::Gone => {
                for leaving in self.leaving.drain(..) {
                    leaving.send(()).unwrap_or_default();
                }
                self.wait_or_rest();
            }
            Happened::Waited => {
                self.state = if self.doors.is_empty() { State::Idle } else { State::start(&self.ground) };
            }
        }
    }

    /// Hands a task over to the process that runs.
    async fn hand_over(&mut self, task: u64) {
        let (State::Running(process, _), Some(door)) = (&mut self.state, self.doors.get_mut(&task)) else {
            return;
        };
        let Caller { address, credentials, scopes } = &mut door.caller;
        let credentials = (&*credentials.borrow_and_update()).into();
        let order = Order::Begin { task, address: *address, scopes: scopes.clone(), credentials };
        match process.order(&order, Some(door.listener.as_fd())).await {
            Ok(()) => self.asked.push_back((Asked::Begin(task), Instant::now() + ANSWER_TIME)),
            Err(error) => self.lose(error.to_string()),
        }
    }

    async fn renew(&mut self, task: u64) {
        let (State::Running(process, _), Some(door)) = (&mut self.state, self.doors.get_mut(&task)) else {
            return;
        };
        let credentials = (&*door.caller.credentials.borrow_and_update()).into();
        if let Err(error) = process.order(&Order::Renew { task, credentials }, None).await {
            self.lose(error.to_string());
        }
    }

    async fn end(&mut self, task: u64, ended: Option<oneshot::Sender<()>>) {
        // The worker's copy goes last but one: the process's own when it has heard of it.
        let was_there = self.doors.remove(&task).is_some();
        match &mut self.state {
            State::Running(process, _) if was_there => {
                let sent = process.order(&Order::End { task }, None).await;
                self.asked.push_back((Asked::End(task, ended), Instant::now() + ANSWER_TIME));
                if let Err(error) = sent {
                    self.lose(error.to_string());
                }
            }
            // It may still have connections of the task's.
            State::Ending(_) => self.leaving.extend(ended),
            State::Idle | State::Starting(_) | State::Waiting(_) | State::Running(..) => {
                if let Some(ended) = ended {
                    ended.send(()).unwrap_or_default();
                }
            }
        }
    }

    /// What the process says has to be the answer to what it was asked first.
    fn hear(&mut self, report: Report) {
        match (self.asked.pop_front(), report) {
            (Some((Asked::Begin(task), _)), Report::Begun { task: begun }) if begun == task => {
                // It goes well again.
                self.is_told = false;
                self.answer(task, Ok(()));
            }
            (Some((Asked::Begin(task), _)), Report::Failed { task: failed, why }) if failed == task => {
                self.answer(task, Err(escaped(&why).to_string()));
            }
            (Some((Asked::End(task, leaving), _)), Report::Ended { task: ended }) if ended == task => {
                if let Some(leaving) = leaving {
                    leaving.send(()).unwrap_or_default();
                }
            }
            (asked, Report::Ready | Report::Begun { .. } | Report::Failed { .. } | Report::Ended { .. }) => {
                // Whoever asked hears when it is gone.
                self.asked.extend(asked);
                self.lose("it answers what nobody has asked".to_owned());
            }
        }
    }

    fn answer(&mut self, task: u64, answer: Result<(), String>) {
        if let Some(door) = self.doors.get_mut(&task) {
            door.answer(answer);
        }
    }

    /// Ends a process that does not do what it should, or is gone already.
    fn lose(&mut self, why: String) {
        let State::Running(process, since) = std::mem::replace(&mut self.state, State::Idle) else { return };
        if since.elapsed() > STEADY {
            self.wait = Duration::ZERO;
            self.is_told = false;
        }
        for (asked, _) in self.asked.drain(..) {
            match asked {
                Asked::Begin(_) | Asked::End(_, None) => {}
                Asked::End(_, Some(ended)) => self.leaving.push(ended),
            }
        }
        let why = match process.last_words() {
            words if words.is_empty() => why,
            words => format!("{why} ({})", escaped(&words)),
        };
        self.tell(&format!("the proxy for tasks has ended: {why}; it is started again, and requests wait"));
        let events = self.events.clone();
        self.state = State::Ending(Box::pin(async move { end(*process, &events).await }));
    }

    /// Before the next attempt, if anybody needs one.
    fn wait_or_rest(&mut self) {
        if self.doors.is_empty() {
            self.state = State::Idle;
            return;
        }
        self.state = State::Waiting(Box::pin(sleep(self.wait)));
        let [first, longest] = WAITS;
        self.wait = longest.min(first.max(self.wait * 2));
    }

    /// Says it once, until it goes well again.
    fn tell(&mut self, message: &str) {
        if !self.is_told {
            self.is_told = true;
            self.events.emit(&Event::Warning { message });
        }
    }

    /// Ends whatever there is.
    async fn stop(&mut self) {
        self.doors.clear();
        let process = match std::mem::replace(&mut self.state, State::Idle) {
            State::Running(process, _) => Some(process),
            State::Starting(starting) => starting.await.ok(),
            State::Ending(ending) => {
                ending.await;
                None
            }
            State::Idle | State::Waiting(_) => None,
        };
        if let Some(process) = process {
            end(*process, &self.events).await;
        }
    }
}

impl State {
    fn start(ground: &Ground) -> State {
        let ground = ground.clone();
        State::Starting(Box::pin(async move { Process::start(&ground).await.map(Box::new) }))
    }

    /// Waits for what it waits for. May be dropped meanwhile.
    async fn next(&mut self) -> Happened {
        match self {
            State::Idle => pending().await,
            State::Starting(starting) => Happened::Started(starting.await),
            State::Running(process, _) => match process.next().await {
                Ok(Some(report)) => Happened::Reported(report),
                Ok(None) => Happened::Lost("its end of the socket is closed".to_owned()),
                Err(error) => Happened::Lost(error.to_string()),
            },
            State::Ending(ending) => {
                ending.await;
                Happened::Gone
            }
            State::Waiting(waiting) => {
                waiting.await;
                Happened::Waited
            }
        }
    }
}

impl Door {
    fn answer(&mut self, answer: Result<(), String>) {
        if let Some(begun) = self.begun.take() {
            // Who waited may have given up.
            begun.send(answer).unwrap_or_default();
        }
    }
}

/// Ends a process and undoes what was made for it; what resists is for the operator to know.
async fn end(process: Process, events: &Events) {
    if let Err(error) = process.end().await {
        let message = &format!("failed to {}", chain(&error));
        events.emit(&Event::Warning { message });
    }
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => pending().await,
    }
}
