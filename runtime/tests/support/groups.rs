//! Control groups of the running kernel: the same claims for v1 (on the host) and v2 (in the guest).
use crate::probe::{Probe, line};
use runtime::cgroup::{self, CgroupError, Counters, Hierarchies, Joined, OpenGroup, Version};
use runtime::journal::{Journal, Keeper};
use runtime::undo::undo_all;
use serde_json::{Value, json};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// The groups of one container, with a journal that takes them back.
pub struct Container {
    probe: Probe,
    /// The cgroups path of the group above it: one for each test.
    parent: PathBuf,
    pub groups: Vec<OpenGroup>,
    journal: Journal,
}

fn hierarchies() -> Hierarchies {
    let text = |path| std::fs::read_to_string(path).unwrap();
    Hierarchies::parse(&text("/proc/self/mountinfo"), &text("/proc/self/cgroup")).unwrap()
}

impl Container {
    /// Creates the groups for `resources`, below a parent of the test's own.
    pub fn create(resources: &Value) -> Self {
        Self::try_create(resources).unwrap_or_else(|error| panic!("{resources}: {error:?}"))
    }

    /// The same for a test that expects a refusal.
    pub fn try_create(resources: &Value) -> Result<Self, CgroupError> {
        let probe = Probe::build();
        let name = probe.directory().file_name().unwrap();
        let parent = Path::new("/").join(name);
        Self::create_below(probe, &parent, resources)
    }

    fn create_below(probe: Probe, parent: &Path, resources: &Value) -> Result<Self, CgroupError> {
        let resources = runtime::spec::read(resources).unwrap();
        let plan =
            cgroup::plan(&hierarchies(), &parent.join("container"), &resources, Joined::Needed).unwrap();
        let place = std::fs::File::open(probe.directory()).unwrap();
        let mut journal = Journal::create(place.as_fd(), probe.directory(), Keeper::Caller).unwrap();
        let result = plan.groups.iter().map(|group| {
            let mut open = cgroup::create(group, &mut journal)?;
            group.settings.iter().try_for_each(|setting| open.apply(setting))?;
            plan.device_program.iter().try_for_each(|policy| open.attach_devices(policy))?;
            Ok(open)
        });
        match result.collect() {
            Ok(groups) => Ok(Self { probe, parent: parent.to_owned(), groups, journal }),
            Err(error) => {
                undo_all(&journal).unwrap();
                Err(error)
            }
        }
    }

    /// A command that joins the groups and then becomes the probe.
    pub fn command(&self, words: &str) -> Command {
        let join = "while [ \"$1\" != -- ]; do echo 0 >\"$1\" || exit; shift; done; shift; exec \"$@\"";
        let mut command = Command::new("sh");
        command.args(["-c", join, "sh"]);
        command.args(self.groups.iter().map(|open| open.group.directory().join("cgroup.procs")));
        command.arg("--").arg(self.probe.path()).args(words.split_ascii_whitespace());
        command
    }

    pub fn run(&self, words: &str) -> Output {
        self.command(words).output().unwrap()
    }

    pub fn directories(&self) -> Vec<PathBuf> {
        self.groups.iter().map(|open| open.group.directory()).collect()
    }

    pub fn undo(self) {
        drop(self);
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        undo_all(&self.journal).unwrap();
    }
}

#[test]
fn a_pids_limit_stops_a_fork_bomb() {
    let container = Container::create(&json!({ "pids": { "limit": 8 } }));
    assert_eq!(line(&container.run("forks 20")), "7 EAGAIN");
}

#[test]
fn a_memory_limit_ends_who_passes_it() {
    let container = Container::create(&json!({ "memory": { "limit": 32 << 20 } }));
    assert_eq!(line(&container.run("touch 16")), "ok");
    assert_eq!(container.run("touch 64").status.signal(), Some(9));
    let Counters { memory_peak_bytes, oom_kills, .. } = cgroup::counters(&container.groups);
    assert_eq!(oom_kills, Some(1));
    assert!(
        memory_peak_bytes.is_some_and(|peak| peak > 16 << 20 && peak <= 32 << 20),
        "{memory_peak_bytes:?}"
    );
}

#[test]
fn cpu_limits_are_as_the_spec_says() {
    let container =
        Container::create(&json!({ "cpu": { "shares": 512, "quota": 20000, "period": 50000, "cpus": "0" } }));
    let (v1, v2): (&[_], &[_]) = (
        &[
            ("cpu.shares", "512"),
            ("cpu.cfs_quota_us", "20000"),
            ("cpu.cfs_period_us", "50000"),
            ("cpuset.cpus", "0"),
        ],
        &[("cpu.weight", "20"), ("cpu.max", "20000 50000"), ("cpuset.cpus", "0")],
    );
    let version = container.groups[0].group.version;
    for (file, value) in if version == Version::V1 { v1 } else { v2 } {
        let mut candidates = container.directories().into_iter().map(|directory| directory.join(file));
        let path = candidates.find(|path| path.exists()).unwrap_or_else(|| panic!("{file}"));
        assert_eq!(std::fs::read_to_string(path).unwrap().trim(), *value, "{file}");
    }
    assert_eq!(line(&container.run("open /dev/null")), "ok"); // Also with a cpuset a process can join.
}

#[test]
fn only_listed_devices_open() {
    let rules = json!([{ "allow": false, "access": "rwm" }, { "allow": true, "type": "c", "major": 1, "minor": 11, "access": "r" }]);
    let container = Container::create(&json!({ "devices": rules }));
    for (words, expected) in [
        ("mknod null c 1 3", "open ok"),
        ("mknod disk b 8 0", "open EPERM"),
        ("mknod mem c 1 1", "open EPERM"),
        ("open /dev/kmsg r", "ok"),
        ("open /dev/kmsg w", "EPERM"),
        ("open /dev/zero rw", "ok"),
    ] {
        let output = container.command(words).current_dir(container.probe.directory()).output().unwrap();
        assert_eq!(line(&output), expected, "{words}");
    }
}

#[test]
fn undoing_ends_what_runs_and_leaves_other_containers() {
    let one = Container::create(&json!({ "pids": { "limit": 100 } }));
    let mut children: Vec<_> = (0..20).map(|_| start(&one, "wait")).collect();
    let other = Container::create_below(Probe::build(), &one.parent.join("deeper"), &json!({})).unwrap();
    let (kept, gone) = (one.directories(), other.directories());
    other.undo();
    assert!(gone.iter().all(|directory| !directory.exists()), "{gone:?}");
    assert!(kept.iter().all(|directory| directory.exists()), "{kept:?}");

    one.undo();
    for child in &mut children {
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    }
    for parent in kept.iter().map(|directory| directory.parent().unwrap()) {
        assert!(!parent.exists(), "{parent:?}");
    }
}

#[test]
fn a_fork_bomb_does_not_outrun_its_removal() {
    let container = Container::create(&json!({ "pids": { "limit": 40 } }));
    let mut child = start(&container, "bomb");
    let directories = container.directories();
    container.undo();
    assert!(directories.iter().all(|directory| !directory.exists()), "{directories:?}");
    assert_eq!(child.wait().unwrap().signal(), Some(9));
}

/// A process that is in the groups when this returns, and does not end.
fn start(container: &Container, words: &str) -> Child {
    let mut child = container.command(words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; "waiting\n".len()]).unwrap();
    child
}

/// The refusal of a second container at the path of the first one, whose attempt is then undone.
fn refused(first: &Container) -> String {
    let second = Container::create_below(Probe::build(), &first.parent, &json!({}));
    second.err().expect("there is one of that name").to_string()
}

#[test]
fn a_group_that_exists_is_refused_and_nobody_in_it_or_below_is_touched() {
    for (filling, place, occupied) in [
        ("nothing", "", false),
        ("an empty group below", "below", false),
        ("a process", "", true),
        ("a process in a group below", "below", true),
    ] {
        let first = Container::create(&json!({}));
        let mut stranger = Command::new("sleep").arg("1000").spawn().unwrap();
        let places: Vec<_> = first.directories().iter().map(|group| group.join(place)).collect();
        for group in &places {
            std::fs::create_dir_all(group).unwrap();
            if occupied {
                std::fs::write(group.join("cgroup.procs"), stranger.id().to_string()).unwrap();
            }
        }
        let text = refused(&first);
        assert!(text.contains("give each container a cgroupsPath of its own"), "{filling}: {text}");
        assert!(places.iter().all(|group| group.exists()), "{filling}");
        assert!(stranger.try_wait().unwrap().is_none(), "{filling}: the stranger was killed");
        stranger.kill().unwrap();
        stranger.wait().unwrap();
    }
}

#[test]
fn of_two_starts_with_one_group_only_one_gets_it_and_it_outlives_the_undoing_of_the_other() {
    for _ in 0..5 {
        let parent = PathBuf::from("/").join(Probe::build().directory().file_name().unwrap());
        let barrier = std::sync::Barrier::new(2);
        let start = || {
            let probe = Probe::build();
            barrier.wait();
            Container::create_below(probe, &parent, &json!({}))
        };
        let outcomes = std::thread::scope(|scope| {
            [scope.spawn(start), scope.spawn(start)].map(|thread| thread.join().unwrap())
        });
        let [winner] = <[_; 1]>::try_from(outcomes.into_iter().flatten().collect::<Vec<_>>())
            .unwrap_or_else(|both| panic!("{} of two", both.len()));
        let groups = winner.directories();
        assert!(groups.iter().all(|group| group.exists()));
        assert_eq!(line(&winner.run("open /dev/null")), "ok");
        winner.undo();
        // A group above that the loser made and the winner was already in is nobody's to remove but ours.
        for parent in groups.iter().map(|group| group.parent().unwrap()).filter(|parent| parent.exists()) {
            std::fs::remove_dir(parent).unwrap();
        }
    }
}

#[test]
fn undoing_leaves_a_group_alone_that_somebody_else_has_made_at_the_path() {
    let container = Container::create(&json!({}));
    let directories = container.directories();
    let mut stranger = Command::new("sleep").arg("1000").spawn().unwrap();
    for group in &directories {
        std::fs::remove_dir(group).unwrap();
        std::fs::create_dir(group).unwrap();
        std::fs::write(group.join("cgroup.procs"), stranger.id().to_string()).unwrap();
    }
    container.undo();
    let alive = stranger.try_wait().unwrap().is_none();
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    assert!(alive && directories.iter().all(|group| group.exists()));
    for group in directories {
        std::fs::remove_dir(&group).unwrap();
        std::fs::remove_dir(group.parent().unwrap()).unwrap();
    }
}

#[test]
fn a_value_that_the_kernel_refuses_is_named_with_its_file() {
    let text =
        Container::try_create(&json!({ "cpu": { "cpus": "4000" } })).err().expect("no such CPU").to_string();
    assert!(text.starts_with("write \"4000\" to /sys/fs/cgroup"), "{text}");
    assert!(text.ends_with("container/cpuset.cpus"), "{text}");
}
