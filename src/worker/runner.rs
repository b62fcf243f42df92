//! The worker's side of its conversation with worker-runner, over standard input and output.

use std::collections::BTreeSet;
use std::io::{self, BufRead, Read};
use std::time::Duration;

use serde_json::Map;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::protocol::{Capability, FromRunner, LINE_BYTES, ToRunner};
use crate::line_writer::LineWriter;

/// Messages that wait while the worker's loop does something else.
const WAITING: usize = 16;

/// How long a worker that cannot start, or go on, waits for worker-runner's first word, to say why. It is sent with the
/// start.
const GREETING: Duration = Duration::from_secs(5);

/// How long worker-runner may be one that sends credentials though it has not said its first word.
const DOUBT: Duration = Duration::from_secs(60);

/// Whether others can be sent in place of credentials that are refused.
#[derive(Clone, Copy, Debug)]
pub(super) enum Renewal {
    /// worker-runner has said so.
    Possible,
    /// It has not said what it can do.
    Unknown {
        /// It would have said so before this.
        until: Instant,
    },
    Impossible,
}

impl Renewal {
    /// What there is to say before any conversation.
    pub(super) fn with(runner: Option<&Runner>) -> Renewal {
        runner.map_or(Renewal::Impossible, |_| Renewal::Unknown { until: Instant::now() + DOUBT })
    }

    /// Whether going on without valid ones is worth it.
    pub(super) fn is_to_be_awaited(self) -> bool {
        match self {
            Renewal::Possible => true,
            Renewal::Unknown { until } => Instant::now() < until,
            Renewal::Impossible => false,
        }
    }
}

/// worker-runner, as the worker sees it.
pub struct Runner {
    out: LineWriter,
    messages: mpsc::Receiver<FromRunner>,
    /// What both sides can do; nothing until worker-runner has said its first word.
    capabilities: Option<BTreeSet<Capability>>,
}

impl Runner {
    /// Listens on standard input from now on, on a thread that ends with it or with the process.
    ///
    /// # Errors
    ///
    /// When there is no thread to be had.
    pub fn connect(out: LineWriter) -> io::Result<Runner> {
        let (sender, messages) = mpsc::channel(WAITING);
        let thread = std::thread::Builder::new().name("worker-runner".to_owned());
        thread.spawn(move || listen(io::stdin().lock(), &sender))?;
        Ok(Runner { out, messages, capabilities: None })
    }

    /// The next thing that worker-runner says; `None` when it has gone. A greeting has been answered. May be dropped at any
    /// time.
    pub async fn next(&mut self) -> Option<FromRunner> {
        loop {
            let message = self.messages.recv().await?;
            if let FromRunner::Welcome(capabilities) = &message {
                self.capabilities = Some(capabilities.clone());
                self.say(&ToRunner::Hello { capabilities });
            }
            if message.needs().is_none_or(|needed| self.can(needed)) {
                return Some(message);
            }
        }
    }

    /// Whether both sides know a message.
    pub fn can(&self, capability: Capability) -> bool {
        self.capabilities.as_ref().is_some_and(|both| both.contains(&capability))
    }

    /// Tells worker-runner, and so the operator, of a fault of this worker's. Waits for its first word, but not for long.
    pub async fn report(&mut self, (kind, title): (&str, &str), description: &str) {
        if self.capabilities.is_none() {
            // Without it there is nobody who would understand.
            timeout(GREETING, self.next()).await.map(drop).unwrap_or_default();
        }
        if self.can(Capability::ErrorReport) {
            let extra = serde_json::Value::Object(Map::new());
            self.say(&ToRunner::ErrorReport { kind, title, description, extra });
        }
    }

    /// The same of a worker that cannot even start.
    pub async fn report_no_start(mut self, description: &str) {
        self.report(("startup-error", "docker-worker cannot start"), description).await;
    }

    /// Tells worker-runner that the host may end.
    pub fn shut_down(&self) {
        if self.can(Capability::Shutdown) {
            self.say(&ToRunner::Shutdown);
        }
    }

    fn say(&self, message: &ToRunner<'_>) {
        self.out.word(&message.line());
    }
}

/// Ends with the input, or when nobody wants to know.
fn listen(mut input: impl BufRead, sender: &mpsc::Sender<FromRunner>) {
    let mut is_rest = false;
    loop {
        let mut line = Vec::new();
        match input.by_ref().take(LINE_BYTES).read_until(b'\n', &mut line) {
            Ok(1..) => {}
            Ok(0) | Err(_) => return,
        }
        // Of a line that is too long neither the beginning nor the rest is a message.
        let is_whole = !is_rest && line.ends_with(b"\n");
        is_rest = !line.ends_with(b"\n");
        let text = line.strip_suffix(b"\n").and_then(|line| std::str::from_utf8(line).ok());
        let Some(text) = text.filter(|_| is_whole) else { continue };
        let message = FromRunner::parse(text.strip_suffix('\r').unwrap_or(text));
        if message.is_some_and(|message| sender.blocking_send(message).is_err()) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::protocol::Termination;
    use super::*;
    use crate::line_writer::Stream;

    fn runner(input: &str) -> Runner {
        let (sender, messages) = mpsc::channel(WAITING);
        std::thread::scope(|scope| {
            scope.spawn(|| listen(input.as_bytes(), &sender));
        });
        drop(sender);
        let out = LineWriter::new(Stream::Output, |_| String::new());
        out.detach_to(std::fs::File::create("/dev/null").unwrap()).unwrap();
        Runner { out, messages, capabilities: None }
    }

    #[tokio::test]
    async fn what_was_not_agreed_on_is_not_heard() {
        let terminate = "~{\"type\":\"graceful-termination\",\"finish-tasks\":true}\n";
        let welcome = "~{\"type\":\"welcome\",\"capabilities\":[\"graceful-termination\"]}\r\n";
        let new = "~{\"type\":\"new-credentials\",\"client-id\":\"c\",\"access-token\":\"t\"}\n";
        let mut runner = runner(&format!("{terminate}{new}noise\n\u{fffd}\n{welcome}{new}{terminate}"));
        let agreed = [Capability::GracefulTermination].into_iter().collect();
        assert_eq!(runner.next().await, Some(FromRunner::Welcome(agreed)));
        let expected = FromRunner::GracefulTermination(Termination::FinishTasks);
        assert_eq!(runner.next().await, Some(expected));
        assert_eq!(runner.next().await, None);
        assert!(runner.can(Capability::GracefulTermination) && !runner.can(Capability::Shutdown));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_stays_silent_is_not_waited_for_for_ever() {
        let renewal = Renewal::with(Some(&runner("")));
        assert!(renewal.is_to_be_awaited());
        tokio::time::advance(DOUBT).await;
        assert!(!renewal.is_to_be_awaited());
        assert!(!Renewal::with(None).is_to_be_awaited());
    }

    #[tokio::test]
    async fn a_line_without_end_is_bounded() {
        let long = "x".repeat(usize::try_from(LINE_BYTES).unwrap());
        let welcome = "~{\"type\":\"welcome\",\"capabilities\":[\"shutdown\"]}\n";
        let other = welcome.replace("shutdown", "new-credentials");
        let mut runner = runner(&format!("{welcome}{long}{other}"));
        assert!(matches!(runner.next().await, Some(FromRunner::Welcome(_))));
        assert_eq!(runner.next().await, None);
        assert!(runner.can(Capability::Shutdown));
    }
}
