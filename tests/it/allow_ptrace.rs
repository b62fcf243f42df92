//! `allowPtrace`: debuggers in a task.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::json;

use crate::support::{Compression, Image, Layer, Worker, busybox_image, dir, file, shell_payload, tar, tool};

/// With these programs of the host's, and what they are linked with.
pub fn image_with(programs: &[&str], more: &[&str]) -> Image {
    let linked = tool("ldd", programs);
    let libraries = linked.split_whitespace().filter(|word| word.starts_with('/') && !word.ends_with(':'));
    let files: BTreeSet<&str> =
        libraries.chain(programs.iter().copied()).chain(more.iter().copied()).collect();
    let parents = files.iter().flat_map(|path| Path::new(path).ancestors().skip(1));
    let parents: BTreeSet<&Path> = parents.filter(|path| path.parent().is_some()).collect();
    let directories = parents.iter().map(|path| dir(path.to_str().unwrap().trim_start_matches('/')));
    let copies = files.iter().map(|path| {
        file(path.trim_start_matches('/'), fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}")))
            .mode(0o755)
    });
    let entries: Vec<_> = directories.chain(copies).collect();
    busybox_image().with(Layer::from_tar(&tar(&entries), Compression::None))
}

/// What a task prints that looks at a child, and at a process that is another user's and none of its children.
pub const TRACES: &str = "
    strace -o /tmp/trace -e trace=write sh -c 'echo seen'
    grep -c 'write(1, .seen' /tmp/trace
    su worker -c 'sleep 1000 </dev/null & echo $! >/tmp/pid'
    touch /tmp/other /tmp/said
    strace -o /tmp/other -e trace=kill -p $(cat /tmp/pid) 2>/tmp/said & tracer=$!
    until grep -q . /tmp/said; do sleep 0.02; done
    kill $(cat /tmp/pid)
    wait $tracer
    grep -c 'killed by SIGTERM' /tmp/other
    sed -n 's/.*: //; s/[0-9][0-9]*/N/; 1p' /tmp/said
    grep CapEff /proc/self/status";

#[test]
fn strace_works_on_every_process_of_a_task_with_the_feature_and_on_children_without_it() {
    let worker = Worker::new();
    let image = worker.image(&image_with(&["/usr/bin/strace"], &[])).source;
    let with = ["--image", &image, "--feature", "allowPtrace"];
    let run = worker.run_with(&with, &["sh", "-c", TRACES]).expect(0, "with the feature");
    assert_eq!(run.output(), "seen\n1\n1\nProcess N attached\nCapEff:\t00000000a80c25fb\n", "{run:?}");
    let run = worker.run(&image, &["sh", "-c", TRACES]).expect(0, "without it");
    assert_eq!(run.output(), "seen\n1\n0\nOperation not permitted\nCapEff:\t00000000a80425fb\n", "{run:?}");
    worker.assert_nothing_left("after both");
}

#[test]
fn gdb_works_on_every_process_of_a_task_with_the_feature() {
    let worker = Worker::new();
    let modules = fs::read_dir("/usr/lib/python3.11").unwrap().map(|entry| entry.unwrap().path());
    let encodings = fs::read_dir("/usr/lib/python3.11/encodings").unwrap().map(|entry| entry.unwrap().path());
    let python: Vec<String> = modules
        .chain(encodings)
        .filter(|path| path.extension().is_some_and(|extension| extension == "py"))
        .map(|path| path.to_str().unwrap().to_owned())
        .collect();
    let python: Vec<&str> = python.iter().map(String::as_str).collect();
    let image = worker.image(&image_with(&["/usr/bin/gdb"], &python)).source;
    let script = "
        su worker -c 'sleep 1000 </dev/null & echo $! >/tmp/pid'
        gdb --nx --batch --pid $(cat /tmp/pid) -ex 'print $_inferior' -ex 'info registers rip' 2>&1 | grep -oE '^rip|not permitted'";
    let with = ["--image", &image, "--feature", "allowPtrace"];
    let run = worker.run_with(&with, &["sh", "-c", script]).expect(0, "with the feature");
    assert_eq!(run.output(), "rip\n", "{run:?}");
    let run = worker.run(&image, &["sh", "-c", script]).expect(0, "without it");
    assert_eq!(run.output(), "not permitted\n", "{run:?}");
}

#[test]
fn the_feature_takes_its_scope() {
    let worker = Worker::new();
    let image = worker.image(&busybox_image()).source;
    let mut payload = shell_payload(&image, "echo ran");
    payload["features"] = json!({ "allowPtrace": true });
    for (scopes, status) in [
        (json!(["docker-worker:feature:allowPtrace"]), 0),
        (json!(["docker-worker:feature:*"]), 0),
        (json!(["docker-worker:feature:allowptrace"]), 123),
        (json!([]), 123),
    ] {
        let run = worker.task(&json!({ "payload": payload, "scopes": scopes })).expect(status, "scopes");
        let refused = "Insufficient scopes to use 'allowPtrace' feature.  Try adding docker-worker:feature:allowPtrace to the .scopes array.";
        assert_eq!(run.log.contains(refused), status != 0, "{scopes}: {run:?}");
        assert_eq!(run.log.contains("\nran"), status == 0, "{scopes}: {run:?}");
    }
}
