//! An archive that comes as a stream and is not known by a name, in a file: its members are read in any order, and there
//! may be several images in it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use crate::disk::Watch;
use crate::scratch::unnamed;

use super::ingest::read_chunk;
use super::options::PullOptions;
use super::waiting::{in_thread, unless_cancelled};
use super::{PullError, Store, StoreError};

/// The file. It has no name, and goes with this value.
#[derive(Debug)]
pub struct Spooled {
    path: PathBuf,
    _file: File,
}

impl Spooled {
    /// Where this process, and no other, can open it.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Store {
    /// Reads all of a stream into a file beside the store's own. Who sends may take any time; a wait for it that is not
    /// wanted any more ends, and the thread that waits goes with the process.
    ///
    /// # Errors
    ///
    /// [`PullError::Cancelled`], a full disk, I/O errors.
    pub async fn spool(
        &self,
        stream: impl Read + Send + 'static,
        options: &PullOptions,
    ) -> Result<Spooled, PullError> {
        let (store, limits, cancel) = (self.clone(), options.limits.clone(), options.cancel.clone());
        let spool = move || {
            let (mut stream, works) = (stream, store.layout().works());
            let failed = |action| StoreError::file(action, &works);
            let mut file = unnamed(&works).map_err(failed("create a file in"))?;
            let (mut watch, mut bytes) = (Watch::new(&works, &limits), 0);
            loop {
                let chunk = read_chunk(&mut stream).map_err(failed("read the archive into"))?;
                if chunk.is_empty() || cancel.is_cancelled() {
                    break;
                }
                bytes += chunk.len() as u64;
                watch.reached(bytes)?;
                file.write_all(&chunk).map_err(failed("write the archive into"))?;
            }
            Ok(Spooled { path: format!("/proc/self/fd/{}", file.as_raw_fd()).into(), _file: file })
        };
        Ok(unless_cancelled(&options.cancel, "the archive on standard input", in_thread(spool, drop))
            .await??)
    }
}
