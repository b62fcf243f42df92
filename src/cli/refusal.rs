//! Why a command does not do what it was to.

use std::error::Error;
use std::process::ExitCode;

use super::operator::Operator;
use crate::text::chain;

/// One sentence, and the command's exit status.
pub(super) struct Refusal {
    pub(super) status: u8,
    pub(super) sentence: String,
}

impl Refusal {
    pub(super) fn new(status: u8, sentence: impl Into<String>) -> Refusal {
        Refusal { status, sentence: sentence.into() }
    }

    /// For what an error says, which is a fragment.
    pub(super) fn because(status: u8, error: &dyn Error) -> Refusal {
        Refusal::new(status, format!("failed to {}", chain(error)))
    }

    /// Says why, and gives the command's status.
    pub(super) fn tell(&self, operator: &Operator) -> ExitCode {
        operator.refuse(self.status, &self.sentence)
    }
}
