//! The line to the process: an order at a time goes out, and what it says is heard meanwhile.

use std::future::pending;
use std::io;

use tokio::net::UnixStream;

use super::surroundings::View;
use crate::proxy::messages::{Report, Reports, Sending};

/// See the module's head.
pub(super) struct Line {
    control: UnixStream,
    reports: Reports,
    /// The order that is on its way.
    sending: Option<Sending>,
    surroundings: View,
}

/// What comes of waiting for it.
#[derive(Debug)]
pub(super) enum Heard {
    /// The process says something.
    Report(Report),
    /// It has taken the order in.
    Sent,
    /// It is gone.
    Gone,
}

impl Line {
    /// By our end of the socket. What the process knows of the host is kept as the host has it.
    pub(super) fn of((control, reports): (UnixStream, Reports), surroundings: View) -> Line {
        Line { control, reports, sending: None, surroundings }
    }

    /// Begins to send an order, when the one before is sent. Whoever begins finds the host's names as they are now.
    pub(super) fn send(&mut self, order: Sending) {
        if order.has_listener() {
            self.surroundings.refresh();
        }
        self.sending = Some(order);
    }

    /// What there is of it next. May be dropped while it waits.
    ///
    /// # Errors
    ///
    /// The process says nothing that could be understood, or takes nothing in.
    pub(super) async fn next(&mut self) -> io::Result<Heard> {
        let Line { control, reports, sending, surroundings } = self;
        let sent = async {
            let Some(order) = sending else { return pending().await };
            surroundings.settle().await;
            order.finish(control).await
        };
        tokio::select! {
            report = reports.next(control) => Ok(report?.map_or(Heard::Gone, Heard::Report)),
            sent = sent => {
                sent?;
                self.sending = None;
                Ok(Heard::Sent)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};
    use std::time::Duration;

    use tokio::time::timeout;

    use super::super::questions::{Question, Questions};
    use super::*;
    use crate::proxy::messages::{Handed, Order};
    use crate::proxy::serve;
    use crate::queue::Credentials;

    const TASKS: u64 = 1000;

    fn begin(task: u64, listener: &TcpListener) -> Sending {
        let credentials =
            Credentials { client_id: "task".to_owned(), access_token: "hush".to_owned(), certificate: None };
        let scopes = vec!["a:*".to_owned()];
        let order = Order::Begin {
            task,
            address: Ipv4Addr::LOCALHOST,
            scopes,
            credentials: Handed::from(&credentials),
        };
        Sending::of(&order, Some(listener.try_clone().unwrap().into())).unwrap()
    }

    #[tokio::test]
    async fn a_thousand_tasks_are_handed_over_at_once() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let serving = tokio::spawn(async move { serve::attend(&theirs).await.unwrap() });
        let mut line = Line::of((ours, Reports::default()), View::Lost);
        line.send(Sending::of(&Order::Open { root_url: "http://127.0.0.1:1".to_owned() }, None).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let mut questions = Questions::default();
        let mut served = 0;
        while served < TASKS {
            match timeout(Duration::from_secs(60), line.next()).await.unwrap().unwrap() {
                Heard::Report(Report::Ready) => {
                    (0..TASKS).for_each(|task| questions.push(Question::Begin(task)))
                }
                Heard::Report(report) => {
                    assert!(
                        matches!(questions.answered(&report), Some(Question::Begin(task)) if task == served)
                    );
                    served += 1;
                }
                Heard::Sent => questions.sent(),
                Heard::Gone => panic!("it is gone"),
            }
            if let Some(question) = questions.next() {
                let Question::Begin(task) = question else { panic!("{question:?}") };
                line.send(begin(task, &listener));
                questions.send(question);
            }
        }
        drop(line);
        serving.await.unwrap();
    }
}
