//! Garbage collection beside the worker's loop: when a sweep is due, and what is said of it.
//!
//! A sweep runs on a thread of its own, at the lowest priority, and stops between two pieces of work when the worker
//! ends. Where the disk is too full for another task, one comes before the next request for tasks; where it fills while
//! tasks run, they ask for one.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot::error::RecvError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use super::Service;
use super::log::{Entry, WorkerLog};
use crate::gc::{Ages, Client, Collector, News, Places, Room, Shortage};
use crate::host::Space;
use crate::task::full_disk::RoomRequest;
use crate::text::chain;

/// How long the worker's end waits for a sweep that was told to stop.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// The niceness of a sweep: whatever else wants the processor has it.
const NICE: i32 = 19;

/// The sweep that may be under way, and the time of the next.
pub(super) struct Collecting {
    pause: Duration,
    due: Instant,
    sweeper: Sweeper,
    sweep: Option<Sweep>,
    /// The last sweep for room was in vain: until then there is none.
    in_vain: Option<InVain>,
    /// Places whose shortage was told and goes on, and whether it is known how much there is.
    told: BTreeSet<(PathBuf, bool)>,
    /// There is no request for tasks before the sweep that is under way has ended.
    is_awaited: bool,
    /// Of runs whose disk fills.
    requests: mpsc::UnboundedReceiver<RoomRequest>,
    /// Those that came after the sweep which is under way had begun.
    waiting: Vec<RoomRequest>,
}

/// What is kept from one sweep to the next.
#[derive(Debug)]
struct Sweeper {
    collector: Collector,
    /// Problems that the last sweep has told: they are told again only after one without them.
    known: BTreeSet<String>,
}

struct InVain {
    until: Instant,
    /// Where there is still too little.
    places: BTreeSet<PathBuf>,
    /// Images that could not go.
    used: Vec<String>,
}

impl InVain {
    /// Whether a sweep for this room would be in vain as well.
    fn is_so(&self, room: &Room, now: Instant) -> bool {
        now < self.until && self.places.contains(&room.place)
    }
}

/// A thread that sweeps. It is told to stop when this goes.
struct Sweep {
    end: oneshot::Receiver<Swept>,
    wanted: Arc<AtomicBool>,
    /// Answered when it has ended.
    _served: Vec<RoomRequest>,
}

struct Swept {
    sweeper: Sweeper,
    /// Where there is still too little room.
    short: BTreeSet<PathBuf>,
    /// Images that cannot go.
    used: Vec<String>,
}

impl Drop for Sweep {
    fn drop(&mut self) {
        self.wanted.store(false, Ordering::Relaxed);
    }
}

impl Collecting {
    pub(super) fn new(service: &Service) -> Collecting {
        let pause = service.worker.config.file.poll_interval();
        Collecting {
            pause,
            due: Instant::now() + pause,
            sweeper: Sweeper::new(service),
            sweep: None,
            in_vain: None,
            told: BTreeSet::new(),
            is_awaited: false,
            requests: service.worker.full_disk.requests(),
            waiting: Vec::new(),
        }
    }

    /// Whether there is room for so many more tasks, on each disk that they write to. Where there is not, a sweep is begun
    /// to make some, and [`Collecting::made_room`] says when to ask again; one in vain is told once.
    pub(super) fn has_room(&mut self, service: &Service, slots: usize) -> bool {
        let rooms = rooms_for(service, slots);
        let short: Vec<(&Room, Shortage)> =
            rooms.iter().filter_map(|room| Some((room, room.shortage()?))).collect();
        let has_room = short.is_empty();
        self.told.retain(|told| short.iter().any(|(room, shortage)| *told == key(room, shortage)));
        let now = Instant::now();
        match &self.in_vain {
            _ if has_room && now < self.due => {}
            _ if has_room => self.begin(service, Vec::new(), Vec::new()),
            Some(in_vain) if short.iter().all(|(room, _)| in_vain.is_so(room, now)) => {
                let new: Vec<_> =
                    short.iter().filter(|(room, shortage)| self.told.insert(key(room, shortage))).collect();
                tell_shortages(&service.log, &new, slots, &in_vain.used);
            }
            _ => {
                drop(short);
                self.begin(service, rooms, Vec::new());
            }
        }
        self.is_awaited = !has_room && self.sweep.is_some();
        has_room
    }

    /// A run's disk fills. A request that nothing can be done for is answered at once, by dropping it.
    fn asked(&mut self, service: &Service, request: RoomRequest) {
        if self.sweep.is_none() || request.is_waited_for() {
            self.waiting.push(request);
            self.begin_for_runs(service);
        }
    }

    fn begin_for_runs(&mut self, service: &Service) {
        if self.sweep.is_some() {
            // What it comes to is the answer, not what came of one before it.
            return;
        }
        let rooms = rooms(service, service.worker.config.file.low_mark_bytes());
        // Runs lie on the first disk.
        let is_in_vain =
            |in_vain: &InVain| rooms.first().is_some_and(|room| in_vain.is_so(room, Instant::now()));
        if self.in_vain.as_ref().is_some_and(is_in_vain) {
            self.waiting.clear();
        }
        if !self.waiting.is_empty() {
            let served = std::mem::take(&mut self.waiting);
            self.begin(service, rooms, served);
        }
    }

    fn begin(&mut self, service: &Service, rooms: Vec<Room>, served: Vec<RoomRequest>) {
        if self.sweep.is_some() {
            return;
        }
        let sweeper = std::mem::replace(&mut self.sweeper, Sweeper::new(service));
        match Sweep::begin(sweeper, (rooms, served), service.log.clone()) {
            Ok(sweep) => self.sweep = Some(sweep),
            Err(error) => {
                let message = format!("failed to start a thread for garbage collection: {error}");
                self.failed(service, &message);
            }
        }
    }

    /// Waits for the end of a sweep that a request for tasks waits for, and has room made meanwhile for runs that ask;
    /// for ever without one. May be dropped at any time.
    pub(super) async fn made_room(&mut self, service: &Service) {
        loop {
            tokio::select! {
                swept = end_of(&mut self.sweep) => {
                    self.ended(service, swept);
                    if std::mem::take(&mut self.is_awaited) {
                        return;
                    }
                }
                Some(request) = self.requests.recv() => self.asked(service, request),
            }
        }
    }

    /// The sweep that was under way has ended.
    fn ended(&mut self, service: &Service, swept: Result<Swept, RecvError>) {
        self.sweep = None;
        match swept {
            Ok(Swept { sweeper, short, used }) => {
                self.sweeper = sweeper;
                self.rest(short, used);
            }
            Err(_) => {
                let message = "garbage collection ended by a fault of its own, which is on standard error";
                self.failed(service, message);
            }
        }
        self.waiting.retain(RoomRequest::is_waited_for);
        self.begin_for_runs(service);
    }

    /// Until the next try it is as if no sweep helped.
    fn failed(&mut self, service: &Service, message: &str) {
        service.log.write(&Entry::GcWarning { message, image: None });
        let everywhere = rooms(service, 0).into_iter().map(|room| room.place).collect();
        self.rest(everywhere, Vec::new());
    }

    fn rest(&mut self, places: BTreeSet<PathBuf>, used: Vec<String>) {
        self.due = Instant::now() + self.pause;
        self.in_vain = (!places.is_empty()).then_some(InVain { until: self.due, places, used });
    }

    /// Ends the sweep that is under way, at its next piece of work. A longer piece goes with the process, and is gone on
    /// with by the next.
    pub(super) async fn stop(mut self) {
        if let Some(sweep) = &self.sweep {
            sweep.wanted.store(false, Ordering::Relaxed);
            // Either way nothing is left to be done here.
            timeout(STOP_GRACE, end_of(&mut self.sweep)).await.map(drop).unwrap_or_default();
        }
    }
}

impl Sweeper {
    fn new(service: &Service) -> Sweeper {
        let worker = &service.worker;
        let places = Places {
            directories: worker.config.directories.clone(),
            store: worker.store.clone(),
            caches: worker.caches.clone(),
            registry: worker.registry.clone(),
        };
        let file = &worker.config.file;
        let ages = Ages { image: file.image_expiration(), remains: file.container_expiration() };
        Sweeper { collector: Collector::new(places, ages), known: BTreeSet::new() }
    }

    fn sweep(mut self, rooms: &[Room], wanted: &dyn Fn() -> bool, log: &WorkerLog) -> Swept {
        let report =
            Report { log, known: &self.known, told: RefCell::default(), has_begun: Cell::new(false) };
        let client = Client { wanted, tell: &|news| report.tell(&news) };
        self.collector.sweep(rooms, &client);
        let short = rooms.iter().filter(|room| room.shortage().is_some()).map(|room| room.place.clone());
        let used = self.collector.images_in_the_way(rooms).unwrap_or_else(|error| {
            let message = format!("failed to {}", chain(&error));
            (client.tell)(News::Problem { message: &message });
            Vec::new()
        });
        self.known = report.end();
        Swept { sweeper: self, short: short.collect(), used }
    }
}

impl Sweep {
    fn begin(
        sweeper: Sweeper,
        (rooms, served): (Vec<Room>, Vec<RoomRequest>),
        log: WorkerLog,
    ) -> io::Result<Sweep> {
        let (done, end) = oneshot::channel();
        let wanted = Arc::new(AtomicBool::new(true));
        let is_wanted = Arc::clone(&wanted);
        thread::Builder::new().name("garbage".to_owned()).spawn(move || {
            // Of this thread alone; one that keeps its priority sweeps as well.
            rustix::process::setpriority_process(None, NICE).unwrap_or_default();
            let is_wanted = || is_wanted.load(Ordering::Relaxed);
            let swept = sweeper.sweep(&rooms, &is_wanted, &log);
            // Nobody may wait any more.
            drop(done.send(swept));
        })?;
        Ok(Sweep { end, wanted, _served: served })
    }
}

/// Waits for the end of a sweep; for ever without one. May be dropped at any time.
async fn end_of(sweep: &mut Option<Sweep>) -> Result<Swept, RecvError> {
    match sweep {
        Some(sweep) => (&mut sweep.end).await,
        None => std::future::pending().await,
    }
}

/// What one sweep says: nothing where there was nothing to do, and no problem twice.
struct Report<'a> {
    log: &'a WorkerLog,
    known: &'a BTreeSet<String>,
    told: RefCell<BTreeSet<String>>,
    has_begun: Cell<bool>,
}

impl Report<'_> {
    fn tell(&self, news: &News<'_>) {
        let (entry, problem) = match *news {
            News::Image { name } => (Entry::ImageRemoved { image: name }, None),
            News::Container { id } => (Entry::ContainerRemoved { container: id }, None),
            News::Cache { name } => (Entry::CacheRemoved { name }, None),
            News::ContainerResists { id, message } => {
                (Entry::ContainerRemovalError { container: id, message }, Some(message))
            }
            News::CacheResists { name, message } => {
                (Entry::CacheRemovalError { name, message }, Some(message))
            }
            News::Problem { message } => (Entry::GcWarning { message, image: None }, Some(message)),
        };
        if let Some(problem) = problem {
            self.told.borrow_mut().insert(problem.to_owned());
            if self.known.contains(problem) {
                return;
            }
        }
        if !self.has_begun.replace(true) {
            self.log.write(&Entry::GcStarted);
        }
        self.log.write(&entry);
    }

    fn end(self) -> BTreeSet<String> {
        if self.has_begun.get() {
            self.log.write(&Entry::GcFinished);
        }
        self.told.into_inner()
    }
}

/// What has to be free for so many more tasks.
fn rooms_for(service: &Service, slots: usize) -> Vec<Room> {
    let slots = u64::try_from(slots).unwrap_or(u64::MAX);
    rooms(service, service.worker.config.file.free_bytes().saturating_mul(slots))
}

/// So much room where images and containers lie, where caches do, and where the operator says. The data directory is the
/// first, so that its disk has its name.
fn rooms(service: &Service, bytes: u64) -> Vec<Room> {
    let config = &service.worker.config;
    let caches = config.directories.caches();
    let mut places = vec![config.directories.data.as_path(), caches.as_path()];
    places.extend(config.file.docker_volume.as_deref());
    Room::on_each_disk(&places, bytes)
}

/// By what it is known that a shortage was told.
fn key(room: &Room, shortage: &Shortage) -> (PathBuf, bool) {
    (room.place.clone(), matches!(shortage, Shortage::Known(_)))
}

fn tell_shortages(log: &WorkerLog, short: &[&(&Room, Shortage)], slots: usize, used: &[String]) {
    for (room, shortage) in short {
        match shortage {
            Shortage::Known(space) => tell_shortage(log, (room, *space), slots),
            Shortage::Unknown(error) => {
                let message = format!("no tasks are asked for: failed to {}", chain(error));
                log.write(&Entry::Warning { message: &message });
            }
        }
    }
    for image in used.iter().filter(|_| !short.is_empty()) {
        let message = "Cannot remove image while it is running.";
        log.write(&Entry::GcWarning { message, image: Some(image) });
    }
}

fn tell_shortage(log: &WorkerLog, (room, space): (&Room, Space), slots: usize) {
    let Space { free, total } = space;
    let taken = total.saturating_sub(free);
    log.increment("diskspaceThreshold");
    log.write(&Entry::DiskspaceThreshold {
        volume: &room.place.display().to_string(),
        free,
        total,
        used: taken,
        pct_used: taken.saturating_mul(100).checked_div(total).unwrap_or_default(),
        per_task_threshold: room.bytes / u64::try_from(slots).unwrap_or(u64::MAX).max(1),
        available_worker_capacity: slots,
        total_threshold: room.bytes,
    });
}
