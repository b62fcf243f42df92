//! A host and an internet of a test's own, made of network namespaces: nothing of this machine's network is touched.
//!
//! ```text
//!   task ═══ host: up0 192.0.2.2 ═══ up1 192.0.2.1 :outside
//!            203.0.113.5 (lo)                       198.51.100.7 (lo)
//! ```

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns, unshare};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::process::{finish, tool};

/// An address of the outside that everybody may reach.
pub const OUTSIDE: &str = "198.51.100.7";

/// The uplink's packets are smaller than usual, so that a test sees that a task knows.
const UPLINK_MTU: &str = "1400";

/// More than anything takes that a test waits for, on a machine that is busy with other tests.
const LIMIT: Duration = Duration::from_secs(180);

/// A network namespace. It goes with the value.
pub struct Namespace(OwnedFd);

impl Namespace {
    fn new() -> Namespace {
        let made = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            File::open("/proc/thread-self/ns/net").unwrap().into()
        });
        let namespace = Namespace(made.join().unwrap());
        namespace.tool("ip", &["link", "set", "lo", "up"]);
        namespace
    }

    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// The option by which `nsenter` enters.
    pub fn entrance(&self) -> String {
        format!("--net={}", self.path())
    }

    /// The command that runs `program` in here; arguments follow.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(self.entrance()).arg("--").arg(program);
        command
    }

    /// Runs a tool in here that has to succeed.
    pub fn tool(&self, program: &str, arguments: &[&str]) -> String {
        tool("nsenter", &[&[&self.entrance(), "--", program], arguments].concat())
    }

    /// Loads nftables rules.
    pub fn nft(&self, rules: &str) {
        let mut command = self.command("nft");
        let stdin = Stdio::piped();
        let mut child = command.args(["-f", "-"]).stdin(stdin).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
        let finished = finish(child, LIMIT);
        assert!(finished.status.success(), "{rules}: {finished:?}");
    }

    /// What `open` opens in here stays in here.
    pub fn within<T: Send>(&self, open: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
                open()
            });
            thread.join().unwrap()
        })
    }

    /// Listens on `address:port` in here.
    pub fn listen(&self, address: &str) -> Listener {
        Listener(self.within(|| TcpListener::bind(address).unwrap()))
    }

    /// Receives datagrams at `address:port` in here.
    pub fn receive(&self, address: &str) -> UdpSocket {
        let socket = self.within(|| UdpSocket::bind(address).unwrap());
        socket.set_nonblocking(true).unwrap();
        socket
    }

    /// A parameter of the namespace, below /proc/sys/net.
    pub fn parameter(&self, name: &str) -> String {
        self.within(|| std::fs::read_to_string(format!("/proc/sys/net/{name}")).unwrap().trim().to_owned())
    }
}

/// A TCP listener in a namespace.
pub struct Listener(TcpListener);

/// Somebody who has connected, sent `said`, and waits until this goes.
pub struct Visit {
    pub said: String,
    pub from: String,
    _stream: TcpStream,
}

impl Listener {
    /// Waits for somebody who connects and says something.
    pub fn visit(&self) -> Visit {
        await_readable(&self.0, "a visitor");
        let (mut stream, from) = self.0.accept().unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        Visit { said, from: from.ip().to_string(), _stream: stream }
    }

    /// Whether anybody has connected so far.
    pub fn was_visited(&self) -> bool {
        self.0.set_nonblocking(true).unwrap();
        self.0.accept().is_ok()
    }
}

/// Waits until a descriptor is readable; fails the test if that takes too long.
pub fn await_readable(descriptor: &impl AsFd, what: &str) {
    let limit = Timespec { tv_sec: LIMIT.as_secs().cast_signed(), tv_nsec: 0 };
    let ready = poll(&mut [PollFd::new(descriptor, PollFlags::IN)], Some(&limit)).unwrap();
    assert_eq!(ready, 1, "waited {LIMIT:?} for {what}");
}

/// The host, and the internet behind its uplink.
pub struct Internet {
    pub host: Namespace,
    pub outside: Namespace,
}

impl Internet {
    pub fn new() -> Internet {
        let internet = Internet { host: Namespace::new(), outside: Namespace::new() };
        let Internet { host, outside } = &internet;
        let ip = |namespace: &Namespace, line: &str| {
            namespace.tool("ip", &line.split(' ').collect::<Vec<_>>());
        };
        ip(
            host,
            &format!(
                "link add up0 mtu {UPLINK_MTU} type veth peer name up1 mtu {UPLINK_MTU} netns {}",
                outside.path()
            ),
        );
        ip(host, "address add 192.0.2.2/24 dev up0");
        ip(host, "address add 203.0.113.5/32 dev lo");
        ip(host, "link set up0 up");
        ip(outside, "address add 192.0.2.1/24 dev up1");
        ip(outside, &format!("address add {OUTSIDE}/32 dev lo"));
        ip(outside, "link set up1 up");
        ip(host, "route add default via 192.0.2.1");
        internet
    }

    /// What a worker could leave on the host: interfaces, routes, rules, forwarding.
    fn state(&self) -> String {
        let links = self.host.tool("ip", &["-o", "link"]);
        let names: Vec<&str> = links.lines().filter_map(|line| line.split(": ").nth(1)).collect();
        let routes = self.host.tool("ip", &["route"]);
        let rules = self.host.tool("nft", &["list", "ruleset"]);
        let forwarding = self.host.parameter("ipv4/ip_forward");
        format!("{names:?}\n{routes}{rules}ip_forward {forwarding}\n")
    }

    /// Fails the test unless the host becomes as it was before any worker: the kernel takes a moment to remove the links of
    /// a namespace that nobody holds any more.
    pub fn assert_as_before(&self) {
        let expected = format!("{:?}\n{}ip_forward 0\n", ["lo", "up0@if2"], ROUTES);
        let begun = Instant::now();
        while self.state() != expected && begun.elapsed() < LIMIT {
            std::thread::park_timeout(Duration::from_millis(5));
        }
        assert_eq!(self.state(), expected);
    }
}

const ROUTES: &str =
    "default via 192.0.2.1 dev up0 \n192.0.2.0/24 dev up0 proto kernel scope link src 192.0.2.2 \n";

/// Answers one question of the domain name system: for A with `address`, for anything else with nothing.
pub fn answer_one(resolver: &UdpSocket, address: [u8; 4]) {
    await_readable(resolver, "a question");
    let mut datagram = [0; 512];
    let (size, from) = resolver.recv_from(&mut datagram).unwrap();
    let mut answer = datagram[..size].to_vec();
    // A response, recursion available, no error; one question, and one answer for type A.
    let wants_address = answer[size - 4..size - 2] == [0, 1];
    answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(wants_address), 0, 0, 0, 0]);
    if wants_address {
        answer.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend(address);
    }
    resolver.send_to(&answer, from).unwrap();
}
