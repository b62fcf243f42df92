//! What leaves a task on purpose, and how far it reaches: assertions S55 to S57 and S60.
//! What a payload may not even say is refused in `payload.rs`.

use std::fs;
use std::os::unix::fs::symlink as link_on_host;
use std::time::Duration;

use docker_worker::host::measure;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::{
    Canary, Run, SmallDisk, Worker, await_that, busybox_image, finish, shell_payload, tool,
};

/// A worker, busybox as its image, and a host file that must not be published.
struct Host {
    worker: Worker,
    image: String,
    canary: Canary,
}

impl Host {
    fn new() -> Host {
        let worker = Worker::new();
        let image = worker.image(&busybox_image()).source;
        let canary = Canary::place(&worker.scratch().join("outside"));
        Host { worker, image, canary }
    }

    /// Runs `script` with artifacts as in a payload, and makes sure that the host's file is not among them.
    fn publish(&self, script: &str, artifacts: Value) -> Run {
        let mut payload = shell_payload(&self.image, script);
        payload["artifacts"] = artifacts;
        let run = self.worker.task(&payload);
        for path in
            tool("find", &[run.artifacts.to_str().unwrap(), "-type", "f", "-print0"]).split_terminator('\0')
        {
            let content = fs::read(path).unwrap();
            let published =
                content.windows(Canary::SECRET.len()).any(|window| window == Canary::SECRET.as_bytes());
            assert!(!published, "the host's file was published as {path}: {run:?}");
        }
        self.canary.assert_intact(script);
        run
    }
}

/// The artifact `name` as `resolution.json` has it.
fn artifact<'a>(run: &'a Run, name: &str) -> &'a Value {
    let artifacts = run.resolution["artifacts"].as_array().unwrap_or_else(|| panic!("no artifacts: {run:?}"));
    artifacts.iter().find(|artifact| artifact["name"] == name).unwrap_or_else(|| panic!("no {name}: {run:?}"))
}

#[test]
fn s55_an_artifact_is_the_containers_own_file_wherever_its_links_point() {
    let host = Host::new();
    let outside = host.canary.file.display().to_string();
    let script = format!(
        "mkdir -p /d/sub; ln -s {outside} /link; ln -s / /d/root; ln -s /proc/1/root /d/magic; echo own > /d/sub/own;
         ln -s ../../../../../..{outside} /d/up; ln -s /d/sub /d/inside; ln -s /etc/passwd /passwd; ln -s / /slash"
    );
    let entry = |kind: &str, path: &str| json!({ "type": kind, "path": path });
    let run = host.publish(
        &script,
        json!({
            "public/link": entry("file", "/link"),
            "public/magic": entry("file", &format!("/proc/1/root{outside}")),
            "public/self": entry("file", &format!("/proc/self/root{outside}")),
            "public/slash": entry("file", &format!("/slash/../../..{outside}")),
            "public/dots": entry("file", &format!("/../../../..{outside}")),
            "public/passwd": entry("file", "/passwd"),
            "public/d": entry("directory", "/d"),
        }),
    );
    for name in ["public/link", "public/magic", "public/self", "public/slash", "public/dots"] {
        assert_eq!(artifact(&run, name)["storageType"], "error", "{name}: {run:?}");
    }
    assert!(run.artifact("public/passwd").starts_with(b"root:x:0:0:root:/root:/bin/sh\nworker"), "{run:?}");
    assert_eq!(run.artifact("public/d/sub/own"), b"own\n");
    let published = tool("find", &[run.artifacts.join("public/d").to_str().unwrap(), "-type", "f"]);
    assert_eq!(published.lines().count(), 1, "links of a directory are not followed: {published}");
}

#[test]
fn s56_an_artifact_that_is_no_plain_file_is_an_error_artifact_at_once() {
    let host = Host::new();
    let script = "mkfifo /fifo; mknod /node c 1 5; mkdir /dir; echo x > /file; (nc -l -s local:/socket &) ; ln -s loop /loop";
    let cases = [
        ("fifo", "file", "/fifo"),
        ("node", "file", "/node"),
        ("zero", "file", "/dev/zero"),
        ("kmsg", "file", "/proc/kmsg"),
        ("status", "file", "/proc/1/status"),
        ("loop", "file", "/loop"),
        ("not-a-file", "file", "/dir"),
        ("not-a-directory", "directory", "/file"),
        ("absent", "file", "/absent"),
    ];
    let artifacts: Value = cases
        .iter()
        .map(|(name, kind, path)| (format!("public/{name}"), json!({ "type": kind, "path": path })))
        .collect();
    let run = host.publish(script, artifacts).expect(0, "errors of artifacts do not fail a task");
    for (name, ..) in cases {
        let artifact = artifact(&run, &format!("public/{name}"));
        assert_eq!(artifact["storageType"], "error", "{name}: {run:?}");
        let reason = if name == "absent" { "file-missing-on-worker" } else { "" };
        assert!(artifact["reason"].as_str().is_some_and(|it| it.contains(reason)), "{name}: {artifact}");
    }
    assert!(run.took < Duration::from_secs(10), "{:?}", run.took);
}

#[test]
fn s57_an_artifact_lands_below_its_directory_or_not_at_all() {
    let host = Host::new();
    let entry = json!({ "type": "file", "path": "/etc/passwd" });
    let outside = host.canary.directory.as_path();
    for (planted, target) in
        [("public", outside), ("public/x", &host.canary.file), ("resolution.json", &host.canary.file)]
    {
        let directory = host.worker.fresh("planted");
        let at = directory.join(planted);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        link_on_host(target, &at).unwrap();
        let mut payload = shell_payload(&host.image, "true");
        payload["artifacts"] = json!({ "public/x": entry, "public/canary": entry });
        let run = host.worker.task_with(&payload, &["--artifacts", directory.to_str().unwrap()]);
        host.canary.assert_intact(planted);
        assert!(!run.words().contains("panicked"), "{planted}: {run:?}");
    }
}

#[test]
fn s60_paths_are_escaped_in_the_log_and_a_tasks_own_bytes_are_not() {
    let host = Host::new();
    for word in
        ["esc\u{1b}[31m", "line\nbreak", "return\rback", "bidi\u{202e}txt", "bell\u{7}", "c1\u{9b}31m"]
    {
        let mut payload = shell_payload(&host.image, "true");
        payload["artifacts"] = json!({ "public/x": { "type": "file", "path": format!("/absent{word}") } });
        let words = host.worker.task(&payload).words().replace("\r\n", "\n");
        for raw in ["\u{1b}", "\r", "\u{202e}", "\u{7}", "\u{9b}", "line\nbreak"] {
            assert!(!words.contains(raw), "{raw:?} of {word:?} is raw in {words}");
        }
    }
    let script = r"printf '\033[31mred\033[0m \342\200\256 \007\001 [taskcluster\n'";
    let run = host.worker.task(&shell_payload(&host.image, script)).expect(0, "a task prints what it likes");
    assert!(run.log.contains("\u{1b}[31mred\u{1b}[0m \u{202e} \u{7}\u{1} [taskcluster\r\n"), "{run:?}");
}

#[test]
fn a_cache_outlives_its_task_and_belongs_to_one_task_at_a_time() {
    let host = Host::new();
    let mut payload = shell_payload(&host.image, "cat /cache/count; echo one >> /cache/count");
    payload["cache"] = json!({ "counts": "/cache" });
    for expected in ["", "one\n", "one\none\n"] {
        let run = host.worker.task(&payload);
        assert_eq!(
            run.output().replace("cat: can't open '/cache/count': No such file or directory\n", ""),
            expected
        );
    }
    // While one task holds the instance, another gets a new one.
    payload["command"] = json!(["/bin/sh", "-c", "cat /cache/count; sleep 4"]);
    let file = host.worker.fresh("task").with_extension("json");
    fs::write(&file, payload.to_string()).unwrap();
    let runs = [0, 1].map(|_| host.worker.start_run(&[file.to_str().unwrap()], &[]));
    let outputs = runs.map(|(child, artifacts)| {
        Run::collect(finish(child, Duration::from_secs(60)), artifacts).expect(0, "holds a cache").output()
    });
    assert_eq!(outputs.iter().filter(|output| output.starts_with("one\n")).count(), 1, "{outputs:?}");
}

#[test]
fn whoever_hears_that_a_run_is_resolved_finds_its_cache() {
    let host = Host::new();
    let mut payload = shell_payload(&host.image, "echo one > /cache/file");
    payload["cache"] = json!({ "handed-on": "/cache" });
    let file = host.worker.fresh("task").with_extension("json");
    fs::write(&file, payload.to_string()).unwrap();
    let (mut child, artifacts) = host.worker.start_run(&[file.to_str().unwrap()], &[]);
    await_that("the resolution", || {
        assert!(child.try_wait().unwrap().is_none(), "it ended without a word");
        artifacts.join("resolution.json").exists()
    });
    // It comes no further.
    kill_process(Pid::from_child(&child), Signal::STOP).unwrap();
    payload["command"] = json!(["/bin/cat", "/cache/file"]);
    let successor = host.worker.task(&payload);
    kill_process(Pid::from_child(&child), Signal::CONT).unwrap();
    Run::collect(finish(child, Duration::from_secs(60)), artifacts).expect(0, "the first run");
    assert_eq!(successor.expect(0, "the successor").output(), "one\n");
}

#[test]
fn a_directory_of_somebody_elses_keeps_everything_that_lies_in_it() {
    let host = Host::new();
    let homes = host.worker.fresh("homes");
    // Names that a container or a cache of the worker's could have, too.
    let names = ["files".to_owned(), "0".repeat(32), "0".repeat(64)];
    for name in &names {
        fs::create_dir_all(homes.join(name).join("work")).unwrap();
    }
    let all_there = || names.iter().all(|name| homes.join(name).join("work").exists());
    let config = host.worker.fresh("config");
    fs::write(&config, json!({ "cache": { "volumeCachePath": homes } }).to_string()).unwrap();
    let options = ["--config", config.to_str().unwrap(), "--image", &host.image, "--cache", "c=/c"];
    host.worker.run_with(&options, &["true"]).expect(0, "caches beside other things");
    assert!(all_there());
    fs::create_dir_all(homes.join("docker-worker-caches/photos")).unwrap();
    let run = host.worker.run_with(&options, &["true"]).expect(0, "other things beside caches");
    assert_eq!(run.stderr.matches("\"photos\"").count(), 1, "{run:?}");
    assert!(homes.join("docker-worker-caches/photos").exists());
    for place in ["DOCKER_WORKER_RUN", "DOCKER_WORKER_DATA"] {
        // The data directory's own subdirectory is what counts.
        let runs = homes.join("runs");
        fs::create_dir_all(runs.join("0".repeat(64))).unwrap();
        let mut command = host.worker.command(&["cleanup"]);
        let finished = finish(command.env(place, &homes).spawn().unwrap(), Duration::from_secs(60));
        let stderr = String::from_utf8_lossy(&finished.stderr);
        assert!(!finished.status.success() && stderr.contains("no file .docker-worker"), "{place}: {stderr}");
        assert!(all_there() && runs.join("0".repeat(64)).exists(), "{place}");
    }
}

#[test]
fn a_volume_of_the_image_below_a_caches_mount_point_is_not_mounted_over_the_cache() {
    let worker = Worker::new();
    let image = worker.image(&busybox_image().set("Volumes", json!({"/cache/volume": {}, "/cache": {}})));
    let script =
        "ls -1A /cache; mkdir -p /cache/volume; echo kept >> /cache/volume/file; cat /cache/volume/file";
    for (case, expected) in [("first", "kept\n"), ("second", "volume\nkept\nkept\n")] {
        let options = ["--image", &image.source, "--cache", "c=/cache"];
        let run = worker.run_with(&options, &["sh", "-c", script]).expect(0, case);
        assert_eq!(run.output(), expected, "{case}");
    }
}

#[test]
fn what_is_written_to_a_volume_of_the_image_goes_with_the_run() {
    let worker = Worker::new();
    let image = worker.image(&busybox_image().set("Volumes", json!({"/data": {}})));
    let free = || measure(&worker.data()).unwrap().free;
    let disk = SmallDisk::mount(&worker.data(), "200m");
    let config = worker.fresh("config").with_extension("yml");
    fs::write(&config, "capacityManagement: {diskspaceThreshold: 1}\n").unwrap();
    let options = ["--config", config.to_str().unwrap(), "--image", &image.source];
    let run = |script: &str| worker.run_with(&options, &["sh", "-c", script]).expect(0, script).output();
    assert_eq!(run("ls -A /data"), "");
    let before = free();
    for _ in 0..3 {
        assert_eq!(run("ls -A /data; dd if=/dev/zero of=/data/file bs=1M count=100 2> /dev/null"), "");
        assert_eq!(worker.data_of_task(), None);
        assert!(before.saturating_sub(free()) < 1 << 20, "{} of {before} are free", free());
    }
    drop(disk);
}

#[test]
fn a_cache_keeps_owners_modes_and_times_from_task_to_task() {
    let host = Host::new();
    let list = "cd /x; find . | sort | xargs stat -c '%n %u:%g %a %s %Y'; readlink link; cat secret";
    let fill = "cd /x; mkdir -p d/e; echo text > secret; echo root > own; ln -s secret link; \
        chown 1234:1235 secret d/e; chown -h 1236:1237 link; chmod 400 secret; chmod 4750 own; chmod 1777 d/e; \
        touch -h -d '2001-02-03 04:05:06' secret own link d/e d .";
    let task = |script: &str| {
        let mut payload = shell_payload(&host.image, script);
        payload["cache"] = json!({ "x": "/x" });
        host.worker.task(&payload).expect(0, script).output()
    };
    let first = task(&format!("{fill}; {list}"));
    for row in ["./secret 1234:1235 400 5 981173106", "./own 0:0 4750 5 981173106", "./d/e 1234:1235 1777 "] {
        assert!(first.contains(row), "{first}");
    }
    assert!(first.ends_with("secret\ntext\n"), "{first}");
    for _ in 0..2 {
        assert_eq!(task(list), first);
    }
}

#[test]
fn names_that_a_directory_cannot_hold_together_are_all_kept() {
    let host = Host::new();
    let file = json!({ "type": "file", "path": "/etc/passwd" });
    let run = host.publish("true", json!({ "public/a": file, "public/a/b": file })).expect(0, "both");
    assert_eq!(artifact(&run, "public/a/b")["storedAs"], "public/a%2Fb");
    assert_eq!(run.artifact("public/a"), run.artifact("public/a%2Fb"));
}

#[test]
fn a_task_cannot_publish_a_log_of_its_own_making() {
    let host = Host::new();
    let script = "mkdir /logs; echo forged | tee /logs/live.log /logs/live_backing.log > /logs/own.log";
    let run = host.publish(script, json!({ "public/logs": { "type": "directory", "path": "/logs" } }));
    let run = run.expect(0, "the rest is published");
    for name in ["public/logs/live.log", "public/logs/live_backing.log"] {
        assert_eq!(run.artifact(name), run.log.as_bytes(), "{name}");
        assert!(run.log.contains(&format!("\"{name}\". That is the name of this task's")), "{run:?}");
    }
    assert_eq!(run.artifact("public/logs/own.log"), b"forged\n");
}

#[test]
fn caches_are_purged_after_a_success_too_where_the_payload_says_so() {
    let host = Host::new();
    let mut payload = shell_payload(&host.image, "test ! -e /cache/mark && touch /cache/mark");
    payload["cache"] = json!({ "c": "/cache" });
    payload["onExitStatus"] = json!({ "purgeCaches": [0] });
    for case in ["first", "second"] {
        host.worker.task(&payload).expect(0, case);
    }
}

#[test]
fn artifacts_that_could_reach_the_workers_own_files_are_refused() {
    let worker = Worker::new();
    let image = worker.image(&busybox_image()).source;
    worker.run(&image, &["true"]).expect(0, "makes the directories");
    for own in
        [worker.data(), worker.data().join("caches/new"), worker.run_directory(), worker.scratch().join("")]
    {
        let place = own.to_str().unwrap();
        let run = worker.run_with(&["--artifacts", place, "--image", &image], &["true"]).expect(2, place);
        assert!(run.stderr.contains("where the worker keeps its own things"), "{run:?}");
        assert!(!own.join("public").exists(), "{place}");
    }
    assert!(!worker.data().join("caches/new").exists());
}

#[test]
fn no_artifact_keeps_the_resolution_from_its_place() {
    let worker = Worker::new();
    let mut payload = shell_payload(&worker.image(&busybox_image()).source, "mkdir /d; echo '{}' > /d/x");
    payload["artifacts"] = json!({ "resolution.json": { "type": "directory", "path": "/d" } });
    let run = worker.task(&payload).expect(0, "a directory of that name");
    assert_eq!(run.resolution["state"], "completed", "{run:?}");
    assert_eq!(run.artifact("resolution.json%2Fx"), b"{}\n");
}
