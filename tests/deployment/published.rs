//! What a run publishes, fetched again from the deployment.

use std::fs::File;
use std::sync::Arc;

use docker_worker::artifact::upload::{Pace, Uploader};
use docker_worker::artifact::{
    ContentEncoding, Description, LOG_TYPE, Publisher, PublisherParts, Source, Store,
};
use docker_worker::config::{ArtifactStorage, ConfigFile};
use docker_worker::event::Events;
use docker_worker::interrupt::channel;

use super::*;

fn publisher(claim: &Claim, storage: ArtifactStorage, scratch: &std::path::Path) -> Publisher {
    let mut config = ConfigFile::default();
    config.artifacts.storage = storage;
    Publisher::new(PublisherParts {
        queue: claim.queue.clone(),
        expires: claim.expires,
        store: Store::Queue(Uploader::new(Pace::default()).unwrap()),
        reserved: Vec::new(),
        scratch: scratch.to_owned(),
        log: None,
        config: Arc::new(config),
        events: Events::none(),
        interrupts: channel().1,
    })
}

fn description(claim: &Claim, name: &str) -> Description {
    Description {
        name: artifact(name),
        content_type: LOG_TYPE,
        content_encoding: ContentEncoding::Gzip,
        expires: claim.expires,
    }
}

/// The bytes of an artifact, as curl gets them.
fn fetch(claim: &Claim, name: &str) -> Vec<u8> {
    let run = claim.queue.run();
    let (root, task_id, run_id) = (variable("TASKCLUSTER_ROOT_URL"), &run.task_id, run.run_id);
    let name = name.replace('/', "%2F");
    let url = format!("{root}/api/queue/v1/task/{task_id}/runs/{run_id}/artifacts/{name}");
    let output = std::process::Command::new("curl")
        .args(["--silent", "--show-error", "--fail", "--location", "--compressed", &url])
        .output()
        .unwrap();
    assert!(output.status.success(), "{url}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[tokio::test]
async fn what_is_published_is_what_is_fetched() {
    for storage in [ArtifactStorage::S3, ArtifactStorage::Object] {
        let deployment = Deployment::new();
        let claim = deployment.claimed().await;
        let scratch = tempfile::tempdir().unwrap();
        let publisher = publisher(&claim, storage, scratch.path());
        for (name, text) in [
            ("public/none", String::new()),
            ("public/a", "a".to_owned()),
            ("public/long", "text ".repeat(1 << 20)),
        ] {
            let path = scratch.path().join("file");
            std::fs::write(&path, &text).unwrap();
            let source = Source::Task(File::open(path).unwrap());
            publisher.publish(description(&claim, name), source).await.unwrap();
            assert!(fetch(&claim, name) == text.as_bytes(), "{storage:?} {name}");
        }
        let log = scratch.path().join("log");
        std::fs::write(&log, "log\r\n").unwrap();
        publisher.publish(description(&claim, "public/backing.log"), Source::Log(log)).await.unwrap();
        publisher.publish_link(&artifact("public/live.log"), &artifact("public/backing.log")).await.unwrap();
        assert_eq!(fetch(&claim, "public/live.log"), b"log\r\n", "{storage:?}");
    }
}
