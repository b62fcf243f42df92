use super::*;
use crate::queue::Reporter;
use crate::queue::Verdict::{Completed, Exception, Failed};

const ENDS: [End; 15] = [
    End::MalformedPayload,
    End::ImageUnavailable,
    End::SetupFailed,
    End::StartFailed,
    End::CommandNotExecutable,
    End::CommandNotFound,
    End::StartedHookFailed,
    End::Exited(0),
    End::Exited(1),
    End::Exited(255),
    End::Interrupted,
    End::WorkerFault,
    End::ResourceShort,
    End::HostBusy,
    End::HostUnfit,
];
const INTERRUPTS: [Interrupt; 7] = [
    Interrupt::Cancelled,
    Interrupt::CancelledHere,
    Interrupt::Deadline,
    Interrupt::LostClaim,
    Interrupt::RefusedClaim,
    Interrupt::Shutdown,
    Interrupt::MaxRunTime,
];

/// Every outcome there is, with nothing and with everything listed in `onExitStatus`.
fn all_outcomes() -> Vec<Outcome> {
    let interrupts = INTERRUPTS.map(Some).into_iter().chain([None]);
    let mut outcomes = Vec::new();
    for interrupt in interrupts {
        for end in ENDS {
            for (stopped, killed) in [
                (Hooks::Done, Hooks::Done),
                (Hooks::Done, Hooks::Failed),
                (Hooks::Failed, Hooks::Done),
                (Hooks::Failed, Hooks::Failed),
            ] {
                for listed in [vec![], (-1..=255).collect::<Vec<i64>>()] {
                    let on_exit_status = OnExitStatus { retry: listed.clone(), purge_caches: listed };
                    outcomes.push(Outcome { end, interrupt, stopped, killed, on_exit_status });
                }
            }
        }
    }
    outcomes
}

#[track_caller]
fn check(outcome: &Outcome, verdict: Verdict, exit_code: i32, status: u8) {
    let resolution = judge(outcome);
    assert_eq!((resolution.verdict, resolution.exit_code), (verdict, exit_code), "{outcome:?}");
    assert_eq!(exit_status(outcome, &resolution), status, "{outcome:?}");
}

#[test]
fn each_end_has_its_resolution_footer_and_exit_status() {
    let cases = [
        (End::MalformedPayload, Exception(Reason::MalformedPayload), -1, 120),
        (End::ImageUnavailable, Failed, -1, 121),
        (End::SetupFailed, Failed, -1, 123),
        (End::StartFailed, Failed, -1, 123),
        (End::CommandNotExecutable, Failed, -1, 126),
        (End::CommandNotFound, Failed, -1, 127),
        (End::StartedHookFailed, Failed, -1, 123),
        (End::Exited(0), Completed, 0, 0),
        (End::Exited(1), Failed, 1, 1),
        (End::Exited(120), Failed, 120, 120),
        (End::Exited(137), Failed, 137, 137),
        (End::Exited(255), Failed, 255, 255),
        (End::Interrupted, Exception(Reason::InternalError), -1, 122),
        (End::WorkerFault, Exception(Reason::InternalError), -1, 122),
        (End::ResourceShort, Exception(Reason::ResourceUnavailable), -1, 122),
        (End::HostBusy, Exception(Reason::IntermittentTask), -1, 122),
        (End::HostUnfit, Exception(Reason::InternalError), -1, 125),
    ];
    for (end, verdict, exit_code, status) in cases {
        check(&Outcome::new(end), verdict, exit_code, status);
    }
}

#[test]
fn an_interrupt_outranks_the_exit_code() {
    let cases = [
        (Interrupt::Cancelled, Exception(Reason::Canceled), 122),
        (Interrupt::CancelledHere, Exception(Reason::Canceled), 130),
        (Interrupt::Deadline, Exception(Reason::DeadlineExceeded), 122),
        (Interrupt::LostClaim, Exception(Reason::ClaimExpired), 122),
        (Interrupt::RefusedClaim, Exception(Reason::InternalError), 122),
        (Interrupt::Shutdown, Exception(Reason::WorkerShutdown), 122),
        (Interrupt::MaxRunTime, Failed, 124),
    ];
    for (interrupt, verdict, status) in cases {
        for end in ENDS {
            let outcome = Outcome { interrupt: Some(interrupt), ..Outcome::new(end) };
            check(&outcome, verdict, NO_STATUS, status);
        }
    }
}

#[test]
fn a_failed_upload_turns_success_into_failure() {
    let success = Outcome::new(End::Exited(0));
    check(&Outcome { stopped: Hooks::Failed, ..success.clone() }, Failed, -1, 123);
    // O22: the footer was written before the log could not be uploaded.
    check(&Outcome { killed: Hooks::Failed, ..success.clone() }, Failed, 0, 123);
    check(&Outcome { stopped: Hooks::Failed, killed: Hooks::Failed, ..success }, Failed, -1, 123);
}

#[test]
fn a_failed_upload_does_not_hide_the_exit_code_of_a_failed_command() {
    let failed = Outcome { stopped: Hooks::Failed, killed: Hooks::Failed, ..Outcome::new(End::Exited(7)) };
    check(&failed, Failed, 7, 7);
}

#[test]
fn retry_is_asked_of_failures_of_the_command_only() {
    let listing = |codes: &[i64]| OnExitStatus { retry: codes.to_vec(), purge_caches: vec![] };
    let again = Exception(Reason::IntermittentTask);
    type Case = (End, Hooks, Hooks, &'static [i64], Verdict, i32);
    let cases: &[Case] = &[
        (End::Exited(4), Hooks::Done, Hooks::Done, &[4], again, 4),
        (End::Exited(4), Hooks::Failed, Hooks::Done, &[4], again, 4),
        (End::Exited(4), Hooks::Done, Hooks::Done, &[3, -1, 260], Failed, 4),
        // 0 never matches: neither on success nor after a failed upload (O22).
        (End::Exited(0), Hooks::Done, Hooks::Done, &[0], Completed, 0),
        (End::Exited(0), Hooks::Done, Hooks::Failed, &[0], Failed, 0),
        // O47: −1 is a failed upload or a start that failed.
        (End::Exited(0), Hooks::Failed, Hooks::Done, &[-1], again, -1),
        (End::Exited(0), Hooks::Done, Hooks::Failed, &[-1], again, 0),
        (End::StartFailed, Hooks::Done, Hooks::Done, &[-1], again, -1),
        (End::CommandNotFound, Hooks::Done, Hooks::Done, &[-1], again, -1),
        (End::CommandNotFound, Hooks::Done, Hooks::Done, &[127], Failed, -1),
        // What ends a run before its start is nothing that `onExitStatus` speaks of.
        (End::ImageUnavailable, Hooks::Done, Hooks::Done, &[-1], Failed, -1),
        (End::SetupFailed, Hooks::Done, Hooks::Done, &[-1], Failed, -1),
        (End::StartedHookFailed, Hooks::Done, Hooks::Done, &[-1], Failed, -1),
    ];
    for (end, stopped, killed, codes, verdict, exit_code) in cases {
        let on_exit_status = listing(codes);
        let outcome =
            Outcome { end: *end, interrupt: None, stopped: *stopped, killed: *killed, on_exit_status };
        let resolution = judge(&outcome);
        assert_eq!((resolution.verdict, resolution.exit_code), (*verdict, *exit_code), "{outcome:?}");
    }
}

#[test]
fn caches_are_purged_for_a_listed_code_of_the_command() {
    let cases = [
        (End::Exited(3), None, Caches::Purge),
        (End::Exited(4), None, Caches::Keep),
        (End::Exited(0), None, Caches::Purge),
        (End::Exited(3), Some(Interrupt::MaxRunTime), Caches::Keep),
        (End::SetupFailed, None, Caches::Keep),
    ];
    for (end, interrupt, expected) in cases {
        let on_exit_status = OnExitStatus { retry: vec![], purge_caches: vec![0, 3, -1] };
        let outcome = Outcome { interrupt, on_exit_status, ..Outcome::new(end) };
        assert_eq!(judge(&outcome).caches, expected, "{outcome:?}");
    }
}

#[test]
fn status_0_is_success_and_success_is_status_0() {
    for outcome in all_outcomes() {
        let resolution = judge(&outcome);
        let status = exit_status(&outcome, &resolution);
        assert_eq!(status == 0, resolution.verdict == Completed, "{outcome:?}");
    }
}

#[test]
fn an_exit_code_in_the_footer_is_the_commands_own_or_minus_one() {
    for outcome in all_outcomes() {
        let resolution = judge(&outcome);
        match (outcome.interrupt, outcome.end) {
            (None, End::Exited(status)) if resolution.exit_code != NO_STATUS => {
                assert_eq!(resolution.exit_code, i32::from(status), "{outcome:?}");
            }
            _ => assert_eq!(resolution.exit_code, NO_STATUS, "{outcome:?}"),
        }
    }
}

#[test]
fn only_what_the_queue_sets_itself_goes_unreported() {
    for outcome in all_outcomes() {
        let of_the_queue =
            [Interrupt::Cancelled, Interrupt::CancelledHere, Interrupt::Deadline, Interrupt::LostClaim];
        let by_queue = outcome.interrupt.is_some_and(|interrupt| of_the_queue.contains(&interrupt));
        assert_eq!(judge(&outcome).verdict.reporter() == Reporter::Queue, by_queue, "{outcome:?}");
    }
}
