//! How a run ends, in the queue's words: what a worker reports and what a status shows.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::queue::model::RunState;

/// How a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The task did what it should.
    Completed,
    /// It did not.
    Failed,
    /// Something else prevented it.
    Exception(Reason),
}

/// Why a run is an exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The payload cannot be carried out by any worker of this kind.
    MalformedPayload,
    /// The worker had to stop: the queue makes a new run.
    WorkerShutdown,
    /// A fault of the worker.
    InternalError,
    /// Something that the task needs is temporarily not to be had.
    ResourceUnavailable,
    /// The task asked for another try: the queue makes a new run.
    IntermittentTask,
    /// A later task made it superfluous. Many queues take no such report.
    Superseded,
    /// Somebody cancelled it.
    Canceled,
    /// The deadline passed.
    DeadlineExceeded,
    /// The worker did not reclaim in time.
    ClaimExpired,
    /// One that this worker does not know: of a later queue.
    Other,
}

/// Who resolves the run in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reporter {
    /// The worker, by a report.
    Worker,
    /// The queue itself.
    Queue,
}

/// The verdicts and the queue's words for them.
const WORDS: &[(&str, Verdict)] = &[
    ("completed", Verdict::Completed),
    ("failed", Verdict::Failed),
    ("malformed-payload", Verdict::Exception(Reason::MalformedPayload)),
    ("worker-shutdown", Verdict::Exception(Reason::WorkerShutdown)),
    ("internal-error", Verdict::Exception(Reason::InternalError)),
    ("resource-unavailable", Verdict::Exception(Reason::ResourceUnavailable)),
    ("intermittent-task", Verdict::Exception(Reason::IntermittentTask)),
    ("superseded", Verdict::Exception(Reason::Superseded)),
    ("canceled", Verdict::Exception(Reason::Canceled)),
    ("deadline-exceeded", Verdict::Exception(Reason::DeadlineExceeded)),
    ("claim-expired", Verdict::Exception(Reason::ClaimExpired)),
];

impl Verdict {
    /// The queue's word: its `reasonResolved`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        WORDS.iter().find(|(_, verdict)| *verdict == self).map_or("exception", |(word, _)| word)
    }

    /// What a word of the queue's says.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Verdict> {
        WORDS.iter().find(|(known, _)| *known == word).map(|(_, verdict)| *verdict)
    }

    /// The state of a run that ended so.
    #[must_use]
    pub fn state(self) -> RunState {
        match self {
            Verdict::Completed => RunState::Completed,
            Verdict::Failed => RunState::Failed,
            Verdict::Exception(_) => RunState::Exception,
        }
    }

    /// Whether the worker reports it, or the queue has set it and would refuse a report.
    #[must_use]
    pub fn reporter(self) -> Reporter {
        let Verdict::Exception(reason) = self else { return Reporter::Worker };
        match reason {
            Reason::Canceled | Reason::DeadlineExceeded | Reason::ClaimExpired | Reason::Other => {
                Reporter::Queue
            }
            Reason::MalformedPayload
            | Reason::WorkerShutdown
            | Reason::Superseded
            | Reason::InternalError
            | Reason::ResourceUnavailable
            | Reason::IntermittentTask => Reporter::Worker,
        }
    }
}

impl Serialize for Verdict {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Verdict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Verdict, D::Error> {
        let text = String::deserialize(deserializer)?;
        Verdict::from_word(&text).ok_or_else(|| {
            serde::de::Error::custom(format!("{text:?} is no reason for which a run is resolved"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verdict_has_one_word_and_the_word_gives_it_back() {
        for (word, verdict) in WORDS {
            assert_eq!(verdict.as_str(), *word);
            let json = serde_json::to_string(verdict).unwrap();
            assert_eq!(serde_json::from_str::<Verdict>(&json).unwrap(), *verdict, "{json}");
        }
        assert!(serde_json::from_str::<Verdict>("\"exception\"").is_err());
    }

    #[test]
    fn a_worker_reports_what_only_it_can_know() {
        let by_queue = ["canceled", "deadline-exceeded", "claim-expired"];
        for (word, verdict) in WORDS {
            assert_eq!(verdict.reporter() == Reporter::Queue, by_queue.contains(word), "{word}");
        }
    }
}
