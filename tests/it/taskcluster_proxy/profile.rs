//! What the process is that serves all tasks of a worker, what it can do, and who reaches it.

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use docker_worker::spec::{
    Bind, BindSource, ContainerRequest, Limits, NetworkChoice, Profile, ResolvedUser, RlimitCeilings,
    SocketCall, write_spec,
};
use images::image::ImageConfig;
use runtime::id::ContainerId;
use serde_json::{Value, json};

use super::{AWAIT_RELEASE, completed, definition, group_of, of, proxy_of, waiting_definition};
use crate::support::{
    Deployment, Internet, OUTSIDE, Scratch, Site, Terms, WatchedRegistry, Worker, answer_one, busybox_image,
    compiled_probe, finish, groups_named, runtime_executable,
};

#[test]
fn s59_who_serves_tasks_is_nobody_and_credentials_are_where_nobody_looks() {
    let site = Site::new();
    let worker = site.start(&json!({}));
    let script = format!("get /api/queue/v1/ping; echo first; cat /proc/*/environ; {AWAIT_RELEASE}");
    let task = site.deployment.create_task(waiting_definition(&site, &script));
    site.deployment.await_printed(&task, "first");
    let proxy = proxy_of(&site.worker);
    let status = of(proxy, "status");
    // Its group is its run directory's own; the rules that confine it go by both.
    let group = group_of(proxy);
    assert!((0x7000_0000..0x7100_0000).contains(&group), "{group}");
    let none = "0000000000000000";
    for line in [
        "Uid:\t65533\t65533\t65533\t65533".to_owned(),
        format!("Gid:\t{group}\t{group}\t{group}\t{group}"),
        format!("Groups:\t{group} "),
        format!("CapInh:\t{none}\nCapPrm:\t{none}\nCapEff:\t{none}\nCapBnd:\t{none}\nCapAmb:\t{none}"),
        "NoNewPrivs:\t1".to_owned(),
        "Seccomp:\t2".to_owned(),
    ] {
        assert!(status.contains(&line), "{line}: {status}");
    }
    let limits = of(proxy, "limits");
    let limits: Vec<Vec<&str>> = limits.lines().map(|line| line.split_whitespace().collect()).collect();
    for expected in
        [["Max", "core", "file", "size", "0", "0"], ["Max", "open", "files", "16384", "16384", "files"]]
    {
        assert!(limits.iter().any(|limit| limit.starts_with(&expected)), "{expected:?}: {limits:?}");
    }
    assert_eq!(of(proxy, "environ"), "SSL_CERT_FILE=/etc/certificates.pem\0HOME=/\0");
    // Its container has the bounds that it is to have, wherever this host counts memory.
    let bounds = groups_named(&site.worker.containers()).into_iter().filter_map(|group| {
        let limit = ["memory.max", "memory.limit_in_bytes"].map(|file| fs::read_to_string(group.join(file)));
        limit.into_iter().find_map(Result::ok)
    });
    assert!(bounds.into_iter().any(|bound| bound.trim() == (256 << 20).to_string()));
    // It sees a program, what that is linked with, and nothing of the worker's.
    let root = format!("/proc/{}/root", proxy.as_raw_nonzero());
    let mut seen: Vec<String> =
        fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    seen.retain(|name| !["lib", "lib64"].contains(&name.as_str()));
    seen.sort();
    assert_eq!(seen, ["dev", "docker-worker", "etc", "proc", "usr"]);
    let mounts = of(proxy, "mountinfo");
    let is_open = |line: &&str| !line.contains(" ro,") && !line.contains(" /proc");
    assert_eq!(mounts.lines().filter(is_open).collect::<Vec<_>>(), Vec::<&str>::new());
    // Who is not its owner may not look into it, nor may others of the same name.
    assert_eq!(fs::metadata(format!("/proc/{}/mem", proxy.as_raw_nonzero())).map(owner).unwrap(), 0);
    let secret = token(&site.worker.run_directory().join("claims"));
    for entry in fs::read_dir("/proc").unwrap() {
        let path = entry.unwrap().path();
        for file in ["cmdline", "environ"] {
            let bytes = fs::read(path.join(file)).unwrap_or_default();
            assert!(!String::from_utf8_lossy(&bytes).contains(&secret), "{} {file}", path.display());
        }
    }
    site.release();
    let log = completed(&site, &task);
    assert!(!log.contains(&secret), "{log}");
    let ended = worker.stop();
    assert!(!ended.log.contains(&secret), "{ended:?}");
}

fn owner(file: fs::Metadata) -> u32 {
    use std::os::unix::fs::MetadataExt;
    file.uid()
}

/// What the one running task's requests are signed with.
fn token(claims: &Path) -> String {
    let files = fs::read_dir(claims).unwrap().map(|entry| fs::read_to_string(entry.unwrap().path()));
    let claim = files.map(Result::unwrap).find(|text| text.contains("accessToken")).unwrap();
    let (_, rest) = claim.split_once("\"accessToken\":\"").unwrap();
    rest.split('"').next().unwrap().to_owned()
}

#[test]
fn a_host_process_does_not_reach_a_tasks_proxy() {
    let site = Site::new();
    let worker = site.start(&json!({}));
    let script = format!("get /api/queue/v1/ping; echo first; {AWAIT_RELEASE}");
    let task = site.deployment.create_task(waiting_definition(&site, &script));
    site.deployment.await_printed(&task, "first");
    let asked = site.deployment.wire.asked("/ping");
    let mut curl = site.internet.host.command("setpriv");
    curl.args(["--reuid=65534", "--regid=65534", "--clear-groups", "curl", "--silent", "--max-time", "2"]);
    let answered = curl.arg("http://169.254.1.1/api/queue/v1/ping").output().unwrap();
    assert_eq!((answered.status.code(), answered.stdout.len()), (Some(28), 0), "{answered:?}");
    assert_eq!(site.deployment.wire.asked("/ping"), asked);
    site.release();
    completed(&site, &task);
    worker.stop();
}

/// Gives a worker's mount namespace a resolver of its own.
const WITH_RESOLVER: &str = r#"file=$(realpath -m /etc/resolv.conf)
[ -e "$file" ] || touch "$file"
mount --bind "$0/resolv.conf" "$file""#;

#[test]
fn the_proxy_finds_names_by_the_hosts_resolver() {
    let internet = Internet::new();
    let resolver = internet.outside.receive(&format!("{OUTSIDE}:53"));
    let serving = std::thread::spawn(move || {
        // A and AAAA.
        for _ in 0..2 {
            answer_one(&resolver, [10, 0, 0, 1]);
        }
    });
    let scratch = tempfile::tempdir().unwrap();
    fs::write(scratch.path().join("resolv.conf"), format!("nameserver {OUTSIDE}\n")).unwrap();
    let deployment = Deployment::start_on(&internet, Terms::default());
    let worker = Worker::on_changed(&internet, WITH_RESOLVER, scratch.path().to_str().unwrap());
    let registry = WatchedRegistry::serve_on(&internet, &worker.image(&busybox_image()));
    let site = Site { deployment, worker, image: registry.name.clone(), registry, internet };
    let worker = site.start(&json!({}));
    let asks = "ask 'GET /some.example.test/x' ''";
    let log = completed(&site, &site.deployment.create_task(definition(&site, asks, &[])));
    // It was found, and is not for tasks.
    assert!(log.contains("HTTP/1.1 403") && log.contains("connect to some.example.test: "), "{log}");
    serving.join().unwrap();
    worker.stop();
}

/// A container like the proxy's, in which a probe runs in its place.
struct Confined {
    scratch: Scratch,
    id: ContainerId,
}

impl Confined {
    fn new() -> Confined {
        let scratch = Scratch::new();
        fs::create_dir(scratch.join("rootfs")).unwrap();
        Confined { scratch, id: docker_worker::run_directory::random_id().unwrap() }
    }

    /// What the probe says.
    fn probe(&self, command: &str, filter: Filter) -> String {
        let command: Vec<String> =
            ["/probe"].into_iter().chain(command.split(' ')).map(str::to_owned).collect();
        let user =
            ResolvedUser { uid: 65_533, gid: 65_533, additional_gids: Vec::new(), home: "/".to_owned() };
        let bind = Bind {
            source: compiled_probe(),
            destination: "/probe".to_owned(),
            kind: BindSource::ReadOnlyFile,
        };
        let request = ContainerRequest {
            id: &self.id,
            profile: Profile::Proxy,
            image: &ImageConfig::default(),
            user: &user,
            command: &command,
            environment: Vec::new(),
            binds: vec![bind],
            devices: Vec::new(),
            capabilities: Vec::new(),
            network: NetworkChoice::Host,
            limits: &Limits::default(),
            ceilings: &RlimitCeilings::default(),
            processors: 1,
            socketcall: SocketCall::Absent,
            apparmor: None,
        };
        let mut spec = serde_json::to_value(write_spec(request).unwrap()).unwrap();
        // Those of this host are none of the matter.
        spec["process"]["rlimits"] = json!([]);
        if filter == Filter::Left {
            spec["linux"]["seccomp"] = Value::Null;
        }
        fs::write(self.scratch.join("config.json"), spec.to_string()).unwrap();
        let mut run = Command::new(runtime_executable());
        run.arg("--root").arg(self.scratch.join("state"));
        run.args(["run", "--bundle", self.scratch.path().to_str().unwrap(), self.id.as_str()]);
        let child = run.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let finished = finish(child, Duration::from_secs(60));
        assert!(finished.status.success(), "{command:?}: {finished:?}");
        String::from_utf8_lossy(&finished.stdout).trim().to_owned()
    }
}

/// Whether the filter for system calls is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filter {
    Applied,
    /// It is left out: what is to be refused has to work without it.
    Left,
}

#[test]
fn in_the_hosts_network_the_proxy_reaches_no_abstract_socket_of_the_hosts() {
    let confined = Confined::new();
    let name = confined.scratch.name();
    let stream = UnixListener::bind_addr(&SocketAddr::from_abstract_name(name).unwrap()).unwrap();
    let datagrams = format!("{name}.datagrams");
    let datagram = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&datagrams).unwrap()).unwrap();
    datagram.set_nonblocking(true).unwrap();
    for (probe, filtered, unfiltered) in [
        (format!("abstract {name}"), "EPERM", "ok"),
        (format!("pair 2 {datagrams}"), "EPERM", "ok"),
        (format!("pair 5 {datagrams}"), "EPERM", "ok"),
        // The event loop has one of these, and nobody sends by it to anywhere else.
        (format!("pair 1 {datagrams}"), "EISCONN", "EISCONN"),
        ("call 41 16 3 0".to_owned(), "ok", "ok"), // socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE)
        ("call 41 16 3 4".to_owned(), "EPERM", "ok"), // … NETLINK_SOCK_DIAG
        ("call 41 2 0x80801 0".to_owned(), "ok", "ok"), // socket(AF_INET, SOCK_STREAM | …)
        ("call 41 10 2 0".to_owned(), "ok", "ok"), // socket(AF_INET6, SOCK_DGRAM)
    ] {
        assert_eq!(confined.probe(&probe, Filter::Applied), filtered, "{probe}");
        if probe.starts_with("pair 2") {
            assert!(datagram.recv(&mut [0; 1]).is_err(), "it has come");
        }
        assert_eq!(confined.probe(&probe, Filter::Left), unfiltered, "{probe}, without the filter");
    }
    assert!(datagram.recv(&mut [0; 1]).is_ok(), "without the filter it comes");
    drop(stream);
}
