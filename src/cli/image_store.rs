//! The commands about the image store: `pull`, `images`, `rmi`, `save`, `load`, `gc`.
//!
//! They work beside workers that use the same store: what those use is leased, and stays. They mount nothing, so they need
//! no more than to read and write the store's directory.

pub mod collect;
mod file;
pub mod list;
pub mod load;
mod named;
pub mod pull;
pub mod remove;
pub mod save;
mod table;

use std::future::Future;
use std::io;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use images::source::Source;
use images::store::{Cancel, PullError, PullErrorKind, PullEvent, PullOptions, Store};
use runtime::lock;

use super::environment::{Secrets, dockers_file};
use super::operator::Operator;
use super::refusal::Refusal;
use super::signals::{self, Asked};
use super::{FAILED, IMAGE_UNAVAILABLE, INTERRUPTED, output, progress};
use crate::config::Config;
use crate::payload::Origin;
use crate::task::image::PullObserver;
use crate::text::chain;
use crate::worker::assembly::pull_options;

/// The status of what was told to end by SIGTERM, as shells have it: 128 and the signal.
const TERMINATED: u8 = 143;

/// Opens the store.
fn open(config: &Config, operator: &Operator) -> Result<Store, Refusal> {
    let root = config.directories.images();
    let store = Store::open_within(&root, &config.file.image_limits(), |file| lock::holder(file));
    let store = store.map_err(|error| Refusal::because(FAILED, &error))?;
    if let Some(version) = store.discarded_version() {
        operator
            .note(&format!("the images in {root:?} were of version {version}: they have to be pulled again"));
    }
    Ok(store)
}

/// Prints the names of what was brought, or why it was not, and waits until what was said on the way is out.
fn told(brought: Result<String, Refusal>, operator: &Operator) -> ExitCode {
    let ended = match brought {
        Ok(names) => output::print(&names, ExitCode::SUCCESS, operator),
        Err(refusal) => refusal.tell(operator),
    };
    operator.out().finish();
    ended
}

/// What the operator may pull, with the registries, credentials and proxies that `run` has.
fn operators_options(mut config: Config, operator: &Operator) -> PullOptions {
    let credentials = &mut config.file.docker_config.credentials_file;
    *credentials = credentials.take().or_else(dockers_file);
    Secrets::of_environment().complete(&mut config.file.proxies, operator);
    pull_options(&config.file, Origin::Operator)
}

/// Does the work on this thread until a signal cancels it. What then still waits for the world outside goes with the process.
fn until_interrupted<T>(
    operator: &Operator,
    cancel: &Cancel,
    work: impl Future<Output = Result<T, Refusal>>,
) -> Result<T, Refusal> {
    let failed = |error: io::Error| Refusal::new(FAILED, format!("failed to start: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let asked = Arc::new(OnceLock::new());
    let (heard, ends) = (Arc::clone(&asked), cancel.clone());
    let listener = move |signal| {
        // The first one counts.
        heard.set(signal).unwrap_or_default();
        ends.cancel();
    };
    signals::listen(operator.clone(), listener).map_err(failed)?;
    let done = runtime.block_on(work);
    runtime.shutdown_background();
    match (done, asked.get()) {
        (Err(_cancelled), Some(Asked::FromTheKeyboard)) => {
            Err(Refusal::new(INTERRUPTED, "it was interrupted from the keyboard"))
        }
        (Err(_cancelled), Some(Asked::ToEnd)) => Err(Refusal::new(TERMINATED, "it was told to end")),
        (done, _) => done,
    }
}

/// Why an image is not in the store, and the command's status.
fn refused(error: &PullError) -> Refusal {
    let status = match error.kind() {
        PullErrorKind::NotFound | PullErrorKind::Unauthorized | PullErrorKind::Unreachable => {
            IMAGE_UNAVAILABLE
        }
        PullErrorKind::BadName
        | PullErrorKind::Refused
        | PullErrorKind::DiskFull
        | PullErrorKind::OpenFiles
        | PullErrorKind::InUse
        | PullErrorKind::Cancelled
        | PullErrorKind::Host => FAILED,
    };
    Refusal::because(status, error)
}

/// Who hears of a pull: warnings are told, and a line shows how it goes on.
fn hearing(operator: &Operator) -> impl Fn(PullEvent) + Send + Sync + use<> {
    let (operator, shown): (Operator, PullObserver) = (operator.clone(), progress::observer(operator));
    move |event| {
        if let PullEvent::Status(text) = &event
            && let Some(warning) = text.strip_prefix("WARNING: ")
        {
            operator.note(warning);
        }
        shown(&event);
    }
}

/// A source as it stands on a command line.
fn source(text: &str) -> Result<Source, String> {
    Source::parse(text).map_err(|error| chain(&error))
}
