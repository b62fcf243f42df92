//! A second container of a run: it serves the task by a link of their own, and goes with the run, whatever becomes of
//! its worker.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use docker_worker::cleanup::{Claims, clean_up};
use docker_worker::config::{Config, ConfigFile};
use docker_worker::container::bundle::{Bundle, Files, Names};
use docker_worker::container::exec::Exec;
use docker_worker::container::{Container, ContainerError, Created};
use docker_worker::directories::Directories;
use docker_worker::host::{self, Facts, Host};
use docker_worker::net::names::Alias;
use docker_worker::net::sidecar::link_containers;
use docker_worker::net::{Network, NetworkSettings, TaskNetwork};
use docker_worker::parent_group;
use docker_worker::run_directory::{Beginning, ContainerDirectory, RunDirectory, random_id};
use docker_worker::spec::{self, ContainerRequest, Limits, NetworkChoice, Profile, ResolvedUser, SocketCall};
use images::image::ImageConfig;
use runtime::id::ContainerId;
use runtime::launch::{Ended, LaunchExec};
use rustix::event::{Timespec, poll};
use rustix::process::{Signal, kill_process};

use crate::support::{Internet, Scratch, groups_named, runtime_executable};

mod sidecar;

const LIMIT: Duration = Duration::from_secs(60);

/// What the sidecar says to whoever connects.
const GREETING: &str = "greetings from beside";

/// One run of a worker whose part the test plays.
struct Fixture {
    internet: Internet,
    scratch: Scratch,
    directories: Directories,
    network: Arc<Network>,
    run: RunDirectory,
    task_id: ContainerId,
    host: Host,
}

/// A container that is being started or runs.
struct Started {
    container: Container,
    created: Created,
    directory: ContainerDirectory,
}

impl Fixture {
    fn new() -> Fixture {
        let scratch = Scratch::new();
        let (data, run) = (scratch.join("data"), scratch.join("run"));
        let directories = Directories { data, run, volume_caches: None };
        let network = Arc::new(Network::new(&directories, &NetworkSettings::default()));
        let task_id = random_id().unwrap();
        let run =
            RunDirectory::create(&Beginning::of_a_run(&directories, &|| true).unwrap(), &task_id).unwrap();
        let file = ConfigFile::default();
        let facts = Facts::gather(&Config { directories: directories.clone(), file });
        let host = Host {
            runtime: runtime_executable(),
            ..host::part(&facts, Limits::default(), SocketCall::Absent)
        };
        Fixture { internet: Internet::new(), scratch, directories, network, run, task_id, host }
    }

    fn attach(&self, id: &ContainerId, directory: &ContainerDirectory) -> TaskNetwork {
        let attach = || self.network.attach(id, &directory.network(), &|| true).unwrap();
        self.internet.host.within(attach)
    }

    /// Starts busybox with a script.
    async fn start(&self, what: Wanted<'_>) -> Started {
        let Wanted { id, directory, network, profile, script, aliases, output } = what;
        let bin = directory.bundle().join("rootfs/bin");
        fs::create_dir_all(&bin).unwrap();
        fs::copy("/bin/busybox", bin.join("busybox")).unwrap();
        let hostname = spec::hostname(id);
        let mut files = Files::default();
        let names = Names { hostname: &hostname, address: Some(network.address()), aliases, resolvers: None };
        let command = ["/bin/busybox", "sh", "-c", script].map(str::to_owned);
        let (image, limits) = (ImageConfig::default(), Limits::default());
        let user = ResolvedUser { uid: 0, gid: 0, additional_gids: Vec::new(), home: "/".to_owned() };
        let request = ContainerRequest {
            id,
            profile,
            image: &image,
            user: &user,
            command: &command,
            environment: Vec::new(),
            binds: names.provide(directory, &mut files),
            devices: Vec::new(),
            capabilities: Vec::new(),
            network: NetworkChoice::Prepared,
            limits: &limits,
            ceilings: &self.host.ceilings,
            processors: self.host.processors,
            socketcall: SocketCall::Absent,
            apparmor: None,
        };
        let bundle = Bundle {
            runtime: &self.host.runtime,
            directory,
            request,
            root: None,
            network: Some(network.namespace()),
            scheduling: None,
            output,
        };
        let launch = bundle.prepare(&mut files).unwrap();
        files.write().unwrap();
        let mut container = Container::launch(launch).unwrap();
        let created = container.started(None).await.unwrap();
        Started { container, created, directory: directory.clone() }
    }

    /// Nothing may be left of these containers and of what they were linked by.
    fn assert_nothing_left(&self, ids: &[&ContainerId]) {
        let names: Vec<String> = ids.iter().map(|id| id.as_str().to_owned()).collect();
        assert_eq!(groups_named(&names), Vec::<std::path::PathBuf>::new());
        // A worker does so when a run is over.
        parent_group::remove().unwrap();
        assert_eq!(self.scratch.traces(), Vec::<String>::new());
        self.internet.assert_as_before();
    }
}

/// One container of the test's.
struct Wanted<'a> {
    id: &'a ContainerId,
    directory: &'a ContainerDirectory,
    network: &'a TaskNetwork,
    profile: Profile,
    script: &'a str,
    aliases: &'a [Alias],
    output: Option<OwnedFd>,
}

/// Both containers of a run, linked. The sidecar greets whoever connects; the task does as `script` says.
async fn start_both(fixture: &Fixture, script: &str) -> ([Started; 2], [TaskNetwork; 2], ContainerId) {
    let (task, sidecar) = (fixture.run.task(), fixture.run.add_container("sidecar").unwrap());
    let sidecar_id = random_id().unwrap();
    let networks = [fixture.attach(&fixture.task_id, task), fixture.attach(&sidecar_id, &sidecar)];
    let namespaces = networks.each_ref().map(TaskNetwork::namespace);
    let [_, address] = fixture.internet.host.within(|| link_containers(namespaces, 0)).unwrap();
    let [of_task, of_sidecar] = &networks;
    let greets = format!("echo up; while :; do echo {GREETING} | busybox nc -l -p 80; done");
    let serves = Wanted {
        id: &sidecar_id,
        directory: &sidecar,
        network: of_sidecar,
        profile: Profile::Sidecar,
        script: &greets.replace("busybox", "/bin/busybox"),
        aliases: &[],
        output: Some(File::create(fixture.scratch.join("output")).unwrap().into()),
    };
    let serves = fixture.start(serves).await;
    let aliases = [Alias { name: "sidecar".to_owned(), address }];
    let asks = Wanted {
        id: &fixture.task_id,
        directory: task,
        network: of_task,
        profile: Profile::Task,
        script,
        aliases: &aliases,
        output: None,
    };
    let asks = fixture.start(asks).await;
    ([asks, serves], networks, sidecar_id)
}

#[tokio::test]
async fn a_second_container_serves_the_task_by_its_name_and_goes_with_the_run() {
    let fixture = Fixture::new();
    let script = "/bin/busybox timeout 20 /bin/busybox sh -c \
                  'until /bin/busybox nc sidecar 80 </dev/null; do /bin/busybox sleep 0.1; done'";
    let ([mut asks, mut serves], networks, sidecar_id) = start_both(&fixture, script).await;
    let exited = asks.container.exited().await.unwrap();
    let mut said = String::new();
    // A pty whose last process is gone ends with an error.
    File::from(asks.created.terminal.take().unwrap()).read_to_string(&mut said).unwrap_err();
    assert_eq!((exited.status, said.as_str()), (0, format!("{GREETING}\r\n").as_str()));
    assert!(serves.created.terminal.is_none());
    assert_eq!(fs::read_to_string(fixture.scratch.join("output")).unwrap(), "up\n");
    // The task's end is not the sidecar's; that is its own.
    for ended in [&mut asks, &mut serves] {
        ended.container.end(ended.directory.runtime_state()).await.unwrap();
    }
    let ids = [fixture.task_id.clone(), sidecar_id];
    drop([asks, serves]);
    for network in networks {
        let record = fixture.scratch.join("released");
        fixture.internet.host.within(|| fixture.network.release(Some(network), &record)).unwrap();
    }
    fixture.assert_nothing_left(&ids.each_ref());
    let Fixture { run, scratch: _scratch, internet: _internet, .. } = fixture;
    run.remove().unwrap();
}

#[tokio::test]
async fn both_containers_of_a_run_are_undone_after_their_worker_and_their_monitors_were_killed() {
    let fixture = Fixture::new();
    let (both, networks, sidecar_id) = start_both(&fixture, "/bin/busybox sleep 1000").await;
    // With their monitors the kernel ends the commands; the rest is for the clean-up.
    for process in fixture.scratch.processes() {
        kill_process(process, Signal::KILL).unwrap();
    }
    fixture.scratch.await_processes(LIMIT);
    // With the worker its descriptors and locks go; nobody has removed anything.
    drop((both, networks));
    let Fixture { internet, scratch, directories, network, run, task_id, .. } = fixture;
    drop((network, run));
    // What another test of this process starts has copies of the locks until it executes.
    let began = Instant::now();
    let swept = loop {
        let swept = internet.host.within(|| clean_up(&directories, Claims::Forget)).unwrap().sweep;
        if swept.alive.is_empty() || began.elapsed() > LIMIT {
            break swept;
        }
        poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: 10_000_000 })).unwrap();
    };
    assert_eq!((swept.removed.as_slice(), swept.failed.len()), ([task_id.as_str().to_owned()].as_slice(), 0));
    let names = [&task_id, &sidecar_id].map(|id| id.as_str().to_owned());
    assert_eq!(groups_named(&names), Vec::<std::path::PathBuf>::new());
    assert_eq!(scratch.traces(), Vec::<String>::new());
    assert!(!directories.run.join(task_id.as_str()).exists());
    internet.assert_as_before();
}

#[tokio::test]
async fn a_further_process_enters_a_container_of_the_run_and_ends_with_who_holds_it_or_with_the_container() {
    let fixture = Fixture::new();
    let (both, networks, sidecar_id) = start_both(&fixture, "/bin/busybox sleep 1000").await;
    let [mut task, mut sidecar] = both;
    let enter = |started: &Started, id: &ContainerId, script: &str| {
        let process = serde_json::json!({
            "terminal": true, "args": ["/bin/busybox", "sh", "-c", script], "cwd": "/",
            "user": { "uid": 0, "gid": 0 },
        });
        let what = LaunchExec {
            executable: runtime_executable(),
            state_root: started.directory.runtime_state(),
            id: id.clone(),
            process: process.to_string().into_bytes(),
            streams: [None, None, None],
            log: None,
        };
        Exec::launch(what).unwrap()
    };
    // It is where the task is: beside the sidecar, whose name it knows.
    let mut asks = enter(&task, &fixture.task_id, "/bin/busybox nc sidecar 80 </dev/null; exit 4");
    let mut terminal = File::from(asks.started().await.unwrap().terminal.unwrap());
    assert_eq!(asks.exited().await.unwrap(), Ended::Exited(4));
    let mut said = String::new();
    terminal.read_to_string(&mut said).unwrap_err();
    assert_eq!(said, format!("{GREETING}\r\n"));
    asks.end().await.unwrap();

    let stays = "trap '' HUP TERM; while :; do /bin/busybox sleep 1; done";
    let mut held = enter(&task, &fixture.task_id, stays);
    let process = held.started().await.unwrap().process;
    held.end().await.unwrap();
    assert!(rustix::process::pidfd_send_signal(&process, Signal::KILL).is_err(), "it has ended");

    let mut outlived = enter(&sidecar, &sidecar_id, stays);
    // Without its terminal's other end it would be hung up on.
    let _entered = outlived.started().await.unwrap();
    sidecar.created.kill().unwrap();
    assert_eq!(outlived.exited().await.unwrap(), Ended::Signaled(9));
    outlived.end().await.unwrap();
    let mut late = enter(&sidecar, &sidecar_id, "true");
    assert!(matches!(late.started().await, Err(ContainerError::Failed(_))));
    late.end().await.unwrap();

    for ended in [&mut task, &mut sidecar] {
        ended.container.end(ended.directory.runtime_state()).await.unwrap();
    }
    drop([task, sidecar]);
    for network in networks {
        let record = fixture.scratch.join("released");
        fixture.internet.host.within(|| fixture.network.release(Some(network), &record)).unwrap();
    }
    fixture.assert_nothing_left(&[&fixture.task_id, &sidecar_id]);
    let Fixture { run, scratch: _scratch, internet: _internet, .. } = fixture;
    run.remove().unwrap();
}
