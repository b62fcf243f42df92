//! `docker-worker run` has the queue of `standalone` within its process: the same rules, and nobody who could call it.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use docker_worker::queue::task_id::TaskId;
use serde_json::json;

use crate::support::{Deployment, Terms, Worker, busybox_image, call, finish, read_until, shell_payload};

#[test]
fn the_queue_of_run_refuses_what_a_served_queue_refuses_in_its_words() {
    let deployment = Deployment::start(Terms::default());
    let worker = Worker::new();
    let mut definition =
        deployment.definition(&shell_payload(&worker.image(&busybox_image()).source, "true"));
    let deadline = deployment.queue.now().plus(Duration::from_secs(6 * 24 * 3600));
    definition["deadline"] = json!(deadline);
    definition["expires"] = json!(deadline.plus(Duration::from_secs(3600)));
    let (root_url, root, request) =
        (deployment.root_url.clone(), deployment.signer("root"), definition.clone());
    let answered = deployment.within(async move {
        let asked = format!("PUT queue/task/{}", TaskId::random().unwrap());
        call(&root_url, Some(&root), &asked, &request).await
    });
    let because = "its deadline is more than five days ahead";
    assert!(answered.body["message"].as_str().unwrap().contains(because), "{answered:?}");
    let run = worker.task(&definition).expect(120, "the same definition");
    assert!(run.stderr.contains(because), "{run:?}");
}

#[test]
fn a_run_has_no_socket_that_anybody_could_reach_and_no_file_of_a_queue() {
    let worker = Worker::new();
    let image = worker.image(&busybox_image()).source;
    let (mut child, _artifacts) =
        worker.start_run(&["--image", &image], &["sh", "-c", "echo begun; sleep 1000"]);
    let log = read_until(&mut child, "begun");
    let process = format!("/proc/{}", child.id());
    let descriptors = fs::read_dir(format!("{process}/fd")).unwrap();
    let links: Vec<_> = descriptors.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok()).collect();
    let own: BTreeSet<String> = links.iter().map(|link| link.to_string_lossy().into_owned()).collect();
    for protocol in ["tcp", "tcp6", "udp", "udp6"] {
        let table = fs::read_to_string(format!("{process}/net/{protocol}")).unwrap();
        let sockets = table.lines().skip(1).map(|line| line.split_whitespace().nth(9).unwrap());
        for inode in sockets {
            assert!(!own.contains(&format!("socket:[{inode}]")), "{protocol}: {inode} of {own:?}");
        }
    }
    assert!(!own.iter().any(|link| link.contains("sqlite")), "{own:?}");
    assert!(!worker.data().join("queue").exists());
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM)
        .unwrap();
    finish(child, Duration::from_secs(60));
    log.join().unwrap();
}
