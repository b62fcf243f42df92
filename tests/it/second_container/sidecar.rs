//! The worker's own way to a container beside a task's: made from an image, waited for, and taken back wherever it is.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use docker_worker::container::ContainerError;
use docker_worker::net::TaskNetwork;
use docker_worker::net::names::Alias;
use docker_worker::sidecar::{Call, NotReady, Place, Readiness, Sidecar, SidecarError, Sidecars, Wanted};
use docker_worker::spec::{Profile, SocketCall};
use hyper::Method;
use images::registry::Access;
use images::source::Source;
use images::store::{PullEvent, PullOptions, Store};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use rustix::io::read;
use rustix::mount::{MountPropagationFlags, mount_change};
use serde_json::json;

use super::{Fixture, GREETING};
use crate::support::{Image, busybox_image, tool};

const PORT: Readiness = Readiness::Port { port: 80, limit: Duration::from_secs(30) };

/// Greets whoever connects.
const SERVES: &str = "echo up as $WHO; while :; do echo $GREETING | nc -l -p 80; done";

fn wanted(image: &Source, readiness: Readiness) -> Wanted {
    Wanted {
        name: "sidecar",
        image: image.clone(),
        arguments: Vec::new(),
        secrets: Default::default(),
        environment: [("WHO", "the sidecar"), ("TASKCLUSTER_ROOT_URL", "https://tc.example")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
        hosts: vec![Alias { name: "upstream".to_owned(), address: [192, 0, 2, 7].into() }],
        binds: Vec::new(),
        devices: Vec::new(),
        capabilities: Vec::new(),
        readiness,
    }
}

fn source(image: &Image, place: &Path) -> Source {
    Source::parse(&image.write_oci(place).source).unwrap()
}

/// Carries a test out as a worker would: on a thread of the host's with mounts of its own, whose threads are there too.
fn with_run(script: &str, test: impl AsyncFnOnce(&Run) + Send) {
    let run = Run::of(script);
    run.fixture.internet.host.within(|| {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test(&run));
        let mounts = fs::read_to_string("/proc/thread-self/mounts").unwrap();
        let scratch = run.fixture.scratch.path().to_str().unwrap();
        assert_eq!(mounts.lines().filter(|line| line.contains(scratch)).collect::<Vec<_>>(), [""; 0]);
    });
    run.finish();
}

/// A run with a network for its task, and an image in the store.
struct Run {
    fixture: Fixture,
    network: TaskNetwork,
    store: Store,
    source: Source,
    options: PullOptions,
    observer: Arc<dyn Fn(&PullEvent) + Send + Sync>,
}

impl Run {
    fn of(script: &str) -> Run {
        let fixture = Fixture::new();
        let image = busybox_image()
            .set("Cmd", json!(["/bin/sh", "-c", script]))
            .set("Env", json!(["PATH=/bin", "WHO=nobody", format!("GREETING={GREETING}")]));
        let source = source(&image, &fixture.scratch.join("image"));
        let store = Store::open(&fixture.scratch.join("data/images")).unwrap();
        let network = fixture.attach(&fixture.task_id, fixture.run.task());
        let options = PullOptions::new(Access::default());
        Run { fixture, network, store, source, options, observer: Arc::new(|_| {}) }
    }

    fn place(&self) -> Place<'_> {
        Place {
            run: &self.fixture.run,
            store: &self.store,
            options: &self.options,
            observer: &self.observer,
            host: &self.fixture.host,
            limits: &self.fixture.host.limits,
            socketcall: SocketCall::Absent,
            profile: None,
        }
    }

    /// Begins to make one.
    fn start<'a>(&self, sidecars: &'a mut Sidecars, wanted: Wanted) -> Result<&'a mut Sidecar, SidecarError> {
        sidecars.start(&self.place(), (&self.fixture.network, &self.network), wanted)
    }

    /// Where a container of the run has its things.
    fn container(&self, name: &str) -> PathBuf {
        let run = self.fixture.directories.run.join(self.fixture.task_id.as_str());
        run.join("containers").join(name)
    }

    /// The same on the data directory's file system.
    fn data(&self, name: &str) -> PathBuf {
        self.fixture.run.data().join("containers").join(name)
    }

    /// Does something where the task is.
    fn within_task<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let namespace = self.network.namespace();
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            thread.join().unwrap()
        })
    }

    /// The task's links.
    fn links_of_task(&self) -> String {
        self.within_task(|| fs::read_to_string("/proc/thread-self/net/dev").unwrap())
    }

    /// Hears all that passes the task's links, as root there could.
    fn listener_in_task(&self) -> OwnedFd {
        let open = || socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), SockProtocol::EthAll);
        self.within_task(|| open().unwrap())
    }

    /// Sends something to the sidecar over the link, if it takes it now.
    fn say_from_task(&self, to: Ipv4Addr, text: &str) -> bool {
        self.within_task(|| {
            TcpStream::connect((to, 80)).is_ok_and(|mut stream| stream.write_all(text.as_bytes()).is_ok())
        })
    }

    /// Whether the store has an image.
    fn has_image(&self) -> bool {
        !self.store.list().unwrap().is_empty()
    }

    /// Nothing of it may be left but the directories.
    fn finish(self) {
        let Run { fixture, network, .. } = self;
        let record = fixture.scratch.join("released");
        fixture.internet.host.within(|| fixture.network.release(Some(network), &record)).unwrap();
        fixture.assert_nothing_left(&[&fixture.task_id]);
        let Fixture { run, scratch: _scratch, internet: _internet, .. } = fixture;
        run.remove().unwrap();
    }
}

#[test]
fn it_serves_the_task_from_when_it_is_ready_until_it_is_ended() {
    let looks = "grep upstream /etc/hosts; echo $TASKCLUSTER_ROOT_URL,$TASK_ID; cd /proc/sys/net/ipv4/conf; \
                 for one in all eth0; do cat $one/forwarding $one/rp_filter $one/arp_ignore; done | xargs";
    with_run(&format!("{looks}; {SERVES}"), async |run| {
        let mut sidecars = Sidecars::default();
        let sidecar = run.start(&mut sidecars, wanted(&run.source, PORT)).unwrap();
        let address = sidecar.ready().await.unwrap();
        let words = loop {
            let words = sidecar.last_words();
            if words.len() == 4 {
                break words;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        assert_eq!(
            words,
            ["192.0.2.7\\tupstream", "https://tc.example,", "0 1 1 0 1 1", "up as the sidecar"]
        );
        let asks = super::Wanted {
            id: &run.fixture.task_id,
            directory: run.fixture.run.task(),
            network: &run.network,
            profile: Profile::Task,
            script: "until /bin/busybox nc sidecar 80 </dev/null; do /bin/busybox sleep 0.1; done",
            aliases: &[Alias { name: "sidecar".to_owned(), address }],
            output: None,
        };
        let mut task = run.fixture.start(asks).await;
        assert_eq!(task.container.exited().await.unwrap().status, 0);
        let mut said = String::new();
        File::from(task.created.terminal.take().unwrap()).read_to_string(&mut said).unwrap_err();
        assert_eq!(said, format!("{GREETING}\r\n"));
        sidecars.end().await.unwrap();
        task.container.end(task.directory.runtime_state()).await.unwrap();
    });
}

#[test]
fn the_worker_calls_it_by_a_way_that_no_task_sees() {
    let answers = "while :; do printf 'HTTP/1.1 204 x\\r\\n\\r\\n' | nc -l -p 80 | head -n 1; done";
    with_run(answers, async |run| {
        let mut sidecars = Sidecars::default();
        let sidecar = run.start(&mut sidecars, wanted(&run.source, PORT)).unwrap();
        let address = sidecar.ready().await.unwrap();
        let door = sidecar.door(80).unwrap();
        let listens = run.listener_in_task();
        let content = |text: &str| Some(("text/plain", text.to_owned()));
        let call = Call {
            method: Method::PUT,
            path: "/here",
            content: content("for the sidecar alone"),
            limit: Duration::from_secs(5),
        };
        // Between two of its connections it takes none.
        let status = loop {
            if let Ok(status) = door.call(call.clone()).await {
                break status;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        assert_eq!(status, 204);
        // What goes over the link is heard.
        await_that(|| run.say_from_task(address, "not for the sidecar alone, as the task says it\n")).await;
        let heard = heard_until(&listens, "as the task says it");
        assert!(!heard.contains("PUT /here"), "{heard}");
        // The link goes with the task.
        run.within_task(|| tool("ip", &["link", "del", "link0"]));
        let answered = async {
            while door.call(call.clone()).await.is_err() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), answered).await.expect("an answer without a link");
        while sidecar.last_words().last().is_none_or(|last| last != "PUT /here HTTP/1.1") {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        sidecars.end().await.unwrap();
    });
}

#[test]
fn one_that_does_not_serve_says_why_and_what_it_printed_last() {
    with_run("echo no license for $WHO >&2; exit 7", async |run| {
        let mut sidecars = Sidecars::default();
        let sidecar = run.start(&mut sidecars, wanted(&run.source, PORT)).unwrap();
        let error = sidecar.ready().await.unwrap_err();
        assert!(matches!(&error, SidecarError::NotReady(NotReady::Ended { status: 7, .. })), "{error:?}");
        assert_eq!(error.to_string(), "wait for port 80: the command ended before, with status 7");
        assert_eq!(sidecar.last_words(), ["no license for the sidecar"]);
        assert_eq!(sidecars.lost().await, [], "it was told of before");
        sidecars.end().await.unwrap();
    });
    with_run("exec sleep 1000", async |run| {
        let mut sidecars = Sidecars::default();
        let readiness = Readiness::Port { port: 80, limit: Duration::from_millis(300) };
        let sidecar = run.start(&mut sidecars, wanted(&run.source, readiness)).unwrap();
        let error = sidecar.ready().await.unwrap_err();
        assert_eq!(error.to_string(), "wait for port 80: it is not there after 0.3 s");
        sidecars.end().await.unwrap();
    });
    with_run("#!/bin/nonesuch", async |run| {
        let image = busybox_image().set("Cmd", json!(["/bin/nonesuch"]));
        let other = source(&image, &run.fixture.scratch.join("other"));
        let mut sidecars = Sidecars::default();
        let sidecar = run.start(&mut sidecars, wanted(&other, PORT)).unwrap();
        let error = sidecar.ready().await.unwrap_err();
        assert!(matches!(&error, SidecarError::Container(ContainerError::Failed(_))), "{error:?}");
        sidecars.end().await.unwrap();
    });
    with_run("true", async |run| {
        let nowhere = Source::parse("oci:/nonexistent").unwrap();
        let mut sidecars = Sidecars::default();
        let sidecar = run.start(&mut sidecars, wanted(&nowhere, PORT)).unwrap();
        assert!(matches!(sidecar.ready().await, Err(SidecarError::Image(_))));
        sidecars.end().await.unwrap();
    });
}

#[test]
fn one_that_ends_while_its_task_runs_is_told_of_once() {
    with_run("nc -l -p 80; echo gone; exit 3", async |run| {
        let mut sidecars = Sidecars::default();
        let sidecar = run.start(&mut sidecars, wanted(&run.source, PORT)).unwrap();
        sidecar.ready().await.unwrap();
        let lost = loop {
            if let Some(lost) = sidecars.lost().await.pop() {
                break lost;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        assert_eq!((lost.name, lost.status), ("sidecar", 3));
        assert_eq!(sidecars.lost().await, []);
        sidecars.end().await.unwrap();
    });
}

#[test]
fn a_socket_is_waited_for_too_and_nothing_else_of_its_name() {
    with_run("exec sleep 1000", async |run| {
        let path = run.fixture.scratch.join("socket");
        fs::write(&path, "no socket").unwrap();
        let readiness = Readiness::Socket { path, limit: Duration::from_millis(200) };
        let mut sidecars = Sidecars::default();
        let sidecar = run.start(&mut sidecars, wanted(&run.source, readiness)).unwrap();
        let error = sidecar.ready().await.unwrap_err();
        assert!(matches!(error, SidecarError::NotReady(NotReady::TooSlow { .. })), "{error:?}");
        sidecars.end().await.unwrap();
    });
    with_run("exec sleep 1000", async |run| {
        let path = run.fixture.scratch.join("socket");
        let readiness = Readiness::Socket { path: path.clone(), limit: Duration::from_secs(30) };
        let mut sidecars = Sidecars::default();
        let sidecar = run.start(&mut sidecars, wanted(&run.source, readiness)).unwrap();
        let _listener = UnixListener::bind(path).unwrap();
        sidecar.ready().await.unwrap();
        sidecars.end().await.unwrap();
    });
}

/// What has been heard, to the end of a text.
fn heard_until(listens: &OwnedFd, text: &str) -> String {
    let (mut heard, mut packet) = (String::new(), [0; 4096]);
    while !heard.contains(text) {
        let length = read(listens, &mut packet[..]).unwrap();
        heard += &String::from_utf8_lossy(&packet[..length]);
    }
    heard
}

/// Waits until something holds, without keeping the loop from the making.
async fn await_that(mut holds: impl FnMut() -> bool) {
    while !holds() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A hook is dropped where it waits: as soon as each trace of the making is there, in their order.
#[test]
fn wherever_its_making_is_when_the_run_ends_nothing_of_it_stays() {
    type HasCome = fn(&Run) -> bool;
    let points: [(&str, HasCome); 9] = [
        ("nothing", |_| true),
        ("its image", Run::has_image),
        ("a record of its network", |run| run.container("sidecar").join("network").exists()),
        ("a link to the task", |run| run.links_of_task().contains("link0")),
        ("a mount point of its image", |run| run.data("sidecar").join("image").exists()),
        ("a mount point of its root", |run| run.data("sidecar").join("root").exists()),
        ("a Spec", |run| run.container("sidecar").join("config.json").exists()),
        ("a monitor", |run| fs::read_dir(run.container("sidecar").join("runtime")).unwrap().next().is_some()),
        ("a command", |run| run.data("sidecar").join("upper/upper/up").exists()),
    ];
    for (what, has_come) in points {
        with_run(": >/up; exec sleep 1000", async |run| {
            let mut sidecars = Sidecars::default();
            let sidecar = run.start(&mut sidecars, wanted(&run.source, PORT)).unwrap();
            tokio::select! {
                // It takes no connection.
                ready = sidecar.ready() => panic!("{what}: {ready:?}"),
                () = await_that(|| has_come(run)) => {}
            }
            sidecars.end().await.unwrap();
        });
    }
}

#[test]
fn a_second_one_of_the_same_name_is_refused() {
    with_run(SERVES, async |run| {
        let mut sidecars = Sidecars::default();
        run.start(&mut sidecars, wanted(&run.source, PORT)).unwrap();
        let second = run.start(&mut sidecars, wanted(&run.source, PORT));
        assert!(matches!(second, Err(SidecarError::Directory(_))));
        sidecars.end().await.unwrap();
    });
}

#[test]
fn each_of_several_has_a_link_of_its_own() {
    with_run(SERVES, async |run| {
        let mut sidecars = Sidecars::default();
        let mut addresses = Vec::new();
        for name in ["one", "other"] {
            let wanted = Wanted { name, ..wanted(&run.source, PORT) };
            addresses.push(run.start(&mut sidecars, wanted).unwrap().ready().await.unwrap());
        }
        assert_ne!(addresses[0], addresses[1]);
        sidecars.end().await.unwrap();
    });
}
