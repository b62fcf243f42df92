//! Tasks whose images other tasks have made: archives as skopeo writes them, in every compression, public and private.

use std::fs;
use std::path::Path;

use docker_worker::queue::task_id::TaskId;
use serde_json::{Value, json};

use crate::support::{
    Entry, Image, OwnQueue, Worker, WrittenImage, busybox_image, dir, file, shell_payload, tool,
};

/// Endings of archives' names, and what compresses them.
const COMPRESSIONS: [(&str, &str); 6] =
    [("", ""), (".gz", "gzip"), (".zst", "zstd"), (".lz4", "lz4"), (".xz", "xz"), (".bz2", "bzip2")];

/// An image that is not that of the tasks which make it.
pub fn made_image(marker: &str) -> Image {
    busybox_image().layer(&[file("marker", marker)]).set("Env", json!(["PATH=/bin", "FROM=archive"]))
}

/// Writes an image as skopeo does, in each compression, into `directory`: `docker-archive.tar.gz`, for example.
pub fn write_archives(worker: &Worker, image: &Image, transport: &str, directory: &Path) -> Vec<String> {
    fs::create_dir_all(directory).unwrap();
    let layout = image.write_oci(&worker.fresh("layout")).source;
    let plain = directory.join(format!("{transport}.tar"));
    tool(
        "skopeo",
        &["--insecure-policy", "copy", "--quiet", &layout, &format!("{transport}:{}", plain.display())],
    );
    let write = |(ending, program): (&str, &str)| {
        let path = format!("{}{ending}", plain.display());
        if !program.is_empty() {
            tool(
                "sh",
                &["-c", "exec \"$1\" -c \"$2\" > \"$3\"", "sh", program, plain.to_str().unwrap(), &path],
            );
        }
        path.rsplit('/').next().unwrap().to_owned()
    };
    COMPRESSIONS.into_iter().map(write).collect()
}

/// An image with these files in `/files`.
pub fn image_of_files(worker: &Worker, files: &[(&str, Vec<u8>)]) -> WrittenImage {
    let mut entries: Vec<Entry> = vec![dir("files")];
    entries.extend(files.iter().map(|(name, content)| file(&format!("files/{name}"), content)));
    worker.image(&busybox_image().layer(&entries))
}

/// The artifacts of a task that publishes files of `/files` below `prefix`.
pub fn publishing(prefix: &str, names: &[&str]) -> Value {
    let artifact = |name: &&str| {
        (format!("{prefix}/{name}"), json!({ "type": "file", "path": format!("/files/{name}") }))
    };
    Value::Object(names.iter().map(artifact).collect())
}

/// A payload that runs a script in an image that a task has made.
pub fn payload_of(task_id: &TaskId, path: &str, script: &str) -> Value {
    let mut payload = shell_payload("", script);
    payload["image"] = json!({ "type": "task-image", "taskId": task_id, "path": path });
    payload
}

/// Makes a task of a payload with scopes, and waits for its end.
fn ended(own: &OwnQueue, payload: &Value, scopes: &[&str]) -> (TaskId, Value) {
    let mut definition = own.definition(payload);
    definition["scopes"] = json!(scopes);
    let task_id = TaskId::random().unwrap();
    own.call(&format!("PUT queue/task/{task_id}"), &definition);
    let status = own.await_resolved(&task_id);
    (task_id, status)
}

/// Has it completed, and gives its log.
fn completed(own: &OwnQueue, payload: &Value, scopes: &[&str]) -> String {
    let (task_id, status) = ended(own, payload, scopes);
    let log = own.log(&task_id);
    assert_eq!(status["state"], "completed", "{log}");
    log
}

fn failed(own: &OwnQueue, payload: &Value, scopes: &[&str]) -> String {
    let (task_id, status) = ended(own, payload, scopes);
    let log = own.log(&task_id);
    assert_eq!(OwnQueue::ends(&status), ["failed"], "{log}");
    log
}

/// A queue whose registry has an image with archives of [`made_image`] in it, and a task that has published them.
fn with_archives(
    prefix: &str,
    transports: &[&str],
) -> (OwnQueue, crate::support::Started, TaskId, Vec<String>) {
    let mut names = Vec::new();
    let own = OwnQueue::with(|worker| {
        let directory = worker.fresh("archives");
        for transport in transports {
            names.extend(write_archives(worker, &made_image("made here"), transport, &directory));
        }
        let read = |name: &String| fs::read(directory.join(name)).unwrap();
        let files: Vec<_> = names.iter().map(|name| (name.as_str(), read(name))).collect();
        image_of_files(worker, &files)
    });
    let standalone = own.start_with(&json!({ "capacity": 2 }), &[]);
    let mut payload = shell_payload(&own.image, "true");
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    payload["artifacts"] = publishing(prefix, &all);
    let maker = own.create(&payload);
    own.await_state(&maker, "completed");
    (own, standalone, maker, names)
}

#[test]
fn an_image_that_a_task_has_made_runs_whatever_format_and_compression_it_has() {
    let (own, standalone, maker, names) = with_archives("public", &["docker-archive", "oci-archive"]);
    for name in &names {
        let path = format!("public/{name}");
        let payload = payload_of(&maker, &path, "cat /marker; echo; echo $FROM");
        let log = completed(&own, &payload, &[]);
        for expected in [
            &format!("Downloading artifact \"{path}\" from task ID: {maker}."),
            "Downloaded artifact successfully.",
            " mb over the wire",
            "Loading docker image from downloaded archive.",
            &format!("Image '{path}' from task '{maker}' loaded.  Using image ID sha256:"),
            "made here",
            "archive\r\n",
        ] {
            assert!(log.contains(expected), "{path}: no {expected:?} in {log}");
        }
        // The second time it is there.
        let log = completed(&own, &payload, &[]);
        assert!(
            log.contains(&format!("Image '{path}' from task '{maker}' loaded.")) && log.contains("made here"),
            "{log}"
        );
        assert!(!log.contains("Downloading"), "{log}");
    }
    // One image by many names, its layers once, that of a registry's image among them, and no copy of an archive.
    let images = own.worker.data().join("images");
    let count = |name: &str| fs::read_dir(images.join(name)).unwrap().count();
    assert_eq!((count("images"), count("layers"), count("work")), (2, 3, 0));
    standalone.stop();
}

#[test]
fn a_private_image_is_for_those_who_may_get_the_artifact_also_once_it_is_here() {
    let (own, standalone, maker, _) = with_archives("private/images", &["docker-archive"]);
    let path = "private/images/docker-archive.tar.zst";
    let payload = payload_of(&maker, path, "cat /marker");
    let scope = format!("queue:get-artifact:{path}");
    let refusal = format!(
        "Not authorized to use {{\"path\":\"{path}\",\"taskId\":\"{maker}\",\"type\":\"task-image\"}}.  Ensure that the task scopes"
    );
    assert!(failed(&own, &payload, &[]).contains(&refusal));
    let log = completed(&own, &payload, &[&scope]);
    assert!(log.contains("made here"), "{log}");
    assert!(completed(&own, &payload, &["queue:get-artifact:private/*"]).contains("made here"));
    let log = failed(&own, &payload, &["queue:get-artifact:private/other"]);
    assert!(log.contains(&refusal) && !log.contains("made here"), "{log}");
    standalone.stop();
}

#[test]
fn an_indexed_image_is_that_of_the_task_which_the_index_has_now() {
    let own = OwnQueue::with(|worker| {
        let write = |marker: &str| {
            let directory = worker.fresh("archives");
            write_archives(worker, &made_image(marker), "docker-archive", &directory);
            fs::read(directory.join("docker-archive.tar.zst")).unwrap()
        };
        image_of_files(
            worker,
            &[("first.tar.zst", write("the first")), ("second.tar.zst", write("the second"))],
        )
    });
    let standalone = own.start();
    let make = |file: &str| {
        let mut payload = shell_payload(&own.image, "true");
        payload["artifacts"] =
            json!({ "public/image.tar.zst": { "type": "file", "path": format!("/files/{file}") } });
        let mut definition = own.definition(&payload);
        definition["routes"] = json!(["index.images.latest"]);
        let task_id = TaskId::random().unwrap();
        own.call(&format!("PUT queue/task/{task_id}"), &definition);
        own.await_state(&task_id, "completed");
        task_id
    };
    let payload = |namespace: &str| {
        let mut payload = shell_payload("", "cat /marker");
        payload["image"] =
            json!({ "type": "indexed-image", "namespace": namespace, "path": "public/image.tar.zst" });
        payload
    };
    let log = failed(&own, &payload("images.latest"), &[]);
    let refusal = "Could not find a task associated with \"images.latest\" namespace. failed to find";
    assert!(log.contains(refusal), "{log}");
    let first = make("first.tar.zst");
    let log = completed(&own, &payload("images.latest"), &[]);
    assert!(log.contains("the first") && log.contains(first.as_str()), "{log}");
    make("second.tar.zst");
    let log = completed(&own, &payload("images.latest"), &[]);
    assert!(log.contains("the second") && log.contains("Downloading"), "{log}");
    // The first one is still here by its task.
    let log = completed(&own, &payload_of(&first, "public/image.tar.zst", "cat /marker"), &[]);
    assert!(log.contains("the first") && !log.contains("Downloading"), "{log}");
    standalone.stop();
}

#[test]
fn what_is_no_image_of_a_task_fails_in_a_sentence_and_leaves_the_store_as_it_was() {
    let mut names = Vec::new();
    let own = OwnQueue::with(|worker| {
        let directory = worker.fresh("archives");
        write_archives(worker, &made_image("made here"), "docker-archive", &directory);
        let whole = fs::read(directory.join("docker-archive.tar.zst")).unwrap();
        let files = [
            ("cut.tar.zst", whole[..whole.len() / 2].to_vec()),
            ("page.html", b"<html>not an image</html>".to_vec()),
            ("empty.tar", vec![0; 10240]),
            ("whole.tar.zst", whole),
        ];
        names.extend(files.iter().map(|(name, _)| *name));
        image_of_files(worker, &files)
    });
    let standalone = own.start();
    let mut payload = shell_payload(&own.image, "sleep 1000");
    payload["artifacts"] = publishing("public", &names);
    payload["artifacts"]["public/missing.tar"] = json!({ "type": "file", "path": "/none" });
    payload["command"] = json!(["true"]);
    let maker = own.create(&payload);
    own.await_state(&maker, "completed");
    let images = own.worker.data().join("images");
    let names_of = |part: &str| -> Vec<_> {
        let mut names: Vec<_> =
            fs::read_dir(images.join(part)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let all = || ["blobs", "images", "layers", "names", "work"].map(names_of);
    let before = all();
    let wrapped = "Error: Error loading docker image. failed to ";
    for (name, expected) in [
        ("cut.tar.zst", wrapped),
        ("page.html", wrapped),
        ("empty.tar", "Unknown docker archive format"),
        ("none.tar", "Could not download artifact \"public/none.tar\" from task"),
        ("missing.tar", "it is an error artifact: "),
    ] {
        let log = failed(&own, &payload_of(&maker, &format!("public/{name}"), "true"), &[]);
        assert!(log.contains("Pulling docker image has failed."), "{name}: {log}");
        assert!(log.contains(expected), "{name}: {log}");
        assert!(!log.contains("Next Attempt"), "what will never be is not tried again: {name}: {log}");
        assert_eq!(all(), before, "{name}");
    }
    let nobody = TaskId::random().unwrap();
    let log = failed(&own, &payload_of(&nobody, "public/x.tar", "true"), &[]);
    assert!(log.contains("Could not download artifact") && log.contains("after 1 attempt(s)"), "{log}");
    let log = completed(&own, &payload_of(&maker, "public/whole.tar.zst", "cat /marker"), &[]);
    assert!(log.contains("made here"), "{log}");
    standalone.stop();
}

/// What a run still makes may be made anew; a link leads on, and a reference where its author says, but not here.
#[test]
fn artifacts_of_a_run_that_goes_on_are_looked_at_each_time_and_references_lead_to_no_host_of_ours() {
    let (own, standalone, maker, _) = with_archives("public", &["docker-archive"]);
    let waiting = own.create_script("sleep 1000");
    own.await_state(&waiting, "running");
    let expires = own.status(&maker)["expires"].clone();
    let create = |name: &str, request: Value| {
        let mut request = request;
        request["expires"] = expires.clone();
        own.call(&format!("POST queue/task/{waiting}/runs/0/artifacts/public%2F{name}"), &request);
    };
    let elsewhere = own.artifact_url(&maker, "runs/0/artifacts/public/docker-archive.tar.zst");
    for (name, url) in [
        ("here.tar", elsewhere.as_str()),
        ("metadata.tar", "http://169.254.169.254/latest/meta-data"),
        ("neighbour.tar", "https://10.0.0.1/image.tar"),
        ("file.tar", "file:///etc/passwd"),
    ] {
        create(name, json!({ "storageType": "reference", "url": url, "contentType": "application/x-tar" }));
        let log = failed(&own, &payload_of(&waiting, &format!("public/{name}"), "true"), &[]);
        assert!(log.contains("Could not download artifact"), "{name}: {log}");
        let expected =
            if name == "file.tar" { "its URL is none of HTTP" } else { "where a task may not lead" };
        assert!(log.contains(expected) && log.contains("after 1 attempt(s)"), "{name}: {log}");
    }
    create(
        "error.tar",
        json!({ "storageType": "error", "reason": "too-large-file-on-worker", "message": "much too large" }),
    );
    let log = failed(&own, &payload_of(&waiting, "public/error.tar", "true"), &[]);
    assert!(log.contains("it is an error artifact: much too large"), "{log}");
    own.call(&format!("POST queue/task/{waiting}/cancel"), &json!({}));
    standalone.stop();
}
