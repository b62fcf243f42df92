use super::*;
use crate::queue::definition::Submission;

const START: i64 = 1_000_000_000_000;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(START + seconds * 1000)
}

fn worker(id: &str) -> WorkerIdentity {
    WorkerIdentity { worker_group: "g".to_owned(), worker_id: id.to_owned() }
}

/// A task with a deadline after a day and this many retries, pending since second 0.
fn pending(retries: u32) -> TaskStatus {
    let task_id = TaskId::parse("fN1SbArXTPSVFNUvaOlinQ").unwrap();
    let document = format!("payload: {{}}\nretries: {retries}\n");
    let submission = Submission::parse(document.as_bytes()).unwrap();
    let task = submission.into_task(&task_id, at(0)).unwrap().definition;
    let mut status = define(&task_id, &task);
    schedule(&mut status, at(0));
    status
}

/// A task that has no run yet.
fn unscheduled() -> TaskStatus {
    TaskStatus { state: RunState::Unscheduled, runs: Vec::new(), ..pending(5) }
}

/// The same, claimed at second 0.
fn running(retries: u32) -> (TaskStatus, RunId) {
    let mut status = pending(retries);
    let (run, _) = claim(&mut status, &worker("w"), at(0)).unwrap();
    (status, run)
}

fn claim(status: &mut TaskStatus, worker: &WorkerIdentity, now: Timestamp) -> Option<(RunId, Timestamp)> {
    super::claim(status, worker, now, CLAIM)
}

fn reclaim(status: &mut TaskStatus, run: &RunId, now: Timestamp) -> Result<Timestamp, QueueError> {
    super::reclaim(status, run, now, CLAIM)
}

fn is_conflict<T>(result: Result<T, QueueError>) -> bool {
    matches!(result, Err(QueueError::Conflict { .. }))
}

#[test]
fn a_new_task_has_one_pending_run() {
    let status = pending(5);
    assert_eq!((status.state, status.runs.len(), status.retries_left), (RunState::Pending, 1, 5));
    assert_eq!((status.runs[0].run_id, status.runs[0].reason_created), (0, ReasonCreated::Scheduled));
}

#[test]
fn a_task_is_scheduled_once_and_not_after_its_deadline() {
    let mut status = unscheduled();
    schedule(&mut status, at(5));
    schedule(&mut status, at(6));
    assert_eq!((status.state, status.runs.len(), status.runs[0].scheduled), (RunState::Pending, 1, at(5)));
    let mut late = unscheduled();
    let deadline = late.deadline;
    schedule(&mut late, deadline);
    assert_eq!(late, unscheduled());
    let mut done = running(5).0;
    cancel(&mut done, at(1));
    schedule(&mut done, at(2));
    assert_eq!((done.state, done.runs.len()), (RunState::Exception, 1));
}

#[test]
fn a_task_that_ends_before_it_has_a_run_gets_one_to_say_why() {
    let deadline = unscheduled().deadline;
    let (mut cancelled, mut late) = (unscheduled(), unscheduled());
    assert_eq!((due(&late), claim(&mut late, &worker("w"), at(1))), (Some(deadline), None));
    cancel(&mut cancelled, at(7));
    pass_time(&mut late, deadline);
    for (status, reason, when) in
        [(cancelled, Reason::Canceled, at(7)), (late, Reason::DeadlineExceeded, deadline)]
    {
        let run = &status.runs[0];
        assert_eq!(
            (status.state, run.state, status.runs.len()),
            (RunState::Exception, RunState::Exception, 1)
        );
        assert_eq!(run.reason_resolved, Some(Verdict::Exception(reason)));
        assert_eq!((run.reason_created, run.scheduled), (ReasonCreated::Exception, when));
        assert_eq!((resolved(&status), due(&status)), (Some(when), None));
    }
}

#[test]
fn a_claim_holds_for_twenty_minutes_and_only_once() {
    let mut status = pending(5);
    let (run, until) = claim(&mut status, &worker("w"), at(7)).unwrap();
    assert_eq!((run.run_id, until), (0, at(7 + 1200)));
    assert_eq!(status.state, RunState::Running);
    assert_eq!((status.runs[0].started, status.runs[0].taken_until), (Some(at(7)), Some(until)));
    assert_eq!(status.runs[0].worker, Some(worker("w")));
    assert_eq!(claim(&mut status, &worker("other"), at(8)), None);
}

#[test]
fn each_report_has_its_state_and_its_new_run() {
    use Reason::*;
    use Verdict::*;
    let cases = [
        (Completed, RunState::Completed, None),
        (Failed, RunState::Failed, None),
        (Exception(MalformedPayload), RunState::Exception, None),
        (Exception(ResourceUnavailable), RunState::Exception, None),
        (Exception(InternalError), RunState::Exception, None),
        (Exception(WorkerShutdown), RunState::Exception, Some(ReasonCreated::Retry)),
        (Exception(IntermittentTask), RunState::Exception, Some(ReasonCreated::TaskRetry)),
    ];
    for (reason, state, again) in cases {
        let (mut status, run) = running(1);
        report(&mut status, &run, reason, at(9)).unwrap();
        let first = &status.runs[0];
        assert_eq!((first.state, first.reason_resolved, first.resolved), (state, Some(reason), Some(at(9))));
        assert_eq!(first.taken_until, Some(at(1200)), "{reason:?}");
        assert_eq!(status.runs.get(1).map(|run| run.reason_created), again, "{reason:?}");
        assert_eq!(status.retries_left, u32::from(again.is_none()), "{reason:?}");
        assert_eq!(status.state, if again.is_some() { RunState::Pending } else { state }, "{reason:?}");
    }
}

#[test]
fn without_retries_left_there_is_no_new_run() {
    for reason in [Verdict::Exception(Reason::WorkerShutdown), Verdict::Exception(Reason::IntermittentTask)] {
        let (mut status, run) = running(0);
        report(&mut status, &run, reason, at(1)).unwrap();
        assert_eq!((status.state, status.runs.len()), (RunState::Exception, 1), "{reason:?}");
    }
}

#[test]
fn a_report_may_be_repeated_but_not_changed() {
    let (mut status, run) = running(1);
    report(&mut status, &run, Verdict::Completed, at(1)).unwrap();
    report(&mut status, &run, Verdict::Completed, at(2)).unwrap();
    assert_eq!(status.runs[0].resolved, Some(at(1)));
    assert!(is_conflict(report(&mut status, &run, Verdict::Failed, at(3))));
    // Repeating worker-shutdown must not make a third run.
    let (mut status, run) = running(5);
    for second in 1..4 {
        report(&mut status, &run, Verdict::Exception(Reason::WorkerShutdown), at(second)).unwrap();
    }
    assert_eq!(status.runs.len(), 2);
}

#[test]
fn a_report_of_a_run_that_others_have_followed_is_late() {
    for (verdict, reruns, fits) in [
        (Verdict::Completed, 0, true),
        (Verdict::Completed, 1, false),
        (Verdict::Exception(Reason::InternalError), 1, true),
        (Verdict::Exception(Reason::InternalError), 2, false),
        (Verdict::Exception(Reason::WorkerShutdown), 1, false),
    ] {
        let (mut status, run) = running(1);
        report(&mut status, &run, verdict, at(1)).unwrap();
        for _ in 0..reruns {
            cancel(&mut status, at(2));
            rerun(&mut status, 1, at(3)).unwrap();
        }
        let again = report(&mut status, &run, verdict, at(4));
        assert_eq!(again.is_ok(), fits, "{verdict:?} {reruns}");
        assert!(fits || is_conflict(again));
    }
}

#[test]
fn only_a_running_run_is_reclaimed_or_reported() {
    let mut status = pending(5);
    let run = RunId { task_id: status.task_id.clone(), run_id: 0 };
    assert!(is_conflict(reclaim(&mut status, &run, at(1))));
    assert!(is_conflict(report(&mut status, &run, Verdict::Completed, at(1))));
    let absent = RunId { run_id: 1, ..run };
    assert!(matches!(reclaim(&mut status, &absent, at(1)), Err(QueueError::NotFound { .. })));
    assert!(matches!(takes_artifacts(&status, &absent, at(1)), Err(QueueError::NotFound { .. })));
}

#[test]
fn a_claim_that_is_not_renewed_expires_into_a_new_run() {
    let (mut status, run) = running(1);
    pass_time(&mut status, at(1199));
    assert_eq!(reclaim(&mut status, &run, at(1199)).unwrap(), at(2399));
    pass_time(&mut status, at(1200));
    assert_eq!(status.state, RunState::Running);
    pass_time(&mut status, at(2399));
    assert_eq!(status.runs[0].reason_resolved, Some(Verdict::Exception(Reason::ClaimExpired)));
    assert_eq!(status.runs[0].resolved, Some(at(2399)));
    assert_eq!((status.state, status.runs[1].reason_created), (RunState::Pending, ReasonCreated::Retry));
    assert!(is_conflict(reclaim(&mut status, &run, at(2400))));
    // The new run is the next worker's.
    assert_eq!(claim(&mut status, &worker("next"), at(2400)).unwrap().0.run_id, 1);
    pass_time(&mut status, at(9_999));
    assert_eq!((status.state, status.retries_left, status.runs.len()), (RunState::Exception, 0, 2));
}

#[test]
fn the_deadline_resolves_what_is_not_resolved() {
    const DAY: i64 = 24 * 60 * 60;
    let mut waiting = pending(5);
    pass_time(&mut waiting, at(DAY - 1));
    assert_eq!(waiting.state, RunState::Pending);
    pass_time(&mut waiting, at(DAY));
    assert_eq!(waiting.runs[0].reason_resolved, Some(Verdict::Exception(Reason::DeadlineExceeded)));

    // A claim that ran out long ago first makes its new run, which then meets the deadline.
    let (mut lost, _) = running(5);
    pass_time(&mut lost, at(DAY + 5));
    assert_eq!(lost.runs[1].resolved, Some(at(DAY)));
    let reasons: Vec<_> = lost.runs.iter().filter_map(|run| run.reason_resolved).collect();
    assert_eq!(
        reasons,
        [Verdict::Exception(Reason::ClaimExpired), Verdict::Exception(Reason::DeadlineExceeded)]
    );

    // A claim that holds beyond the deadline does not hold the deadline up.
    let (mut busy, run) = running(5);
    reclaim(&mut busy, &run, at(DAY - 10)).unwrap();
    pass_time(&mut busy, at(DAY));
    assert_eq!(busy.runs[0].reason_resolved, Some(Verdict::Exception(Reason::DeadlineExceeded)));
    assert_eq!(busy.runs.len(), 1);

    let (mut done, run) = running(5);
    report(&mut done, &run, Verdict::Completed, at(1)).unwrap();
    pass_time(&mut done, at(DAY));
    assert_eq!(done.state, RunState::Completed);
}

#[test]
fn cancelling_resolves_what_waits_or_runs_and_nothing_else() {
    for mut status in [pending(5), running(5).0] {
        cancel(&mut status, at(1));
        assert_eq!((status.state, status.runs.len()), (RunState::Exception, 1));
        assert_eq!(status.runs[0].reason_resolved, Some(Verdict::Exception(Reason::Canceled)));
        let before = status.clone();
        cancel(&mut status, at(2));
        assert_eq!(status, before);
    }
    let (mut done, run) = running(5);
    report(&mut done, &run, Verdict::Failed, at(1)).unwrap();
    cancel(&mut done, at(2));
    assert_eq!(done.state, RunState::Failed);
}

#[test]
fn a_task_is_run_again_with_all_of_its_retries() {
    let (mut status, run) = running(1);
    report(&mut status, &run, Verdict::Exception(Reason::WorkerShutdown), at(1)).unwrap();
    cancel(&mut status, at(2));
    rerun(&mut status, 1, at(3)).unwrap();
    assert_eq!((status.state, status.runs.len(), status.retries_left), (RunState::Pending, 3, 1));
    assert_eq!((status.runs[2].reason_created, status.runs[2].scheduled), (ReasonCreated::Rerun, at(3)));
    // It waits for a worker, or has one: nothing is changed.
    for _ in 0..2 {
        let before = status.clone();
        rerun(&mut status, 1, at(4)).unwrap();
        assert_eq!(status, before);
        claim(&mut status, &worker("w"), at(5));
    }
    let mut first = unscheduled();
    rerun(&mut first, 5, at(1)).unwrap();
    assert_eq!((first.state, first.runs[0].reason_created), (RunState::Pending, ReasonCreated::Rerun));
}

#[test]
fn a_task_has_fifty_runs_and_none_after_its_deadline() {
    let mut status = pending(49);
    for runs in 1..MOST_RUNS {
        cancel(&mut status, at(1));
        rerun(&mut status, 49, at(1)).unwrap();
        // Each retry has a run left to it.
        assert_eq!(status.runs.len() + usize::try_from(status.retries_left).unwrap(), MOST_RUNS, "{runs}");
    }
    cancel(&mut status, at(1));
    assert!(is_conflict(rerun(&mut status, 49, at(1))));
    assert_eq!(status.runs.len(), MOST_RUNS);
    let mut late = pending(5);
    let deadline = late.deadline;
    pass_time(&mut late, deadline);
    assert!(is_conflict(rerun(&mut late, 5, deadline)));
}

#[test]
fn artifacts_are_taken_while_a_run_runs_and_25_minutes_after_an_exception() {
    let (mut status, run) = running(0);
    assert!(takes_artifacts(&status, &run, at(100)).is_ok());
    report(&mut status, &run, Verdict::Exception(Reason::InternalError), at(100)).unwrap();
    assert!(takes_artifacts(&status, &run, at(100 + 25 * 60)).is_ok());
    assert!(is_conflict(takes_artifacts(&status, &run, at(101 + 25 * 60))));
    for reason in [Verdict::Completed, Verdict::Failed] {
        let (mut status, run) = running(0);
        report(&mut status, &run, reason, at(100)).unwrap();
        assert!(is_conflict(takes_artifacts(&status, &run, at(100))), "{reason:?}");
    }
    let mut waiting = pending(0);
    assert!(matches!(takes_artifacts(&waiting, &run, at(0)), Err(QueueError::Invalid { .. })));
    cancel(&mut waiting, at(0));
    assert!(matches!(takes_artifacts(&waiting, &run, at(0)), Err(QueueError::Invalid { .. })));
}

#[test]
fn a_status_is_written_as_the_queues_schema_has_it() {
    let (mut status, run) = running(0);
    report(&mut status, &run, Verdict::Exception(Reason::MalformedPayload), at(1)).unwrap();
    let expected = serde_json::json!({
        "taskId": "fN1SbArXTPSVFNUvaOlinQ",
        "provisionerId": "local",
        "workerType": "docker-worker",
        "taskQueueId": "local/docker-worker",
        "schedulerId": "-",
        "projectId": "none",
        "taskGroupId": "fN1SbArXTPSVFNUvaOlinQ",
        "priority": "lowest",
        "deadline": "2001-09-10T01:46:40.000Z",
        "expires": "2002-09-10T01:46:40.000Z",
        "retriesLeft": 0,
        "state": "exception",
        "runs": [{
            "runId": 0,
            "state": "exception",
            "reasonCreated": "scheduled",
            "reasonResolved": "malformed-payload",
            "workerGroup": "g",
            "workerId": "w",
            "scheduled": "2001-09-09T01:46:40.000Z",
            "started": "2001-09-09T01:46:40.000Z",
            "takenUntil": "2001-09-09T02:06:40.000Z", "resolved": "2001-09-09T01:46:41.000Z",
        }],
    });
    assert_eq!(serde_json::to_value(&status).unwrap(), expected);
    assert_eq!(serde_json::from_value::<TaskStatus>(expected).unwrap(), status);
    let waiting = pending(0);
    let round_trip: TaskStatus = serde_json::from_str(&serde_json::to_string(&waiting).unwrap()).unwrap();
    assert_eq!(round_trip, waiting);
}

#[test]
fn what_is_due_is_what_passing_time_changes() {
    let mut status = pending(1);
    let deadline = status.deadline;
    assert_eq!(due(&status), Some(deadline));
    let (run, until) = claim(&mut status, &worker("w"), at(7)).unwrap();
    assert_eq!(due(&status), Some(until));
    let before = status.clone();
    pass_time(&mut status, Timestamp::from_millis(until.as_millis() - 1));
    assert_eq!(status, before);
    pass_time(&mut status, until);
    assert_ne!(status, before);
    assert_eq!(due(&status), Some(deadline));
    assert!(find(&status, &run).unwrap().resolved.is_some());
    pass_time(&mut status, deadline);
    assert_eq!(due(&status), None);
}
