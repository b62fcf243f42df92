//! Artifacts that lie on a disk which does not give all of them back, or takes its time.

use std::fs::{self, File};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use docker_worker::artifact::{Destination, Publisher, PublisherParts, Store};
use docker_worker::config::ConfigFile;
use docker_worker::event::Events;
use docker_worker::features::{Active, Hooks, RunContext, Stopped, Wishes};
use docker_worker::interrupt;
use docker_worker::payload::{Origin, Payload, TaskContext};
use docker_worker::queue::definition::Submission;
use docker_worker::queue::task_id::TaskId;
use docker_worker::queue::{EmbeddedQueue, ErrorReason, WorkerIdentity, WorkerQueue};
use docker_worker::root::ContainerRoot;
use docker_worker::task_log::spool::Spool;
use docker_worker::timestamp::Timestamp;
use rustix::fs::{Mode, OFlags, open};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::support::{BrokenDisk, Scratch, StalledOpening};

/// A run whose command has ended.
struct Claimed {
    publisher: Publisher,
    active: Active,
    log: Spool,
}

/// Claims a run with this payload, whose artifacts go below `scratch`.
async fn claim(scratch: &Scratch, payload: &Value) -> Claimed {
    let author = EmbeddedQueue::in_memory(Box::new(Timestamp::now)).unwrap();
    let task_id = TaskId::random().unwrap();
    let submission = Submission::parse(payload.to_string().as_bytes()).unwrap();
    let definition = submission.into_task(&task_id, Timestamp::now()).unwrap().definition;
    author.create_task(&task_id, &definition).await.unwrap();
    let identity = WorkerIdentity { worker_group: "g".to_owned(), worker_id: "w".to_owned() };
    let queue = WorkerQueue::embedded(author);
    let claim = queue.claim_work(&definition.task_queue_id, &identity, 1).await.unwrap().claims.remove(0);
    let context = TaskContext {
        expires: definition.expires,
        origin: Origin::Operator,
        disabled_features: &[],
        max_task_run_time: None,
        pointer: "",
    };
    let payload = Payload::parse(&definition.payload, &context).0.unwrap();
    let (_interrupter, interrupts) = interrupt::channel();
    let (config, log) =
        (Arc::new(ConfigFile::default()), Spool::create(&scratch.join("log"), 1 << 20).unwrap());
    let run = RunContext {
        events: Events::none().of(claim.queue.run()),
        run: claim.queue.run().clone(),
        definition: claim.definition.clone(),
        worker_id: "w".to_owned(),
        signing_key: None,
        scopes: Vec::new(),
        config: Arc::clone(&config),
        data: scratch.path().to_owned(),
        log: log.clone(),
        live_log: None,
        proxy: None,
        credentials: None,
        interrupts: interrupts.clone(),
    };
    let publisher = Publisher::new(PublisherParts {
        queue: claim.queue,
        expires: definition.expires,
        store: Store::Directory(Arc::new(Destination::directory(&scratch.join("out")).unwrap())),
        reserved: Vec::new(),
        scratch: scratch.path().to_owned(),
        log: None,
        config,
        events: Events::none(),
        interrupts,
    });
    let wishes = Wishes { payload: Some(&payload), switches: &payload.features, log: &payload.log };
    let active = Active::start(run, Some(&wishes));
    Claimed { publisher, active, log }
}

/// A container's root that lies there.
fn root(directory: &Path) -> Arc<ContainerRoot> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Arc::new(ContainerRoot::new(open(directory, flags, Mode::empty()).unwrap()))
}

#[tokio::test]
async fn a_file_that_the_disk_does_not_give_has_an_entry_and_all_others_are_stored() {
    let scratch = Scratch::new();
    let files = scratch.join("files");
    fs::create_dir(&files).unwrap();
    fs::write(files.join("a"), "first").unwrap();
    // Longer than what is left of the disk.
    fs::write(files.join("b.gz"), vec![b'x'; 6 << 20]).unwrap();
    fs::write(files.join("c.txt"), "behind").unwrap();
    let disk = BrokenDisk::mount(&scratch, &files);

    let payload = json!({
        "image": "i",
        "maxRunTime": 1,
        "artifacts": {
            "public/all": {"type": "directory", "path": "/"},
            "public/own": {"type": "file", "path": "/b.gz"}
        }
    });
    let Claimed { publisher, mut active, log } = claim(&scratch, &payload).await;
    let root = root(disk.path());
    let stopped = Stopped { root, log: &log, publisher: &publisher, command_ended: true, ingredients: None };
    let stage = active.stopped(stopped).await;

    assert_eq!(Hooks::from(&stage), Hooks::Failed, "what was there was not stored");
    let log = fs::read_to_string(log.path()).unwrap();
    let unreadable = Some(ErrorReason::FileNotReadableOnWorker);
    let records = publisher.into_records();
    let rows: Vec<_> = records.iter().map(|it| (it.name.as_str(), it.reason)).collect();
    let expected = [
        ("public/all/a", None),
        ("public/all/b.gz", unreadable),
        ("public/all/c.txt", None),
        ("public/own", unreadable),
    ];
    assert_eq!(rows, expected, "{log}");
    for name in ["public/all/b.gz", "public/own"] {
        let said = format!(
            "\n[taskcluster:error] Error uploading \"{name}\" artifact. Failed to read it: Input/output error"
        );
        assert_eq!(log.matches(&said).count(), 1, "{log}");
    }
    assert_eq!(fs::read(scratch.join("out/public/all/c.txt")).unwrap(), b"behind");
    assert!(File::open(scratch.join("out/public/own")).is_err(), "there is no half of a file");
}

#[test]
fn a_disk_that_is_slow_to_open_a_file_keeps_no_other_task_waiting() {
    for (kind, path) in [("file", "/slow"), ("directory", "/")] {
        let scratch = Scratch::new();
        let files = scratch.join("files");
        fs::create_dir(&files).unwrap();
        fs::write(files.join("slow"), "at last").unwrap();
        let slow = StalledOpening::of(&files.join("slow"));
        let artifacts = json!({ "public": {"type": kind, "path": path} });
        let payload = json!({ "image": "i", "maxRunTime": 1, "artifacts": artifacts });
        let (scratch, root) = (Arc::new(scratch), root(&files));
        let scratch_of_worker = Arc::clone(&scratch);
        let ((stalled, is_stalled), (tell, told)) = (oneshot::channel::<()>(), mpsc::channel());
        let worker = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let Claimed { publisher, mut active, log } = claim(&scratch_of_worker, &payload).await;
                let stopped = Stopped {
                    root,
                    log: &log,
                    publisher: &publisher,
                    command_ended: true,
                    ingredients: None,
                };
                let another = async {
                    is_stalled.await.unwrap();
                    tell.send(()).unwrap();
                };
                let (stage, ()) = tokio::join!(active.stopped(stopped), another);
                stage.unwrap();
            });
        });
        slow.await_opening();
        stalled.send(()).unwrap();
        let told = told.recv_timeout(Duration::from_secs(60));
        drop(slow);
        worker.join().unwrap();
        assert_eq!(told, Ok(()), "{kind}: another task of the same loop went on meanwhile");
        let stored = scratch.join(if kind == "file" { "out/public" } else { "out/public/slow" });
        assert_eq!(fs::read(stored).unwrap(), b"at last");
    }
}
