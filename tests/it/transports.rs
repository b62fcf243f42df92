//! One image by every way into the store: the registry, and the transports as skopeo spells them.

use std::fs;

use serde_json::{Value, json};

use crate::support::{
    Compression, Internet, Layer, Nginx, Registry, WatchedRegistry, Worker, busybox_image, debian_image, dir,
    fifo, file, hardlink, shell_payload, symlink, tar, tool,
};

#[test]
fn an_image_is_the_same_by_every_transport_and_compression() {
    let worker = Worker::new();
    let registry = Registry::start(worker.scratch());
    let entries = [
        dir("d").mode(0o2750).owner(7, 8),
        file("d/f", "text\n"),
        hardlink("h", "d/f"),
        fifo("p"),
        symlink("l", "h"),
    ];
    let script = ["sh", "-c", "cat /h /l; stat -c '%n %a %u:%g %F %h' /d /d/f /p"];
    let expected = "text\ntext\n/d 2750 7:8 directory 2\n/d/f 644 0:0 regular file 2\n/p 644 0:0 fifo 1\n";
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let image = busybox_image().with(Layer::from_tar(&tar(&entries), compression));
        let written = worker.image(&image);
        let path = |name: &str| worker.fresh(name).display().to_string();
        let (oci_archive, directory) = (path("oci-archive"), path("dir"));
        for target in [format!("oci-archive:{oci_archive}:latest"), format!("dir:{directory}")] {
            tool("skopeo", &["copy", "--quiet", &written.source, &target]);
        }
        let mut sources = vec![
            registry.push(&written, &format!("image/{compression:?}").to_lowercase()),
            format!("oci-archive:{oci_archive}"),
            format!("dir:{directory}"),
            written.source,
        ];
        if compression == Compression::None {
            sources.push(image.write_docker_archive(&worker.fresh("archive"), "some/image:1"));
        }
        for source in sources {
            // Each by itself: a store that knows the layers already would not read them.
            let fresh = Worker::new();
            assert_eq!(fresh.run(&source, &script).expect(0, &source).output(), expected, "{source}");
        }
    }
}

#[test]
fn an_image_in_the_store_is_not_fetched_again() {
    let worker = Worker::new();
    let registry = Registry::start(worker.scratch());
    let reference = registry.push(&worker.image(&busybox_image()), "kept:1");
    worker.run(&reference, &["true"]).expect(0, "fetched");
    drop(registry);
    worker.run(&reference, &["true"]).expect(0, "the registry is gone");
}

#[test]
fn a_debian_task_runs_python_and_delivers_what_it_made() {
    let worker = Worker::new();
    let program = "import json, os, sys\n\
        os.makedirs('/out'); json.dump({'version': sys.version_info[:2]}, open('/out/made.json', 'w'))\n\
        print('made by', os.uname().nodename, os.getpid())";
    let mut payload = shell_payload(&debian_image(), "");
    payload["command"] = json!(["python3", "-c", program]);
    payload["artifacts"] = json!({ "public/made.json": { "type": "file", "path": "/out/made.json" } });
    let run = worker.task(&payload).expect(0, "python");
    assert_eq!(run.artifact("public/made.json"), b"{\"version\": [3, 11]}");
    assert!(run.output().starts_with("made by "), "{run:?}");
}

#[test]
fn a_registry_with_a_certificate_of_a_private_authority_is_trusted_where_that_is_named() {
    let internet = Internet::new();
    let worker = Worker::on(&internet);
    let registry = WatchedRegistry::serve_on(&internet, &worker.image(&busybox_image()));
    let (address, name) = registry.name.split_once('/').unwrap();
    let nginx = Nginx::before(&internet, worker.scratch(), &format!("http://{address}"));
    let host = nginx.url.strip_prefix("https://").unwrap();
    let image = format!("{host}/{name}");
    let run = |settings: Value| {
        let config = worker.fresh("config");
        let settings = json!({ "registries": { host: settings }, "dockerConfig": { "maxAttempts": 1 } });
        fs::write(&config, settings.to_string()).unwrap();
        worker.run_with(&["--config", config.to_str().unwrap(), "--image", &image], &["true"])
    };
    let refused = run(json!({ "privateAddresses": true })).expect(121, "nobody has signed it");
    assert!(
        refused.stderr.contains("name that one's file as certificateAuthority of this host"),
        "{refused:?}"
    );
    run(json!({ "certificateAuthority": nginx.certificate })).expect(0, "whoever has signed it is named");
}
