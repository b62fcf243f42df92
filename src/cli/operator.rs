//! How the operator is told things on standard error: sentences for people, or one JSON object a line for programs.

use std::process::ExitCode;

use crate::event::{Event, Events, line};
use crate::line_writer::{LineWriter, Stream};

/// Whoever started the command, and the way to them.
#[derive(Clone)]
pub(crate) struct Operator {
    out: LineWriter,
    form: Form,
}

/// What they want to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Sentences.
    Sentences,
    /// Only those about a command that does not do what it was to.
    FewSentences,
    /// Every event, as a line of JSON; nothing else.
    Json,
}

impl Operator {
    pub(crate) fn new(form: Form) -> Operator {
        let lost_line = match form {
            Form::Json => |count| line(&Event::LinesLost { count }),
            Form::Sentences | Form::FewSentences => {
                |count| sentence(&format!("{count} lines were lost here, as nobody read them"))
            }
        };
        Operator { out: LineWriter::new(Stream::Error, lost_line), form }
    }

    /// The way for lines, for a process that has more to do than to write them.
    pub(crate) fn out(&self) -> &LineWriter {
        &self.out
    }

    /// Where events go.
    pub(crate) fn events(&self) -> Events {
        match self.form {
            Form::Json => Events::json(&self.out),
            Form::Sentences | Form::FewSentences => Events::none(),
        }
    }

    /// Something that is good to know.
    pub(crate) fn note(&self, message: &str) {
        match self.form {
            Form::Sentences => self.out.line(&sentence(message)),
            Form::FewSentences => {}
            Form::Json => self.events().emit(&Event::Warning { message }),
        }
    }

    /// Why a task did not come to its own end. An event of the task's has it already.
    pub(crate) fn explain(&self, message: &str) {
        if self.form != Form::Json {
            self.out.line(&sentence(message));
        }
    }

    /// How something goes on, where that can be shown; empty when it is over.
    pub(crate) fn show_progress(&self, text: &str) {
        if self.form == Form::Sentences {
            self.out.progress(text);
        }
    }

    /// Why the command does not do what it was to, and its exit status.
    pub(crate) fn refuse(&self, exit_status: u8, message: &str) -> ExitCode {
        match self.form {
            Form::Sentences | Form::FewSentences => self.out.line(&sentence(message)),
            Form::Json => self.events().emit(&Event::Refused { exit_status, message }),
        }
        ExitCode::from(exit_status)
    }
}

/// A sentence as it stands on standard error.
fn sentence(message: &str) -> String {
    format!("docker-worker: {message}")
}
