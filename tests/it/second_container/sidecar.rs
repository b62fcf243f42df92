//! The worker's own way to a container beside a task's: made from an image, waited for, and taken back wherever it is.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use docker_worker::container::ContainerError;
use docker_worker::net::TaskNetwork;
use docker_worker::net::names::Alias;
use docker_worker::sidecar::{NotReady, Place, Readiness, Sidecar, SidecarError, Wanted};
use docker_worker::spec::{Profile, SocketCall};
use images::registry::Access;
use images::source::Source;
use images::store::{Lease, PullOptions, Store};
use nix::sched::{CloneFlags, unshare};
use rustix::mount::{MountPropagationFlags, mount_change};
use serde_json::json;

use super::{Fixture, GREETING};
use crate::support::busybox_image;

const PORT: Readiness = Readiness::Port { port: 80, limit: Duration::from_secs(30) };

/// Greets whoever connects.
const SERVES: &str = "echo up as $WHO; while :; do echo $GREETING | nc -l -p 80; done";

fn wanted(readiness: Readiness) -> Wanted {
    Wanted {
        name: "sidecar",
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
}

impl Run {
    fn of(script: &str) -> Run {
        let fixture = Fixture::new();
        let image = busybox_image()
            .set("Cmd", json!(["/bin/sh", "-c", script]))
            .set("Env", json!(["PATH=/bin", "WHO=nobody", format!("GREETING={GREETING}")]));
        let source = Source::parse(&image.write_oci(&fixture.scratch.join("image")).source).unwrap();
        let store = Store::open(&fixture.scratch.join("data/images")).unwrap();
        let network = fixture.attach(&fixture.task_id, fixture.run.task());
        Run { fixture, network, store, source }
    }

    async fn lease(&self, source: &Source) -> Lease {
        self.store.pull(source, &PullOptions::new(Access::default()), &|_| {}).await.unwrap()
    }

    fn place(&self) -> Place<'_> {
        Place {
            run: &self.fixture.run,
            store: &self.store,
            host: &self.fixture.host,
            limits: &self.fixture.host.limits,
            socketcall: SocketCall::Absent,
            apparmor: None,
            network: &self.fixture.network,
            task: &self.network,
            number: 0,
        }
    }

    async fn start(&self, readiness: Readiness) -> Sidecar {
        self.start_from(&self.source, readiness).await
    }

    async fn start_from(&self, source: &Source, readiness: Readiness) -> Sidecar {
        Sidecar::start(&self.place(), self.lease(source).await, wanted(readiness)).unwrap()
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
        let mut sidecar = run.start(PORT).await;
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
        sidecar.end().await.unwrap();
        task.container.end(task.directory.runtime_state()).await.unwrap();
    });
}

#[test]
fn one_that_does_not_serve_says_why_and_what_it_printed_last() {
    with_run("echo no license for $WHO >&2; exit 7", async |run| {
        let mut sidecar = run.start(PORT).await;
        let error = sidecar.ready().await.unwrap_err();
        assert!(matches!(&error, SidecarError::NotReady(NotReady::Ended { status: 7, .. })), "{error:?}");
        assert_eq!(error.to_string(), "wait for port 80: the command ended before, with status 7");
        assert_eq!(sidecar.last_words(), ["no license for the sidecar"]);
        sidecar.end().await.unwrap();
    });
    with_run("exec sleep 1000", async |run| {
        let mut sidecar = run.start(Readiness::Port { port: 80, limit: Duration::from_millis(300) }).await;
        let error = sidecar.ready().await.unwrap_err();
        assert_eq!(error.to_string(), "wait for port 80: it is not there after 0.3 s");
        sidecar.end().await.unwrap();
    });
    with_run("#!/bin/nonesuch", async |run| {
        let image = busybox_image().set("Cmd", json!(["/bin/nonesuch"]));
        let source = Source::parse(&image.write_oci(&run.fixture.scratch.join("other")).source).unwrap();
        let mut sidecar = run.start_from(&source, PORT).await;
        let error = sidecar.ready().await.unwrap_err();
        assert!(matches!(&error, SidecarError::Container(ContainerError::Failed(_))), "{error:?}");
        sidecar.end().await.unwrap();
    });
}

#[test]
fn a_socket_is_waited_for_too_and_nothing_else_of_its_name() {
    with_run("exec sleep 1000", async |run| {
        let path = run.fixture.scratch.join("socket");
        fs::write(&path, "no socket").unwrap();
        let limit = Duration::from_millis(200);
        let mut sidecar = run.start(Readiness::Socket { path, limit }).await;
        let error = sidecar.ready().await.unwrap_err();
        assert!(matches!(error, SidecarError::NotReady(NotReady::TooSlow { .. })), "{error:?}");
        sidecar.end().await.unwrap();
    });
    with_run("exec sleep 1000", async |run| {
        let path = run.fixture.scratch.join("socket");
        let limit = Duration::from_secs(30);
        let mut sidecar = run.start(Readiness::Socket { path: path.clone(), limit }).await;
        let _listener = UnixListener::bind(path).unwrap();
        sidecar.ready().await.unwrap();
        sidecar.end().await.unwrap();
    });
}

/// A hook is dropped where it waits: at every point of the making.
#[test]
fn wherever_its_making_is_when_the_run_ends_nothing_of_it_stays() {
    for milliseconds in [0, 2, 5, 10, 20, 30, 40, 60, 80, 120] {
        with_run("exec sleep 1000", async |run| {
            let mut sidecar = run.start(PORT).await;
            let waited = tokio::time::timeout(Duration::from_millis(milliseconds), sidecar.ready()).await;
            assert!(waited.is_err(), "{waited:?}");
            sidecar.end().await.unwrap();
        });
    }
}

#[test]
fn a_second_one_of_the_same_name_is_refused() {
    with_run(SERVES, async |run| {
        let mut sidecar = run.start(PORT).await;
        let (place, lease) = (run.place(), run.lease(&run.source).await);
        let second = Sidecar::start(&place, lease, wanted(PORT));
        assert!(matches!(second, Err(SidecarError::Directory(_))));
        sidecar.ready().await.unwrap();
        sidecar.end().await.unwrap();
    });
}
