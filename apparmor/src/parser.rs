//! The program `apparmor_parser`, which turns a profile's text into what the kernel takes. It is the only compiler there is.
//!
//! It loads nothing: its output is bytes that this process gives to the kernel ([`crate::policy`]), so a parser that
//! outlives its caller changes nothing. Whatever it does, the caller has its thread back in a bounded time.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::profile::FEATURES;

/// Where distributions install it. Never looked for in `PATH`.
const PLACES: [&str; 3] = ["/usr/sbin/apparmor_parser", "/sbin/apparmor_parser", "/usr/bin/apparmor_parser"];

/// It takes some 20 milliseconds, unless something is wrong.
const TIME: Duration = Duration::from_secs(10);

/// Until it is asked again whether the result is still wanted.
const LOOK: Duration = Duration::from_millis(100);

/// Bytes of a compiled profile; ours has some thousand.
const OUTPUT_BYTES: usize = 1 << 20;

/// Bytes of its complaints that are kept; the rest is read and forgotten.
const COMPLAINT_BYTES: usize = 2048;

/// The oldest version that compiles what the profile asks for.
const OLDEST: (u32, u32) = (3, 0);

/// The name of the file of features, in the directory that a caller offers.
const FEATURES_FILE: &str = "apparmor-features";

/// Why there is no compiled profile.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The features that it is told of cannot be written.
    #[error("write {}", path.display())]
    Features {
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It could not be run.
    #[error("run {}", path.display())]
    Run {
        /// Which program.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It does not come to an end.
    #[error("compile a profile: {} was not done after {} s; is the host overloaded?", path.display(), TIME.as_secs())]
    Slow {
        /// Which program.
        path: PathBuf,
    },
    /// Nobody wants the profile any more.
    #[error("compile a profile: it is not wanted any more")]
    Unwanted,
    /// It writes more than any profile has.
    #[error("compile a profile: {} writes more than {OUTPUT_BYTES} bytes", path.display())]
    TooMuch {
        /// Which program.
        path: PathBuf,
    },
    /// It writes nothing, and says that it is done.
    #[error("compile a profile: {} writes none", path.display())]
    Nothing {
        /// Which program.
        path: PathBuf,
    },
    /// It is older than the profile's text.
    #[error(
        "compile a profile: {} is of version {}.{}, and {}.{} is needed; install a newer package apparmor",
        path.display(), found.0, found.1, OLDEST.0, OLDEST.1
    )]
    TooOld {
        /// Which program.
        path: PathBuf,
        /// What it says of itself.
        found: (u32, u32),
    },
    /// It refused the text.
    #[error("compile a profile: {} refused it: {complaint}", path.display())]
    Refused {
        /// Which program.
        path: PathBuf,
        /// Its first words.
        complaint: String,
    },
}

/// The program, if it is there.
pub fn find() -> Option<PathBuf> {
    PLACES.iter().map(PathBuf::from).find(|path| path.is_file())
}

/// What the kernel takes for the profile `text`. A file for the parser is written to `directory`, which is the caller's
/// own and in nobody else's way. Blocks for as long as it is `wanted`, and some seconds at most.
///
/// # Errors
///
/// [`CompileError`]
pub fn compile(
    parser: &Path,
    text: &str,
    directory: &Path,
    wanted: &dyn Fn() -> bool,
) -> Result<Vec<u8>, CompileError> {
    let features = directory.join(FEATURES_FILE);
    std::fs::write(&features, FEATURES)
        .map_err(|source| CompileError::Features { path: features.clone(), source })?;
    let arguments: [&std::ffi::OsStr; 6] = [
        "--quiet".as_ref(),
        "--skip-cache".as_ref(),
        "--skip-kernel-load".as_ref(),
        "--stdout".as_ref(),
        "--features-file".as_ref(),
        features.as_ref(),
    ];
    let ended = Parser::start(parser, &arguments, text)?.ended(wanted)?;
    let path = || parser.to_owned();
    if !ended.status.success() {
        if let Some(found) = version(parser, wanted).filter(|found| *found < OLDEST) {
            return Err(CompileError::TooOld { path: path(), found });
        }
        return Err(CompileError::Refused { path: path(), complaint: first_line(&ended.complaint) });
    }
    if ended.output.is_empty() {
        return Err(CompileError::Nothing { path: path() });
    }
    Ok(ended.output)
}

/// What it says of itself: `AppArmor parser version 3.0.8`. Only asked where it has failed.
fn version(parser: &Path, wanted: &dyn Fn() -> bool) -> Option<(u32, u32)> {
    let ended = Parser::start(parser, &["--version".as_ref()], "").ok()?.ended(wanted).ok()?;
    let text = String::from_utf8_lossy(&ended.output).into_owned();
    let version = text.lines().next()?.rsplit_once("version ")?.1;
    let mut numbers = version.split('.').map(|number| number.trim().parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

/// What it says first, on one line.
fn first_line(complaint: &[u8]) -> String {
    let text = String::from_utf8_lossy(complaint).into_owned();
    let first = text.lines().map(str::trim).find(|line| !line.is_empty());
    first.unwrap_or("it does not say why").to_owned()
}

/// The program at work.
struct Parser {
    path: PathBuf,
    child: Child,
}

/// What it came to.
struct Ended {
    status: ExitStatus,
    output: Vec<u8>,
    complaint: Vec<u8>,
}

impl Parser {
    fn start(path: &Path, arguments: &[&std::ffi::OsStr], text: &str) -> Result<Parser, CompileError> {
        let failed = |source| CompileError::Run { path: path.to_owned(), source };
        let mut child = Command::new(path)
            .args(arguments)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        // The text is smaller than a pipe, so nobody has to read for this to end. Whoever does not want it says why.
        if let Some(mut stdin) = child.stdin.take() {
            match stdin.write_all(text.as_bytes()) {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(failed(error)),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(Parser { path: path.to_owned(), child })
    }

    /// Reads what it writes until it ends. It is dead in any case when this returns.
    fn ended(mut self, wanted: &dyn Fn() -> bool) -> Result<Ended, CompileError> {
        let read = self.read(wanted);
        if read.is_err() {
            // Whatever this says, its end is waited for below.
            self.child.kill().unwrap_or_default();
        }
        let status = self.child.wait().map_err(|source| self.failed(source));
        let (output, complaint) = read?;
        Ok(Ended { status: status?, output, complaint })
    }

    fn failed(&self, source: io::Error) -> CompileError {
        CompileError::Run { path: self.path.clone(), source }
    }

    /// Until the process has ended; a child of its own that keeps the pipes does not keep us.
    fn read(&mut self, wanted: &dyn Fn() -> bool) -> Result<(Vec<u8>, Vec<u8>), CompileError> {
        let begun = Instant::now();
        let (stdout, stderr) = (self.child.stdout.take(), self.child.stderr.take());
        let pidfd = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty());
        let pidfd = pidfd.map_err(|errno| self.failed(errno.into()))?;
        let mut output =
            Pipe::of(stdout.map(Into::into), OUTPUT_BYTES).map_err(|error| self.failed(error))?;
        let mut complaint =
            Pipe::of(stderr.map(Into::into), COMPLAINT_BYTES).map_err(|error| self.failed(error))?;
        loop {
            let left = TIME.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Err(CompileError::Slow { path: self.path.clone() });
            }
            if !wanted() {
                return Err(CompileError::Unwanted);
            }
            let mut watched = vec![PollFd::new(&pidfd, PollFlags::IN)];
            let pipes = [&output, &complaint].into_iter().filter_map(|pipe| pipe.file.as_ref());
            watched.extend(pipes.map(|file| PollFd::new(file, PollFlags::IN)));
            wait(&mut watched, left.min(LOOK)).map_err(|error| self.failed(error))?;
            let has_ended = watched.first().is_some_and(|process| !process.revents().is_empty());
            drop(watched);
            for pipe in [&mut output, &mut complaint] {
                pipe.drain().map_err(|error| self.failed(error))?;
            }
            if output.has_more {
                return Err(CompileError::TooMuch { path: self.path.clone() });
            }
            if has_ended {
                return Ok((output.kept, complaint.kept));
            }
        }
    }
}

fn wait(watched: &mut [PollFd<'_>], most: Duration) -> io::Result<()> {
    let most = Timespec { tv_sec: 0, tv_nsec: most.subsec_nanos().into() };
    match poll(watched, Some(&most)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// What comes from one of its streams, as far as it is kept.
struct Pipe {
    /// Until its end.
    file: Option<File>,
    kept: Vec<u8>,
    most: usize,
    /// There was more than that.
    has_more: bool,
}

impl Pipe {
    fn of(stream: Option<std::os::fd::OwnedFd>, most: usize) -> io::Result<Pipe> {
        if let Some(stream) = &stream {
            rustix::io::ioctl_fionbio(stream.as_fd(), true)?;
        }
        Ok(Pipe { file: stream.map(File::from), kept: Vec::new(), most, has_more: false })
    }

    /// Reads what is there: a pipe's content at most, however fast somebody writes.
    fn drain(&mut self) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut block = [0; 1 << 16];
        match file.read(&mut block) {
            Ok(0) => self.file = None,
            Ok(count) => {
                let room = self.most - self.kept.len();
                self.has_more |= count > room;
                self.kept.extend(block.iter().take(count.min(room)));
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
