//! `docker-worker run --root-url URL --task-id ID`: a task of a deployment, carried out here.

use std::process::Child;
use std::thread;
use std::time::Duration;

use docker_worker::queue::task_id::TaskId;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::{
    AnsweringServer, Deployment, Fault, Run, Terms, Worker, busybox_image, finish, refusal, shell_payload,
};

use crate::task_images::{made_image, payload_of, write_archives};
use crate::task_images_faults::{ARTIFACT, Maker};

/// More than it takes a worker to give up on a deployment that does not answer.
const LIMIT: Duration = Duration::from_secs(180);

/// Starts a run of that task, with these variables and none of the tests' own credentials.
fn start(worker: &Worker, of: (&str, &TaskId), options: &[&str], variables: &[(&str, &str)]) -> Started {
    let (root_url, task_id) = of;
    let options = [&["--root-url", root_url, "--task-id", task_id.as_str()], options].concat();
    let (mut command, artifacts) = worker.run_command(&options, &[]);
    for name in ["TASKCLUSTER_CLIENT_ID", "TASKCLUSTER_ACCESS_TOKEN", "TASKCLUSTER_CERTIFICATE"] {
        command.env_remove(name);
    }
    Started { child: command.envs(variables.iter().copied()).spawn().unwrap(), artifacts }
}

struct Started {
    child: Child,
    artifacts: std::path::PathBuf,
}

impl Started {
    fn ended(self) -> Run {
        Run::collect(finish(self.child, LIMIT), self.artifacts)
    }
}

#[test]
fn a_task_of_a_deployment_runs_here_under_its_own_id_and_the_deployment_hears_nothing_of_it() {
    let deployment = Deployment::start(Terms::default());
    let worker = Worker::new();
    let image = worker.image(&busybox_image()).source;
    let script = "echo $TASK_ID $RUN_ID $TASKCLUSTER_ROOT_URL; echo kept >/r.txt; echo x >>/cache/file";
    let mut payload = shell_payload("registry.example/of/the/task", script);
    payload["artifacts"] = json!({ "public/r.txt": { "type": "file", "path": "/r.txt" } });
    payload["cache"] = json!({ "x": "/cache" });
    let mut definition = deployment.definition(&payload);
    definition["scopes"] = json!(["docker-worker:cache:x"]);
    definition["dependencies"] = json!([deployment.create(&json!({}))]);
    let task_id = deployment.create_task(definition);
    let asked = deployment.wire.exchanges().len();
    let run = start(&worker, (&deployment.root_url, &task_id), &["--image", &image], &[]).ended();
    let run = run.expect(0, "a task of a deployment");
    assert_eq!(run.output(), format!("{task_id} 0 {}\n", deployment.root_url));
    assert_eq!(run.artifact("public/r.txt"), b"kept\n");
    assert_eq!(run.resolution["taskId"], task_id.as_str());
    assert!(run.stderr.contains("/dependencies: are not waited for"), "{run:?}");
    assert!(deployment.status(&task_id).runs.is_empty(), "it waits there as before");
    let requests: Vec<_> =
        deployment.wire.exchanges().into_iter().skip(asked).map(|exchange| exchange.request).collect();
    assert_eq!(requests, [format!("GET /api/queue/v1/task/{task_id}")]);
}

#[test]
fn an_image_that_is_an_artifact_of_the_deployment_is_got_from_there() {
    let deployment = Deployment::start(Terms::default());
    let worker = Worker::new();
    let archives = worker.fresh("archives");
    write_archives(&worker, &made_image("made here"), "docker-archive", &archives);
    let maker = Maker::publish(&deployment, &archives.join("docker-archive.tar.bz2"), "application/x-bzip2");
    maker.complete(&deployment);
    let payload = payload_of(maker.task_id(), ARTIFACT, "cat /marker");
    let task_id = deployment.create(&payload);
    let place = (deployment.root_url.as_str(), &task_id);
    for time in ["downloaded", "here"] {
        let run = start(&worker, place, &[], &[]).ended().expect(0, time);
        assert!(run.output().contains("made here"), "{run:?}");
        assert_eq!(run.log.contains("Downloading artifact"), time == "downloaded", "{run:?}");
    }
    // One that is nobody's: there is no deployment to ask.
    let run = worker.task(&payload).expect(121, "no deployment");
    assert!(run.words().contains("there is no deployment here to get an artifact of"), "{run:?}");
    // The artifact of another task that is not there.
    let task_id = deployment.create(&payload_of(maker.task_id(), "public/none.tar", "true"));
    let place = (deployment.root_url.as_str(), &task_id);
    let run = start(&worker, place, &[], &[]).ended().expect(121, "no artifact");
    assert!(run.words().contains("Could not download artifact \"public/none.tar\""), "{run:?}");
}

#[test]
fn s27_an_image_that_a_task_of_a_deployment_names_is_no_file_of_this_host() {
    let deployment = Deployment::start(Terms::default());
    let worker = Worker::new();
    let image = worker.image(&busybox_image()).source;
    let task_id = deployment.create(&shell_payload(&image, "echo ran"));
    let place = (deployment.root_url.as_str(), &task_id);
    let run = start(&worker, place, &[], &[]).ended().expect(120, "the task's own image");
    assert!(run.words().contains("names a file of the worker's host"), "{run:?}");
    let run = start(&worker, place, &["--image", &image], &[]).ended().expect(0, "the operator's image");
    assert_eq!(run.output(), "ran\n");
}

#[test]
fn a_deployment_that_does_not_give_the_task_out_is_told_in_one_sentence() {
    let deployment = Deployment::start(Terms::default());
    let never = Fault::Late(Duration::from_secs(600));
    let cases = [
        (None, " URL has no task ID, or has it no more; check --task-id"),
        (Some(Fault::Refusal(403)), " URL does not give out task ID: not so; set TASKCLUSTER_CLIENT_ID"),
        (Some(Fault::Refusal(401)), " URL does not give out task ID: not so; set TASKCLUSTER_CLIENT_ID"),
        (Some(Fault::Status(404)), "what answers at URL is no Taskcluster deployment"),
        (
            Some(Fault::Status(302)),
            "what answers at URL is no Taskcluster deployment, or one that is out of order: it answered 302 Found; check its",
        ),
        (Some(Fault::Page), "out of order: it is of another form"),
        (Some(Fault::Status(503)), "no answer comes from URL: "),
        (Some(Fault::Reset), "no answer comes from URL: "),
        (Some(never), "no answer comes from URL: "),
    ];
    // Some of them are tried again for a while.
    thread::scope(|scope| {
        for (fault, expected) in cases {
            let deployment = &deployment;
            scope.spawn(move || {
                let task_id = TaskId::random().unwrap();
                if let Some(fault) = fault {
                    deployment.wire.fail(task_id.as_str(), fault, usize::MAX);
                }
                let worker = Worker::new();
                let run = start(&worker, (&deployment.root_url, &task_id), &[], &[]).ended();
                let run = run.expect(2, expected);
                let expected = expected.replace("task ID", &format!("task {task_id}"));
                let place = format!(" {}", deployment.root_url);
                let expected = expected.replace(" URL", &place);
                assert!(run.stderr.contains(&expected), "{expected}: {run:?}");
                assert_eq!((run.stderr.lines().count(), run.log.as_str()), (1, ""), "{run:?}");
            });
        }
    });
}

#[test]
fn credentials_of_the_environment_are_used_and_wrong_ones_are_named() {
    let deployment = Deployment::start(Terms::default());
    let worker = Worker::new();
    let image = worker.image(&busybox_image()).source;
    let task_id = deployment.create(&shell_payload("none", "true"));
    let signer = deployment.signer("root");
    for (token, status, words) in [
        (signer.access_token.as_str(), 0, ""),
        (
            "guessed",
            2,
            "; TASKCLUSTER_CLIENT_ID, TASKCLUSTER_ACCESS_TOKEN and TASKCLUSTER_CERTIFICATE have to be those",
        ),
    ] {
        let variables =
            [("TASKCLUSTER_CLIENT_ID", signer.client_id.as_str()), ("TASKCLUSTER_ACCESS_TOKEN", token)];
        let place = (deployment.root_url.as_str(), &task_id);
        let run = start(&worker, place, &["--image", &image], &variables).ended().expect(status, token);
        assert!(run.stderr.contains(words) && !run.words().contains(token), "{run:?}");
    }
}

#[test]
fn ctrl_c_ends_the_wait_for_a_deployment() {
    let deployment = Deployment::start(Terms::default());
    let worker = Worker::new();
    let task_id = TaskId::random().unwrap();
    deployment.wire.fail(task_id.as_str(), Fault::Held, 1);
    let run = start(&worker, (&deployment.root_url, &task_id), &[], &[]);
    deployment.wire.await_asked(task_id.as_str(), 1);
    kill_process(Pid::from_child(&run.child), Signal::INT).unwrap();
    run.ended().expect(130, "Ctrl-C");
    deployment.wire.let_go();
}

/// A deployment that says of every task that this is its definition, and `expanded` of its scopes.
fn saying(definition: Value, expanded: (u16, Value)) -> AnsweringServer {
    AnsweringServer::start(move |request, _| {
        if request.path.ends_with("/scopes/expand") { expanded.clone() } else { (200, definition.clone()) }
    })
}

#[test]
fn what_is_no_task_is_refused_and_never_taken_for_a_bare_payload() {
    let worker = Worker::new();
    let image = worker.image(&busybox_image()).source;
    let payload = shell_payload(&image, "echo ran");
    for (case, definition, status, words) in [
        ("a payload, which would have all scopes", payload, 120, "must have the field \"payload\""),
        ("a list", json!([1]), 120, "read the task: it is a list"),
        ("too much", json!({ "payload": "x".repeat(5 << 20) }), 2, "its answer is longer than 4194304 bytes"),
        ("a field of nobody's", json!({ "payload": {}, "paylod": 1 }), 120, "/paylod"),
    ] {
        let server = saying(definition, refusal(404, "no"));
        let root_url = format!("http://{}", server.address);
        // One in 64 begins so.
        let task_id = TaskId::parse("-AAAAAAAQACAAAAAAAAAAA").unwrap();
        let run = start(&worker, (&root_url, &task_id), &["--image", &image], &[]).ended();
        let run = run.expect(status, case);
        assert!(run.stderr.contains(words) && run.log.is_empty(), "{case}: {run:?}");
        if status == 120 {
            assert_eq!(run.resolution["taskId"], task_id.as_str(), "{case}: {run:?}");
        }
    }
}

#[test]
fn a_tasks_roles_let_it_do_here_what_they_let_it_do_there() {
    let worker = Worker::new();
    let image = worker.image(&busybox_image()).source;
    let mut payload = shell_payload("none", "echo ran");
    payload["cache"] = json!({ "x": "/cache" });
    let definition = json!({ "scopes": ["assume:builder"], "payload": payload });
    let cases = [
        ((200, json!({ "scopes": ["assume:builder", "docker-worker:cache:x"] })), 0, "ran"),
        ((200, json!({ "scopes": ["assume:builder"] })), 123, "Insufficient scopes to attach cache volumes"),
        (
            refusal(403, "no"),
            123,
            "the task has its own scopes only, not those of its roles: failed to be allowed",
        ),
    ];
    for (expanded, status, words) in cases {
        let server = saying(definition.clone(), expanded);
        let root_url = format!("http://{}", server.address);
        let run = start(&worker, (&root_url, &TaskId::random().unwrap()), &["--image", &image], &[]).ended();
        let run = run.expect(status, words);
        assert!(run.words().contains(words), "{run:?}");
    }
}

#[test]
fn a_task_file_gets_the_id_that_the_operator_names() {
    let worker = Worker::new();
    let payload = shell_payload(&worker.image(&busybox_image()).source, "echo $TASK_ID");
    let run = worker.task_with(&payload, &["--task-id", "fN1SbArXTPSVFNUvaOlinQ"]).expect(0, "an id");
    assert_eq!(run.output(), "fN1SbArXTPSVFNUvaOlinQ\n");
}
