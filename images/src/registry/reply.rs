//! A response whose body is still to come, read under limits of size, silence and speed.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use hyper::header::{AsHeaderName, CONTENT_LENGTH, HeaderMap, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde::Deserialize;

use crate::limits::Limits;

use super::connect::{Connection, Connector, within};
use super::error::RegistryError;
use super::url::Url;

pub(super) struct Reply {
    pub url: Url,
    pub status: StatusCode,
    pub headers: HeaderMap,
    body: Incoming,
    connection: Connection,
    connector: Arc<Connector>,
    limits: Limits,
    /// Time spent waiting for the body, and bytes that came in it, since the rate was last checked.
    waited: Duration,
    received: u64,
}

impl Reply {
    pub(super) fn new(
        url: Url,
        response: Response<Incoming>,
        connection: Connection,
        connector: &Arc<Connector>,
    ) -> Result<Reply, RegistryError> {
        let (connector, limits) = (Arc::clone(connector), connector.limits().clone());
        let (parts, body) = response.into_parts();
        let header_bytes: usize =
            parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
        if header_bytes as u64 > limits.header_bytes {
            return Err(RegistryError::Headers { url: url.to_string(), limit: limits.header_bytes });
        }
        Ok(Reply {
            url,
            status: parts.status,
            headers: parts.headers,
            body,
            connection,
            connector,
            limits,
            waited: Duration::ZERO,
            received: 0,
        })
    }

    /// A header's value, if it is there and text.
    pub(super) fn header(&self, name: impl AsHeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The announced length of the body.
    pub(super) fn content_length(&self) -> Option<u64> {
        self.header(CONTENT_LENGTH).and_then(|value| value.parse().ok())
    }

    /// The next bytes of the body; `None` at its end.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, RegistryError> {
        loop {
            let started = Instant::now();
            let frame = within(self.limits.read_idle, "read", &self.url, self.body.frame()).await?;
            self.waited += started.elapsed();
            let Some(frame) = frame else { return Ok(None) };
            let frame = frame.map_err(|source| RegistryError::Http { url: self.url.to_string(), source })?;
            // Trailers are of no use to us.
            let Ok(bytes) = frame.into_data() else { continue };
            self.received += bytes.len() as u64;
            self.check_rate()?;
            return Ok(Some(bytes));
        }
    }

    /// Only waiting counts: that we are slow to take the bytes is not the server's fault.
    fn check_rate(&mut self) -> Result<(), RegistryError> {
        let Limits { minimal_rate_bytes: minimum, rate_window: window, .. } = self.limits;
        if self.waited < window {
            return Ok(());
        }
        let least = u128::from(minimum) * self.waited.as_millis() / 1000;
        if u128::from(self.received) < least {
            return Err(RegistryError::TooSlow { url: self.url.to_string(), minimum, window });
        }
        (self.waited, self.received) = (Duration::ZERO, 0);
        Ok(())
    }

    /// The whole body, of at most `limit` bytes. The connection is then used again.
    pub(super) async fn bytes(mut self, limit: u64) -> Result<(HeaderMap, Vec<u8>), RegistryError> {
        let too_long = |reply: &Reply| RegistryError::TooLong { url: reply.url.to_string(), limit };
        if self.content_length().is_some_and(|length| length > limit) {
            return Err(too_long(&self));
        }
        let mut body = Vec::new();
        while let Some(bytes) = self.chunk().await? {
            if body.len() as u64 + bytes.len() as u64 > limit {
                return Err(too_long(&self));
            }
            body.extend_from_slice(&bytes);
        }
        let headers = std::mem::take(&mut self.headers);
        self.finish();
        Ok((headers, body))
    }

    /// Ends a response whose body is of no interest. If it is short, the connection is used again.
    pub(super) async fn discard(self) {
        let limit = self.limits.error_body_bytes;
        drop(self.bytes(limit).await);
    }

    /// After the end of the body.
    pub(super) fn finish(self) {
        self.connector.keep(self.url.origin.clone(), self.connection);
    }

    /// The error that this status means. What the registry has to say is escaped and shortened.
    pub(super) async fn into_error(self, what: &str) -> RegistryError {
        let (url, status) = (self.url.to_string(), self.status);
        let asked = self.header(RETRY_AFTER).and_then(|value| retry_after(value, SystemTime::now()));
        let retry_after = asked.map(|pause| pause.min(self.limits.retry_after));
        let limit = self.limits.error_body_bytes;
        let detail = match self.bytes(limit).await {
            Ok((_, body)) => detail(&body),
            Err(_unreadable) => String::new(),
        };
        let what = what.to_owned();
        match status {
            StatusCode::NOT_FOUND => RegistryError::NotFound { what, url, detail },
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                RegistryError::Unauthorized { what, url, detail, credentials: None }
            }
            status => RegistryError::Status { url, status, retry_after, detail },
        }
    }
}

/// Seconds, or a date (RFC 9110 10.2.3).
fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = UNIX_EPOCH + Duration::from_secs(http_date(value)?);
    Some(date.duration_since(now).unwrap_or_default())
}

/// Seconds since 1970 of `Sun, 06 Nov 1994 08:49:37 GMT`, the form that servers have to send.
fn http_date(text: &str) -> Option<u64> {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let words: Vec<&str> = text.split([' ', ':']).collect();
    let [_weekday, day, month, year, hour, minute, second, "GMT"] = words.as_slice() else { return None };
    let number = |word: &str, most: u64| word.parse().ok().filter(|number| *number <= most);
    let (day, year): (u64, u64) = (number(day, 31)?, number(year, 9999).filter(|year| *year >= 1970)?);
    let month = MONTHS.find(month).filter(|at| at % 3 == 0 && month.len() == 3)? as u64 / 3;
    // From 1 March on, which puts the leap day last.
    let (months, years) = ((month + 10) % 12, if month < 2 { year - 1 } else { year });
    let days = years * 365 + years / 4 - years / 100 + years / 400 + (months * 153 + 2) / 5 + day;
    let days = days.checked_sub(719_469)?;
    Some(days * 86_400 + number(hour, 23)? * 3600 + number(minute, 59)? * 60 + number(second, 60)?)
}

/// What the registry API's error document says to people.
fn detail(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<Problem>,
    }
    #[derive(Deserialize)]
    struct Problem {
        message: String,
    }
    let Ok(Errors { errors }) = serde_json::from_slice(body) else { return String::new() };
    let Some(Problem { message }) = errors.into_iter().next() else { return String::new() };
    let short: String = message.chars().take(200).collect();
    format!(": {}", short.escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = UNIX_EPOCH + Duration::from_secs(784_111_777);
        let cases = [
            ("7", Some(7)),
            (" 7 ", Some(7)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(0)),
            ("Sun, 06 Nov 1994 08:50:00 GMT", Some(23)),
            ("Tue, 29 Feb 2000 00:00:00 GMT", Some(951_782_400 - 784_111_777)),
            ("Wed, 01 Mar 2000 00:00:00 GMT", Some(951_868_800 - 784_111_777)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Sun, 06 Nov 0000 08:49:37 GMT", None),
            ("Sun, 06 ovD 1994 08:49:37 GMT", None),
            ("Sun, 06 Nov 1994 08:49:37 PST", None),
            ("Sun, 06 Nov 18446744073709551615 08:49:37 GMT", None),
            ("-1", None),
            ("nonsense", None),
            ("", None),
        ];
        for (value, expected) in cases {
            assert_eq!(retry_after(value, now), expected.map(Duration::from_secs), "{value}");
        }
    }
}
