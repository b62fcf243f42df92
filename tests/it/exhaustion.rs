//! A task that takes all it can get harms itself only: assertion S62.

use std::fs;
use std::time::Duration;

use rustix::process::Pid;
use serde_json::json;

use crate::support::{Run, SmallDisk, Worker, busybox_image, finish, read_until, shell_payload};

const CONFIG: &str = "
limits: {memory: 67108864, pids: 64, log: 1000000}
capacityManagement: {diskspaceThreshold: 1000000}
";

/// A process that wants far more memory than there is, by itself.
const HOG: &str = "awk 'BEGIN { s = \"0123456789abcdef\"; while (length(s) < 300000000) s = s s; }'";

/// A worker with small limits and busybox as its image.
fn limited() -> (Worker, String, String) {
    let worker = Worker::new();
    let image = worker.image(&busybox_image()).source;
    let config = worker.fresh("config").with_extension("yml");
    fs::write(&config, CONFIG).unwrap();
    (worker, image, config.to_str().unwrap().to_owned())
}

fn next_task_passes(worker: &Worker, image: &str, case: &str) {
    worker.run(image, &["true"]).expect(0, &format!("the task after {case}"));
}

#[test]
fn s62_a_fork_bomb_meets_its_limit_and_the_next_task_passes() {
    let (worker, image, config) = limited();
    let bomb = "bomb() { bomb | bomb & }; bomb; sleep 2; echo alive";
    let mut payload = shell_payload(&image, bomb);
    payload["maxRunTime"] = json!(20);
    let run = worker.task_with(&payload, &["--config", &config]);
    assert!(run.words().contains("fork"), "{run:?}");
    assert!(run.took < Duration::from_secs(20 + 15), "{:?}", run.took);
    worker.assert_nothing_left("after a fork bomb");
    next_task_passes(&worker, &image, "a fork bomb");
}

#[test]
fn s62_a_memory_hog_is_ended_and_the_log_names_memory() {
    let (worker, image, config) = limited();
    for (case, script) in [
        ("anonymous memory", "head -c 300000000 /dev/zero | tail -c 290000000 | wc -c"),
        ("tmpfs", "dd if=/dev/zero of=/dev/shm/big bs=1M count=300 || kill -9 $$"),
    ] {
        let run = worker.task_with(&shell_payload(&image, script), &["--config", &config]);
        assert_ne!(run.output(), "290000000\n", "{case}: {run:?}");
        assert!(run.words().to_lowercase().contains("memory"), "{case}: {run:?}");
        worker.assert_nothing_left(case);
    }
    // The page cache counts as well, and gives way.
    let script = "dd if=/dev/zero of=/tmp/big bs=1M count=200 2> /dev/null; cat /tmp/big | wc -c";
    let run =
        worker.task_with(&shell_payload(&image, script), &["--config", &config]).expect(0, "page cache");
    assert_eq!(run.output(), "209715200\n");
    next_task_passes(&worker, &image, "memory hogs");
}

/// What the kernel's lack of memory looks like in a log and in the worker's own words, and what only looks like it.
#[test]
fn s62_an_end_by_want_of_memory_is_told_from_a_status_of_137() {
    const WORDS: &str = "[taskcluster:error] The kernel killed a process of the task because memory was used up: this task may use 67108864 bytes (limits.memory)";
    let (worker, image, config) = limited();
    for (case, script, status, is_killed) in [
        ("the command's own end", format!("exec {HOG}"), 137, true),
        ("a process of it", format!("{HOG} && exit 1; exit 137"), 137, true),
        ("one that the command gets over", format!("{HOG} && exit 1; exit 0"), 0, true),
        ("a status of its own", "exit 137".to_owned(), 137, false),
        ("a signal of its own", "sh -c 'kill -9 $$'; exit $?".to_owned(), 137, false),
    ] {
        let run = worker.task_with(&shell_payload(&image, &script), &["--config", &config]);
        let run = run.expect(status, case);
        assert_eq!(run.log.contains(WORDS), is_killed, "{case}: {run:?}");
        assert_eq!(run.resolution["resources"]["oomKilled"], is_killed, "{case}: {run:?}");
        let is_explained = run.stderr.contains("failed: The kernel killed a process of the task");
        assert_eq!(is_explained, is_killed && status != 0, "{case}: {run:?}");
    }
}

#[test]
fn s62_the_neighbour_of_a_memory_hog_completes() {
    let (worker, image, config) = limited();
    let options = ["--config", &config, "--image", &image];
    let (mut child, artifacts) = worker.start_run(&options, &["sh", "-c", "echo up; sleep 3; echo done"]);
    let log = read_until(&mut child, "\nup");
    let hog = worker.run_with(&options, &["sh", "-c", &format!("exec {HOG}")]).expect(137, "the hog");
    assert!(hog.words().contains("memory was used up"), "{hog:?}");
    let neighbour =
        Run::collect(finish(child, Duration::from_secs(60)), artifacts).expect(0, "the neighbour");
    let log = log.join().unwrap();
    assert!(log.contains("\ndone") && !log.contains("memory was used up"), "{log}");
    assert_eq!(neighbour.resolution["resources"]["oomKilled"], false, "{neighbour:?}");
}

/// A task is ended before its worker and its monitor, and cannot ask to be spared.
#[test]
fn s63_a_task_is_likelier_to_be_ended_than_what_watches_it() {
    let (worker, image, _) = limited();
    let script = "cat /proc/self/oom_score_adj; echo -900 > /proc/self/oom_score_adj || echo refused; echo up; sleep 3";
    let (mut child, artifacts) = worker.start_run(&["--image", &image], &["sh", "-c", script]);
    let log = read_until(&mut child, "\nup");
    let own = fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    let [monitor] = worker.processes("docker-worker-r")[..] else { panic!("not one monitor") };
    for process in [Pid::from_child(&child), monitor] {
        let score = fs::read_to_string(format!("/proc/{}/oom_score_adj", process.as_raw_nonzero())).unwrap();
        // Where the host does not let the worker protect itself it is as any other process.
        assert!(["-900\n", &own].contains(&score.as_str()), "{score}");
    }
    Run::collect(finish(child, Duration::from_secs(60)), artifacts).expect(0, "the task");
    let log = log.join().unwrap().replace('\r', "");
    assert!(log.contains("\n100\n") && log.contains("\nrefused\n"), "{log}");
}

/// The group above the tasks' own has the limit that holds for all of them: less than the host's memory.
#[test]
fn s62_tasks_together_leave_the_host_some_memory() {
    let (worker, image, _) = limited();
    let (mut child, artifacts) = worker.start_run(&["--image", &image], &["sh", "-c", "echo up; sleep 5"]);
    read_until(&mut child, "\nup");
    let files = [
        "/sys/fs/cgroup/docker-worker/memory.max",
        "/sys/fs/cgroup/memory/docker-worker/memory.limit_in_bytes",
    ];
    let texts: Vec<String> = files.iter().filter_map(|file| fs::read_to_string(file).ok()).collect();
    let limit: u64 = texts.first().and_then(|text| text.trim().parse().ok()).unwrap_or(u64::MAX);
    // The larger of a tenth and 1 GiB is kept for the host; the kernel rounds to pages.
    let kept = (host_memory() / 10).max(1 << 30);
    let limits = host_memory() - kept - 65536..=host_memory() - kept;
    assert!(limits.contains(&limit), "{texts:?} of {}", host_memory());
    Run::collect(finish(child, Duration::from_secs(60)), artifacts).expect(0, "the task itself");
}

fn host_memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    let kilobytes: u64 = text.split_whitespace().nth(1).unwrap().parse().unwrap();
    kilobytes * 1024
}

#[test]
fn s62_a_flood_of_output_is_cut_at_its_limit_and_one_line_says_so() {
    let (worker, image, config) = limited();
    let mut payload =
        shell_payload(&image, "yes 0123456789012345678901234567890123456789 | head -c 5000000; echo the end");
    payload["features"] = json!({ "localLiveLog": true });
    let run = worker.task_with(&payload, &["--config", &config]).expect(0, "a flood is no failure");
    assert!((1_000_000..1_100_000).contains(&run.log.len()), "{} bytes", run.log.len());
    assert!(!run.log.contains("the end"), "the log goes on after its limit");
    let says_so = run.log.lines().filter(|line| line.starts_with("[taskcluster") && line.contains("1000000"));
    assert_eq!(says_so.count(), 1, "{}", &run.log[run.log.len() - 1000..]);
    let published = run.artifact("public/logs/live.log");
    assert!((1_000_000..1_100_000).contains(&published.len()), "{} bytes", published.len());
}

#[test]
fn s62_many_open_files_are_the_tasks_own_trouble() {
    let (worker, image, config) = limited();
    let script = "ulimit -n; n=0; while [ $n -lt 3000 ]; do eval \"exec $((n + 10))< /dev/null\" || break; n=$((n + 1)); done;
                  echo opened $n";
    let run: Run = worker.task_with(&shell_payload(&image, script), &["--config", &config]);
    assert!(run.output().contains("opened"), "{run:?}");
    next_task_passes(&worker, &image, "open files");
}

#[test]
fn s62_a_task_that_fills_the_disk_is_ended_with_that_reason() {
    let worker = Worker::new();
    let disk = SmallDisk::mount(&worker.data(), "160m");
    let image = worker.image(&busybox_image()).source;
    let config = worker.fresh("config").with_extension("yml");
    fs::write(&config, "capacityManagement: {diskspaceThreshold: 1000000}\n").unwrap();
    let options = ["--config", config.to_str().unwrap()];
    let payload = shell_payload(&image, "dd if=/dev/zero of=/big bs=1M; sleep 60; echo still here");
    let run = worker.task_with(&payload, &options);
    assert!(run.status != 0 && run.words().contains("disk is full"), "{run:?}");
    assert!(!run.log.contains("still here") && run.took < Duration::from_secs(15), "{run:?}");
    worker.task_with(&shell_payload(&image, "true"), &options).expect(0, "the task after a full disk");
    drop(disk);
}
