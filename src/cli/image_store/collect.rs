//! `docker-worker gc`: room in the store.

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::Args;
use images::store::{Collected, GcPolicy, Store, StoreError};

use super::open;
use super::table::size;
use crate::cli::operator::Operator;
use crate::cli::refusal::Refusal;
use crate::cli::{FAILED, output};
use crate::config::Config;
use crate::host;
use crate::units::{parse_bytes, parse_seconds};

/// Options of `gc`.
#[derive(Debug, Args)]
pub struct GcArguments {
    /// Also images that nobody has used for so long, e.g. 7d or 12h.
    #[arg(long, value_name = "TIME", value_parser = parse_seconds, conflicts_with_all = ["until_free", "all"])]
    pub unused_for: Option<u64>,
    /// Until the disk has so much free, e.g. 20G: layers as they came first, then images, those used longest ago before
    /// others.
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, conflicts_with = "all")]
    pub until_free: Option<u64>,
    /// All images that no task uses.
    #[arg(long)]
    pub all: bool,
}

/// Collects, and prints the names that are gone.
pub(in crate::cli) fn main(options: &GcArguments, config: &Config, operator: &Operator) -> ExitCode {
    let collected = open(config, operator).and_then(|store| {
        let (collected, freed) =
            collect(options, &store, config).map_err(|error| Refusal::because(FAILED, &error))?;
        operator.note(&sentence(&collected, freed));
        Ok(collected.names.iter().map(|name| format!("{name}\n")).collect::<String>())
    });
    match collected {
        Ok(names) => output::print(&names, ExitCode::SUCCESS, operator),
        Err(refusal) => refusal.tell(operator),
    }
}

fn collect(options: &GcArguments, store: &Store, config: &Config) -> Result<(Collected, u64), StoreError> {
    let before = bytes(store)?;
    let root = config.directories.images();
    let has_enough = || {
        // Where nobody knows, nothing is removed for it.
        host::free_bytes(&root).zip(options.until_free).is_none_or(|(free, wanted)| free >= wanted)
    };
    let policy = match (options.unused_for, options.until_free) {
        (Some(seconds), _) => {
            let then = SystemTime::now().checked_sub(Duration::from_secs(seconds));
            GcPolicy::UnusedSince(then.unwrap_or(SystemTime::UNIX_EPOCH))
        }
        (None, Some(_)) => GcPolicy::Until(&has_enough),
        (None, None) if options.all => GcPolicy::All,
        (None, None) => GcPolicy::Unreferenced,
    };
    let collected = store.gc(policy)?;
    Ok((collected, before.saturating_sub(bytes(store)?)))
}

/// What all of the store takes.
fn bytes(store: &Store) -> Result<u64, StoreError> {
    let usage = store.usage(&|| true)?;
    let own: u64 = usage.images.iter().map(|image| image.own_bytes).sum();
    Ok(own + usage.shared_bytes + usage.other_bytes)
}

fn sentence(collected: &Collected, freed: u64) -> String {
    let Collected { names, images, layers, blobs } = collected;
    format!(
        "{} of the store freed: {} names, {images} images, {layers} layers and {blobs} blobs are gone",
        size(freed),
        names.len()
    )
}
