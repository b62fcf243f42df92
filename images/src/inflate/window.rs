//! Large windows of decoders: a process has a few, and nobody waits for another's sender to get one.
//!
//! ```text
//!  stream ──► is a window free for what still comes? ── yes ──► decoder
//!                 │ no                                             ▲
//!                 └──► a file without a name, until there is ──────┤
//!                                    └─ it has come whole ──► wait ┘
//! ```
//!
//! Streams that still come have half of the windows. The other half is for what has come whole: those are given back as
//! fast as this machine inflates, however slowly somebody sends.

use std::fs::File;
use std::io::{self, BufRead, Seek, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::InflateError;
use crate::disk::Watch;
use crate::limits::Limits;
use crate::scratch;

/// With windows of 128 MiB they take half of the GiB that tasks leave to the worker at least.
const LARGE_WINDOWS: usize = 4;
/// Of those, for streams that still come.
const FOR_WHAT_COMES: usize = 2;
/// How soon somebody who waits sees that they were cancelled.
const CANCELLED_EVERY: Duration = Duration::from_millis(100);

/// Those of this process.
pub(crate) static WINDOWS: Windows = Windows::new();

/// How many large windows are taken.
pub(crate) struct Windows {
    taken: Mutex<Taken>,
    freed: Condvar,
}

struct Taken {
    all: usize,
    /// By streams that came when they got theirs.
    coming: usize,
}

/// What a decoder is given.
#[derive(Clone, Copy)]
pub(crate) struct Room<'a> {
    /// Bytes of its window, at most.
    pub window_bytes: u64,
    /// Whether the image has a large window: it has one at a time, whatever its layers.
    pub of_image: &'a AtomicBool,
    /// Where its input is put aside while there is no window for it, within the limits for free disk space.
    pub scratch: &'a Path,
    pub limits: &'a Limits,
    /// Ends the wait.
    pub cancelled: &'a AtomicBool,
    /// Where large windows are taken from.
    pub windows: &'a Windows,
}

/// Whether a stream's bytes are all here.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Arrival {
    Coming,
    Whole,
}

/// The right to a large window, until it is dropped.
pub(crate) struct LargeWindow<'a> {
    windows: &'a Windows,
    of_image: &'a AtomicBool,
    arrival: Arrival,
}

impl Windows {
    pub(super) const fn new() -> Windows {
        Windows { taken: Mutex::new(Taken { all: 0, coming: 0 }), freed: Condvar::new() }
    }

    /// Takes a window if there is one for such a stream.
    fn try_take<'a>(&'a self, arrival: Arrival, of_image: &'a AtomicBool) -> Option<LargeWindow<'a>> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let is_free =
            taken.all < LARGE_WINDOWS && (arrival == Arrival::Whole || taken.coming < FOR_WHAT_COMES);
        if !is_free || of_image.swap(true, Ordering::AcqRel) {
            return None;
        }
        taken.all += 1;
        taken.coming += usize::from(arrival == Arrival::Coming);
        Some(LargeWindow { windows: self, of_image, arrival })
    }

    /// Waits until somebody gives one back, for a moment at most.
    fn wait_a_moment(&self) {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.freed.wait_timeout(taken, CANCELLED_EVERY));
    }
}

impl Drop for LargeWindow<'_> {
    fn drop(&mut self) {
        let mut taken = self.windows.taken.lock().unwrap_or_else(PoisonError::into_inner);
        self.of_image.store(false, Ordering::Release);
        taken.all -= 1;
        taken.coming -= usize::from(self.arrival == Arrival::Coming);
        self.windows.freed.notify_all();
    }
}

/// Waits for a window. What has come meanwhile stands in the file, from whose start it is to be read, and is no longer in
/// `input`.
pub(super) fn wait<'a>(
    input: &mut impl BufRead,
    room: &Room<'a>,
) -> Result<(LargeWindow<'a>, Option<File>), InflateError> {
    let mut aside: Option<File> = None;
    let (mut watch, mut bytes) = (Watch::new(room.scratch, room.limits), 0);
    let mut arrival = Arrival::Coming;
    let window = loop {
        if let Some(window) = room.windows.try_take(arrival, room.of_image) {
            break window;
        }
        if room.cancelled.load(Ordering::Acquire) {
            return Err(InflateError::Cancelled);
        }
        if arrival == Arrival::Whole {
            room.windows.wait_a_moment();
            continue;
        }
        let chunk = input.fill_buf().map_err(InflateError::Stream)?;
        let length = chunk.len();
        if length == 0 {
            arrival = Arrival::Whole;
            continue;
        }
        bytes += length as u64;
        watch.reached(bytes).map_err(InflateError::DiskFull)?;
        put_aside(&mut aside, room.scratch, chunk).map_err(InflateError::Aside)?;
        input.consume(length);
    };
    if let Some(file) = &mut aside {
        file.rewind().map_err(InflateError::Aside)?;
    }
    Ok((window, aside))
}

fn put_aside(aside: &mut Option<File>, scratch: &Path, chunk: &[u8]) -> io::Result<()> {
    let file = match aside {
        Some(file) => file,
        None => aside.insert(scratch::unnamed(scratch)?),
    };
    file.write_all(chunk)
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Read};

    use super::*;

    /// A stream's bytes, one by one, and who is told of each.
    struct Coming<F>(&'static [u8], F);

    impl<F: FnMut(usize)> Read for Coming<F> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            (self.1)(self.0.len());
            self.0.read(&mut buffer[..1])
        }
    }

    struct Place {
        scratch: tempfile::TempDir,
        limits: Limits,
        cancelled: AtomicBool,
        windows: Windows,
    }

    impl Place {
        fn new() -> Place {
            let limits = Limits { free_disk_bytes: 0, free_disk_percent: 0, ..Limits::default() };
            let scratch = tempfile::tempdir().unwrap();
            Place { scratch, limits, cancelled: AtomicBool::new(false), windows: Windows::new() }
        }

        fn room<'a>(&'a self, of_image: &'a AtomicBool) -> Room<'a> {
            let (limits, cancelled, windows) = (&self.limits, &self.cancelled, &self.windows);
            Room { window_bytes: 1 << 27, of_image, scratch: self.scratch.path(), limits, cancelled, windows }
        }
    }

    #[test]
    fn streams_that_come_take_no_window_from_what_is_whole() {
        let place = Place::new();
        let images = [const { AtomicBool::new(false) }; 5];
        let held: Vec<_> = images[..2].iter().map(|image| wait(&mut &b"x"[..], &place.room(image))).collect();
        assert!(held.iter().all(|held| held.as_ref().is_ok_and(|(_, aside)| aside.is_none())));
        // Neither of them ever goes on: a third one comes whole, and has its window.
        let (third, aside) = wait(&mut &b"abc"[..], &place.room(&images[2])).unwrap();
        let mut content = String::new();
        aside.unwrap().read_to_string(&mut content).unwrap();
        assert_eq!(content, "abc");
        let (fourth, _) = wait(&mut &b""[..], &place.room(&images[3])).unwrap();
        place.cancelled.store(true, Ordering::Release);
        let fifth = wait(&mut &b"abc"[..], &place.room(&images[4]));
        assert!(matches!(fifth, Err(InflateError::Cancelled)), "there are four");
        drop((third, fourth));
        assert!(place.windows.try_take(Arrival::Whole, &images[4]).is_some());
    }

    #[test]
    fn what_comes_goes_on_in_the_middle_once_a_window_is_free() {
        let place = Place::new();
        let images = [const { AtomicBool::new(false) }; 3];
        let mut held: Vec<_> =
            images[..2].iter().map(|image| place.windows.try_take(Arrival::Coming, image)).collect();
        let mut input = BufReader::with_capacity(
            1,
            Coming(b"abcdef", |left| {
                if left == 3 {
                    held.clear();
                }
            }),
        );
        let (_window, aside) = wait(&mut input, &place.room(&images[2])).unwrap();
        let mut content = String::new();
        aside.unwrap().chain(input).read_to_string(&mut content).unwrap();
        assert_eq!(content, "abcdef");
    }

    #[test]
    fn an_image_has_one_at_a_time() {
        let place = Place::new();
        let image = AtomicBool::new(false);
        let one = place.windows.try_take(Arrival::Whole, &image);
        assert!(one.is_some() && place.windows.try_take(Arrival::Whole, &image).is_none());
        drop(one);
        assert!(place.windows.try_take(Arrival::Whole, &image).is_some());
    }

    #[test]
    fn nothing_is_put_aside_beyond_the_disks_reserve() {
        let mut place = Place::new();
        place.limits.free_disk_bytes = u64::MAX;
        let images = [const { AtomicBool::new(false) }; 3];
        let _held: Vec<_> =
            images[..2].iter().map(|image| place.windows.try_take(Arrival::Coming, image)).collect();
        let refused = wait(&mut &b"abc"[..], &place.room(&images[2]));
        assert!(matches!(refused, Err(InflateError::DiskFull(_))));
    }
}
