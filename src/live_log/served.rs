//! The logs that can be read now, and room for those who do: for the connections of the server, and for others in this
//! process who hand a log on.

use std::sync::Arc;

use hyper::StatusCode;
use tokio::sync::Semaphore;

use super::answer::{self, Reply};
use super::body::Place;
use super::offers::{Found, Offers};
use super::range::Wanted;
use crate::task_log::reader::LogReader;

/// See the module's head. Clones have the same logs and the same room.
#[derive(Clone, Debug)]
pub struct ServedLogs {
    pub(super) offers: Offers,
    reading: Arc<Semaphore>,
}

impl ServedLogs {
    /// None yet, and room for so many readers of all of them.
    pub(super) fn new(readers: usize) -> ServedLogs {
        ServedLogs { offers: Offers::default(), reading: Arc::new(Semaphore::new(readers)) }
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
    /// None where the URL leads elsewhere, or the log is no longer there. Waits until the range begins.
    pub async fn send(&self, url: &str, range: Option<&str>) -> Option<Reply> {
        let (_, secret) = url.rsplit_once("/log/")?;
        Some(match self.take(self.offers.find(secret)?) {
            Ok((log, place)) => answer::send(log, Wanted::parse(range), place).await,
            Err(reply) => reply,
        })
    }
}
