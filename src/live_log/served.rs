//! The logs that can be read now, and room for those who do: for the connections of the server, and for others in this
//! process who hand a log on.

use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::answer::{self, Reply};
use super::body::Place;
#[cfg(test)]
use super::connections::LIMITS;
use super::connections::Limits;
use super::offers::{Found, Offers};
use super::range::Wanted;
use crate::task_log::reader::LogReader;

/// See the module's head. Clones have the same logs and the same room.
#[derive(Clone, Debug)]
pub struct ServedLogs {
    pub(super) offers: Offers,
    reading: Arc<Semaphore>,
    rest_time: Duration,
}

/// What a connection is being sent: an extension of the reply, for whoever has the connection.
#[derive(Clone, Debug)]
pub struct Reading {
    log: LogReader,
    rest_time: Duration,
}

impl ServedLogs {
    /// None yet.
    pub(super) fn new(limits: Limits) -> ServedLogs {
        let reading = Arc::new(Semaphore::new(limits.reading));
        ServedLogs { offers: Offers::default(), reading, rest_time: limits.rest_time }
    }

    /// What a reader of that log does, under the limits in force.
    #[cfg(test)]
    pub fn reading_of(log: &LogReader) -> Reading {
        ServedLogs::new(LIMITS).reading(log)
    }

    /// What a reader of that log does.
    pub(super) fn reading(&self, log: &LogReader) -> Reading {
        Reading { log: log.clone(), rest_time: self.rest_time }
    }

    /// A place to read a log that was found, or the reply to one reader too many.
    pub(super) fn take(&self, found: Found) -> Result<(LogReader, Place), Reply> {
        let place = (found.places.try_acquire_owned(), Arc::clone(&self.reading).try_acquire_owned());
        match place {
            (Ok(of_log), Ok(of_all)) => Ok((found.log, [of_log, of_all])),
            _ => Err(answer::text(StatusCode::SERVICE_UNAVAILABLE, "Too many readers")),
        }
    }

    /// The reply to whoever asks for a log by the URL that its [`Offer`](super::Offer) has, and perhaps for a range of it;
    /// None where the URL leads elsewhere, or the log is no longer there. Waits until the range begins. The caller sees to
    /// it that the connection does not outlive what the reply is a [`Reading`] of.
    pub async fn send(&self, url: &str, range: Option<&str>) -> Option<Reply> {
        let (_, secret) = url.rsplit_once("/log/")?;
        Some(match self.take(self.offers.find(secret)?) {
            Ok((log, place)) => {
                let reading = self.reading(&log);
                let mut reply = answer::send(log, Wanted::parse(range), place).await;
                reply.extensions_mut().insert(reading);
                reply
            }
            Err(reply) => reply,
        })
    }
}

impl Reading {
    /// Waits until the reader has had its time: it may go on for a while when the log has ended, and no longer, as the
    /// log's file takes room on the disk until then.
    pub async fn overdue(mut self) {
        self.log.wait(u64::MAX).await;
        sleep(self.rest_time).await;
    }
}
