//! What a deployment and its storage get to see of a run's artifacts.

use std::io::Read;

use flate2::read::GzDecoder;
use serde_json::Value;

use super::storage::{Answer, Received, Storage};
use super::upload::{Pace, Uploader};
use super::*;
use crate::config::ArtifactStorage;
use crate::interrupt::{Interrupter, Notice, channel};
use crate::queue::{Credentials, WorkerIdentity, WorkerQueue};
use crate::task_log::spool::Spool;

mod made;

struct Fixture {
    storage: Storage,
    publisher: Publisher,
    interrupter: Interrupter,
    directory: tempfile::TempDir,
    /// What the task prints.
    log: Spool,
}

/// A run that was claimed of a deployment whose storage answers so.
async fn run(kind: ArtifactStorage, answers: &[Answer]) -> Fixture {
    run_of(uploader(), kind, answers).await
}

fn uploader() -> Uploader {
    Uploader::new(Pace { wait: Duration::from_millis(1), ..Pace::default() }).unwrap()
}

/// The same, of a worker that may have other runs.
async fn run_of(uploader: Uploader, kind: ArtifactStorage, answers: &[Answer]) -> Fixture {
    let storage = Storage::start(answers).await;
    let credentials =
        Credentials { client_id: "worker".to_owned(), access_token: "secret".to_owned(), certificate: None };
    let queue = WorkerQueue::deployment(&storage.url(""), credentials).unwrap();
    let identity = WorkerIdentity { worker_group: "g".to_owned(), worker_id: "w".to_owned() };
    let claim = queue.claim_work("p/w", &identity, 1).await.unwrap().claims.remove(0);
    storage.received().clear();
    let directory = tempfile::tempdir().unwrap();
    let log = Spool::create(&directory.path().join("task.log"), 1 << 30).unwrap();
    let (interrupter, interrupts) = channel();
    let mut config = ConfigFile::default();
    config.artifacts.storage = kind;
    let publisher = Publisher::new(PublisherParts {
        queue: claim.queue,
        expires: claim.expires,
        store: Store::Queue(uploader),
        reserved: Vec::new(),
        scratch: directory.path().to_owned(),
        log: Some(log.reader()),
        config: Arc::new(config),
        events: Events::none(),
        interrupts,
    });
    Fixture { storage, publisher, interrupter, directory, log }
}

impl Fixture {
    fn description(&self, name: &str) -> Description {
        Description {
            name: named(name),
            content_type: "text/plain",
            content_encoding: ContentEncoding::Gzip,
            expires: self.publisher.task_expires(),
        }
    }

    async fn publish(&self, name: &str, text: &str) -> Result<(), PublishError> {
        let path = self.directory.path().join(name.replace('/', "-"));
        std::fs::write(&path, text).unwrap();
        self.publisher.publish(self.description(name), Source::Task(std::fs::File::open(path).unwrap())).await
    }

    /// Method and path of each request, in order.
    fn calls(&self) -> Vec<String> {
        let short =
            |path: &str| path.rsplit_once("/runs/0").map_or(path.to_owned(), |(_, end)| end.to_owned());
        let received = self.storage.received();
        received.iter().map(|it| format!("{} {}", it.method, short(&it.path))).collect()
    }

    fn put(&self) -> Vec<Received> {
        self.storage.received().iter().filter(|it| it.path.starts_with("/put/")).cloned().collect()
    }
}

fn named(name: &str) -> ArtifactName {
    ArtifactName::new(name).unwrap()
}

fn body(received: &Received) -> Value {
    serde_json::from_slice(&received.body).unwrap()
}

const SHA256_OF_ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

#[tokio::test]
async fn an_artifact_is_created_and_then_put_compressed() {
    let run = run(ArtifactStorage::S3, &[]).await;
    run.publish("public/a.txt", "abc").await.unwrap();
    assert_eq!(run.calls(), ["POST /artifacts/public%2Fa.txt", "PUT /put/public%2Fa.txt"]);
    let put = run.put().remove(0);
    assert_eq!((&*put.headers["content-type"], &*put.headers["content-encoding"]), ("text/plain", "gzip"));
    assert_eq!(io::read_to_string(flate2::read::GzDecoder::new(&put.body[..])).unwrap(), "abc");
    let records = run.publisher.into_records();
    assert_eq!((records[0].size, records[0].sha256.as_deref()), (Some(3), Some(SHA256_OF_ABC)));
    assert_eq!(records[0].storage_type, StorageType::S3);
}

#[tokio::test]
async fn a_url_that_is_over_is_replaced_by_creating_the_artifact_again() {
    let run = run(ArtifactStorage::S3, &[Answer::Refuse(403, "AccessDenied")]).await;
    run.publish("a", "abc").await.unwrap();
    assert_eq!(run.calls(), ["POST /artifacts/a", "PUT /put/a", "POST /artifacts/a", "PUT /put/a"]);
    let received = run.storage.received();
    assert_eq!(body(&received[0]), body(&received[2]), "the request is the same");
}

#[tokio::test]
async fn an_objects_url_that_is_over_is_replaced_by_its_service_for_the_queue_creates_it_only_once() {
    let run = run(ArtifactStorage::Object, &[Answer::Refuse(403, "AccessDenied")]).await;
    run.publish("a", "abc").await.unwrap();
    let (create, begin, put) = ("POST /artifacts/a", "PUT /api/object/v1/upload/t%2Fa", "PUT /put/t%2Fa");
    let finish = ["POST /api/object/v1/finish-upload/t%2Fa", "PUT /artifacts/a"];
    assert_eq!(run.calls(), [&[create, begin, put, begin, put], &finish[..]].concat());
}

#[tokio::test]
async fn a_creation_whose_answer_is_lost_is_asked_for_again_in_the_same_words() {
    let run = run(ArtifactStorage::S3, &[]).await;
    run.storage.answer_creations(&[Answer::Cut(0), Answer::Refuse(500, "InternalServerError")]);
    run.publish("a", "abc").await.unwrap();
    assert_eq!(run.calls(), ["POST /artifacts/a", "POST /artifacts/a", "POST /artifacts/a", "PUT /put/a"]);
    let bodies: Vec<_> = run.storage.received()[..3].iter().map(|it| it.body.clone()).collect();
    assert!(bodies.iter().all(|body| *body == bodies[0]), "{bodies:?}");
    let name = named("b");
    let missing = Missing { reason: ErrorReason::FileMissingOnWorker, message: "gone" };
    run.storage.answer_creations(&[Answer::Cut(0)]);
    run.publisher.publish_error(&name, missing, run.publisher.task_expires()).await.unwrap();
}

#[tokio::test]
async fn an_artifact_after_two_reclaims_is_created_with_the_newest_credentials() {
    let run = run(ArtifactStorage::S3, &[Answer::Wait]).await;
    let reclaims = async {
        run.storage.puts(1).await;
        for _ in 0..2 {
            run.publisher.queue.reclaim().await.unwrap();
        }
        run.storage.wake();
    };
    let (uploaded, ()) = tokio::join!(run.publish("a", "abc"), reclaims);
    uploaded.unwrap();
    run.publish("b", "abc").await.unwrap();
    let received = run.storage.received();
    let of = |name| received.iter().find(|it| it.path.ends_with(name)).unwrap();
    for (name, client) in [("/artifacts/a", "task/0"), ("/artifacts/b", "task/2")] {
        let signature = &of(name).headers["authorization"];
        assert!(signature.contains(&format!("id=\"{client}\"")), "{name}: {signature}");
    }
}

#[tokio::test]
async fn a_deployment_that_is_gone_for_a_while_is_waited_for() {
    let Fixture { storage, publisher, interrupter: _interrupter, directory, log: _log } =
        run(ArtifactStorage::S3, &[]).await;
    let address = storage.url("").replace("http://", "").parse().unwrap();
    drop(storage);
    let path = directory.path().join("file");
    std::fs::write(&path, "abc").unwrap();
    let what = Description {
        name: named("a"),
        content_type: "text/plain",
        content_encoding: ContentEncoding::Gzip,
        expires: publisher.task_expires(),
    };
    let back = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        Storage::start_at(address, &[Answer::Cut(0)]).await
    };
    let source = Source::Task(std::fs::File::open(path).unwrap());
    let (published, storage) = tokio::join!(publisher.publish(what, source), back);
    published.unwrap();
    assert_eq!(storage.received().iter().filter(|it| it.path == "/put/a").count(), 2);
}

#[tokio::test]
async fn a_log_that_is_not_taken_is_asked_about_once_and_not_compressed() {
    for status in [400, 403, 404, 409] {
        let run = run(ArtifactStorage::S3, &[]).await;
        run.storage.answer_creations(&[Answer::Refuse(status, "No")]);
        // It would not even be found.
        let log = Source::Log(run.directory.path().join("nowhere"));
        let error = run.publisher.publish(run.description("log"), log).await.unwrap_err();
        assert!(matches!(error, PublishError::Queue(_)), "{status}: {error}");
        assert_eq!(run.calls(), ["POST /artifacts/log"], "{status}");
    }
}

#[tokio::test]
async fn a_name_that_the_queue_does_not_take_is_refused_with_the_queues_words() {
    let run = run(ArtifactStorage::S3, &[]).await;
    let error = run.publish("public/na\u{ef}ve.txt", "abc").await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("public/na\u{ef}ve.txt") && text.contains("name must match"), "{text}");
    assert_eq!(run.calls(), ["POST /artifacts/public%2Fna%C3%AFve.txt"]);
}

#[tokio::test]
async fn an_object_is_put_as_it_is_and_finished_with_its_hash() {
    let run = run(ArtifactStorage::Object, &[Answer::Refuse(503, "SlowDown")]).await;
    run.publish("a", "abc").await.unwrap();
    let calls = run.calls();
    let expected = [
        "POST /artifacts/a",
        "PUT /api/object/v1/upload/t%2Fa",
        "PUT /put/t%2Fa",
        "PUT /put/t%2Fa",
        "POST /api/object/v1/finish-upload/t%2Fa",
        "PUT /artifacts/a",
    ];
    assert_eq!(calls, expected);
    assert_eq!(run.put()[1].body, b"abc");
    assert_eq!(run.put()[1].headers.get("content-encoding"), None);
    let received = run.storage.received();
    assert_eq!(body(&received[4])["hashes"]["sha256"], SHA256_OF_ABC);
    let upload_id = &body(&received[1])["uploadId"];
    assert!(body(&received[4])["uploadId"] == *upload_id && body(&received[5])["uploadId"] == *upload_id);
}

#[tokio::test]
async fn the_log_is_compressed_once_for_all_its_names() {
    let run = run(ArtifactStorage::S3, &[]).await;
    let path = run.directory.path().join("log");
    std::fs::write(&path, "log ".repeat(100_000)).unwrap();
    for name in ["backing.log", "bulk.log.gz"] {
        run.publisher.publish(run.description(name), Source::Log(path.clone())).await.unwrap();
        // What is gone cannot be compressed again.
        std::fs::write(&path, "").unwrap();
    }
    run.publisher.publish_link(&named("live.log"), &named("backing.log")).await.unwrap();
    let put = run.put();
    assert_eq!(put[0].body, put[1].body);
    assert!(put[0].length > 0);
    let records = run.publisher.into_records();
    let sizes: Vec<_> = records.iter().map(|it| (it.name.as_str(), it.size)).collect();
    assert_eq!(sizes, [("backing.log", Some(400_000)), ("bulk.log.gz", Some(400_000)), ("live.log", None)]);
}

/// Another file takes the log's place when it is compressed: by what is sent one can tell which of them was read, and when.
#[tokio::test]
async fn a_long_log_is_sent_as_it_was_compressed_while_it_was_written_if_that_is_all_of_it() {
    let long = "ab".repeat(1 << 20);
    let other = "cd".repeat(1 << 20);
    let longer = other.clone() + "e";
    for (kind, in_its_place, expected) in [
        (ArtifactStorage::S3, &other, &long),
        (ArtifactStorage::S3, &longer, &longer),
        (ArtifactStorage::Object, &other, &other),
    ] {
        let run = run(kind, &[]).await;
        run.log.text(&long);
        assert!(run.log.end().is_none());
        let path = run.directory.path().join("other");
        std::fs::write(&path, in_its_place).unwrap();
        run.publisher.publish(run.description("a.log"), Source::Log(path)).await.unwrap();
        let body = &run.put()[0].body;
        let mut text = String::new();
        match kind {
            ArtifactStorage::S3 => GzDecoder::new(&body[..]).read_to_string(&mut text).unwrap(),
            // This storage keeps no long body whole.
            ArtifactStorage::Object => {
                assert_eq!(run.put()[0].length, expected.len() as u64);
                (&body[..]).read_to_string(&mut text).unwrap()
            }
        };
        assert!(!text.is_empty() && expected.starts_with(&text), "{kind:?}: {}", &text[..2]);
    }
}

#[tokio::test]
async fn a_log_that_nobody_waits_for_is_not_stored_and_its_link_is_made_all_the_same() {
    let run = run(ArtifactStorage::S3, &[]).await;
    for _ in 0..2 {
        run.interrupter.interrupt(Interrupt::CancelledHere, Notice::Signal);
    }
    let log = run.directory.path().join("log");
    std::fs::write(&log, "text").unwrap();
    let stored = run.publisher.publish(run.description("backing.log"), Source::Log(log)).await;
    assert!(matches!(stored, Err(PublishError::Interrupted)), "{stored:?}");
    run.publisher.publish_link(&named("live.log"), &named("backing.log")).await.unwrap();
    assert_eq!(run.calls(), ["POST /artifacts/live.log"]);
}

#[tokio::test]
async fn eight_are_uploaded_at_a_time_and_an_interrupt_ends_them_all() {
    let run = run(ArtifactStorage::S3, &[Answer::Hang; 8]).await;
    let names: Vec<String> = (0..20).map(|number| format!("public/{number}")).collect();
    let all = futures_util::future::join_all(names.iter().map(|name| run.publish(name, "abc")));
    let interrupt = async {
        run.storage.puts(8).await;
        run.interrupter.interrupt(Interrupt::Cancelled, Notice::Signal);
    };
    let (results, ()) = tokio::join!(all, interrupt);
    assert!(results.iter().all(|it| matches!(it, Err(PublishError::Interrupted))), "{results:?}");
    assert_eq!(run.put().len(), 8);
    assert!(run.publisher.into_records().is_empty());
}

#[tokio::test]
async fn all_runs_of_a_worker_together_upload_no_more_than_it_can_bear_and_logs_do_not_wait_for_that() {
    let uploader = uploader();
    let mut runs = Vec::new();
    for _ in 0..5 {
        runs.push(run_of(uploader.clone(), ArtifactStorage::S3, &[Answer::Hang; 8]).await);
    }
    let names: Vec<String> = (0..8).map(|number| format!("public/{number}")).collect();
    let all = runs.iter().flat_map(|run| names.iter().map(|name| run.publish(name, "abc")));
    let all = futures_util::future::join_all(all);
    let uploads = || runs.iter().map(|run| run.put().len()).sum::<usize>();
    let interrupt = async {
        while uploads() < 32 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let other = run_of(uploader.clone(), ArtifactStorage::S3, &[]).await;
        let log = other.directory.path().join("log");
        std::fs::write(&log, "text").unwrap();
        other.publisher.publish(other.description("a.log"), Source::Log(log)).await.unwrap();
        runs.iter().for_each(|run| run.interrupter.interrupt(Interrupt::Cancelled, Notice::Signal));
    };
    let both = async { tokio::join!(all, interrupt) };
    let (results, ()) = tokio::time::timeout(Duration::from_secs(60), both).await.unwrap();
    assert!(results.iter().all(|it| matches!(it, Err(PublishError::Interrupted))), "{results:?}");
    assert_eq!(uploads(), 32);
}

#[tokio::test]
async fn what_is_refused_says_by_whom_and_with_what() {
    let run = run(ArtifactStorage::S3, &[Answer::Refuse(413, "EntityTooLarge")]).await;
    let error = run.publish("a", "abc").await.unwrap_err();
    assert_eq!(error.to_string(), "upload it to 127.0.0.1: status code 413 (EntityTooLarge)");
    assert_eq!(run.calls(), ["POST /artifacts/a", "PUT /put/a"]);
}

#[tokio::test]
async fn a_queue_that_does_not_answer_holds_no_interrupted_run() {
    let run = run(ArtifactStorage::S3, &[]).await;
    let name = named("silent");
    let missing = Missing { reason: ErrorReason::FileMissingOnWorker, message: "gone" };
    let interrupt = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        run.interrupter.interrupt(Interrupt::Cancelled, Notice::Signal);
        tokio::time::sleep(Duration::from_millis(100)).await;
        // The log is worth one interrupt.
        run.interrupter.interrupt(Interrupt::CancelledHere, Notice::Signal);
    };
    let calls = async {
        tokio::join!(
            run.publish("silent", "abc"),
            run.publisher.publish_error(&name, missing, run.publisher.task_expires()),
            run.publisher.publish_link(&name, &name),
            interrupt,
        )
    };
    let ended = tokio::time::timeout(Duration::from_secs(20), calls).await.unwrap();
    for result in [ended.0, ended.1, ended.2] {
        assert!(matches!(result, Err(PublishError::Interrupted)), "{result:?}");
    }
}
