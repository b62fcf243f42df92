//! What worker-runner and a worker say to each other, as lines of text.
//!
//! ```text
//!   worker-runner                          worker
//!   ~{"type":"welcome","capabilities":[…]} ──►
//!                                          ◄── ~{"type":"hello","capabilities":[…]}   what both know
//!   ~{"type":"graceful-termination",…}     ──►                                         from here on
//!   ~{"type":"new-credentials",…}          ──►
//!                                          ◄── ~{"type":"shutdown"}
//! ```
//!
//! A line that does not begin with `~{` and end with `}`, or is no object with a `type` inside, is somebody else's
//! output and no message. Source: Taskcluster's worker-runner protocol (`workerproto`).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::queue::Credentials;

/// Bytes of one line; what is longer is no message.
pub const LINE_BYTES: u64 = 1 << 20;

/// What one side can do beyond the first two messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Capability {
    /// worker-runner tells when the worker is to end.
    GracefulTermination,
    /// The worker tells when the host is to end.
    Shutdown,
    /// worker-runner sends credentials before the old ones expire.
    NewCredentials,
    /// The worker tells of its own faults.
    ErrorReport,
}

/// All that this worker can do.
const CAPABILITIES: &[Capability] = &[
    Capability::GracefulTermination,
    Capability::Shutdown,
    Capability::NewCredentials,
    Capability::ErrorReport,
];

impl Capability {
    /// The protocol's word.
    fn word(self) -> &'static str {
        match self {
            Capability::GracefulTermination => "graceful-termination",
            Capability::Shutdown => "shutdown",
            Capability::NewCredentials => "new-credentials",
            Capability::ErrorReport => "error-report",
        }
    }
}

/// What becomes of tasks when the worker is told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Termination {
    /// They run to their end; no new ones are claimed.
    FinishTasks,
    /// They end now, as `worker-shutdown`.
    AtOnce,
}

/// What worker-runner says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromRunner {
    /// The first message: what the other side can do, as far as this one can as well.
    Welcome(BTreeSet<Capability>),
    /// The worker is to end.
    GracefulTermination(Termination),
    /// Credentials to claim with from now on.
    NewCredentials(Credentials),
}

/// What the worker says.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum ToRunner<'a> {
    /// The answer to `welcome`.
    Hello {
        /// What both sides can do.
        capabilities: &'a BTreeSet<Capability>,
    },
    /// The worker has ended: so may the host.
    Shutdown,
    /// Something is wrong with the worker that its operator has to see.
    ErrorReport {
        /// A word to sort by.
        kind: &'a str,
        /// In a few words.
        title: &'a str,
        /// One sentence.
        description: &'a str,
        /// More, for programs.
        extra: serde_json::Value,
    },
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
enum Message {
    Welcome {
        capabilities: Vec<String>,
    },
    #[serde(rename_all = "kebab-case")]
    GracefulTermination {
        #[serde(default)]
        finish_tasks: bool,
    },
    #[serde(rename_all = "kebab-case")]
    NewCredentials {
        client_id: String,
        access_token: String,
        #[serde(default)]
        certificate: Option<String>,
    },
}

impl FromRunner {
    /// Reads a line without its end; `None` for what is no message of worker-runner's.
    pub fn parse(line: &str) -> Option<FromRunner> {
        let json = line.strip_prefix('~').filter(|json| json.starts_with('{') && json.ends_with('}'))?;
        Some(match serde_json::from_str(json).ok()? {
            Message::Welcome { capabilities } => {
                let ours = CAPABILITIES.iter().copied();
                FromRunner::Welcome(
                    ours.filter(|own| capabilities.iter().any(|word| word == own.word())).collect(),
                )
            }
            Message::GracefulTermination { finish_tasks: true } => {
                FromRunner::GracefulTermination(Termination::FinishTasks)
            }
            Message::GracefulTermination { finish_tasks: false } => {
                FromRunner::GracefulTermination(Termination::AtOnce)
            }
            Message::NewCredentials { client_id, access_token, certificate } => {
                FromRunner::NewCredentials(Credentials {
                    client_id,
                    access_token,
                    certificate: certificate.filter(|text| !text.is_empty()),
                })
            }
        })
    }

    /// What has to be agreed on before this may be said; nothing for the first message.
    pub fn needs(&self) -> Option<Capability> {
        match self {
            FromRunner::Welcome(_) => None,
            FromRunner::GracefulTermination(_) => Some(Capability::GracefulTermination),
            FromRunner::NewCredentials(_) => Some(Capability::NewCredentials),
        }
    }
}

impl ToRunner<'_> {
    /// The message as a line without its end.
    pub fn line(&self) -> String {
        // Plain strings and words: there is nothing that JSON cannot hold.
        format!("~{}", serde_json::to_string(self).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_lines_of_json_behind_a_tilde() {
        let welcome = r#"~{"type":"welcome","capabilities":["shutdown","log","new-credentials"]}"#;
        let both = BTreeSet::from([Capability::Shutdown, Capability::NewCredentials]);
        assert_eq!(FromRunner::parse(welcome), Some(FromRunner::Welcome(both.clone())));
        let hello = ToRunner::Hello { capabilities: &both };
        assert_eq!(hello.line(), r#"~{"type":"hello","capabilities":["shutdown","new-credentials"]}"#);
        assert_eq!(ToRunner::Shutdown.line(), r#"~{"type":"shutdown"}"#);
        for (finish, expected) in [("true", Termination::FinishTasks), ("false", Termination::AtOnce)] {
            let line = format!(r#"~{{"type":"graceful-termination","finish-tasks":{finish}}}"#);
            assert_eq!(FromRunner::parse(&line), Some(FromRunner::GracefulTermination(expected)));
        }
        let unsaid = FromRunner::parse(r#"~{"type":"graceful-termination"}"#);
        assert_eq!(unsaid, Some(FromRunner::GracefulTermination(Termination::AtOnce)));
        let line = r#"~{"type":"new-credentials","client-id":"c","access-token":"t","certificate":"{}"}"#;
        let Some(FromRunner::NewCredentials(credentials)) = FromRunner::parse(line) else { panic!() };
        let Credentials { client_id, access_token, certificate } = credentials;
        assert_eq!(
            (client_id.as_str(), access_token.as_str(), certificate.as_deref()),
            ("c", "t", Some("{}"))
        );
    }

    #[test]
    fn other_lines_are_no_messages() {
        for line in [
            "",
            "~",
            "{}",
            r#"{"type":"welcome","capabilities":[]}"#,
            r#" ~{"type":"welcome","capabilities":[]}"#,
            r#"~{"type":"welcome","capabilities":[]} "#,
            r#"~{"capabilities":[]}"#,
            r#"~{"type":"later"}"#,
            r#"~{"type":"graceful-termination","finish-tasks":"yes"}"#,
            "~{]}",
        ] {
            assert_eq!(FromRunner::parse(line), None, "{line}");
        }
    }
}
