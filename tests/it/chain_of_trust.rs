//! `chainOfTrust`: what a worker certifies, checked by somebody else's implementation.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::{Run, Site, Worker, busybox_image, call, sha256, tool};
use crate::task_images::{made_image, payload_of, write_archives};
use crate::task_images_faults::Maker;

const STATEMENT: &str = "public/chain-of-trust.json";
const SIGNATURE: &str = "public/chain-of-trust.json.sig";
const LOG: &str = "public/logs/certified.log";

/// A key as openssl makes it, and a configuration that names it in the original's form.
pub struct Key {
    /// In the original's form.
    pub secret: PathBuf,
    public: PathBuf,
    config: String,
}

impl Key {
    pub fn make(worker: &Worker) -> Key {
        let directory = worker.fresh("key");
        fs::create_dir(&directory).unwrap();
        let path = |name: &str| directory.join(name);
        let openssl = |arguments: &[&str], out: &Path| {
            tool("openssl", &[arguments, &["-out", out.to_str().unwrap()]].concat());
        };
        let (secret, public) = (path("secret.pem"), path("public.pem"));
        let from = secret.to_str().unwrap();
        openssl(&["genpkey", "-algorithm", "ed25519"], &secret);
        openssl(&["pkey", "-in", from, "-pubout"], &public);
        openssl(&["pkey", "-in", from, "-outform", "DER"], &path("secret.der"));
        openssl(&["pkey", "-in", from, "-pubout", "-outform", "DER"], &path("public.der"));
        // Both end with the 32 bytes of their half (RFC 8410).
        let half = |name: &str| {
            let bytes = fs::read(path(name)).unwrap();
            bytes[bytes.len() - 32..].to_vec()
        };
        let whole = [half("secret.der"), half("public.der")].concat();
        fs::write(path("key"), STANDARD.encode(whole) + "\n").unwrap();
        let config = path("config.yml");
        let text = format!(
            "ed25519SigningKeyLocation: {}\nworkerGroup: g\nworkerId: w\npublicIp: 203.0.113.1\nprivateIp: 192.0.2.1\nregion: r\n",
            path("key").display()
        );
        fs::write(&config, text).unwrap();
        Key { secret: path("key"), public, config: config.to_str().unwrap().to_owned() }
    }

    /// Fails the test unless the signature is one of exactly the statement's bytes.
    fn verify(&self, statement: &Path, signature: &Path) {
        let [public, statement, file] =
            [&self.public, statement, signature].map(|path| path.to_str().unwrap().to_owned());
        let how = ["pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", &public];
        tool("openssl", &[&how[..], &["-in", &statement, "-sigfile", &file]].concat());
        assert_eq!(fs::metadata(signature).unwrap().len(), 64);
    }

    fn verify_run(&self, run: &Run) {
        self.verify(&run.artifacts.join(STATEMENT), &run.artifacts.join(SIGNATURE));
    }
}

fn statement(run: &Run) -> Value {
    serde_json::from_slice(&run.artifact(STATEMENT)).unwrap()
}

fn certified(image: &str, script: &str) -> Value {
    json!({
        "image": image, "maxRunTime": 60, "command": ["sh", "-c", script], "features": {"chainOfTrust": true}
    })
}

#[test]
fn a_task_is_certified_with_all_that_it_left() {
    let worker = Worker::new();
    let image = worker.image(&busybox_image());
    let key = Key::make(&worker);
    let mut payload = certified(&image.source, "echo kept >/a.txt; mkdir /d; echo more >/d/b.txt; exit 0");
    payload["env"] = json!({ "NAME": "Grüße ☃" });
    payload["artifacts"] = json!({
        "public/a.txt": {"type": "file", "path": "/a.txt"},
        "public/d": {"type": "directory", "path": "/d"},
        "public/missing": {"type": "file", "path": "/missing"},
    });
    let run = worker.task_with(&payload, &["--config", &key.config]).expect(0, "certified");
    key.verify_run(&run);
    let mut said = statement(&run);
    let log = run.artifact("public/logs/certified.log");
    assert_eq!(log, run.artifact("public/logs/live_backing.log"));
    let hash = |bytes: &[u8]| json!({ "sha256": sha256(bytes).trim_start_matches("sha256:") });
    let artifacts = json!({
        "public/a.txt": hash(b"kept\n"), "public/d/b.txt": hash(b"more\n"), "public/logs/certified.log": hash(&log),
    });
    assert_eq!(said["artifacts"], artifacts);
    // As it was received: no default stands in it. By this variable the tests find their processes.
    said["task"]["payload"]["env"].as_object_mut().unwrap().remove("DOCKER_WORKER_TEST");
    assert_eq!(said["task"]["payload"], payload);
    assert_eq!((&said["taskId"], &said["runId"]), (&run.resolution["taskId"], &run.resolution["runId"]));
    let id = said["environment"]["imageHash"].as_str().unwrap();
    assert!(id.starts_with("sha256:") && id != run.resolution["image"]["digest"], "{id}");
    let environment = json!({
        "publicIpAddress": "203.0.113.1", "privateIpAddress": "192.0.2.1", "imageHash": id, "region": "r",
    });
    assert_eq!(said["environment"], environment);
    let text = String::from_utf8(run.artifact(STATEMENT)).unwrap();
    let keys: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("  \"")?.split('"').next()).collect();
    let expected = [
        "chainOfTrustVersion",
        "artifacts",
        "task",
        "taskId",
        "runId",
        "workerGroup",
        "workerId",
        "environment",
    ];
    assert_eq!(keys, expected, "{text}");
}

#[test]
fn a_task_of_a_deployment_is_certified_as_the_queue_has_it() {
    let site = Site::new();
    let key = Key::make(&site.worker);
    let worker = site.start(&json!({ "ed25519SigningKeyLocation": key.secret }));
    let mut definition = site.deployment.definition(&certified(&site.image, "true"));
    // Numbers and an order of keys that a reader could change, and defaults that are not there.
    definition["extra"] = json!({ "z": [1.5e300, 1e-7, -0.0], "a": { "b": "Grüße", "a": null } });
    let task_id = site.deployment.create_task(definition);
    site.deployment.await_resolved(&task_id);
    let [statement, signature] = [STATEMENT, SIGNATURE].map(|name| {
        let path = site.worker.fresh("certified");
        fs::write(&path, site.deployment.artifact(&task_id, name)).unwrap();
        path
    });
    key.verify(&statement, &signature);
    let said: Value = serde_json::from_slice(&fs::read(statement).unwrap()).unwrap();
    let (root_url, get) = (site.deployment.root_url.clone(), format!("GET queue/task/{task_id}"));
    let known = site.deployment.within(async move { call(&root_url, None, &get, &Value::Null).await });
    assert_eq!((known.status, &known.body), (200, &said["task"]));
    assert_eq!((&said["workerGroup"], &said["workerId"]), (&json!("tests"), &json!("worker")));
    worker.stop();
}

#[test]
fn a_task_without_artifacts_is_certified_by_its_log_and_one_that_fails_too() {
    let worker = Worker::new();
    let image = worker.image(&busybox_image()).source;
    let key = Key::make(&worker);
    let mut payload = certified(&image, "echo said; exit 3");
    payload["features"]["artifacts"] = json!(false);
    let run = worker.task_with(&payload, &["--config", &key.config]).expect(3, "the command's own end");
    key.verify_run(&run);
    let names: Vec<_> = statement(&run)["artifacts"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(names, ["public/logs/certified.log"]);
}

#[test]
fn what_has_not_ended_by_itself_is_not_certified() {
    let worker = Worker::new();
    let image = worker.image(&busybox_image()).source;
    let key = Key::make(&worker);
    for (case, change, status) in [
        ("it exceeds its time", json!({ "command": ["sleep", "100"], "maxRunTime": 1 }), 124),
        ("it has no such command", json!({ "command": ["/none"] }), 127),
    ] {
        let mut payload = certified(&image, "true");
        payload.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let run = worker.task_with(&payload, &["--config", &key.config]).expect(status, case);
        let artifacts = run.resolution["artifacts"].as_array().unwrap();
        let is_of_the_chain = |it: &Value| [STATEMENT, SIGNATURE, LOG].iter().any(|name| it["name"] == *name);
        assert!(artifacts.len() == 2 && !artifacts.iter().any(is_of_the_chain), "{case}: {run:?}");
    }
}

#[test]
fn a_task_cannot_put_its_own_statement_in_the_place_of_the_workers() {
    let worker = Worker::new();
    let image = worker.image(&busybox_image()).source;
    let key = Key::make(&worker);
    let forged = "mkdir -p /p/logs; for name in chain-of-trust.json chain-of-trust.json.sig logs/certified.log; do echo forged >/p/$name; done";
    let mut payload = certified(&image, forged);
    payload["artifacts"] = json!({ "public": {"type": "directory", "path": "/p"} });
    let run = worker.task_with(&payload, &["--config", &key.config]);
    key.verify_run(&run);
    assert!(!run.log.contains("forged\n") && statement(&run)["taskId"].is_string(), "{run:?}");
    let names: Vec<_> = statement(&run)["artifacts"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(names, ["public/logs/certified.log"]);
}

/// The hash is that of the archive as its task has published it: compressed as it is, but not for the way.
#[test]
fn an_image_that_was_an_artifact_is_certified_by_its_hash_also_when_it_was_here_before() {
    let site = Site::new();
    let key = Key::make(&site.worker);
    let archives = site.worker.fresh("archives");
    write_archives(&site.worker, &made_image("made here"), "docker-archive", &archives);
    for (name, media_type) in
        [("docker-archive.tar.xz", "application/x-xz"), ("docker-archive.tar", "application/x-tar")]
    {
        let archive = archives.join(name);
        let maker = Maker::publish(&site.deployment, &archive, media_type);
        maker.complete(&site.deployment);
        for time in ["downloaded", "by an earlier worker"] {
            let worker = site.start(&json!({ "ed25519SigningKeyLocation": key.secret }));
            let mut payload = payload_of(maker.task_id(), crate::task_images_faults::ARTIFACT, "cat /marker");
            payload["features"] = json!({ "chainOfTrust": true });
            let task = site.deployment.create(&payload);
            site.deployment.await_resolved(&task);
            let said: Value = serde_json::from_slice(&site.deployment.artifact(&task, STATEMENT)).unwrap();
            let log = site.deployment.log(&task);
            assert_eq!(
                said["environment"]["imageArtifactHash"],
                json!(sha256(&fs::read(&archive).unwrap())),
                "{log}"
            );
            assert_eq!(log.contains("Downloading"), time == "downloaded", "{log}");
            worker.stop();
        }
    }
}

#[test]
fn without_a_key_the_task_fails_and_a_key_that_is_none_ends_the_worker_at_its_start() {
    let worker = Worker::new();
    let image = worker.image(&busybox_image()).source;
    let run = worker.task(&certified(&image, "echo ran")).expect(123, "no key");
    assert!(run.log.contains("it has no signing key") && !run.log.contains("ran\r\n"), "{run:?}");
    for (content, sentence) in [(Some("bm8ga2V5"), "it has to hold the base64 of 64 bytes"), (None, "check")]
    {
        let key = worker.fresh("key");
        content.into_iter().for_each(|text| fs::write(&key, text).unwrap());
        let config = worker.fresh("config").with_extension("yml");
        fs::write(&config, format!("ed25519SigningKeyLocation: {}\n", key.display())).unwrap();
        let run = worker.run_with(&["--config", config.to_str().unwrap(), "--image", &image], &["true"]);
        let run = run.expect(125, "a wrong key");
        assert!(run.stderr.contains(sentence) && run.log.is_empty(), "{run:?}");
    }
}
