//! `docker-worker save`: images of the store as an archive.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use images::digest::Digest;
use images::reference::Reference;
use images::save::{Layers, SaveError, SavedImage, write_archive};
use images::source::{Source, SourceError};
use images::store::{Lease, PullEvent, PullOptions, Store};
use tokio::sync::oneshot;

use super::file::Output;
use super::named::{Meant, meant};
use super::{hearing, open, operators_options, refused, until_interrupted};
use crate::cli::operator::Operator;
use crate::cli::refusal::Refusal;
use crate::cli::{FAILED, IMAGE_UNAVAILABLE, WRONG_USE};
use crate::config::Config;
use crate::text::{chain, excerpt};

/// Options of `save`.
#[derive(Debug, Args)]
pub struct SaveArguments {
    /// Where to: a file, docker-archive:FILE or oci-archive:FILE (default: standard output).
    #[arg(short, long, value_name = "ARCHIVE", value_parser = destination)]
    pub output: Option<Destination>,
    /// Names or ids of images in the store, or archives.
    #[arg(value_name = "IMAGE", required = true)]
    pub images: Vec<String>,
}

/// An archive to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    path: PathBuf,
    layers: Layers,
}

fn destination(text: &str) -> Result<Destination, String> {
    let (path, layers, name) = match Source::parse(text) {
        Ok(Source::DockerArchive { path, reference }) => (path, Layers::Plain, reference),
        Ok(Source::OciArchive { path, tag }) => (path, Layers::AsTheyCame, tag),
        Ok(Source::Oci { .. } | Source::Dir { .. }) => {
            return Err(
                "directories are not written, only docker-archive:FILE and oci-archive:FILE".to_owned()
            );
        }
        Err(error @ (SourceError::NoPath { .. } | SourceError::Transport { .. })) => {
            return Err(chain(&error));
        }
        Ok(Source::Registry(_)) | Err(SourceError::Reference(_)) => {
            (PathBuf::from(text), Layers::Plain, None)
        }
    };
    match name {
        Some(_) => Err("no name stands behind the file: images keep their own".to_owned()),
        None => Ok(Destination { path, layers }),
    }
}

type Events<'a> = &'a (dyn Fn(PullEvent) + Send + Sync);

/// Writes them.
pub(in crate::cli) fn main(options: &SaveArguments, config: Config, operator: &Operator) -> ExitCode {
    let ended = match save(options, config, operator) {
        Ok(()) => ExitCode::SUCCESS,
        Err(refusal) => refusal.tell(operator),
    };
    operator.out().finish();
    ended
}

fn save(options: &SaveArguments, config: Config, operator: &Operator) -> Result<(), Refusal> {
    if options.output.is_none() && io::stdout().is_terminal() {
        let sentence = "an archive is not for a terminal: name a file with -o, or send it into a pipe";
        return Err(Refusal::new(WRONG_USE, sentence));
    }
    let store = open(&config, operator)?;
    let pulling = operators_options(config, operator);
    let events = hearing(operator);
    let layers = options.output.as_ref().map_or(Layers::Plain, |destination| destination.layers);
    until_interrupted(operator, &pulling.cancel, async {
        let mut images: Vec<SavedImage> = Vec::new();
        for (lease, names) in chosen(&store, &options.images, (&pulling, &events)).await? {
            let prepared = store.prepare_save(&lease, (names, layers), &pulling, &events).await;
            images.push(prepared.map_err(|error| because(&error))?);
        }
        let written = tokio::select! {
            written = write(&store, images, options.output.clone(), (&pulling, operator)) => written,
            // Whoever should read may not: then the bytes stay where they are, and go with the process.
            () = pulling.cancel.cancelled() => Err(SaveError::Cancelled),
        };
        written.map_err(|error| match &error {
            SaveError::Write(source) => unwritten(options, source),
            error => because(error),
        })
    })
}

/// On a thread of its own: the place that it writes to may keep it waiting for ever, a pipe even to be opened. What turns out
/// to be damaged is looked at there as well.
async fn write(
    store: &Store,
    images: Vec<SavedImage>,
    destination: Option<Destination>,
    (pulling, operator): (&PullOptions, &Operator),
) -> Result<(), SaveError> {
    let (done, ended) = oneshot::channel();
    let (store, cancel, operator) = (store.clone(), pulling.cancel.clone(), operator.clone());
    let write = move || {
        let output = match &destination {
            Some(Destination { path, .. }) => Output::file(path),
            None => Output::standard(),
        };
        let written = output.map_err(SaveError::Write).and_then(|mut output| {
            write_archive(&images, &mut output, cancel.flag())?;
            output.keep().map_err(SaveError::Write)
        });
        // What it says is why there is no archive, whatever becomes of the rest.
        if let Err(error) = &written
            && let Err(error) = store.drop_damaged(error, &cancel)
            && !cancel.is_cancelled()
        {
            operator.note(&format!("WARNING: Failed to {}", chain(&error)));
        }
        // Nobody waits any more where a signal came.
        done.send(written).unwrap_or_default();
    };
    std::thread::Builder::new().name("save".to_owned()).spawn(write).map_err(SaveError::Write)?;
    ended.await.unwrap_or(Err(SaveError::Cancelled))
}

/// The images that are meant, each once, leased, with the names that it gets.
async fn chosen(
    store: &Store,
    words: &[String],
    (pulling, events): (&PullOptions, Events<'_>),
) -> Result<Vec<(Lease, Vec<Reference>)>, Refusal> {
    let mut chosen: Vec<(Lease, Vec<Reference>)> = Vec::new();
    for word in words {
        let (lease, name) = found(store, word, (pulling, events)).await?;
        let id: &Digest = &lease.image().id;
        match chosen.iter_mut().find(|(other, _)| other.image().id == *id) {
            Some((_, names)) => names.extend(name),
            None => chosen.push((lease, name.into_iter().collect())),
        }
    }
    Ok(chosen)
}

/// One image, and the name by which it was asked for, if that is one of a registry's.
async fn found(
    store: &Store,
    word: &str,
    (pulling, events): (&PullOptions, Events<'_>),
) -> Result<(Lease, Option<Reference>), Refusal> {
    let reference = |name: &str| Reference::parse(name).ok();
    let meant = meant(store, word).map_err(|error| Refusal::because(FAILED, &error))?;
    let found = match (&meant, Source::parse(word)) {
        (Meant::Name(name), _) => store.find_named(name, pulling).await.map(|lease| (lease, reference(name))),
        (Meant::Id(names), _) => match names.first() {
            Some(name) => store.find_named(name, pulling).await.map(|lease| (lease, None)),
            None => Ok((None, None)),
        },
        (Meant::Archive(archive), _) => {
            store.pull(archive, pulling, events).await.map(|lease| (Some(lease), own_name(archive)))
        }
        // By its digest it may be there under another name.
        (Meant::Nothing, Ok(source)) => store.find(&source, pulling).await.map(|lease| (lease, None)),
        (Meant::Several | Meant::Nothing, _) => Ok((None, None)),
    };
    let (lease, name) = found.map_err(|error| refused(&error))?;
    let shown = excerpt(word);
    lease.map(|lease| (lease, name)).ok_or_else(|| {
        let sentence = match meant {
            Meant::Several => format!("several images' ids begin with \"{shown}\": write more of it"),
            Meant::Name(_) | Meant::Id(_) => {
                format!("image \"{shown}\" in the store is damaged: pull or load it again")
            }
            Meant::Archive(_) | Meant::Nothing => {
                format!("there is no image \"{shown}\" in the store: pull it first, or see \"docker-worker images\"")
            }
        };
        Refusal::new(IMAGE_UNAVAILABLE, sentence)
    })
}

/// The name behind the path of an archive.
fn own_name(archive: &Source) -> Option<Reference> {
    match archive {
        Source::DockerArchive { reference, .. } => Reference::parse(reference.as_deref()?).ok(),
        Source::Registry(_) | Source::OciArchive { .. } | Source::Oci { .. } | Source::Dir { .. } => None,
    }
}

fn because(error: &SaveError) -> Refusal {
    let status = match error {
        SaveError::NotKept { .. } | SaveError::Lost { .. } | SaveError::Other { .. } => IMAGE_UNAVAILABLE,
        SaveError::Write(_)
        | SaveError::Read { .. }
        | SaveError::Layer(_)
        | SaveError::Content { .. }
        | SaveError::Document { .. }
        | SaveError::Configuration { .. }
        | SaveError::Config(_)
        | SaveError::TimeLimit { .. }
        | SaveError::Store(_)
        | SaveError::Cancelled => FAILED,
    };
    Refusal::because(status, error)
}

fn unwritten(options: &SaveArguments, error: &io::Error) -> Refusal {
    let place = match &options.output {
        Some(Destination { path, .. }) => excerpt(&path.to_string_lossy()).to_string(),
        None => "standard output".to_owned(),
    };
    Refusal::new(FAILED, format!("failed to write the archive to {place}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_a_file_in_a_format_and_nothing_else() {
        let cases = [
            ("x.tar", Some(("x.tar", Layers::Plain))),
            ("docker-archive:/x.tar", Some(("/x.tar", Layers::Plain))),
            ("oci-archive:x", Some(("x", Layers::AsTheyCame))),
            ("docker-archive:", None),
            ("docker-archive:x:busybox:1", None),
            ("oci:d", None),
            ("dir:d", None),
        ];
        for (text, expected) in cases {
            let found = destination(text).ok();
            let expected = expected.map(|(path, layers)| Destination { path: path.into(), layers });
            assert_eq!(found, expected, "{text}");
        }
    }
}
