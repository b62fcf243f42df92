//! Hawk: who has signed a request, and with which key.
//!
//! ```text
//!   Authorization: Hawk id="…", ts="…", nonce="…", mac="…" [, ext="…", hash="…", app="…", dlg="…"]
//!   mac = HMAC-SHA256(key, "hawk.1.header", ts, nonce, method, resource, host, port, hash, ext [, app, dlg])
//!
//!   GET …?bewit=<id, expiry, mac, ext in base64url>
//!   mac = HMAC-SHA256(key, "hawk.1.bewit", expiry, "", "GET", resource without it, host, port, "", ext)
//! ```
//!
//! The head of a request is judged by itself; where `hash` is there, it binds the payload, which can be read afterwards.
//!
//! As with Taskcluster's services a signature is good for 15 minutes, and a nonce is not remembered: what may not happen
//! twice is the methods' own concern. Not the `hawk` crate, which the client signs with: its parser panics at a time
//! beyond the system clock's range, and it answers every kind of refusal alike.

use std::time::Duration;

use aws_lc_rs::{digest, hmac};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use crate::timestamp::Timestamp;

/// How far a signature's time may be from the present.
const SKEW: Duration = Duration::from_secs(15 * 60);
/// Bytes of a header: it holds the scopes of a temporary certificate.
const HEADER_BYTES: usize = 48 << 10;

/// What a header says, or a URL that was signed for whoever has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Authorization {
    pub(super) id: String,
    pub(super) ext: Option<String>,
    form: Form,
    ts: String,
    nonce: String,
    mac: String,
    hash: Option<String>,
    app: Option<String>,
    dlg: Option<String>,
}

/// Where a signature stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Form {
    /// In the header; its time is when it was made.
    #[default]
    Header,
    /// In the URL; its time is when it ceases to be good.
    Url,
}

/// What is signed of a request's head.
#[derive(Clone, Copy, Debug)]
pub(super) struct Signed<'a> {
    pub(super) method: &'a str,
    /// Path and query.
    pub(super) resource: &'a str,
    pub(super) host: &'a str,
    pub(super) port: u16,
}

/// Why a signature is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HawkError {
    #[error("Bad Request: the Authorization header is no Hawk header")]
    Header,
    #[error("Bad Request: the Hawk header lacks an attribute: id, ts, nonce or mac")]
    Attributes,
    #[error("Unauthorized: Bad mac")]
    Mac,
    #[error("Unauthorized: the hash is not that of the payload")]
    Payload,
    #[error("Unauthorized: Stale timestamp")]
    Stale,
    #[error("Bad Request: the bewit is no signature of a GET or HEAD request")]
    Bewit,
    #[error("Unauthorized: Access expired")]
    Expired,
    #[error("a request is signed in its Authorization header or by a bewit in its URL, not in both")]
    Twice,
}

impl Authorization {
    /// The signature of a request, if it has one.
    pub(super) fn of(header: Option<&str>, signed: &Signed<'_>) -> Result<Option<Authorization>, HawkError> {
        match (header, bewit(signed.resource)) {
            (None, None) => Ok(None),
            (Some(header), None) => Authorization::parse(header).map(Some),
            (None, Some((bewit, _))) if ["GET", "HEAD"].contains(&signed.method) => {
                Authorization::parse_bewit(bewit).map(Some)
            }
            (None, Some(_)) => Err(HawkError::Bewit),
            (Some(_), Some(_)) => Err(HawkError::Twice),
        }
    }

    fn parse_bewit(bewit: &str) -> Result<Authorization, HawkError> {
        let bytes = URL_SAFE_NO_PAD.decode(bewit.trim_end_matches('=')).map_err(|_| HawkError::Bewit)?;
        let text = String::from_utf8(bytes).map_err(|_| HawkError::Bewit)?;
        let parts: Vec<&str> = text.split('\\').collect();
        let &[id, ts, mac, ext] = parts.as_slice() else { return Err(HawkError::Bewit) };
        if id.is_empty()
            || text.len() > HEADER_BYTES
            || !text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
        {
            return Err(HawkError::Bewit);
        }
        let (id, ts, mac) = (id.to_owned(), ts.to_owned(), mac.to_owned());
        let ext = (!ext.is_empty()).then(|| ext.to_owned());
        Ok(Authorization { id, ts, mac, ext, form: Form::Url, ..Authorization::default() })
    }

    /// Reads a header.
    fn parse(header: &str) -> Result<Authorization, HawkError> {
        let mut rest = header.strip_prefix("Hawk ").filter(|_| header.len() <= HEADER_BYTES);
        let mut found = Attributes::default();
        while let Some(text) = rest.map(str::trim_start).filter(|text| !text.is_empty()) {
            let (name, text) = text.split_once("=\"").ok_or(HawkError::Header)?;
            let (value, text) = text.split_once('"').ok_or(HawkError::Header)?;
            found.set(name, value)?;
            let text = text.trim_start();
            rest = match text.strip_prefix(',') {
                Some(text) => Some(text),
                None if text.is_empty() => Some(text),
                None => return Err(HawkError::Header),
            };
        }
        if rest.is_none() {
            return Err(HawkError::Header);
        }
        found.complete()
    }

    /// Whether the head of a request was signed so with a key, and is good now.
    pub(super) fn verify(&self, key: &str, signed: &Signed<'_>, now: Timestamp) -> Result<(), HawkError> {
        let mac = STANDARD.decode(&self.mac).map_err(|_| HawkError::Mac)?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
        hmac::verify(&key, self.normalised(signed).as_bytes(), &mac).map_err(|_| HawkError::Mac)?;
        let seconds: i64 = self.ts.parse().map_err(|_| HawkError::Stale)?;
        let at = Timestamp::from_millis(seconds.saturating_mul(1000));
        match self.form {
            Form::Header if at.since(now).max(now.since(at)) > SKEW => Err(HawkError::Stale),
            Form::Url if at <= now => Err(HawkError::Expired),
            Form::Header | Form::Url => Ok(()),
        }
    }

    /// Whether the payload is the one that was signed; whoever signs no hash leaves it open.
    pub(super) fn verify_payload(&self, content_type: &str, payload: &[u8]) -> Result<(), HawkError> {
        match &self.hash {
            Some(hash) if *hash != payload_hash(content_type, payload) => Err(HawkError::Payload),
            Some(_) | None => Ok(()),
        }
    }

    fn normalised(&self, signed: &Signed<'_>) -> String {
        let Authorization { ts, nonce, hash, ext, app, dlg, form, .. } = self;
        let Signed { method, resource, host, port } = signed;
        let (form, method, resource) = match (form, bewit(resource)) {
            (Form::Url, Some((_, rest))) => ("bewit", "GET", rest),
            (Form::Url | Form::Header, _) => ("header", *method, (*resource).to_owned()),
        };
        let or_nothing = |text: &Option<String>| text.clone().unwrap_or_default();
        let (hash, ext, host) = (or_nothing(hash), or_nothing(ext), host.to_ascii_lowercase());
        let mut text =
            format!("hawk.1.{form}\n{ts}\n{nonce}\n{method}\n{resource}\n{host}\n{port}\n{hash}\n{ext}\n");
        if let Some(app) = app {
            text += &format!("{app}\n{}\n", or_nothing(dlg));
        }
        text
    }
}

/// The attributes that have come so far.
#[derive(Default)]
struct Attributes([Option<String>; NAMES.len()]);

const NAMES: [&str; 8] = ["id", "ts", "nonce", "mac", "ext", "hash", "app", "dlg"];

impl Attributes {
    fn set(&mut self, name: &str, value: &str) -> Result<(), HawkError> {
        let is_plain = value.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'\\');
        let known = NAMES.iter().zip(&mut self.0).find(|(known, _)| **known == name);
        match known {
            Some((_, place)) if is_plain && place.is_none() => {
                *place = Some(value.to_owned());
                Ok(())
            }
            _ => Err(HawkError::Header),
        }
    }

    fn complete(self) -> Result<Authorization, HawkError> {
        let [id, ts, nonce, mac, ext, hash, app, dlg] = self.0;
        let (Some(id), Some(ts), Some(nonce), Some(mac)) = (id, ts, nonce, mac) else {
            return Err(HawkError::Attributes);
        };
        Ok(Authorization { id, ts, nonce, mac, ext, hash, app, dlg, form: Form::Header })
    }
}

/// The signature in a path with its query, and what it was made of.
fn bewit(resource: &str) -> Option<(&str, String)> {
    let (path, query) = resource.split_once('?')?;
    let bewit = query.split('&').find_map(|parameter| parameter.strip_prefix("bewit="))?;
    let others: Vec<&str> = query.split('&').filter(|parameter| !parameter.starts_with("bewit=")).collect();
    let rest = if others.is_empty() { path.to_owned() } else { format!("{path}?{}", others.join("&")) };
    Some((bewit, rest))
}

/// The hash of a payload as the attribute `hash` has it.
fn payload_hash(content_type: &str, payload: &[u8]) -> String {
    let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let mut context = digest::Context::new(&digest::SHA256);
    for part in [b"hawk.1.payload\n", kind.as_bytes(), b"\n", payload, b"\n"] {
        context.update(part);
    }
    STANDARD.encode(context.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the official Python client signs it.
    fn bewit(id: &str, until: i64, key: &str, signed: &Signed<'_>) -> String {
        let Signed { resource, host, port, .. } = signed;
        let text = format!("hawk.1.bewit\n{until}\n\nGET\n{resource}\n{host}\n{port}\n\ne30=\n");
        let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()), text.as_bytes());
        URL_SAFE_NO_PAD.encode(format!("{id}\\{until}\\{}\\e30=", STANDARD.encode(mac)))
    }

    #[test]
    fn a_signed_url_is_good_for_reading_what_it_says_until_its_time() {
        let signed = Signed { method: "GET", resource: "/a?b=1", host: "example.com", port: 8000 };
        let bewit = bewit("me", TIME, KEY, &signed);
        let good = format!("/a?b=1&bewit={bewit}");
        let judged = |method, resource: &str, now| {
            let request = Signed { method, resource, ..signed };
            let found = Authorization::of(None, &request)?.ok_or(HawkError::Header)?;
            found.verify(KEY, &request, at(now)).map(|()| (found.id, found.ext))
        };
        let read = Ok(("me".to_owned(), Some("e30=".to_owned())));
        assert_eq!(judged("GET", &good, TIME - 1_000_000), read);
        assert_eq!(judged("HEAD", &format!("/a?bewit={bewit}&b=1"), TIME - 1), read);
        assert_eq!(judged("GET", &good, TIME), Err(HawkError::Expired));
        assert_eq!(judged("PUT", &good, TIME - 1), Err(HawkError::Bewit));
        assert_eq!(judged("GET", &good.replace("/a", "/b"), TIME - 1), Err(HawkError::Mac));
        assert_eq!(judged("GET", &good.replace("b=1", "b=2"), TIME - 1), Err(HawkError::Mac));
        for broken in ["", "%", "bWU", &bewit[1..]] {
            assert_eq!(
                judged("GET", &format!("/a?bewit={broken}"), TIME - 1),
                Err(HawkError::Bewit),
                "{broken}"
            );
        }
        let both = Authorization::of(Some(HEADER), &Signed { resource: &good, ..signed });
        assert_eq!(both, Err(HawkError::Twice));
        assert_eq!(Authorization::of(None, &signed), Ok(None));
    }

    /// The example of the Hawk specification, section "Payload Validation".
    const HEADER: &str = r#"Hawk id="dh37fgj492je", ts="1353832234", nonce="j4h3g2", hash="Yi9LfIIFRtBEPt74PVmbTF/xVAwPn7ub15ePICfgnuY=", ext="some-app-ext-data", mac="aSe1DERmZuRl3pI36/9BdZmnErTw3sNzOOAUlfeKjVw=""#;
    const KEY: &str = "werxhqb98rpaxn39848xrunpaw3489ruxnpa98w4rxn";
    const TIME: i64 = 1_353_832_234;

    const SIGNED: Signed<'_> =
        Signed { method: "POST", resource: "/resource/1?b=1&a=2", host: "Example.com", port: 8000 };

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    #[test]
    fn the_specifications_example_is_valid_for_a_quarter_of_an_hour() {
        let authorization = Authorization::parse(HEADER).unwrap();
        assert_eq!(
            (authorization.id.as_str(), authorization.ext.as_deref()),
            ("dh37fgj492je", Some("some-app-ext-data"))
        );
        let payload = b"Thank you for flying Hawk";
        assert_eq!(authorization.verify_payload("text/plain; x=y", payload), Ok(()));
        for (seconds, expected) in [
            (TIME, Ok(())),
            (TIME - 900, Ok(())),
            (TIME + 900, Ok(())),
            (TIME + 901, Err(HawkError::Stale)),
            (TIME - 901, Err(HawkError::Stale)),
        ] {
            assert_eq!(authorization.verify(KEY, &SIGNED, at(seconds)), expected, "{seconds}");
        }
    }

    #[test]
    fn what_was_not_signed_is_refused() {
        let authorization = Authorization::parse(HEADER).unwrap();
        let verify = |signed: &Signed<'_>| authorization.verify(KEY, signed, at(TIME));
        let (mac, payload) = (Err(HawkError::Mac), Err(HawkError::Payload));
        assert_eq!(authorization.verify_payload("text/plain", b"Thank you for not flying"), payload);
        assert_eq!(authorization.verify_payload("text/html", b"Thank you for flying Hawk"), payload);
        assert_eq!(verify(&Signed { method: "PUT", ..SIGNED }), mac);
        assert_eq!(verify(&Signed { resource: "/resource/1", ..SIGNED }), mac);
        assert_eq!(verify(&Signed { host: "example.org", ..SIGNED }), mac);
        assert_eq!(verify(&Signed { port: 80, ..SIGNED }), mac);
        assert_eq!(authorization.verify("another key", &SIGNED, at(TIME)), mac);
        for (from, to) in [
            ("j4h3g2", "j4h3g3"),
            ("Yi9L", "YyYy"),
            ("1353832234", "1353832235"),
            ("some-app", "other-app"),
            ("aSe1", "----"),
        ] {
            let changed = Authorization::parse(&HEADER.replace(from, to)).unwrap();
            assert_eq!(changed.verify(KEY, &SIGNED, at(TIME)), mac, "{to}");
        }
    }

    #[test]
    fn a_header_that_is_none_is_refused_whatever_it_holds() {
        let header = |rest: &str| format!("Hawk id=\"a\", ts=\"1\", nonce=\"n\", mac=\"m\"{rest}");
        assert!(Authorization::parse(&header("")).is_ok());
        let cases = [
            ("", HawkError::Header),
            ("Basic YTpi", HawkError::Header),
            ("Hawk ", HawkError::Attributes),
            ("Hawk id=\"a\"", HawkError::Attributes),
            ("Hawk id=a", HawkError::Header),
            ("Hawk id=\"a", HawkError::Header),
            (&header(", id=\"b\""), HawkError::Header),
            (&header(", other=\"b\""), HawkError::Header),
            (&header(", ext=\"a\\\"b\""), HawkError::Header),
            (&header(", ext=\"\u{1b}\""), HawkError::Header),
            (&header(" ext=\"b\""), HawkError::Header),
            (&header(&format!(", ext=\"{}\"", "x".repeat(HEADER_BYTES))), HawkError::Header),
        ];
        for (text, expected) in cases {
            assert_eq!(Authorization::parse(text), Err(expected), "{text}");
        }
        for ts in ["18446744073709551615", "-9223372036854775808", "99999999999999999999", "", "NaN"] {
            let authorization = Authorization { ts: ts.to_owned(), ..Authorization::default() };
            let mac = hmac::sign(
                &hmac::Key::new(hmac::HMAC_SHA256, b"k"),
                authorization.normalised(&SIGNED).as_bytes(),
            );
            let authorization = Authorization { mac: STANDARD.encode(mac), ..authorization };
            assert_eq!(authorization.verify("k", &SIGNED, at(TIME)), Err(HawkError::Stale), "{ts}");
        }
    }
}
