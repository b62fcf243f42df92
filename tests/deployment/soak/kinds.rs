//! The tasks: what each does, and what it has to leave.

use serde_json::{Value, json};

/// More lines than any buffer on the way holds.
const LONG: u32 = 300_000;

/// Lines of an artifact.
const NUMBERS: u32 = 100_000;

/// A kind of task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Succeeds,
    Fails,
    AsksForAnotherTry,
    HasABadPayload,
    ExceedsItsTime,
    IsCancelled,
    LeavesArtifacts,
    UsesACache,
    LacksAScope,
    PrintsALot,
}

/// What `standalone` gets: most of them short.
pub const MOSTLY_SHORT: &[Kind] = &[
    Kind::Succeeds,
    Kind::Succeeds,
    Kind::Fails,
    Kind::Succeeds,
    Kind::Succeeds,
    Kind::LeavesArtifacts,
    Kind::Succeeds,
    Kind::Succeeds,
    Kind::AsksForAnotherTry,
    Kind::Succeeds,
    Kind::Succeeds,
    Kind::UsesACache,
    Kind::Succeeds,
    Kind::Succeeds,
    Kind::HasABadPayload,
    Kind::Succeeds,
    Kind::Succeeds,
    Kind::IsCancelled,
    Kind::Succeeds,
    Kind::LacksAScope,
    Kind::ExceedsItsTime,
    Kind::Succeeds,
    Kind::Succeeds,
    Kind::Fails,
];

/// All of them; tasks are made in turn.
pub const KINDS: &[Kind] = &[
    Kind::Succeeds,
    Kind::Fails,
    Kind::LeavesArtifacts,
    Kind::AsksForAnotherTry,
    Kind::UsesACache,
    Kind::HasABadPayload,
    Kind::Succeeds,
    Kind::ExceedsItsTime,
    Kind::PrintsALot,
    Kind::LeavesArtifacts,
    Kind::LacksAScope,
    Kind::UsesACache,
    Kind::IsCancelled,
];

/// What a task has to leave.
pub struct Expected {
    /// How its last run is resolved.
    pub reason: &'static str,
    /// What the last line of its log says.
    pub exit_code: i32,
    /// What stands somewhere in its log.
    pub words: String,
    /// Its artifacts beside the log, and what is in them; nothing is an error artifact.
    pub artifacts: Vec<(&'static str, Option<String>)>,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Succeeds => "succeeds",
            Kind::Fails => "fails",
            Kind::AsksForAnotherTry => "asks for another try",
            Kind::HasABadPayload => "has a bad payload",
            Kind::ExceedsItsTime => "exceeds its time",
            Kind::IsCancelled => "is cancelled",
            Kind::LeavesArtifacts => "leaves artifacts",
            Kind::UsesACache => "uses a cache",
            Kind::LacksAScope => "lacks a scope",
            Kind::PrintsALot => "prints a lot",
        }
    }

    /// The scopes of such a task.
    pub fn scopes(self) -> &'static [&'static str] {
        if self == Kind::UsesACache { &["docker-worker:cache:soak-*"] } else { &[] }
    }

    pub fn payload(self, image: &str) -> Value {
        let script = match self {
            Kind::Succeeds | Kind::HasABadPayload | Kind::LacksAScope => "sleep 0.2; echo done".to_owned(),
            Kind::Fails => "echo done; exit 7".to_owned(),
            Kind::AsksForAnotherTry => "echo done; [ $RUN_ID != 0 ] || exit 3".to_owned(),
            Kind::ExceedsItsTime | Kind::IsCancelled => "echo begun; sleep 1000".to_owned(),
            Kind::LeavesArtifacts => {
                format!("mkdir -p /out/d; echo one >/out/one.txt; seq 1 {NUMBERS} >/out/d/numbers; echo done")
            }
            // An instance of a cache is one task's alone.
            Kind::UsesACache => {
                "echo $TASK_ID >>/cache/tasks; sleep 0.3; [ $(tail -n 1 /cache/tasks) = $TASK_ID ] && echo done"
                    .to_owned()
            }
            Kind::PrintsALot => format!("seq 1 {LONG}"),
        };
        let mut payload = json!({ "image": image, "command": ["/bin/sh", "-c", script], "maxRunTime": 120 });
        match self {
            Kind::Succeeds | Kind::Fails | Kind::IsCancelled | Kind::PrintsALot => {}
            Kind::AsksForAnotherTry => payload["onExitStatus"] = json!({ "retry": [3] }),
            Kind::HasABadPayload => payload["maxRunTime"] = json!("soon"),
            Kind::ExceedsItsTime => payload["maxRunTime"] = json!(1),
            Kind::LeavesArtifacts => {
                payload["artifacts"] = json!({
                    "public/one.txt": { "type": "file", "path": "/out/one.txt" },
                    "public/out": { "type": "directory", "path": "/out" },
                    "public/none.txt": { "type": "file", "path": "/none.txt" },
                });
            }
            Kind::UsesACache => payload["cache"] = json!({ "soak-a": "/cache", "soak-b": "/other" }),
            Kind::LacksAScope => payload["cache"] = json!({ "soak-a": "/cache" }),
        }
        payload
    }

    pub fn expected(self) -> Expected {
        let (reason, exit_code) = match self {
            Kind::Fails => ("failed", 7),
            Kind::ExceedsItsTime | Kind::LacksAScope => ("failed", -1),
            Kind::HasABadPayload => ("malformed-payload", -1),
            Kind::IsCancelled => ("canceled", -1),
            Kind::Succeeds
            | Kind::AsksForAnotherTry
            | Kind::LeavesArtifacts
            | Kind::UsesACache
            | Kind::PrintsALot => ("completed", 0),
        };
        let words = match self {
            Kind::HasABadPayload => "`task.payload` format is invalid".to_owned(),
            Kind::LacksAScope => "Docker configuration could not be created.".to_owned(),
            Kind::ExceedsItsTime => "Task timeout after 1 seconds".to_owned(),
            // Its worker may have died before it knew.
            Kind::IsCancelled => "[taskcluster:error]".to_owned(),
            Kind::PrintsALot => numbers(LONG, "\r\n"),
            Kind::Succeeds
            | Kind::Fails
            | Kind::AsksForAnotherTry
            | Kind::LeavesArtifacts
            | Kind::UsesACache => "done\r\n".to_owned(),
        };
        let artifacts = if self == Kind::LeavesArtifacts {
            vec![
                ("public/one.txt", Some("one\n".to_owned())),
                ("public/out/one.txt", Some("one\n".to_owned())),
                ("public/out/d/numbers", Some(numbers(NUMBERS, "\n"))),
                ("public/none.txt", None),
            ]
        } else {
            Vec::new()
        };
        Expected { reason, exit_code, words, artifacts }
    }
}

/// What `seq 1 COUNT` prints.
fn numbers(count: u32, line_end: &str) -> String {
    (1..=count).map(|number| format!("{number}{line_end}")).collect()
}
