//! What serves one task alone: a listener at its gateway, a link between its container and another.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::time::Duration;

use docker_worker::directories::Directories;
use docker_worker::net::NetworkSettings;
use docker_worker::net::link::GATEWAY;
use docker_worker::net::sidecar::link_containers;
use docker_worker::net::{Network, TaskNetwork};
use docker_worker::run_directory::random_id;
use nix::sched::{CloneFlags, setns};

use crate::support::Internet;

/// Long enough for a connection on the same machine, short enough to wait for one that is dropped.
const CONNECTS_WITHIN: Duration = Duration::from_secs(1);

/// A worker's network in a host of the test's own.
struct Fixture {
    internet: Internet,
    scratch: tempfile::TempDir,
    directories: Directories,
    network: Network,
}

impl Fixture {
    fn new() -> Fixture {
        let scratch = tempfile::tempdir().unwrap();
        let directories = Directories {
            data: scratch.path().join("data"),
            run: scratch.path().join("run"),
            volume_caches: None,
        };
        std::fs::create_dir(&directories.run).unwrap();
        let network = Network::new(&directories, &NetworkSettings::default());
        Fixture { internet: Internet::new(), scratch, directories, network }
    }

    fn record(&self, task: &str) -> PathBuf {
        self.scratch.path().join(task)
    }

    fn attach(&self, task: &str) -> TaskNetwork {
        let attach = || self.network.attach(&random_id().unwrap(), &self.record(task), &|| true).unwrap();
        self.internet.host.within(attach)
    }

    /// Ends the tasks and the worker; nothing may be left.
    fn end(self, tasks: Vec<TaskNetwork>) {
        self.internet.host.within(|| {
            for task in tasks {
                self.network.release(Some(task), &self.record("released")).unwrap();
            }
        });
        self.internet.assert_as_before();
    }
}

/// Runs `work` in a task's namespace.
fn within<T: Send>(namespace: BorrowedFd<'_>, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        });
        thread.join().unwrap()
    })
}

/// Whether `address:port` takes a connection from the namespace, and then says hello.
fn greets(from: BorrowedFd<'_>, address: Ipv4Addr, port: u16) -> bool {
    within(from, || {
        let to = SocketAddrV4::new(address, port).into();
        let Ok(mut stream) = TcpStream::connect_timeout(&to, CONNECTS_WITHIN) else { return false };
        stream.set_read_timeout(Some(CONNECTS_WITHIN)).unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).is_ok() && said == "hello"
    })
}

/// Says hello to `visitors`, then closes.
fn greet(listener: TcpListener, visitors: usize) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        for _ in 0..visitors {
            listener.accept().unwrap().0.write_all(b"hello").unwrap();
        }
    })
}

#[test]
fn s49_a_listener_at_the_gateway_is_for_its_own_task_and_port_only() {
    let fixture = Fixture::new();
    let [mut task, other] = ["task", "other"].map(|name| fixture.attach(name));
    let elsewhere = fixture.internet.host.listen("0.0.0.0:81");
    let listen = || fixture.network.listen(&task.listening(80, &fixture.record("task"))).unwrap();
    let listener = fixture.internet.host.within(listen);
    let greeting = greet(listener, 1);
    assert!(greets(task.namespace(), GATEWAY, 80));
    greeting.join().unwrap();
    // Both tasks have such a listener at the same address, and each reaches its own.
    let mut tasks = [task, other];
    let listeners = tasks.each_mut().map(|task| {
        let listen = || fixture.network.listen(&task.listening(8080, &fixture.record("task"))).unwrap();
        fixture.internet.host.within(listen)
    });
    let [own, others] = listeners;
    let greeting = greet(own, 1);
    let [task, other] = &tasks;
    assert!(greets(task.namespace(), GATEWAY, 8080));
    greeting.join().unwrap();
    others.set_nonblocking(true).unwrap();
    assert!(others.accept().is_err(), "the other's listener heard of it");
    // What listens on the host, or for another task, does not answer.
    assert!(!greets(other.namespace(), GATEWAY, 80));
    assert!(!greets(task.namespace(), GATEWAY, 81));
    assert!(!elsewhere.was_visited());
    // Nor does a listener hear of the host's own processes, for whom the address is the host's.
    let from_host = fixture
        .internet
        .host
        .within(|| TcpStream::connect_timeout(&SocketAddrV4::new(GATEWAY, 8080).into(), CONNECTS_WITHIN));
    assert_eq!(from_host.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    assert!(others.accept().is_err(), "a listener heard of the host's own process");
    fixture.end(tasks.into());
}

#[test]
fn a_link_between_two_containers_is_theirs_alone() {
    let fixture = Fixture::new();
    let [task, sidecar, third] = ["task", "sidecar", "third"].map(|name| fixture.attach(name));
    let link = |number| {
        let containers = [task.namespace(), sidecar.namespace()];
        fixture.internet.host.within(|| link_containers(containers, number))
    };
    let [own, alias] = link(0).unwrap();
    assert_eq!([own, alias], [Ipv4Addr::new(169, 254, 2, 0), Ipv4Addr::new(169, 254, 2, 1)]);
    let listener = within(sidecar.namespace(), || TcpListener::bind("0.0.0.0:80").unwrap());
    let greeting = greet(listener, 1);
    assert!(greets(task.namespace(), alias, 80));
    greeting.join().unwrap();
    let listener = within(sidecar.namespace(), || TcpListener::bind("0.0.0.0:80").unwrap());
    assert!(!greets(third.namespace(), alias, 80));
    assert!(!greets(task.namespace(), sidecar.address(), 80), "by its address on the host's side");
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err());
    drop(listener); // It would hold the namespace.
    assert!(link(0).is_err(), "the same number again");
    assert_eq!(link(1).unwrap()[1], Ipv4Addr::new(169, 254, 2, 3));
    fixture.end(vec![task, sidecar, third]);
}

#[test]
fn of_two_workers_with_one_run_directory_each_forgets_its_own_task_and_the_last_one_removes_the_tables() {
    let fixture = Fixture::new();
    let Fixture { internet, directories, network, .. } = &fixture;
    let rules = || internet.host.tool("nft", &["--stateless", "list", "ruleset"]);
    let elements = |link: &str| rules().matches(link).count();
    let other = Network::new(directories, &NetworkSettings::default());
    let first = fixture.attach("first");
    let [one_task, link] = [rules(), first.link().to_owned()];
    let second = internet
        .host
        .within(|| other.attach(&random_id().unwrap(), &fixture.record("second"), &|| true).unwrap());
    // Its address's element, its frames', its chain, and that chain's interface.
    assert_eq!([elements(&link), elements(second.link())], [4, 4], "{}", rules());
    // The one that made the tables goes, and the other task keeps what it has.
    internet.host.within(|| network.release(Some(first), &fixture.record("first")).unwrap());
    assert_eq!([elements(&link), elements(second.link())], [0, 4], "{}", rules());
    assert_eq!(rules().lines().count(), one_task.lines().count(), "{}", rules());
    assert_eq!(internet.host.parameter("ipv4/ip_forward"), "1");
    internet.host.within(|| other.release(Some(second), &fixture.record("second")).unwrap());
    internet.assert_as_before();
}
