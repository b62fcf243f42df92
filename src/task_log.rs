//! The worker's own lines in a task's log.
//!
//! Log parsers rely on their exact form (`[taskcluster <time>] <text>`, `[taskcluster:error] <text>`). The container's
//! bytes pass between them unchanged; so a line of ours must never carry a word of the task that could start a new line
//! or steer the reader's terminal: every such word goes through [`escaped`] (in `text`) where the text is made.

use std::time::Duration;

use crate::document::finding::{Finding, Severity};
use crate::interrupt::{Interrupt, Notice};
use crate::text::escaped;
use crate::timestamp::Timestamp;

pub mod follower;
pub mod output;
pub mod reader;
pub mod spool;

/// The line before the command's output, where all that it needs is there.
pub const TASK_STARTING: &str = "=== Task Starting ===";
/// The line after it; only where there is the other.
pub const TASK_FINISHED: &str = "=== Task Finished ===";

/// What the header says about a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header<'a> {
    /// The task's id.
    pub task_id: &'a str,
    /// The worker's id.
    pub worker_id: &'a str,
    /// The worker's group.
    pub worker_group: &'a str,
    /// `workerNodeType` of the configuration.
    pub worker_node_type: &'a str,
    /// `<provisionerId>/<workerType>`.
    pub worker_pool: &'a str,
    /// The version of this program.
    pub worker_version: &'a str,
    /// The host's public address, where it is known.
    pub public_ip: Option<&'a str>,
    /// The host's own name.
    pub hostname: &'a str,
    /// Name and mount point of each cache.
    pub caches: &'a [(&'a str, &'a str)],
}

/// A line that informs.
#[must_use]
pub fn info(now: Timestamp, text: &str) -> String {
    let time = now.to_string().replacen('T', " ", 1);
    format!("[taskcluster {time}] {text}\n")
}

/// A line that says what went wrong. It begins with a newline, so that the marker starts a line whatever the command
/// wrote last.
#[must_use]
pub fn error(text: &str) -> String {
    format!("\n[taskcluster:error] {text}\n")
}

/// The lines at the top of a log, up to and with the empty line (CRLF, as the original's) that ends them.
///
/// A public address that is not known is `unknown`: parsers expect all eight lines.
#[must_use]
pub fn header(now: Timestamp, header: &Header<'_>) -> String {
    let fields = [
        ("Task ID", header.task_id),
        ("Worker ID", header.worker_id),
        ("Worker Group", header.worker_group),
        ("Worker Node Type", header.worker_node_type),
        ("Worker Pool", header.worker_pool),
        ("Worker Version", header.worker_version),
        ("Public IP", header.public_ip.unwrap_or("unknown")),
        ("Hostname", header.hostname),
    ];
    let mut text = String::new();
    for (name, value) in fields {
        text += &info(now, &format!("{name}: {}", escaped(value)));
    }
    for (name, mount_point) in header.caches {
        text += &info(now, &format!("using cache \"{}\" -> {}", escaped(name), escaped(mount_point)));
    }
    text + "\r\n"
}

/// The last line of a log. `exit_code` 0 alone is success; −1 stands for a run without a status of its command.
#[must_use]
pub fn footer(now: Timestamp, exit_code: i32, duration: Duration) -> String {
    let result = if exit_code == 0 { "Successful" } else { "Unsuccessful" };
    let seconds = seconds(duration);
    info(now, &format!("{result} task run with exit code: {exit_code} completed in {seconds} seconds"))
}

/// The error text of a run that is ended from outside: the original's words, and by what the worker knows it.
/// `max_run_time` is the payload's.
#[must_use]
pub fn interrupted((interrupt, notice): (Interrupt, Notice), max_run_time: Duration) -> String {
    let aborted =
        |reason, because| format!("Task has been aborted prematurely. Reason: {reason} ({because})");
    match interrupt {
        Interrupt::MaxRunTime => {
            format!("Task timeout after {} seconds. Force killing container.", max_run_time.as_secs())
        }
        Interrupt::Cancelled => "Task was canceled by another entity. This can happen using a taskcluster client or by cancelling a task within Treeherder.".to_owned(),
        Interrupt::CancelledHere => {
            format!("Task was canceled by the one who runs this worker ({}).", because_of_operator(notice))
        }
        Interrupt::Deadline => aborted("deadline-exceeded", because_of_deadline(notice)),
        Interrupt::LostClaim => aborted("claim-expired", because_of_claim(notice)),
        Interrupt::RefusedClaim => aborted("internal-error", "the queue refuses to prolong the claim"),
        Interrupt::Shutdown => aborted("worker-shutdown", because_of_end(notice)),
    }
}

fn because_of_operator(notice: Notice) -> &'static str {
    if notice == Notice::ControlSocket { "over its control socket" } else { "Ctrl-C or SIGINT" }
}

fn because_of_deadline(notice: Notice) -> &'static str {
    match notice {
        Notice::Reclaim | Notice::Status => "the queue says that the task's deadline has passed",
        Notice::Clock | Notice::Signal | Notice::ControlSocket | Notice::WorkerRunner | Notice::Worker => {
            "the task's deadline has passed"
        }
    }
}

fn because_of_claim(notice: Notice) -> &'static str {
    if notice == Notice::Reclaim {
        "the claim could not be prolonged"
    } else {
        "the queue has given up this run"
    }
}

fn because_of_end(notice: Notice) -> &'static str {
    match notice {
        Notice::Signal => "a signal told the worker to end",
        Notice::ControlSocket => "somebody ended it over the worker's control socket",
        Notice::WorkerRunner => "worker-runner told the worker to end",
        Notice::Worker | Notice::Clock | Notice::Reclaim | Notice::Status => "the worker has come to its end",
    }
}

/// The error text of a run of which the kernel has ended a process because memory was short. `one` and `together` are the
/// bytes that one task and all tasks of the host may use: which of them was reached, or whether it was the host's own
/// memory, nobody tells.
#[must_use]
pub fn out_of_memory(one: Option<u64>, together: Option<u64>) -> String {
    let of_its_own = one.filter(|bytes| together != Some(*bytes));
    let one = of_its_own.map(|bytes| format!("this task may use {bytes} bytes (limits.memory)"));
    let together = together.map(|bytes| format!("all tasks of this host together may use {bytes} bytes"));
    let bounds: Vec<String> = one.into_iter().chain(together).collect();
    let bounds = if bounds.is_empty() { String::new() } else { format!(": {}", bounds.join(", ")) };
    format!("The kernel killed a process of the task because memory was used up{bounds}.")
}

/// The error text of a payload that is refused: the original's first words, then the errors as a JSON list of strings.
#[must_use]
pub fn refused_payload(findings: &[Finding]) -> String {
    let errors: Vec<String> = findings
        .iter()
        .filter(|finding| finding.severity == Severity::Error)
        .map(Finding::to_string)
        .collect();
    let list = serde_json::to_string_pretty(&errors).unwrap_or_default();
    format!("`task.payload` format is invalid json schema errors:\n {list}")
}

/// Milliseconds as JavaScript prints them divided by 1000: `1.5`, `0.003`, `12`.
fn seconds(duration: Duration) -> String {
    let millis = duration.as_millis();
    let text = format!("{}.{:03}", millis / 1000, millis % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noon() -> Timestamp {
        Timestamp::parse("2020-03-01T12:00:00Z").unwrap()
    }

    #[test]
    fn lines_have_the_form_that_log_parsers_know() {
        assert_eq!(
            info(noon(), TASK_STARTING),
            "[taskcluster 2020-03-01 12:00:00.000Z] === Task Starting ===\n"
        );
        assert_eq!(error("no"), "\n[taskcluster:error] no\n");
    }

    #[test]
    fn each_interrupt_has_a_sentence_of_its_own() {
        let aborted = |reason| format!("Task has been aborted prematurely. Reason: {reason}");
        let cases = [
            (
                Interrupt::MaxRunTime,
                Notice::Clock,
                "Task timeout after 10 seconds. Force killing container.".to_owned(),
            ),
            (
                Interrupt::Cancelled,
                Notice::Status,
                "Task was canceled by another entity. This can happen using a taskcluster client or by cancelling a task within Treeherder.".to_owned(),
            ),
            (
                Interrupt::CancelledHere,
                Notice::Signal,
                "Task was canceled by the one who runs this worker (Ctrl-C or SIGINT).".to_owned(),
            ),
            (
                Interrupt::CancelledHere,
                Notice::ControlSocket,
                "Task was canceled by the one who runs this worker (over its control socket).".to_owned(),
            ),
            (
                Interrupt::Deadline,
                Notice::Clock,
                aborted("deadline-exceeded (the task's deadline has passed)"),
            ),
            (
                Interrupt::Deadline,
                Notice::Reclaim,
                aborted("deadline-exceeded (the queue says that the task's deadline has passed)"),
            ),
            (
                Interrupt::LostClaim,
                Notice::Reclaim,
                aborted("claim-expired (the claim could not be prolonged)"),
            ),
            (Interrupt::LostClaim, Notice::Status, aborted("claim-expired (the queue has given up this run)")),
            (
                Interrupt::RefusedClaim,
                Notice::Reclaim,
                aborted("internal-error (the queue refuses to prolong the claim)"),
            ),
            (Interrupt::Shutdown, Notice::Signal, aborted("worker-shutdown (a signal told the worker to end)")),
            (
                Interrupt::Shutdown,
                Notice::WorkerRunner,
                aborted("worker-shutdown (worker-runner told the worker to end)"),
            ),
            (
                Interrupt::Shutdown,
                Notice::ControlSocket,
                aborted("worker-shutdown (somebody ended it over the worker's control socket)"),
            ),
            (Interrupt::Shutdown, Notice::Worker, aborted("worker-shutdown (the worker has come to its end)")),
        ];
        for (interrupt, notice, expected) in cases {
            assert_eq!(interrupted((interrupt, notice), Duration::from_secs(10)), expected);
        }
    }

    #[test]
    fn a_want_of_memory_names_what_may_have_been_used_up() {
        let cases = [
            (None, None, "."),
            (Some(64), None, ": this task may use 64 bytes (limits.memory)."),
            (Some(64), Some(64), ": all tasks of this host together may use 64 bytes."),
            (
                Some(64),
                Some(1000),
                ": this task may use 64 bytes (limits.memory), all tasks of this host together may use 1000 bytes.",
            ),
        ];
        for (one, together, end) in cases {
            let expected = format!("The kernel killed a process of the task because memory was used up{end}");
            assert_eq!(out_of_memory(one, together), expected);
        }
    }

    #[test]
    fn the_header_has_eight_lines_then_the_caches_then_a_crlf() {
        let header_of_run = Header {
            task_id: "fN1SbArXTPSVFNUvaOlinQ",
            worker_id: "w1",
            worker_group: "g1",
            worker_node_type: "standalone",
            worker_pool: "local/docker-worker",
            worker_version: "0.1.0",
            public_ip: None,
            hostname: "box",
            caches: &[("level-1", "/cache"), ("a\nb", "/b")],
        };
        let expected = "\
[taskcluster 2020-03-01 12:00:00.000Z] Task ID: fN1SbArXTPSVFNUvaOlinQ
[taskcluster 2020-03-01 12:00:00.000Z] Worker ID: w1
[taskcluster 2020-03-01 12:00:00.000Z] Worker Group: g1
[taskcluster 2020-03-01 12:00:00.000Z] Worker Node Type: standalone
[taskcluster 2020-03-01 12:00:00.000Z] Worker Pool: local/docker-worker
[taskcluster 2020-03-01 12:00:00.000Z] Worker Version: 0.1.0
[taskcluster 2020-03-01 12:00:00.000Z] Public IP: unknown
[taskcluster 2020-03-01 12:00:00.000Z] Hostname: box
[taskcluster 2020-03-01 12:00:00.000Z] using cache \"level-1\" -> /cache
[taskcluster 2020-03-01 12:00:00.000Z] using cache \"a\\nb\" -> /b
\r\n";
        assert_eq!(header(noon(), &header_of_run), expected);
    }

    #[test]
    fn the_footer_prints_seconds_as_javascript_does() {
        let cases =
            [(0, "0"), (3, "0.003"), (1_500, "1.5"), (12_000, "12"), (100_000, "100"), (61_230, "61.23")];
        for (millis, expected) in cases {
            let line = footer(noon(), 0, Duration::from_millis(millis));
            let text = format!("Successful task run with exit code: 0 completed in {expected} seconds");
            assert_eq!(line, info(noon(), &text));
        }
        for code in [-1, 1, 137] {
            let line = footer(noon(), code, Duration::from_secs(1));
            assert!(
                line.contains(&format!("] Unsuccessful task run with exit code: {code} completed in 1 ")),
                "{line}"
            );
        }
    }

    #[test]
    fn a_refused_payload_begins_with_the_words_that_people_search_for() {
        let finding = Finding {
            pointer: "/maxRunTime".to_owned(),
            message: "must be there".to_owned(),
            hint: None,
            severity: Severity::Error,
        };
        let warning = Finding { severity: Severity::Warning, ..finding.clone() };
        let expected =
            "`task.payload` format is invalid json schema errors:\n [\n  \"/maxRunTime: must be there\"\n]";
        assert_eq!(refused_payload(&[warning, finding]), expected);
    }
}
