//! `docker-worker load`: the images of an archive, under the names in it.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use images::archive::ArchiveError;
use images::image::Image;
use images::source::Source;
use images::store::{Lease, PullError, PullEvent, PullOptions, Store, StreamName};

use super::{hearing, open, operators_options, refused, told, until_interrupted};
use crate::cli::WRONG_USE;
use crate::cli::operator::Operator;
use crate::cli::refusal::Refusal;
use crate::config::Config;

/// Options of `load`.
#[derive(Debug, Args)]
pub struct LoadArguments {
    /// A file, a directory, or a transport with one (default: standard input).
    #[arg(value_name = "ARCHIVE")]
    pub archive: Option<PathBuf>,
    /// The same, as docker has it.
    #[arg(short, long, value_name = "FILE", conflicts_with = "archive")]
    pub input: Option<PathBuf>,
}

type Events<'a> = &'a (dyn Fn(PullEvent) + Send + Sync);

/// Loads them, and prints their names.
pub(in crate::cli) fn main(options: &LoadArguments, config: Config, operator: &Operator) -> ExitCode {
    told(load(options, config, operator), operator)
}

fn load(options: &LoadArguments, config: Config, operator: &Operator) -> Result<String, Refusal> {
    let named =
        options.archive.as_deref().or(options.input.as_deref()).filter(|path| *path != Path::new("-"));
    if named.is_none() && io::stdin().is_terminal() {
        return Err(Refusal::new(WRONG_USE, "name an archive, or send one into standard input"));
    }
    let store = open(&config, operator)?;
    let pulling = operators_options(config, operator);
    let events = hearing(operator);
    until_interrupted(operator, &pulling.cancel, async {
        // Held until the images are there: without a name it goes with its descriptor.
        let spooled;
        let leases = match named {
            Some(path) => load_any(&store, path, &pulling, &events).await,
            None => {
                spooled = store.spool(io::stdin(), &pulling).await.map_err(|error| refused(&error))?;
                load_file(&store, (spooled.path(), Names::InIt), &pulling, &events).await
            }
        };
        let leases = leases.map_err(|error| refused(&error))?;
        Ok(leases.iter().map(|lease| format!("{}\n", shown(lease.image()))).collect())
    })
}

/// Its name, or where it has none what else stands for it.
fn shown(image: &Image) -> String {
    if image.name == StreamName::of_image(&image.id).to_string() {
        return image.id.to_string();
    }
    image.name.clone()
}

/// How images of an archive are called.
#[derive(Clone, Copy)]
enum Names {
    /// By the names in it, else by its own.
    InItOrItsOwn,
    /// By the names in it alone.
    InIt,
}

/// Takes the format that is said, else the one that the archive turns out to have.
async fn load_any(
    store: &Store,
    path: &Path,
    pulling: &PullOptions,
    events: Events<'_>,
) -> Result<Vec<Lease>, PullError> {
    if let Some(Ok(source)) = path.to_str().map(Source::parse)
        && source.is_local()
    {
        return store.load(&source, pulling, events).await;
    }
    if path.is_dir() {
        let (path, tag) = (path.to_owned(), None);
        let is_layout = path.join("oci-layout").exists();
        let directory = if is_layout { Source::Oci { dir: path, tag } } else { Source::Dir { path } };
        return store.load(&directory, pulling, events).await;
    }
    load_file(store, (path, Names::InItOrItsOwn), pulling, events).await
}

/// Finds out which of the two formats a file has.
async fn load_file(
    store: &Store,
    (path, names): (&Path, Names),
    pulling: &PullOptions,
    events: Events<'_>,
) -> Result<Vec<Lease>, PullError> {
    let load = async |source: Source| match names {
        Names::InItOrItsOwn => store.load(&source, pulling, events).await,
        Names::InIt => store.load_nameless(&source, pulling, events).await,
    };
    let neither = match load(Source::DockerArchive { path: path.to_owned(), reference: None }).await {
        Err(error) if is_other_format(&error, "docker-archive") => error,
        loaded => return loaded,
    };
    match load(Source::OciArchive { path: path.to_owned(), tag: None }).await {
        Err(error) if is_other_format(&error, "an OCI layout") => Err(neither),
        loaded => loaded,
    }
}

fn is_other_format(error: &PullError, tried: &str) -> bool {
    matches!(error, PullError::Archive(ArchiveError::Format { format, .. }) if *format == tried)
}
