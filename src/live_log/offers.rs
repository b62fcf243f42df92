//! The logs that can be read, by their secrets.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::sync::Semaphore;

use crate::task_log::reader::LogReader;

/// Random bytes of a secret; 22 letters, as the original's.
const SECRET_BYTES: usize = 16;

/// The logs that can be read. Clones have the same ones.
#[derive(Clone, Default)]
pub(super) struct Offers(Arc<Mutex<Vec<Offered>>>);

/// One log and its secret.
struct Offered {
    secret: Arc<str>,
    log: Found,
}

/// A log that somebody may read, and room for those who do.
#[derive(Clone)]
pub(super) struct Found {
    pub(super) log: LogReader,
    pub(super) places: Arc<Semaphore>,
}

/// A log that can be read as long as this lives.
pub(super) struct Entry {
    offers: Offers,
    secret: Arc<str>,
}

/// A new secret.
pub(super) fn secret() -> io::Result<String> {
    let mut random = [0_u8; SECRET_BYTES];
    match rustix::rand::getrandom(&mut random[..], rustix::rand::GetRandomFlags::empty())? {
        SECRET_BYTES => Ok(URL_SAFE_NO_PAD.encode(random)),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

impl Offers {
    /// At most so many read it at the same time.
    pub(super) fn enter(&self, secret: String, log: LogReader, readers: usize) -> Entry {
        let secret: Arc<str> = secret.into();
        let log = Found { log, places: Arc::new(Semaphore::new(readers)) };
        self.logs().push(Offered { secret: Arc::clone(&secret), log });
        Entry { offers: self.clone(), secret }
    }

    /// The log of that secret. How long the answer takes says nothing of how much of a secret was right.
    pub(super) fn find(&self, secret: &str) -> Option<Found> {
        let mut found = None;
        for Offered { secret: known, log } in self.logs().iter() {
            if verify_slices_are_equal(known.as_bytes(), secret.as_bytes()).is_ok() {
                found = Some(log.clone());
            }
        }
        found
    }

    /// Nobody panics while they hold it.
    fn logs(&self) -> MutexGuard<'_, Vec<Offered>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Offers {
    /// Without the secrets.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Offers({})", self.logs().len())
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.offers.logs().retain(|offered| !Arc::ptr_eq(&offered.secret, &self.secret));
    }
}
