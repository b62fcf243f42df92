//! What every queue must do, asked through each of the two handles that a worker has: at the embedded queue itself, and
//! over the HTTP API that it is served with.

mod play;

use std::time::Duration;

use docker_worker::queue::definition::{Priority, TaskDefinition};
use docker_worker::queue::task_id::TaskId;
use docker_worker::queue::{QueueError, RunId, RunState};
use docker_worker::timestamp::Timestamp;
use serde_json::json;

use self::play::Ask::{
    Artifact, Cancel, Claim, Earlier, Expand, ExpandFor, Finish, FinishWrongly, Later, List, Look, Make,
    Pass, Purge, PurgeRequests, Put, Quarantine, Quarantined, Reclaim, Report, Status,
};
use self::play::Content::{Error, Link, Object, Reference, S3};
use self::play::{Ask, MAKERS, Play, TEXT, worker};
use crate::support::{ALL, Deployment, POOL, Terms};

/// What is asked one after the other, and what comes of each.
type Case = (&'static str, &'static [(Ask, &'static str)]);

const MAKE: (Ask, &str) = (Make { retries: 5 }, "done");
const CLAIM: (Ask, &str) = (Claim, "run 0");

const CASES: &[Case] = &[
    ("nothing is pending", &[(Claim, "no task"), (Claim, "no task")]),
    (
        "a task goes from its claim to its resolution",
        &[
            MAKE,
            (Look, "pending"),
            CLAIM,
            (Look, "running"),
            (Claim, "no task"),
            (Status(0), "open"),
            (Reclaim(0), "5 minutes"),
            (Pass(4), "done"),
            (Reclaim(0), "5 minutes"),
            (Pass(4), "done"),
            (Report(0, "completed"), "done"),
            (Status(0), "completed"),
            (Reclaim(0), "conflict"),
            (Claim, "no task"),
        ],
    ),
    (
        "a worker that stops hands its task to the next",
        &[
            MAKE,
            CLAIM,
            (Report(0, "worker-shutdown"), "done"),
            (Look, "worker-shutdown, pending"),
            (Claim, "run 1"),
            (Reclaim(0), "conflict"),
            (Reclaim(1), "5 minutes"),
            (Report(1, "failed"), "done"),
            (Look, "worker-shutdown, failed"),
        ],
    ),
    (
        "without retries nobody gets it",
        &[
            (Make { retries: 0 }, "done"),
            CLAIM,
            (Report(0, "worker-shutdown"), "done"),
            (Look, "worker-shutdown"),
            (Claim, "no task"),
        ],
    ),
    (
        "a claim that is forgotten is lost",
        &[
            MAKE,
            CLAIM,
            (Pass(5), "done"),
            (Reclaim(0), "conflict"),
            (Report(0, "completed"), "conflict"),
            (Status(0), "claim-expired"),
            (Artifact(0, "log", S3(TEXT)), "bytes"),
            (Look, "claim-expired, pending"),
            (Claim, "run 1"),
            (Status(1), "open"),
        ],
    ),
    (
        "a task that is not resolved by its deadline is lost",
        &[
            MAKE,
            CLAIM,
            (Pass(4), "done"),
            (Reclaim(0), "5 minutes"),
            (Pass(4), "done"),
            (Reclaim(0), "5 minutes"),
            (Pass(2), "done"),
            (Reclaim(0), "conflict"),
            (Report(0, "failed"), "conflict"),
            (Status(0), "deadline-exceeded"),
            (Artifact(0, "log", S3(TEXT)), "bytes"),
            (Look, "deadline-exceeded"),
            (Claim, "no task"),
        ],
    ),
    (
        "one that nobody claims too",
        &[MAKE, (Pass(10), "done"), (Claim, "no task"), (Look, "deadline-exceeded")],
    ),
    (
        "a task that is cancelled is lost to its worker but takes its log",
        &[
            MAKE,
            CLAIM,
            (Cancel, "done"),
            (Status(0), "canceled"),
            (Reclaim(0), "conflict"),
            (Report(0, "failed"), "conflict"),
            (Report(0, "worker-shutdown"), "conflict"),
            (Artifact(0, "log", S3(TEXT)), "bytes"),
            (Put("log"), "done"),
            (List(0), "log s3"),
            (Cancel, "done"),
            (Look, "canceled"),
        ],
    ),
    ("one that is cancelled in time is nobody's", &[MAKE, (Cancel, "done"), (Claim, "no task")]),
    (
        "only the queue itself says that it has ended a run",
        &[
            MAKE,
            CLAIM,
            (Report(0, "canceled"), "invalid"),
            (Report(0, "deadline-exceeded"), "invalid"),
            (Report(0, "claim-expired"), "invalid"),
            (Look, "running"),
        ],
    ),
    (
        "artifacts of each storage type are listed by name",
        &[
            MAKE,
            CLAIM,
            (List(0), "nothing"),
            (Artifact(0, "d", S3(TEXT)), "bytes"),
            (Put("d"), "done"),
            (Artifact(0, "c", Reference("http://x/log")), "done"),
            (Artifact(0, "b", Link("none")), "done"),
            (Artifact(0, "a", Error("not there")), "done"),
            (List(0), "a error, b link, c reference, d s3"),
        ],
    ),
    (
        "each may be made again as it is and not become another",
        &[
            MAKE,
            CLAIM,
            (Artifact(0, "s", S3(TEXT)), "bytes"),
            (Artifact(0, "s", S3(TEXT)), "bytes"),
            (Artifact(0, "s", S3("text/html")), "conflict"),
            (Artifact(0, "s", Object(TEXT)), "conflict"),
            (Artifact(0, "s", Error("m")), "conflict"),
            (Artifact(0, "l", Link("s")), "done"),
            (Artifact(0, "l", Link("s")), "done"),
            (Artifact(0, "l", Link("t")), "conflict"),
            (Artifact(0, "e", Error("m")), "done"),
            (Artifact(0, "e", Error("m")), "done"),
            (Artifact(0, "e", Error("n")), "conflict"),
            (List(0), "e error, l link, s s3"),
        ],
    ),
    (
        "a live log becomes a link and stays one",
        &[
            MAKE,
            CLAIM,
            (Artifact(0, "live.log", Reference("http://x/1")), "done"),
            (Artifact(0, "live.log", Reference("http://x/1")), "done"),
            (Artifact(0, "live.log", Reference("http://x/2")), "done"),
            (Artifact(0, "live.log", S3(TEXT)), "conflict"),
            (Artifact(0, "live.log", Link("backing.log")), "done"),
            (Artifact(0, "live.log", Link("backing.log")), "done"),
            (Artifact(0, "live.log", Reference("http://x/3")), "conflict"),
            (List(0), "live.log link"),
        ],
    ),
    (
        "an artifact does not outlive its task, and an expiry only grows",
        &[
            MAKE,
            CLAIM,
            (Later(0, "a", S3(TEXT)), "invalid"),
            (Earlier(0, "a", S3(TEXT), 5), "bytes"),
            (Earlier(0, "a", S3(TEXT), 6), "conflict"),
            (Artifact(0, "a", S3(TEXT)), "bytes"),
            (Earlier(0, "a", S3(TEXT), 5), "conflict"),
        ],
    ),
    (
        "an object is listed once it is finished",
        &[
            MAKE,
            CLAIM,
            (Artifact(0, "o", Object(TEXT)), "object"),
            (Artifact(0, "o", Object(TEXT)), "conflict"),
            (Artifact(0, "o", Object("text/html")), "conflict"),
            (Put("o"), "done"),
            (List(0), "nothing"),
            (FinishWrongly(0, "o"), "invalid"),
            (Finish(0, "o"), "done"),
            (Finish(0, "o"), "done"),
            (List(0), "o object"),
            (Artifact(0, "o", Object(TEXT)), "conflict"),
            (Artifact(0, "s", S3(TEXT)), "bytes"),
            (FinishWrongly(0, "s"), "invalid"),
            (FinishWrongly(0, "none"), "not found"),
        ],
    ),
    (
        "after an exception artifacts are taken, after another end none",
        &[
            MAKE,
            CLAIM,
            (Artifact(0, "o", Object(TEXT)), "object"),
            (Put("o"), "done"),
            (Report(0, "intermittent-task"), "done"),
            (Finish(0, "o"), "done"),
            (Artifact(0, "log", S3(TEXT)), "bytes"),
            (List(0), "log s3, o object"),
            (Claim, "run 1"),
            (List(1), "nothing"),
            (Report(1, "failed"), "done"),
            (Artifact(1, "log", S3(TEXT)), "conflict"),
        ],
    ),
    (
        "caches are to be purged that somebody names",
        &[
            (PurgeRequests, "nothing"),
            (Purge("b"), "done"),
            (Purge("a"), "done"),
            (Purge("b"), "done"),
            (PurgeRequests, "a, b"),
        ],
    ),
    (
        "scopes are expanded to the fewest that do",
        &[
            (Expand(&[]), "nothing"),
            (Expand(&["b", "a:b", "a:*", "b"]), "a:*, b"),
            MAKE,
            CLAIM,
            (ExpandFor(0, &["b", "a:b", "a:*", "b"]), "a:*, b"),
        ],
    ),
    (
        "a worker in quarantine gets no tasks until that is over",
        &[
            (Quarantine(5), "not found"),
            (Claim, "no task"),
            (Quarantined, "no"),
            (Quarantine(5), "done"),
            (Quarantined, "yes"),
            MAKE,
            (Claim, "no task"),
            (Pass(6), "done"),
            (Quarantined, "no"),
            CLAIM,
            (Quarantine(5), "done"),
            (Reclaim(0), "5 minutes"),
            (Report(0, "completed"), "done"),
        ],
    ),
];

/// How a run may end, in the words of those who say so; whether another one follows.
const VERDICTS: &[(&str, bool)] = &[
    ("completed", false),
    ("failed", false),
    ("malformed-payload", false),
    ("internal-error", false),
    ("resource-unavailable", false),
    ("superseded", false),
    ("worker-shutdown", true),
    ("intermittent-task", true),
];

#[test]
fn both_makers_of_a_workers_handle_behave_alike() {
    for (name, steps) in CASES {
        for maker in MAKERS {
            let mut play = Play::new(maker);
            let (mut came, mut expected) = (Vec::new(), Vec::new());
            for (ask, comes) in *steps {
                came.push((ask, play.ask(*ask)));
                expected.push((ask, (*comes).to_owned()));
            }
            assert_eq!(came, expected, "{name}, {maker:?}");
        }
    }
}

#[test]
fn each_end_of_a_run_may_be_said_twice_and_no_other_after_it() {
    for maker in MAKERS {
        for (word, is_retried) in VERDICTS {
            let mut play = Play::new(maker);
            let look = if *is_retried { format!("{word}, pending") } else { (*word).to_owned() };
            for (ask, comes) in [MAKE, CLAIM, (Report(0, word), "done"), (Report(0, word), "done")] {
                assert_eq!(play.ask(ask), comes, "{word}: {ask:?}, {maker:?}");
            }
            for (other, _) in VERDICTS.iter().filter(|(other, _)| other != word) {
                assert_eq!(play.ask(Report(0, other)), "conflict", "{word}, then {other}, {maker:?}");
            }
            assert_eq!((play.ask(Status(0)).as_str(), play.ask(Look)), (*word, look), "{maker:?}");
        }
    }
}

#[test]
fn the_most_urgent_task_is_claimed_first_then_the_oldest() {
    for maker in MAKERS {
        let play = Play::new(maker);
        let mut ids = Vec::new();
        for (priority, pool) in
            [("low", POOL), ("highest", POOL), ("low", POOL), ("lowest", POOL), ("highest", "other/pool")]
        {
            let mut task = play.deployment.definition(&json!({}));
            task["priority"] = json!(priority);
            task["taskQueueId"] = json!(pool);
            ids.push(play.deployment.create_task(task));
            play.deployment.pass(Duration::from_millis(1));
        }
        let mut order = Vec::new();
        for most in [1, 2, 9] {
            let queue = play.queue.clone();
            let work = play.deployment.within(async move { queue.claim_work(POOL, &worker(), most).await });
            let claims = work.unwrap().claims;
            assert!(claims.len() <= most, "{maker:?}");
            order.extend(claims.into_iter().map(|claim| claim.queue.run().task_id.clone()));
        }
        assert_eq!(order, [&ids[1], &ids[0], &ids[2], &ids[3]].map(Clone::clone), "{maker:?}");
    }
}

#[test]
fn an_exception_takes_artifacts_for_25_minutes() {
    // Over HTTP the run's credentials have expired by then.
    let mut play = Play::new(MAKERS[0]);
    for (ask, comes) in [
        MAKE,
        CLAIM,
        (Report(0, "internal-error"), "done"),
        (Pass(26), "done"),
        (Artifact(0, "log", S3(TEXT)), "conflict"),
    ] {
        assert_eq!(play.ask(ask), comes, "{ask:?}");
    }
}

/// A queue, a task to be made in it, and its id.
fn author() -> (Deployment, TaskId, TaskDefinition) {
    let deployment = Deployment::start(Terms::default());
    let task_id = TaskId::random().unwrap();
    let definition = deployment.definition(&json!({}));
    let task = TaskDefinition::requested(&definition, &task_id, deployment.queue.now()).unwrap();
    (deployment, task_id, task)
}

#[test]
fn creating_a_task_twice_changes_nothing_unless_the_definition_differs() {
    let (deployment, task_id, task) = author();
    let queue = deployment.queue.clone();
    deployment.within(async move {
        let first = queue.create_task(&task_id, &task).await.unwrap();
        assert_eq!((first.state, first.runs.len()), (RunState::Pending, 1));
        assert_eq!(queue.create_task(&task_id, &task).await.unwrap(), first);
        let other = TaskDefinition { priority: Priority::High, ..task };
        let refused = queue.create_task(&task_id, &other).await;
        assert!(matches!(refused, Err(QueueError::Conflict { .. })), "{refused:?}");
    });
}

#[test]
fn times_that_do_not_fit_together_are_refused() {
    let (deployment, task_id, task) = author();
    let queue = deployment.queue.clone();
    let now = queue.now();
    let day = Duration::from_secs(24 * 60 * 60);
    let cases = [
        TaskDefinition { deadline: task.created, ..task.clone() },
        TaskDefinition { created: Timestamp::from_millis(0), deadline: now, ..task.clone() },
        TaskDefinition { deadline: now.plus(day * 6), ..task.clone() },
        TaskDefinition { expires: task.deadline, ..task.clone() },
    ];
    deployment.within(async move {
        for task in cases {
            let refused = queue.create_task(&task_id, &task).await;
            assert!(matches!(refused, Err(QueueError::Invalid { .. })), "{task:?}: {refused:?}");
        }
        let none = queue.status(&task_id).await;
        assert!(matches!(none, Err(QueueError::NotFound { .. })), "{none:?}");
    });
}

#[test]
fn tasks_that_nobody_made_are_not_found() {
    let (deployment, task_id, _) = author();
    let queue = deployment.queue.clone();
    deployment.within(async move {
        let run = RunId { task_id: task_id.clone(), run_id: 0 };
        let refusals = [
            queue.status(&task_id).await.err(),
            queue.cancel_task(&task_id).await.err(),
            queue.rerun_task(&task_id).await.err(),
            queue.list_artifacts(&run, ALL).await.err(),
            queue.run(run.clone()).reclaim().await.err(),
        ];
        for refused in refusals {
            assert!(matches!(refused, Some(QueueError::NotFound { .. })), "{refused:?}");
        }
    });
}
