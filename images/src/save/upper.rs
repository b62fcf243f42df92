//! What a container changed, as a layer: the upper directory of its overlay, written as a tar stream.
//!
//! ```text
//!  upper ──► walk     names in order, each opened once; parents before what lies in them
//!              │
//!            entry    what it is, its attributes, what overlayfs says by it
//!              │
//!     header ──┴──► output   one buffer: hashed, then given to the sink
//!
//!  merged ──► untouched      further names of files that were changed by one of them only
//! ```
//!
//! | in the upper directory | in the layer |
//! |---|---|
//! | character device 0:0, `trusted.overlay.whiteout` | `.wh.NAME`, in NAME's place |
//! | `trusted.overlay.opaque` = `y` | `.wh..wh..opq`, the first thing in its directory |
//! | `redirect`, `metacopy`, whatever is not known | an error: [`mount`](crate::mount) makes none |
//! | several names of one inode | a file, and hard links to it |
//! | holes | zeros |
//! | `user.*`, `security.capability`, access lists | the same; nothing else of attributes |
//! | times | to the nanosecond |
//! | a socket | `.wh.NAME`: tar has none, and what the image has by that name is gone |
//! | a name that begins with `.wh.` | nothing, nor what lies below: it would hide another file |
//!
//! A plain directory is written by the same means: there all names, devices and attributes stand for themselves, but for
//! those of `trusted.*`, which no archive may set.
//!
//! What is left out is counted, for whoever tells of it. The upper directory's own root comes first, as
//! `./`, with the owner and mode of `/`.
//!
//! The container's processes must have ended. A file that changes while it is read, or an entry that goes
//! before it is, ends the work with an error; an entry that comes after its directory was read is not in
//! the layer. Either way what was written is never a damaged archive that looks like a whole one: only
//! [`write_layer`]'s success says that it is one.
//!
//! All of it is hostile. Every name is opened below its directory's descriptor without following links,
//! as `O_PATH`; only what then proves to be a regular file or a directory is opened again, through that
//! descriptor. So no device is ever opened, and no FIFO waited for.
//!
//! Why holes become zeros: Docker takes an archive apart and puts it together again from the files, which
//! gives another archive, with another digest, when holes were left out. It writes zeros itself.
//!
//! Why the merged tree is needed: `index=on` keeps the image's hard links together when one name is
//! written, and the others then show the new contents with nothing in the upper directory. The index
//! holds a link of its own, so such a file has more links than names here. Its other names are looked
//! for in the merged tree, which costs a walk of it, in this case only.
use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::sync::atomic::AtomicBool;

use crate::digest::Digest;
use crate::layer::EntryName;
use crate::limits::Limits;

mod attributes;
mod entry;
mod error;
mod links;
mod output;
mod untouched;
mod walk;

pub use error::{LeftOut, Names, SaveUpperError};

/// The trees of a container, whose processes have ended.
#[derive(Debug, Clone, Copy)]
pub struct Trees<'a> {
    /// The upper directory.
    pub upper: BorrowedFd<'a>,
    /// The root of the overlay that it belongs to, mounted in this mount namespace.
    pub merged: BorrowedFd<'a>,
}

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tree {
    /// An overlay's upper directory.
    Upper,
    /// A directory.
    Plain,
}

/// A tar stream that was written whole.
#[derive(Debug)]
pub struct WrittenLayer {
    /// SHA-256 of the tar stream.
    pub diff_id: Digest,
    /// Its length.
    pub bytes: u64,
    /// Entries in it, whiteouts and marks included.
    pub entries: u64,
    /// What could not be said in it.
    pub left_out: LeftOut,
}

/// Writes what the upper directory holds as a layer. The same directory gives the same bytes.
///
/// Memory: one mebibyte, the names of the directories on the way down, and a name for each file with
/// several, these all together [`Limits::index_bytes`] at most. What [`index_layer`](crate::layer::index_layer)
/// would refuse is refused here. `cancelled` is looked at for every entry and every mebibyte.
///
/// # Errors
///
/// [`SaveUpperError`]; what the sink then has is of no use.
pub fn write_layer(
    trees: Trees<'_>,
    sink: &mut dyn Write,
    limits: &Limits,
    cancelled: &AtomicBool,
) -> Result<WrittenLayer, SaveUpperError> {
    let mut writer = entry::Writer::new(Tree::Upper, output::Output::new(sink, cancelled), limits);
    add_all(&mut writer, trees.upper)?;
    untouched::add(&mut writer, trees)?;
    writer.finish()
}

/// Writes a directory as a tar stream, with paths relative to it. Otherwise as [`write_layer`]; nobody may write to it
/// meanwhile.
///
/// # Errors
///
/// [`SaveUpperError`]
pub fn write_directory(
    directory: BorrowedFd<'_>,
    sink: &mut dyn Write,
    limits: &Limits,
    cancelled: &AtomicBool,
) -> Result<WrittenLayer, SaveUpperError> {
    let mut writer = entry::Writer::new(Tree::Plain, output::Output::new(sink, cancelled), limits);
    add_all(&mut writer, directory)?;
    writer.finish()
}

fn add_all(writer: &mut entry::Writer<'_>, tree: BorrowedFd<'_>) -> Result<(), SaveUpperError> {
    let mut walk = walk::Walk::new(tree, writer.limits)?;
    writer.root(&mut walk)?;
    while let Some(found) = walk.next()? {
        writer.add(&found, &mut walk)?;
    }
    Ok(())
}

/// An error of the kernel's about one entry.
fn unread(path: &[u8], call: &'static str, source: impl Into<io::Error>) -> SaveUpperError {
    let (entry, source) = (EntryName::new(path), source.into());
    match source.raw_os_error() {
        Some(libc::ENOENT | libc::ENODATA | libc::ESTALE) => SaveUpperError::Changed { entry },
        _ => SaveUpperError::Read { entry, call, source },
    }
}
