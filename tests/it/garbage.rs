//! Garbage collection: what goes, in which order, and what never does.

use std::cell::RefCell;
use std::fs::{self, File, FileTimes};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use docker_worker::cache::{Caches, Fate};
use docker_worker::claim_file::{ClaimFile, HeldRun, Logs};
use docker_worker::directories::Directories;
use docker_worker::gc::{Ages, Client, Collector, News, Places, Room};
use docker_worker::host::measure;
use docker_worker::queue::task_id::TaskId;
use docker_worker::queue::{Credentials, RunId, WorkerIdentity};
use docker_worker::registry::Registry;
use docker_worker::timestamp::Timestamp;
use images::registry::Access;
use images::source::Source;
use images::store::{PullOptions, Store};
use runtime::id::ContainerId;
use serde_json::json;

use crate::start::start;
use crate::support::{
    AnsweringServer, SmallDisk, WatchedRegistry, Worker, await_that, busybox_image, file, finish, read_until,
    shell_payload,
};

const HOUR: Duration = Duration::from_secs(3600);
const LIMIT: Duration = Duration::from_secs(60);

/// A worker's directories, and what sweeps them.
struct Site<'a> {
    worker: &'a Worker,
    places: Places,
}

impl Site<'_> {
    fn of(worker: &Worker) -> Site<'_> {
        let directories =
            Directories { data: worker.data(), run: worker.run_directory(), volume_caches: None };
        let store = Store::open(&directories.images()).unwrap();
        let caches = Caches::open(&directories.caches()).unwrap();
        let places = Places { directories, store, caches, registry: Registry::default() };
        Site { worker, places }
    }

    fn collector(&self, age: Duration) -> Collector {
        Collector::new(self.places.clone(), Ages { image: age, remains: age })
    }

    /// One sweep of a fresh collector; what it tells.
    fn sweep(&self, age: Duration, room: Option<&Room>) -> Vec<String> {
        told(&mut self.collector(age), room)
    }

    /// More room than any disk has.
    fn no_end_of_room(&self) -> Room {
        Room { place: self.worker.data(), bytes: u64::MAX }
    }

    fn pull(&self, source: &str) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut options = PullOptions::new(Access::operator());
        options.limits.free_disk_bytes = 0;
        options.limits.free_disk_percent = 0;
        let source = Source::parse(source).unwrap();
        drop(runtime.block_on(self.places.store.pull(&source, &options, &|_| {})).unwrap());
    }

    /// Makes a free instance of a cache with so many bytes in it.
    fn fill_cache(&self, name: &str, bytes: usize) {
        let container = ContainerId::new("container").unwrap();
        let lease = self.places.caches.take(name, &container, &|| true).unwrap();
        fs::write(lease.content().join("file"), vec![b'c'; bytes]).unwrap();
        assert!(lease.release(Fate::Keep).unwrap().is_none());
        // Those that are filled later are used later, also by a clock of milliseconds.
        let now = Timestamp::now();
        await_that("the clock to go on", || Timestamp::now() != now);
    }

    /// Makes it look as if no image had been used for so long.
    fn unused_for(&self, age: Duration) {
        let then = FileTimes::new().set_modified(SystemTime::now() - age);
        for name in fs::read_dir(self.places.directories.images().join("names")).unwrap() {
            let name = File::options().write(true).open(name.unwrap().path()).unwrap();
            name.set_times(then).unwrap();
        }
    }

    /// Starts a task that holds the cache `x`, and kills its worker; nothing of either runs any more.
    fn killed_worker(&self, image: &str) {
        self.kill_worker(image);
        self.worker.scratch().await_processes(LIMIT);
    }

    /// The same beside another worker with these directories.
    fn kill_worker(&self, image: &str) {
        let mut payload = shell_payload(image, "echo text > /x/file; sleep 100");
        payload["cache"] = json!({ "x": "/x" });
        let task = self.worker.fresh("task").with_extension("json");
        fs::write(&task, payload.to_string()).unwrap();
        let (mut child, _) = self.worker.start_run(&[task.to_str().unwrap()], &[]);
        read_until(&mut child, "=== Task Starting ===");
        child.kill().unwrap();
        finish(child, LIMIT);
    }
}

/// One sweep; what it tells.
fn told(collector: &mut Collector, room: Option<&Room>) -> Vec<String> {
    let told = RefCell::new(Vec::new());
    let tell = |news: News<'_>| {
        told.borrow_mut().push(match news {
            News::Image { name } => format!("image {name}"),
            News::Container { .. } => "container".to_owned(),
            News::Cache { name } => format!("cache {name}"),
            resists => format!("{resists:?}"),
        });
    };
    collector.sweep(room.map_or(&[], std::slice::from_ref), &Client { wanted: &|| true, tell: &tell });
    told.into_inner()
}

/// An image with a layer of so many bytes.
fn image(worker: &Worker, bytes: usize) -> String {
    worker.image(&busybox_image().layer(&[file("content", vec![b'x'; bytes])])).source
}

#[test]
fn what_was_not_used_for_long_goes_and_nothing_else() {
    let worker = Worker::new();
    let site = Site::of(&worker);
    let [old, new] = [1000, 2000].map(|bytes| image(&worker, bytes));
    site.pull(&old);
    site.fill_cache("kept", 1);
    site.unused_for(3 * HOUR);
    site.pull(&new);
    assert_eq!(site.sweep(4 * HOUR, None), [""; 0]);
    assert_eq!(site.sweep(2 * HOUR, None), [format!("image {old}")]);
    assert_eq!((site.places.store.list().unwrap().len(), worker.caches().len()), (1, 1));
}

#[test]
fn under_pressure_left_overs_go_first_then_images_and_caches_last() {
    let worker = Worker::new();
    let site = Site::of(&worker);
    let [old, new] = [1000, 2000].map(|bytes| image(&worker, bytes));
    site.killed_worker(&old);
    site.fill_cache("first", 1);
    site.fill_cache("second", 1);
    site.pull(&old);
    site.unused_for(HOUR);
    site.pull(&new);
    // Its worker was not yet seen to be gone: somebody may want to see what it has left.
    let mut collector = site.collector(2 * HOUR);
    assert_eq!(told(&mut collector, None), [""; 0]);
    assert_eq!(worker.containers().len(), 1);

    let order = told(&mut collector, Some(&site.no_end_of_room()));
    let expected = [
        "container".to_owned(),
        "cache x".to_owned(),
        format!("image {old}"),
        format!("image {new}"),
        "cache first".to_owned(),
        "cache second".to_owned(),
    ];
    assert_eq!(order, expected);
    worker.assert_nothing_left("after the sweep");
}

#[test]
fn what_is_left_of_a_run_whose_claim_holds_waits_for_its_worker_although_room_is_lacking() {
    let worker = Worker::new();
    let site = Site::of(&worker);
    site.killed_worker(&image(&worker, 1000));
    let now = Timestamp::now();
    let held = HeldRun {
        root_url: "https://tc.example.com".to_owned(),
        worker: WorkerIdentity { worker_group: "g".to_owned(), worker_id: "w".to_owned() },
        run: RunId { task_id: TaskId::random().unwrap(), run_id: 0 },
        taken_until: now.plus(HOUR),
        expires: now.plus(HOUR),
        began: now,
        container_id: worker.containers()[0].clone(),
        logs: Logs::default(),
        credentials: Credentials {
            client_id: "me".to_owned(),
            access_token: "sesame".to_owned(),
            certificate: None,
        },
    };
    let claim = ClaimFile::create(&site.places.directories, &held).unwrap();
    let mut collector = site.collector(2 * HOUR);
    let room = site.no_end_of_room();
    let in_use = worker.caches().len();
    assert!(!told(&mut collector, Some(&room)).contains(&"container".to_owned()));
    assert_eq!((worker.containers(), worker.caches().len()), (vec![held.container_id.clone()], in_use));
    claim.renew(now, held.credentials).unwrap();
    assert_eq!(told(&mut collector, Some(&room)), ["container", "cache x"], "its claim is over");
    claim.remove().unwrap();
    worker.assert_nothing_left("after the sweep");
}

#[test]
fn caches_go_only_until_there_is_room_enough() {
    const MEGABYTE: u64 = 1 << 20;
    let worker = Worker::new();
    let images = Worker::new();
    let [first, second] = [4 << 20, 5 << 20].map(|bytes| image(&images, bytes));
    let disk = SmallDisk::mount(&worker.data(), "100m");
    let site = Site::of(&worker);
    let free = || measure(&worker.data()).unwrap().free;
    for (name, bytes) in [("oldest", 10 << 20), ("older", 10 << 20), ("newest", 10 << 20)] {
        site.fill_cache(name, bytes);
    }
    site.pull(&first);
    site.pull(&second);
    let wanted = |bytes: u64| Room { place: worker.data(), bytes };
    // The images' blobs are enough, or one image.
    let order = site.sweep(HOUR, Some(&wanted(free() + 2 * MEGABYTE)));
    assert_eq!(order, [format!("image {first}")]);
    // Another image is not: one cache is.
    let order = site.sweep(HOUR, Some(&wanted(free() + 14 * MEGABYTE)));
    assert_eq!(order, [format!("image {second}"), "cache oldest".to_owned()]);
    assert_eq!(site.sweep(HOUR, Some(&wanted(free() - MEGABYTE))), [""; 0]);
    assert_eq!(worker.caches().len(), 2);
    drop(site);
    drop(disk);
}

#[test]
fn what_is_left_of_a_run_goes_when_it_has_been_there_long_enough() {
    let worker = Worker::new();
    let site = Site::of(&worker);
    site.killed_worker(&image(&worker, 1000));
    let age = Duration::from_millis(500);
    let mut collector = Collector::new(site.places.clone(), Ages { image: HOUR, remains: age });
    let begun = Instant::now();
    let mut news = Vec::new();
    await_that("the sweep", || {
        news = told(&mut collector, None);
        !news.is_empty()
    });
    assert_eq!(news, ["container", "cache x"]);
    assert!(begun.elapsed() >= age);
}

/// No disk is short: what is old goes all the same, by the ages that the configuration says.
#[test]
fn a_worker_removes_what_is_old_between_two_requests_for_tasks() {
    let worker = Worker::new();
    let site = Site::of(&worker);
    let image = image(&worker, 1000);
    let queue = AnsweringServer::start(|_, _| (200, json!({"tasks": [], "workerId": "w"})));
    let more = json!({
        "capacityManagement": {"diskspaceThreshold": 0},
        "garbageCollection": {"imageExpiration": 1, "containerExpiration": 200},
        "taskQueue": {"pollInterval": 10}
    });
    let mut started = start(&worker, &queue.address, more);
    // After the clean-up of the worker's own beginning.
    site.kill_worker(&image);
    let kinds = ["container removed", "image removed", "cache volume removed"]
        .map(|kind| format!(r#""type":"{kind}""#));
    kinds.iter().for_each(|kind| started.await_logged(kind));
    let log = started.stop().log;
    for kind in kinds {
        assert_eq!(log.matches(&kind).count(), 1, "{kind}: {log}");
    }
    assert!(!log.contains("diskspace"), "{log}");
    assert_eq!((worker.containers().len(), worker.caches().len()), (0, 0));
    assert!(site.places.store.list().unwrap().is_empty());
}

#[test]
fn what_lies_on_another_disk_than_the_one_that_is_short_stays() {
    let worker = Worker::new();
    let site = Site::of(&worker);
    site.pull(&image(&worker, 1000));
    site.fill_cache("kept", 1);
    let room = Room { place: Path::new("/proc").to_owned(), bytes: u64::MAX };
    assert_eq!(site.sweep(HOUR, Some(&room)), [""; 0]);
    assert_eq!((site.places.store.list().unwrap().len(), worker.caches().len()), (1, 1));
}

#[test]
fn an_image_that_was_collected_is_pulled_again() {
    let worker = Worker::new();
    let site = Site::of(&worker);
    let registry = WatchedRegistry::serve(&worker.image(&busybox_image()));
    worker.run(&registry.name, &["true"]).expect(0, "pulled");
    let asked = registry.asked().len();
    worker.run(&registry.name, &["true"]).expect(0, "found");
    assert_eq!(registry.asked().len(), asked);
    let order = site.sweep(HOUR, Some(&site.no_end_of_room()));
    assert_eq!(order, [format!("image {}", registry.name)]);
    worker.run(&registry.name, &["true"]).expect(0, "pulled again");
    assert_eq!(registry.asked().len(), 2 * asked);
}

#[test]
fn what_a_task_uses_stays_although_the_disk_is_short() {
    let worker = Worker::new();
    let site = Site::of(&worker);
    let registry = WatchedRegistry::serve(&worker.image(&busybox_image()));
    let mut payload = shell_payload(&registry.name, "read line < /x/fifo; echo $line");
    payload["cache"] = json!({ "x": "/x" });
    let task = worker.fresh("task").with_extension("json");
    fs::write(&task, payload.to_string()).unwrap();
    site.fill_cache("x", 1);
    let cache = worker.data().join("caches").join(&worker.caches()[0]).join("content");
    crate::support::tool("mkfifo", &[cache.join("fifo").to_str().unwrap()]);
    let (mut child, artifacts) = worker.start_run(&[task.to_str().unwrap()], &[]);
    let log = read_until(&mut child, "=== Task Starting ===");
    let mut collector = site.collector(Duration::ZERO);
    assert_eq!(told(&mut collector, Some(&site.no_end_of_room())), [""; 0]);
    assert_eq!(collector.images_in_the_way(&[site.no_end_of_room()]).unwrap(), [registry.name]);
    fs::write(cache.join("fifo"), "still there\n").unwrap();
    let status = finish(child, LIMIT).status;
    assert!(status.success() && log.join().unwrap().contains("still there"), "{artifacts:?}");
    let caches = worker.caches();
    assert_eq!(caches.len(), 1, "{caches:?}");
}

/// A collector that never rests, and takes everything that it may.
#[test]
fn no_start_fails_while_garbage_is_collected() {
    const STARTS: usize = 100;
    const AT_ONCE: usize = 4;
    let worker = Worker::new();
    let registry = WatchedRegistry::serve(&worker.image(&busybox_image()));
    let mut payload = shell_payload(&registry.name, "cat /x/file 2> /dev/null; echo text > /x/file");
    payload["cache"] = json!({ "x": "/x" });
    let task = worker.fresh("task").with_extension("json");
    fs::write(&task, payload.to_string()).unwrap();
    let starts: Vec<_> = (0..STARTS).map(|_| worker.run_command(&[task.to_str().unwrap()], &[]).0).collect();
    let (starts, is_over) = (Mutex::new(starts), AtomicBool::new(false));
    let ages = Ages { image: Duration::ZERO, remains: Duration::ZERO };
    let mut collector = Collector::new(Site::of(&worker).places, ages);
    let room = Room { place: worker.data(), bytes: u64::MAX };
    let sweep_on = || {
        let mut news = Vec::new();
        while !is_over.load(Ordering::SeqCst) {
            news.extend(told(&mut collector, Some(&room)));
        }
        news
    };
    let start_on = || {
        let next = || starts.lock().unwrap().pop();
        let runs = std::iter::from_fn(next).map(|mut start| finish(start.spawn().unwrap(), LIMIT));
        runs.filter(|run| !run.status.success()).map(|run| format!("{run:?}")).collect::<Vec<_>>()
    };
    thread::scope(|scope| {
        let sweeping = scope.spawn(sweep_on);
        let starting = [(); AT_ONCE].map(|()| scope.spawn(start_on));
        let failures: Vec<_> = starting.into_iter().flat_map(|it| it.join().unwrap()).collect();
        is_over.store(true, Ordering::SeqCst);
        let (removed, problems): (Vec<_>, Vec<_>) = sweeping
            .join()
            .unwrap()
            .into_iter()
            .partition(|news| news.starts_with("image ") || news.starts_with("cache "));
        assert!(failures.is_empty(), "{} of {STARTS}: {failures:#?}", failures.len());
        assert!(removed.len() > STARTS / 4 && problems.is_empty(), "{}; {problems:#?}", removed.len());
    });
}
