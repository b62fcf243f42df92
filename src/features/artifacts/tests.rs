//! What becomes of a payload's artifacts, read from a root that a task could have left.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use super::*;
use crate::artifact::ArtifactRecord;
use crate::artifact::{Destination, Publisher, PublisherParts, Store};
use crate::config::{ArtifactSettings, ConfigFile};
use crate::event::Events;
use crate::features::Hooks;
use crate::features::{Active, Contributions, Link, RunContext, Stopped, Wishes};
use crate::interrupt::{Interrupter, Notice, channel};
use crate::payload::{Origin, Payload, TaskContext, reserved_names};
use crate::queue::definition::Submission;
use crate::queue::task_id::TaskId;
use crate::queue::{EmbeddedQueue, ErrorReason, StorageType, WorkerIdentity, WorkerQueue};
use crate::task_log::spool::Spool;
use crate::timestamp::Timestamp;

/// What came of it.
struct Result {
    verdict: Hooks,
    records: Vec<ArtifactRecord>,
    log: String,
    out: tempfile::TempDir,
}

impl Result {
    /// Name, storage type and reason of each.
    fn rows(&self) -> Vec<(&str, StorageType, Option<ErrorReason>)> {
        self.records.iter().map(|it| (it.name.as_str(), it.storage_type, it.reason)).collect()
    }
}

/// A root as a task may leave it, with a canary beside it.
fn root(top: &Path) -> ContainerRoot {
    let root = top.join("root");
    std::fs::create_dir_all(root.join("out/sub")).unwrap();
    std::fs::write(top.join("canary"), "host").unwrap();
    std::fs::write(root.join("file.txt"), "text").unwrap();
    std::fs::write(root.join("out/1.txt"), "one").unwrap();
    std::fs::write(root.join("out/sub/2.gz"), "two").unwrap();
    std::fs::hard_link(root.join("out/1.txt"), root.join("out/again.txt")).unwrap();
    std::fs::create_dir(root.join("large")).unwrap();
    std::fs::File::create(root.join("large/file")).unwrap().set_len(1001).unwrap();
    std::fs::create_dir(root.join("logs")).unwrap();
    for name in ["live.log", "live_backing.log", "terminal_bulk.log.gz", "own.log"] {
        std::fs::write(root.join("logs").join(name), "forged").unwrap();
    }
    std::fs::create_dir(root.join("large-logs")).unwrap();
    std::fs::File::create(root.join("large-logs/live.log")).unwrap().set_len(1001).unwrap();
    symlink("/file.txt", root.join("link")).unwrap();
    symlink("../../canary", root.join("out/escape")).unwrap();
    symlink("../canary", root.join("outside")).unwrap();
    symlink("/", root.join("out/sub/top")).unwrap();
    let fifo = rustix::fs::FileType::Fifo;
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, root.join("fifo"), fifo, mode, 0).unwrap();
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY;
    ContainerRoot::new(rustix::fs::open(&root, flags, rustix::fs::Mode::empty()).unwrap())
}

/// A task that the operator wrote, for a worker that allows everything.
fn operators(expires: Timestamp) -> TaskContext<'static> {
    TaskContext {
        expires,
        origin: Origin::Operator,
        disabled_features: &[],
        max_task_run_time: None,
        pointer: "",
    }
}

/// A claimed run whose payload has artifacts.
struct Task {
    publisher: Publisher,
    interrupter: Interrupter,
    active: Active,
    spool: Spool,
    root: Arc<ContainerRoot>,
    scratch: tempfile::TempDir,
    out: tempfile::TempDir,
}

impl Task {
    async fn claimed(artifacts: Value, interrupt: Option<Interrupt>) -> Task {
        let payload = json!({"image": "i", "maxRunTime": 1, "artifacts": artifacts});
        let author = EmbeddedQueue::in_memory(Box::new(Timestamp::now)).unwrap();
        let task_id = TaskId::random().unwrap();
        let submission = Submission::parse(payload.to_string().as_bytes()).unwrap();
        let definition = submission.into_task(&task_id, Timestamp::now()).unwrap().definition;
        author.create_task(&task_id, &definition).await.unwrap();
        let identity = WorkerIdentity { worker_group: "g".to_owned(), worker_id: "w".to_owned() };
        let queue = WorkerQueue::embedded(author);
        let claim = queue.claim_work(&definition.task_queue_id, &identity, 1).await.unwrap().claims.remove(0);
        let payload = Payload::parse(&definition.payload, &operators(definition.expires)).0.unwrap();

        let artifacts = ArtifactSettings { max_bytes: Some(1000), ..ArtifactSettings::default() };
        let config = Arc::new(ConfigFile { artifacts, ..ConfigFile::default() });
        let (scratch, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (interrupter, interrupts) = channel();
        if let Some(interrupt) = interrupt {
            interrupter.interrupt(interrupt, Notice::Signal);
        }
        let run = claim.queue.run().clone();
        let publisher = Publisher::new(PublisherParts {
            queue: claim.queue,
            expires: definition.expires,
            store: Store::Directory(Arc::new(Destination::directory(out.path()).unwrap())),
            reserved: reserved_names(
                &payload.log,
                &payload.features,
                (payload.names_superseder, payload.cache.keys()),
            ),
            scratch: scratch.path().to_owned(),
            log: None,
            config: Arc::clone(&config),
            events: Events::none(),
            interrupts,
        });
        let wishes = Wishes { payload: Some(&payload), switches: &payload.features, log: &payload.log };
        let spool = Spool::create(&scratch.path().join("log"), 1 << 20).unwrap();
        // Nothing interrupts `link`.
        let (_interrupter, interrupts) = channel();
        let data = scratch.path().to_owned();
        let log = spool.clone();
        let run = RunContext {
            events: Events::none().of(&run),
            run,
            definition: claim.definition,
            worker_id: "w".to_owned(),
            signing_key: None,
            scopes: Vec::new(),
            config,
            data,
            log,
            live_log: None,
            proxy: None,
            credentials: None,
            interrupts,
        };
        let active = Active::start(run, Some(&wishes));
        let root = Arc::new(root(scratch.path()));
        Task { publisher, interrupter, active, spool, root, scratch, out }
    }

    fn stopped(&self, command_ended: bool) -> Stopped<'_> {
        Stopped {
            root: Arc::clone(&self.root),
            log: &self.spool,
            publisher: &self.publisher,
            command_ended,
            ingredients: None,
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.spool.path()).unwrap()
    }
}

/// Runs the feature over `artifacts` of a payload, as if the task had ended so.
async fn publish(artifacts: Value, command_ended: bool, interrupt: Option<Interrupt>) -> Result {
    let mut task = Task::claimed(artifacts, interrupt).await;
    let mut contributions = Contributions::default();
    task.active.link(Link { network: None, contributions: &mut contributions }).await.unwrap();
    for bind in &contributions.binds {
        std::fs::write(bind.source.join("from the task"), "kept").unwrap();
    }
    let stopped = Stopped {
        root: Arc::clone(&task.root),
        log: &task.spool,
        publisher: &task.publisher,
        command_ended,
        ingredients: None,
    };
    let verdict = Hooks::from(&task.active.stopped(stopped).await);
    Result { verdict, log: task.log(), records: task.publisher.into_records(), out: task.out }
}

#[tokio::test]
async fn files_and_directories_are_published_and_links_inside_are_followed_only_as_artifacts() {
    let result = publish(
        json!({
            "public/file": {"type": "file", "path": "file.txt"},
            "public/link": {"type": "file", "path": "/link"},
            "public/out/": {"type": "directory", "path": "/out"}
        }),
        true,
        None,
    )
    .await;
    let s3 = |name| (name, StorageType::S3, None);
    let expected = [
        s3("public/file"),
        s3("public/link"),
        s3("public/out/1.txt"),
        s3("public/out/again.txt"),
        s3("public/out/sub/2.gz"),
    ];
    assert_eq!(result.rows(), expected, "{}", result.log);
    assert_eq!(result.verdict, Hooks::Done);
    assert_eq!(result.log, "");
    assert_eq!(std::fs::read_to_string(result.out.path().join("public/link")).unwrap(), "text");
    let encodings: Vec<_> = result.records.iter().map(|it| it.content_encoding).collect();
    assert_eq!(encodings, [Some("gzip"), Some("gzip"), Some("gzip"), Some("gzip"), None]);
    assert_eq!(result.records[0].content_type, Some("text/plain"));
}

#[tokio::test]
async fn what_is_missing_or_of_another_type_says_so_and_does_not_fail_the_task() {
    let result = publish(
        json!({
            "public/a-missing": {"type": "file", "path": "/nowhere"},
            "public/b-below-file": {"type": "directory", "path": "/file.txt/x"},
            "public/c-directory": {"type": "file", "path": "/out"},
            "public/d-file": {"type": "directory", "path": "/file.txt"},
            "public/e-fifo": {"type": "file", "path": "/fifo"},
            "public/f-outside": {"type": "file", "path": "/outside"}
        }),
        true,
        None,
    )
    .await;
    let error = |name, reason| (name, StorageType::Error, Some(reason));
    let expected = [
        error("public/a-missing", ErrorReason::FileMissingOnWorker),
        error("public/b-below-file", ErrorReason::FileMissingOnWorker),
        error("public/c-directory", ErrorReason::InvalidResourceOnWorker),
        error("public/d-file", ErrorReason::InvalidResourceOnWorker),
        error("public/e-fifo", ErrorReason::InvalidResourceOnWorker),
        error("public/f-outside", ErrorReason::FileMissingOnWorker),
    ];
    assert_eq!(result.rows(), expected, "{}", result.log);
    assert_eq!(result.verdict, Hooks::Done);
    let said = "Artifact \"public/a-missing\" not found at \"/nowhere\": no such file or directory";
    assert!(result.log.contains(said), "{}", result.log);
    let said =
        "Error uploading \"public/c-directory\". Expected artifact to be a \"file\" but was \"directory\"";
    assert!(result.log.contains(said), "{}", result.log);
}

#[tokio::test]
async fn how_the_task_ended_decides_what_is_published() {
    const VOLUME: &[&str] = &["public/volume/from the task"];
    for (command_ended, interrupt, expected) in [
        (true, None, &["public/file", "public/volume/from the task"][..]),
        (false, None, VOLUME),
        (true, Some(Interrupt::MaxRunTime), VOLUME),
        (true, Some(Interrupt::Shutdown), VOLUME),
        (true, Some(Interrupt::Cancelled), &[]),
        (true, Some(Interrupt::CancelledHere), &[]),
        (true, Some(Interrupt::LostClaim), &[]),
        (true, Some(Interrupt::RefusedClaim), &[]),
    ] {
        let artifacts = json!({
            "public/file": {"type": "file", "path": "file.txt"},
            "public/volume": {"type": "volume", "path": "/volume"}
        });
        let result = publish(artifacts, command_ended, interrupt).await;
        let names: Vec<&str> = result.rows().iter().map(|row| row.0).collect();
        assert_eq!(names, expected, "{command_ended} {interrupt:?}: {}", result.log);
    }
}

#[tokio::test]
async fn a_file_that_has_a_logs_name_is_left_out_and_the_log_says_so() {
    let artifacts = json!({ "public/logs": {"type": "directory", "path": "/logs"} });
    let result = publish(artifacts, true, None).await;
    let names: Vec<&str> = result.rows().iter().map(|row| row.0).collect();
    assert_eq!(names, ["public/logs/own.log", "public/logs/terminal_bulk.log.gz"], "bulkLog is off");
    assert_eq!(result.verdict, Hooks::Done);
    for (name, owner) in [("live.log", "live log"), ("live_backing.log", "finished log")] {
        let said = format!("\"public/logs/{name}\". That is the name of this task's {owner}");
        assert!(result.log.contains(&said), "{}", result.log);
    }
    let artifacts = json!({ "public/logs": {"type": "directory", "path": "/large-logs"} });
    let result = publish(artifacts, true, None).await;
    assert_eq!(result.rows(), [], "nor is there an error under such a name: {}", result.log);
    assert_eq!(result.verdict, Hooks::Done);
}

#[tokio::test]
async fn a_name_is_the_closest_entrys_and_the_log_says_whose_it_is() {
    let artifacts = json!({
        "public/out": {"type": "directory", "path": "/out"},
        "public/out/1.txt": {"type": "file", "path": "/file.txt"},
        "public/out/sub": {"type": "directory", "path": "/large"}
    });
    let result = publish(artifacts, true, None).await;
    let s3 = |name| (name, StorageType::S3, None);
    let too_large = |name| (name, StorageType::Error, Some(ErrorReason::TooLargeFileOnWorker));
    let expected = [s3("public/out/1.txt"), s3("public/out/again.txt"), too_large("public/out/sub/file")];
    assert_eq!(result.rows(), expected, "{}", result.log);
    assert_eq!(std::fs::read_to_string(result.out.path().join("public/out/1.txt")).unwrap(), "text");
    for (name, owner) in [("1.txt", "1.txt"), ("sub/2.gz", "sub")] {
        let said = format!(
            "\"public/out/{name}\". That is the name of the artifact \"public/out/{owner}\" of the payload"
        );
        assert!(result.log.contains(&said), "{}", result.log);
    }
}

#[tokio::test]
async fn a_file_that_is_too_large_is_an_error_artifact_whatever_it_takes_on_the_disk() {
    let artifacts = json!({
        "public/file": {"type": "file", "path": "/large/file"},
        "public/out": {"type": "directory", "path": "/large"}
    });
    let result = publish(artifacts, true, None).await;
    let too_large = |name| (name, StorageType::Error, Some(ErrorReason::TooLargeFileOnWorker));
    assert_eq!(result.rows(), [too_large("public/file"), too_large("public/out/file")], "{}", result.log);
    assert_eq!(result.verdict, Hooks::Done);
    let said = "1001 bytes long, and an artifact may be 1000 (artifacts.maxBytes)";
    assert!(result.log.contains(said), "{}", result.log);
}

#[tokio::test]
async fn a_file_that_vanishes_from_a_directory_is_an_error_artifact_and_the_others_are_stored() {
    let task = Task::claimed(json!({}), None).await;
    let name = ArtifactName::new("public/out").unwrap();
    let expires = task.publisher.task_expires();
    let sharing = &Sharing::of(&task.publisher);
    let item =
        Item { name: &name, declared: "directory", path: "/out", closer: Vec::new(), expires, sharing };
    let found = Arc::new(task.root.find("/out").unwrap());
    let listed = ["1.txt", "gone.txt", "sub/2.gz"].map(str::to_owned).to_vec();
    let published = item.members(found, listed, &task.stopped(true)).await;
    assert!(published.is_ok(), "as if it had been missing from the beginning");
    let log = task.log();
    let said = "Artifact \"public/out/gone.txt\" not found at \"gone.txt\": no such file or directory";
    assert!(log.contains(said), "{log}");
    let records = task.publisher.into_records();
    let rows: Vec<_> = records.iter().map(|it| (it.name.as_str(), it.reason)).collect();
    let gone = ("public/out/gone.txt", Some(ErrorReason::FileMissingOnWorker));
    assert_eq!(rows, [("public/out/1.txt", None), gone, ("public/out/sub/2.gz", None)]);
}

#[tokio::test]
async fn a_second_interrupt_ends_what_the_first_one_has_left_to_do() {
    let task = Task::claimed(json!({}), Some(Interrupt::Shutdown)).await;
    let name = ArtifactName::new("public/out").unwrap();
    let expires = task.publisher.task_expires();
    let sharing = &Sharing::of(&task.publisher);
    let item = Item { name: &name, declared: "volume", path: "/out", closer: Vec::new(), expires, sharing };
    task.interrupter.interrupt(Interrupt::Shutdown, Notice::Signal);
    let found = Arc::new(task.root.find("/out").unwrap());
    assert!(item.members(found, vec!["1.txt".to_owned()], &task.stopped(false)).await.is_err());
    let root = Arc::clone(&task.root);
    assert!(item.publish(move || root.find("/out"), &task.stopped(false)).await.is_err());
    let log = task.log();
    assert!(task.publisher.into_records().is_empty(), "{log}");
}

#[tokio::test]
async fn a_file_whose_name_is_no_artifacts_fails_the_task_and_has_one_line() {
    let task = Task::claimed(json!({ "public/odd": {"type": "directory", "path": "/odd"} }), None).await;
    let odd = task.scratch.path().join("root/odd");
    std::fs::create_dir(&odd).unwrap();
    for name in [&b"plain"[..], b"not \xff utf-8", b"two\nlines", b"esc\x1b[31m"] {
        std::fs::write(odd.join(std::ffi::OsStr::from_bytes(name)), "text").unwrap();
    }
    let Task { publisher, mut active, spool, root, .. } = task;
    let stopped =
        Stopped { root, log: &spool, publisher: &publisher, command_ended: true, ingredients: None };
    assert_eq!(Hooks::from(&active.stopped(stopped).await), Hooks::Failed);
    let names: Vec<String> = publisher.into_records().iter().map(|it| it.name.to_string()).collect();
    assert_eq!(names, ["public/odd/plain"]);
    let log = std::fs::read_to_string(spool.path()).unwrap();
    for said in
        ["odd/not \u{fffd} utf-8\". An artifact's name must be UTF-8", "two\\nlines\"", "esc\\u001b[31m\""]
    {
        assert_eq!(log.matches(said).count(), 1, "{said}: {log}");
    }
    assert_eq!(log.matches("; rename the file.").count(), 3, "{log}");
}

#[tokio::test]
async fn what_is_said_of_a_missing_file_fits_into_an_error_artifact_however_long_its_path() {
    let path = format!("/{}", vec!["x".repeat(200); 20].join("/"));
    let name = format!("public/{}", "n".repeat(1000));
    let result = publish(json!({ &name: {"type": "file", "path": path} }), true, None).await;
    let expected = [(name.as_str(), StorageType::Error, Some(ErrorReason::FileMissingOnWorker))];
    assert_eq!(result.rows(), expected, "{}", result.log);
    assert_eq!(result.verdict, Hooks::Done);
}
