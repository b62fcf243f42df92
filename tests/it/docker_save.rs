//! `dockerSave`: containers and caches as archives, for everybody who reads such; what is never in them; and how it fails.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use docker_worker::queue::task_id::TaskId;
use docker_worker::timestamp::Timestamp;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::{
    Canary, Dockerd, OwnQueue, Run, Worker, await_written, busybox_image, compiled, file, finish, read_until,
    shell_payload, tool,
};

const IMAGE: &str = "public/dockerImage.tar";

/// More than any task of these tests takes.
const LIMIT: Duration = Duration::from_secs(180);

/// A payload of a task that is saved.
fn saved_payload(image: &str, script: &str) -> Value {
    let mut payload = shell_payload(image, script);
    payload["features"] = json!({ "dockerSave": true });
    payload
}

/// The original's name of a task's image, without its tag.
fn image_name(task_id: &str, run_id: &Value) -> String {
    format!("{}-{run_id}", task_id.to_lowercase().replace(['_', '-'], "0"))
}

fn name_of(run: &Run) -> String {
    image_name(run.resolution["taskId"].as_str().unwrap(), &run.resolution["runId"])
}

/// The members of a tar file: name, kind, contents, and where a link leads.
fn members(tar: &[u8]) -> Vec<(String, tar::EntryType, Vec<u8>, Option<PathBuf>)> {
    let mut archive = tar::Archive::new(tar);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let link = entry.link_name().unwrap().map(|link| link.to_path_buf());
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        (name, entry.header().entry_type(), content, link)
    });
    entries.collect()
}

fn member(tar: &[u8], name: &str) -> Vec<u8> {
    let found = members(tar).into_iter().find(|(it, ..)| it == name);
    found.unwrap_or_else(|| panic!("no {name}")).2
}

/// The configuration and the topmost layer of a saved image.
fn image_parts(archive: &[u8]) -> (Value, Vec<u8>) {
    let list: Value = serde_json::from_slice(&member(archive, "manifest.json")).unwrap();
    let named = |name: &Value| member(archive, name.as_str().unwrap());
    let config = serde_json::from_slice(&named(&list[0]["Config"])).unwrap();
    (config, named(list[0]["Layers"].as_array().unwrap().last().unwrap()))
}

#[test]
fn what_a_failed_task_has_left_runs_in_docker_as_the_documents_say() {
    let worker = Worker::new();
    let image = worker.image(&busybox_image().set("User", json!("worker"))).source;
    let script = "echo made by the task > /tmp/made; ln /tmp/made /tmp/linked; exit 3";
    let mut payload = saved_payload(&image, script);
    payload["env"] = json!({ "OF_THE_TASK": "yes" });
    let run = worker.task(&payload).expect(3, "the command's own status");
    assert_eq!(run.resolution["state"], "failed", "{run:?}");
    let (name, path) = (name_of(&run), run.artifacts.join(IMAGE));
    assert!(run.log.contains(&format!("Container saved as {name}:latest in {IMAGE}: ")), "{run:?}");

    let docker = Dockerd::start(&worker.fresh("docker"));
    let loaded = docker.tell_from(&["load"], &path);
    assert_eq!(loaded, format!("Loaded image: {name}:latest\nLoaded image: task-{name}:latest"));
    let of_documents = format!("task-{name}:latest");
    let in_docker =
        |words: &[&str]| docker.tell(&[&["run", "--rm", "--network", "none", &of_documents], words].concat());
    assert_eq!(
        in_docker(&["sh", "-c", "cat /tmp/made; stat -c %h /tmp/linked; id -un; echo $OF_THE_TASK"]),
        "made by the task\n2\nworker\nyes"
    );
    let hostname = in_docker(&["sh", "-c", "echo $HOSTNAME; hostname"]);
    let (of_variable, own) = hostname.split_once('\n').unwrap();
    assert_eq!(of_variable, own, "nothing of the task's own container is left in the variables");
    let command = docker.tell(&["image", "inspect", "--format", "{{json .Config.Cmd}}", &name]);
    assert_eq!(command, json!(["/bin/sh", "-c", script]).to_string());
    docker.tell(&["image", "rm", &name, &of_documents]);
}

#[test]
fn podman_and_skopeo_take_it_and_so_do_we() {
    let worker = Worker::new();
    let image = worker.image(&busybox_image()).source;
    let run = worker.task(&saved_payload(&image, "echo made > /made")).expect(0, "saved");
    let (name, path) = (name_of(&run), run.artifacts.join(IMAGE));
    let archive = format!("docker-archive:{}", path.display());

    let inspected: Value = serde_json::from_str(&tool("skopeo", &["inspect", "--config", &archive])).unwrap();
    assert_eq!(inspected, image_parts(&fs::read(&path).unwrap()).0);

    // podman takes no path of more than 50 bytes for this, however long that of temporary files is.
    let runroot = tempfile::tempdir_in("/run").unwrap();
    let place = worker.fresh("podman");
    fs::create_dir(&place).unwrap();
    // Its locks would be everybody's otherwise.
    let settings = place.join("containers.conf");
    fs::write(&settings, "[engine]\nlock_type = \"file\"\n").unwrap();
    let podman = |arguments: &[&str]| {
        let place = |name: &str| place.join(name).display().to_string();
        let settings = format!("CONTAINERS_CONF={}", settings.display());
        let own = [
            settings.as_str(),
            "podman",
            "--root",
            &place("root"),
            "--runroot",
            runroot.path().to_str().unwrap(),
        ];
        let more = ["--tmpdir", &place("tmp"), "--storage-driver", "vfs", "--events-backend", "none"];
        tool("env", &[&own[..], &more, arguments].concat())
    };
    podman(&["load", "--quiet", "--input", path.to_str().unwrap()]);
    let mounted = podman(&["image", "mount", &format!("localhost/task-{name}:latest")]);
    assert_eq!(fs::read_to_string(Path::new(mounted.trim()).join("made")).unwrap(), "made\n");
    podman(&["image", "unmount", "--all"]);

    assert_eq!(worker.run(&archive, &["cat", "/made"]).expect(0, "ours").output(), "made\n");
}

#[test]
fn s58_an_archive_of_a_cache_has_its_links_and_not_what_they_lead_to() {
    let worker = Worker::new();
    let image = worker.image(&busybox_image()).source;
    let canary = Canary::place(&worker.scratch().join("outside"));
    let outside = canary.file.display();
    let script = format!(
        "ln -s {outside} /c/k; ln -s /etc/shadow /c/shadow; ln -s / /c/root; mkfifo /c/fifo; mknod /c/null c 1 3
         mkdir -p /c/d; echo own > /c/d/own; ln /c/d/own /c/d/too; echo hides > /c/.wh.d
         ln -s {outside} /k; ln -s / /root/slash; mkfifo /fifo"
    );
    let mut payload = saved_payload(&image, &script);
    payload["cache"] = json!({ "level-1/objects": "/c", "empty": "/d" });
    let run = worker.task(&payload).expect(0, "saved");
    let cache = run.artifact("public/cache/level-1/objects.tar");
    let (_, layer) = image_parts(&run.artifact(IMAGE));
    for (name, archive) in [("cache", &cache), ("layer", &layer)] {
        let secret = Canary::SECRET.as_bytes();
        assert!(!archive.windows(secret.len()).any(|part| part == secret), "{name}");
        let link = members(archive).into_iter().find(|(it, ..)| it == "k").unwrap();
        assert_eq!((link.1, link.3), (tar::EntryType::Symlink, Some(canary.file.clone())), "{name}");
    }
    canary.assert_intact("saved");
    assert_eq!(member(&cache, "d/own"), b"own\n");
    assert_eq!(member(&cache, ".wh.d"), b"hides\n", "a name as any other");
    let kinds: Vec<_> = members(&cache).into_iter().map(|(name, kind, ..)| (name, kind)).collect();
    for expected in [("fifo", tar::EntryType::Fifo), ("null", tar::EntryType::Char)] {
        assert!(kinds.contains(&(expected.0.to_owned(), expected.1)), "{kinds:?}");
    }
    assert_eq!(kinds[0].0, "./");
    assert_eq!(members(&run.artifact("public/cache/empty.tar")).len(), 1);
    // What is mounted in the container is not in its image, but for the place.
    let names: Vec<_> = members(&layer).into_iter().map(|(name, ..)| name).collect();
    assert!(names.contains(&"c/".to_owned()) && !names.contains(&"c/d/own".to_owned()), "{names:?}");
}

/// A queue with a worker, and a task in it that was saved; the task expires in a day.
fn saved_in_a_queue(own: &OwnQueue) -> (TaskId, Value) {
    let mut payload = saved_payload(&own.image, "echo made > /made; echo cached > /c/file");
    payload["cache"] = json!({ "objects": "/c" });
    let mut definition = own.definition(&payload);
    definition["scopes"] = json!(["docker-worker:cache:objects"]);
    definition["expires"] = json!(Timestamp::now().plus(Duration::from_secs(24 * 3600)));
    let task_id = TaskId::random().unwrap();
    own.call(&format!("PUT queue/task/{task_id}"), &definition);
    let status = own.await_resolved(&task_id);
    assert_eq!(status["state"], "completed", "{}", own.log(&task_id));
    (task_id, definition)
}

#[test]
fn archives_are_stored_compressed_until_the_task_expires_and_are_the_image_of_a_task_that_is_saved_too() {
    let own = OwnQueue::new();
    let standalone = own.start();
    let (task_id, definition) = saved_in_a_queue(&own);
    let listed = own.call(&format!("GET queue/task/{task_id}/runs/0/artifacts"), &Value::Null);
    for name in [IMAGE, "public/cache/objects.tar"] {
        let is_it = |it: &&Value| it["name"] == name;
        let artifact = listed["artifacts"].as_array().unwrap().iter().find(is_it).unwrap();
        assert_eq!(artifact["expires"], definition["expires"], "{name}");
        assert_eq!(
            (&artifact["storageType"], &artifact["contentType"]),
            (&json!("s3"), &json!("application/x-tar"))
        );
        let url = own.artifact_url(&task_id, name);
        let headers = ["--fail", "--location", "--dump-header", "-", "--output", "/dev/null", &url];
        let head = finish(own.curl(&headers).spawn().unwrap(), LIMIT);
        let head = String::from_utf8_lossy(&head.stdout).to_lowercase();
        assert!(head.contains("content-encoding: gzip"), "{name}: {head}");
        // Who does not know of the encoding, as wget, gets a file that tar and docker know all the same.
        let bytes = finish(own.curl(&["--fail", "--location", &url]).spawn().unwrap(), LIMIT).stdout;
        assert_eq!(bytes[..3], [0x1f, 0x8b, 8], "{name}");
    }
    let decoded = |task_id: &TaskId, name: &str| {
        let url = own.artifact_url(task_id, name);
        let curl = own.curl(&["--fail", "--location", "--compressed", &url]).spawn().unwrap();
        finish(curl, LIMIT).stdout
    };
    assert_eq!(member(&decoded(&task_id, "public/cache/objects.tar"), "file"), b"cached\n");

    let mut payload = saved_payload("", "cat /made; echo $TASK_ID; echo again > /again");
    payload["image"] = json!({ "type": "task-image", "taskId": task_id, "path": IMAGE });
    let second = own.create(&payload);
    let status = own.await_resolved(&second);
    let log = own.log(&second);
    assert_eq!(status["state"], "completed", "{log}");
    assert!(log.contains("made\r\n") && log.contains(&format!("{second}\r\n")), "{log}");
    let (config, layer) = image_parts(&decoded(&second, IMAGE));
    assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), 3, "{config}");
    assert_eq!(member(&layer, "again"), b"again\n");
    standalone.stop();
}

#[test]
fn a_task_that_was_ended_is_not_saved() {
    let worker = Worker::new();
    let image = worker.image(&busybox_image()).source;
    let mut payload = saved_payload(&image, "echo running; sleep 1000");
    payload["maxRunTime"] = json!(1);
    let run = worker.task(&payload).expect(124, "its time was over");
    assert!(!run.artifacts.join(IMAGE).exists() && !run.log.contains("saved"), "{run:?}");

    payload["maxRunTime"] = json!(1000);
    let task = worker.fresh("task").with_extension("json");
    fs::write(&task, payload.to_string()).unwrap();
    let (mut child, artifacts) = worker.start_run(&[task.to_str().unwrap()], &[]);
    let log = read_until(&mut child, "\nrunning");
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let run = Run::collect(finish(child, LIMIT), artifacts).expect(130, "cancelled");
    assert!(!run.artifacts.join(IMAGE).exists() && !log.join().unwrap().contains("saved"), "{run:?}");
}

#[test]
fn saving_hears_of_a_signal_and_leaves_nothing_behind_whatever_ends_it() {
    let worker = Worker::new();
    let image = worker.image(&busybox_image()).source;
    // Zeros take no room, and long enough.
    let payload = saved_payload(&image, "truncate -s 60G /zeros");
    let task = worker.fresh("task").with_extension("json");
    fs::write(&task, payload.to_string()).unwrap();
    for (signal, status) in [(Signal::INT, 130), (Signal::TERM, 122), (Signal::KILL, 137)] {
        let artifacts = worker.fresh("artifacts");
        fs::create_dir(&artifacts).unwrap();
        let options = ["--artifacts", artifacts.to_str().unwrap(), task.to_str().unwrap()];
        let (mut child, _) = worker.start_run(&options, &[]);
        let log = read_until(&mut child, "=== Task Finished ===");
        kill_process(Pid::from_child(&child), signal).unwrap();
        let finished = finish(child, Duration::from_secs(60));
        let run = Run::collect(finished, artifacts).expect(status, &format!("{signal:?}"));
        assert!(!run.artifacts.join(IMAGE).exists(), "{run:?}");
        log.join().unwrap();
        if signal == Signal::KILL {
            assert!(worker.call(&["cleanup"]).status.success());
        }
        worker.assert_nothing_left(&format!("{signal:?}"));
    }
}

#[test]
fn a_kill_while_it_is_compressed_leaves_nothing_that_the_next_start_does_not_remove() {
    let own = OwnQueue::new();
    let mut standalone = own.spawn(&json!({}), &[]);
    let rest = read_until(&mut standalone, "workerReady");
    let payload = saved_payload(&own.image, "dd if=/dev/urandom of=/noise bs=1M count=300; exit 0");
    own.create(&payload);
    await_written(&mut standalone, &own.worker.data().join("runs"), 20 << 20);
    standalone.kill().unwrap();
    finish(standalone, LIMIT);
    rest.join().unwrap();
    assert!(own.worker.call(&["cleanup"]).status.success());
    let left = fs::read_dir(own.worker.data().join("runs")).unwrap().count();
    assert!(left <= 1, "the mark of the worker's own directory and nothing else");
}

#[test]
fn what_cannot_be_saved_makes_the_run_failed_in_one_sentence_and_the_rest_is_there() {
    let worker = Worker::new();
    let image = worker.image(&busybox_image()).source;
    let mut payload = saved_payload(&image, "truncate -s 1024G /huge; echo cached > /c/file");
    payload["cache"] = json!({ "objects": "/c" });
    let run = worker.task(&payload).expect(123, "saving failed");
    assert_eq!((&run.resolution["state"], &run.resolution["exitCode"]), (&json!("failed"), &json!(-1)));
    let said =
        "Error calling 'stopped' for dockerSave : The container could not be saved as an image: Failed to ";
    assert!(run.log.contains(said) && run.log.contains("save \"huge\": the bytes of its files"), "{run:?}");
    assert!(run.took < Duration::from_secs(60), "{run:?}");
    assert!(!run.artifacts.join(IMAGE).exists(), "{run:?}");
    assert_eq!(member(&run.artifact("public/cache/objects.tar"), "file"), b"cached\n");

    payload["command"] = json!(["/bin/sh", "-c", "echo x > /x; truncate -s 1024G /c/huge"]);
    let run = worker.task(&payload).expect(123, "saving failed");
    assert!(run.log.contains("cache could not be uploaded: \"objects\": Failed to save \"huge\""), "{run:?}");
    assert_eq!(member(&image_parts(&run.artifact(IMAGE)).1, "x"), b"x\n");
}

/// Makes a socket, and as many links and files as that.
const MANY: &str = r#"
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
int main(void) {
  struct sockaddr_un place = { .sun_family = AF_UNIX, .sun_path = "/socket" };
  if (bind(socket(AF_UNIX, SOCK_STREAM, 0), (struct sockaddr *)&place, sizeof place)) return 1;
  close(open("/first", O_CREAT | O_WRONLY, 0644));
  for (int i = 0; i < 50000; i++) {
    char name[32];
    sprintf(name, "/%d-link", i);
    if (link("/first", name)) return 2;
    sprintf(name, "/%d-file", i);
    if (close(open(name, O_CREAT | O_WRONLY, 0644))) return 3;
  }
  return 0;
}"#;

#[test]
fn a_hundred_thousand_names_and_what_no_archive_can_hold_are_saved_or_told_of() {
    let worker = Worker::new();
    let program = fs::read(compiled("dockerSave", MANY)).unwrap();
    let image = worker.image(&busybox_image().layer(&[file("many", program).mode(0o755)])).source;
    let run = worker.task(&saved_payload(&image, "echo hides > /.wh.x; /many")).expect(0, "saved");
    let (_, layer) = image_parts(&run.artifact(IMAGE));
    let members = members(&layer);
    let of_kind = |kind| members.iter().filter(|member| member.1 == kind).count();
    assert_eq!((of_kind(tar::EntryType::Link), of_kind(tar::EntryType::Regular) >= 50_000), (50_000, true));
    assert!(run.log.contains("dockerSave of the image: 1 entries named \".wh.…\" were left out"), "{run:?}");
    assert!(run.log.contains("dockerSave of the image: 1 sockets were left out, \"socket\""), "{run:?}");
}
