//! What a pull asks a registry for: the offer of an image, and its layers' blobs.

use std::sync::PoisonError;

use hyper::StatusCode;
use hyper::body::Bytes;
use hyper::header::{CONTENT_RANGE, CONTENT_TYPE, HeaderMap};
use tokio::sync::mpsc::Sender;

use crate::digest::Digest;
use crate::image::parse_configuration;
use crate::manifest::{self, Choice, Descriptor, Document, Manifest, Offer, Platform};

use super::error::RegistryError;
use super::reply::Reply;
use super::retry::Attempts;
use super::{Registry, Wanted};

/// Bytes after which a blob counts as getting on: what fails then fails for the first time.
const PROGRESS_BYTES: u64 = 1 << 20;

/// How a blob is gone on with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Resume {
    ByRange,
    FromStart,
}

/// What comes of a blob. A channel that closes without [`Received::End`] was broken off.
#[derive(Debug)]
pub(crate) enum Received {
    /// The next bytes.
    Bytes(Bytes),
    /// That was all.
    End,
}

impl Registry {
    /// Resolves the name to an image for `platform`, and fetches its configuration. Of an index the
    /// entries are tried that may fit, best first; one that does not say what it is for is asked.
    pub(super) async fn offer(&self, platform: &Platform) -> Result<Offer, RegistryError> {
        let what = format!("image {}", self.reference);
        let named = ManifestId::Version(self.reference.version(), self.reference.digest().cloned());
        let fetched = self.manifest(&what, &named).await?;
        let (resolved, url) = (fetched.digest.clone(), fetched.url.clone());
        let mut choice = match fetched.document {
            Document::Manifest(manifest) => {
                return self.configured(resolved, (fetched.digest, fetched.body), manifest).await;
            }
            Document::Index(index) => Choice::new(fetched.digest, index, platform, &self.limits),
        };
        loop {
            let refused = |source| RegistryError::Manifest { url: url.clone(), source };
            let candidate = choice.next().map_err(refused)?;
            let Fetched { url, digest, body, document } =
                self.manifest(&what, &ManifestId::Chosen(candidate.blob.clone())).await?;
            match document {
                Document::Index(index) => {
                    let entered = choice.enter(&candidate, digest, index);
                    entered.map_err(|source| RegistryError::Manifest { url, source })?;
                }
                Document::Manifest(manifest) => {
                    let offer = self.configured(resolved.clone(), (digest, body), manifest).await?;
                    if candidate.says_platform || platform.admits(&offer.configuration.config) {
                        return Ok(offer);
                    }
                }
            }
        }
    }

    /// Sends a blob's bytes into a channel, those behind the first `sent`, which counts on. A connection that breaks is
    /// resumed.
    ///
    /// The bytes are counted here and hashed by who takes them.
    pub(super) async fn blob(
        &self,
        blob: &Descriptor,
        sent: &mut u64,
        out: &Sender<Received>,
    ) -> Result<(), RegistryError> {
        let mut attempts = Attempts::new(&self.limits);
        let mut resume = Resume::ByRange;
        loop {
            let before = *sent;
            match self.rest_of_blob(blob, sent, out, resume).await {
                Ok(()) => break,
                // It has ranges, but wrong ones: then from the start, past what is there.
                Err(RegistryError::Range { .. }) if resume == Resume::ByRange => resume = Resume::FromStart,
                Err(error) => {
                    if *sent - before >= PROGRESS_BYTES {
                        attempts = Attempts::new(&self.limits);
                    }
                    attempts.again(error).await?;
                }
            }
        }
        out.send(Received::End).await.map_err(|_closed| self.abandoned(blob))
    }

    async fn rest_of_blob(
        &self,
        blob: &Descriptor,
        sent: &mut u64,
        out: &Sender<Received>,
        resume: Resume,
    ) -> Result<(), RegistryError> {
        if *sent >= blob.size && blob.size > 0 {
            return Ok(());
        }
        let what = format!("blob {}", blob.digest);
        let from = if resume == Resume::ByRange { *sent } else { 0 };
        let wanted =
            Wanted { what: &what, path: &format!("blobs/{}", blob.digest), accept: None, from, form: None };
        let mut reply = self.send(&wanted).await?;
        let mut skip = match reply.status {
            StatusCode::OK => *sent,
            StatusCode::PARTIAL_CONTENT if from > 0 && starts_at(&reply, from) => 0,
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
                return Err(RegistryError::Range { url: reply.url.to_string(), offset: *sent });
            }
            StatusCode::NOT_FOUND if self.is_foreign(blob) => {
                return Err(RegistryError::Foreign { blob: blob.digest.clone(), url: reply.url.to_string() });
            }
            _ => return Err(self.failure(reply, &what).await),
        };
        let wrong =
            |url: &super::Url, found| RegistryError::Size { url: url.to_string(), found, size: blob.size };
        let expected = blob.size - *sent + skip;
        if let Some(announced) = reply.content_length()
            && announced != expected
        {
            return Err(wrong(&reply.url, announced + *sent - skip));
        }
        while let Some(mut bytes) = reply.chunk().await? {
            let skipped = bytes.len().min(usize::try_from(skip).unwrap_or(usize::MAX));
            bytes = bytes.slice(skipped..);
            skip -= skipped as u64;
            *sent += bytes.len() as u64;
            if *sent > blob.size {
                return Err(wrong(&reply.url, *sent));
            }
            if !bytes.is_empty() {
                out.send(Received::Bytes(bytes)).await.map_err(|_closed| self.abandoned(blob))?;
            }
        }
        // The server says that this was all: another attempt would get the same.
        if *sent < blob.size {
            return Err(wrong(&reply.url, *sent));
        }
        reply.finish();
        Ok(())
    }

    fn is_foreign(&self, blob: &Descriptor) -> bool {
        self.foreign.lock().unwrap_or_else(PoisonError::into_inner).contains(&blob.digest)
    }

    fn abandoned(&self, blob: &Descriptor) -> RegistryError {
        RegistryError::Abandoned { url: format!("{}/…/blobs/{}", self.origin, blob.digest) }
    }

    async fn manifest(&self, what: &str, wanted: &ManifestId) -> Result<Fetched, RegistryError> {
        let path = format!("manifests/{}", wanted.path());
        let request = Wanted { what, path: &path, accept: Some(manifest::ACCEPT), from: 0, form: None };
        let (url, headers, body) = self.small(&request, self.limits.manifest_bytes).await?;
        let digest = verified(&url, &headers, &body, wanted)?;
        let header = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        match manifest::parse(&digest, &body, header, &self.limits) {
            Ok(document) => Ok(Fetched { url, digest, body, document }),
            Err(source) => Err(RegistryError::Manifest { url, source }),
        }
    }

    async fn configured(
        &self,
        resolved: Digest,
        (digest, body): (Digest, Vec<u8>),
        manifest: Manifest,
    ) -> Result<Offer, RegistryError> {
        let Manifest { config: config_blob, layers, foreign } = manifest;
        let what = format!("blob {}", config_blob.digest);
        let path = format!("blobs/{}", config_blob.digest);
        let wanted = Wanted { what: &what, path: &path, accept: None, from: 0, form: None };
        let (url, _, config) = self.small(&wanted, config_blob.size).await?;
        check_digest(&url, &config, &config_blob.digest)?;
        let configuration = parse_configuration(&config_blob.digest, &config, layers.len(), &self.limits)
            .map_err(|source| RegistryError::Config { url, source })?;
        *self.foreign.lock().unwrap_or_else(PoisonError::into_inner) = foreign;
        Ok(Offer { resolved, digest, manifest: body, config_blob, config, configuration, layers })
    }

    /// A document, whole.
    async fn small(
        &self,
        wanted: &Wanted<'_>,
        limit: u64,
    ) -> Result<(String, HeaderMap, Vec<u8>), RegistryError> {
        let mut attempts = Attempts::new(&self.limits);
        loop {
            match self.small_once(wanted, limit).await {
                Ok(document) => return Ok(document),
                Err(error) => attempts.again(error).await?,
            }
        }
    }

    async fn small_once(
        &self,
        wanted: &Wanted<'_>,
        limit: u64,
    ) -> Result<(String, HeaderMap, Vec<u8>), RegistryError> {
        let reply = self.send(wanted).await?;
        if reply.status != StatusCode::OK {
            return Err(self.failure(reply, wanted.what).await);
        }
        let url = reply.url.to_string();
        let (headers, body) = reply.bytes(limit).await?;
        Ok((url, headers, body))
    }
}

/// A manifest or index that is what its digest says.
struct Fetched {
    url: String,
    digest: Digest,
    body: Vec<u8>,
    document: Document,
}

/// How a manifest is asked for.
enum ManifestId {
    /// By what the name says: a tag, or a digest.
    Version(String, Option<Digest>),
    /// By what an index says.
    Chosen(Descriptor),
}

impl ManifestId {
    fn path(&self) -> String {
        match self {
            ManifestId::Version(version, _) => version.clone(),
            ManifestId::Chosen(descriptor) => descriptor.digest.to_string(),
        }
    }

    fn digest(&self) -> Option<&Digest> {
        match self {
            ManifestId::Version(_, digest) => digest.as_ref(),
            ManifestId::Chosen(descriptor) => Some(&descriptor.digest),
        }
    }
}

/// The digest of a manifest: the one asked for, else the one stated, else computed; they agree.
fn verified(
    url: &str,
    headers: &HeaderMap,
    body: &[u8],
    wanted: &ManifestId,
) -> Result<Digest, RegistryError> {
    if let ManifestId::Chosen(Descriptor { size, .. }) = wanted
        && body.len() as u64 != *size
    {
        return Err(RegistryError::Size { url: url.to_owned(), found: body.len() as u64, size: *size });
    }
    let stated = match headers.get("docker-content-digest") {
        None => None,
        Some(value) => {
            let digest = Digest::parse(value.to_str().unwrap_or_default());
            Some(digest.map_err(|source| RegistryError::StatedDigest { url: url.to_owned(), source })?)
        }
    };
    for expected in [wanted.digest(), stated.as_ref()].into_iter().flatten() {
        check_digest(url, body, expected)?;
    }
    Ok(wanted.digest().cloned().or(stated).unwrap_or_else(|| Digest::of(body)))
}

fn check_digest(url: &str, body: &[u8], expected: &Digest) -> Result<(), RegistryError> {
    expected.verify(body).map_err(|found| RegistryError::Digest {
        url: url.to_owned(),
        found,
        expected: expected.clone(),
    })
}

/// `Content-Range: bytes FROM-…`.
fn starts_at(reply: &Reply, from: u64) -> bool {
    let range = reply.header(CONTENT_RANGE).and_then(|value| value.strip_prefix("bytes "));
    let first = range.and_then(|range| range.split('-').next()).and_then(|first| first.trim().parse().ok());
    first == Some(from)
}
