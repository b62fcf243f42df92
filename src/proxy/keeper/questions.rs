//! What a process is asked for: one order after the other, each of which it has to answer in its turn.
//!
//! ```text
//!   waiting ──► sending ──► asked ──► answered
//! ```
//!
//! Orders are not sent ahead of what the process takes in. So whatever it has not answered yet, it is heard meanwhile, and
//! two sides that both wait for the other to read cannot be.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::proxy::messages::Report;

/// How long the process may take to take an order in and to answer it, once it is its turn. It closes connections without
/// waiting for anybody.
const ANSWER_TIME: Duration = Duration::from_secs(15);

/// How long it may take until the end of a task is answered, whatever has its turn before.
pub(super) const END_ANSWER_TIME: Duration = Duration::from_secs(30);

/// One of them.
#[derive(Debug)]
pub(super) enum Question {
    /// To serve a task.
    Begin(u64),
    /// To go on with its new credentials.
    Renew(u64),
    /// To end it, until when. Who asks hears when nobody is connected any more.
    End(u64, Option<oneshot::Sender<()>>, Instant),
    /// Whether it hears at all.
    Ping,
}

/// All that have not been answered.
#[derive(Debug, Default)]
pub(super) struct Questions {
    waiting: VecDeque<Question>,
    sending: Option<(Question, Instant)>,
    asked: VecDeque<(Question, Instant)>,
}

impl Questions {
    pub(super) fn push(&mut self, question: Question) {
        self.waiting.push_back(question);
    }

    /// There is none.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.sending.is_none() && self.asked.is_empty()
    }

    /// The one whose turn it is to be sent, if none is on its way.
    pub(super) fn next(&mut self) -> Option<Question> {
        if self.sending.is_some() { None } else { self.waiting.pop_front() }
    }

    /// It is on its way.
    pub(super) fn send(&mut self, question: Question) {
        self.sending = Some((question, Instant::now() + ANSWER_TIME));
    }

    /// The process has taken it in.
    pub(super) fn sent(&mut self) {
        self.asked.extend(self.sending.take());
    }

    /// When the process has to have answered the first of them, or the first end of a task.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let begun = || self.asked.iter().chain(&self.sending);
        let first = begun().next().map(|(_, until)| *until);
        let end = begun().map(|(question, _)| question).chain(&self.waiting).find_map(|it| match it {
            Question::End(_, _, until) => Some(*until),
            Question::Begin(_) | Question::Renew(_) | Question::Ping => None,
        });
        first.into_iter().chain(end).min()
    }

    /// The one that a report answers: the first that was asked. Nothing if that is another one.
    pub(super) fn answered(&mut self, report: &Report) -> Option<Question> {
        let is_answer = match (self.asked.front().map(|(question, _)| question)?, report) {
            (
                Question::Begin(task),
                Report::Begun { task: answered } | Report::Failed { task: answered, .. },
            )
            | (Question::Renew(task), Report::Renewed { task: answered })
            | (Question::End(task, ..), Report::Ended { task: answered }) => task == answered,
            (Question::Ping, Report::Alive) => true,
            _ => false,
        };
        if is_answer { self.asked.pop_front().map(|(question, _)| question) } else { None }
    }

    /// Nobody answers them any more. Gives those who wait for a task's end.
    pub(super) fn give_up(&mut self) -> impl Iterator<Item = oneshot::Sender<()>> + use<> {
        let Questions { waiting, sending, asked } = std::mem::take(self);
        let begun = asked.into_iter().chain(sending).map(|(question, _)| question);
        begun.chain(waiting).filter_map(|question| match question {
            Question::End(_, ended, _) => ended,
            Question::Begin(_) | Question::Renew(_) | Question::Ping => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_asked_first_is_answered_and_not_before_it_was_taken_in() {
        let mut questions = Questions::default();
        let end = Question::End(1, None, Instant::now() + END_ANSWER_TIME);
        for question in [Question::Begin(1), Question::Renew(1), end, Question::Ping] {
            questions.push(question);
        }
        let begun = Report::Begun { task: 1 };
        assert!(questions.answered(&begun).is_none());
        let first = questions.next().unwrap();
        questions.send(first);
        assert!(questions.next().is_none() && questions.answered(&begun).is_none());
        assert!(questions.deadline().is_some());
        questions.sent();
        while let Some(question) = questions.next() {
            questions.send(question);
            questions.sent();
        }
        for wrong in [Report::Alive, Report::Begun { task: 2 }, Report::Renewed { task: 1 }, Report::Ready] {
            assert!(questions.answered(&wrong).is_none(), "{wrong:?}");
        }
        let failed = Report::Failed { task: 1, why: String::new() };
        for answer in [failed, Report::Renewed { task: 1 }, Report::Ended { task: 1 }, Report::Alive] {
            assert!(questions.answered(&answer).is_some(), "{answer:?}");
        }
        assert!(questions.is_empty() && questions.deadline().is_none());
    }

    #[test]
    fn the_end_of_a_task_has_its_time_whatever_is_answered_before() {
        let mut questions = Questions::default();
        let until = Instant::now() + Duration::from_secs(1);
        questions.push(Question::Ping);
        assert!(questions.deadline().is_none(), "it is not asked yet");
        questions.push(Question::End(1, None, until));
        assert_eq!(questions.deadline(), Some(until));
        for answer in [Report::Alive, Report::Ended { task: 1 }] {
            let question = questions.next().unwrap();
            questions.send(question);
            questions.sent();
            assert_eq!(questions.deadline(), Some(until));
            assert!(questions.answered(&answer).is_some());
        }
        assert!(questions.deadline().is_none());
    }
}
