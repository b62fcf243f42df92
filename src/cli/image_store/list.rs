//! `docker-worker images`: what is in the store.

use std::collections::HashMap;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use images::image::Image;
use images::reference::Reference;
use images::store::{StoreError, StoreUsage};
use serde::Serialize;

use super::open;
use super::table::{size, table};
use crate::cli::operator::Operator;
use crate::cli::refusal::Refusal;
use crate::cli::{FAILED, output};
use crate::config::Config;
use crate::text::escaped;
use crate::timestamp::Timestamp;

/// Options of `images`.
#[derive(Debug, Args)]
pub struct ImagesArguments {
    /// Prints one JSON document.
    #[arg(long)]
    pub json: bool,
}

/// All of it, as JSON has it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    /// The largest first.
    images: Vec<ListedImage>,
    /// Bytes of what several of them need.
    shared_bytes: u64,
    /// Bytes of what none needs.
    other_bytes: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ListedImage {
    id: String,
    names: Vec<String>,
    /// Nothing where the image is damaged: the next one who uses it makes it again.
    #[serde(flatten)]
    whole: Option<Whole>,
    last_used: Timestamp,
    is_used: bool,
    own_bytes: u64,
    shared_bytes: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Whole {
    /// Of its manifest.
    digest: String,
    architecture: String,
    layers: usize,
    /// Bytes of the files in its layers.
    content_bytes: u64,
}

/// Prints them.
pub(in crate::cli) fn main(options: &ImagesArguments, config: &Config, operator: &Operator) -> ExitCode {
    let listed = open(config, operator).and_then(|store| {
        let listed = store.usage(&|| true).and_then(|usage| Ok(listed(usage, store.list()?)));
        listed.map_err(|error: StoreError| Refusal::because(FAILED, &error))
    });
    match listed {
        Ok(listed) => {
            let text = if options.json { as_json(&listed) } else { as_table(&listed) };
            output::print(&text, ExitCode::SUCCESS, operator)
        }
        Err(refusal) => refusal.tell(operator),
    }
}

fn listed(usage: StoreUsage, whole: Vec<Image>) -> Listed {
    let mut whole: HashMap<_, _> = whole.into_iter().map(|image| (image.id.clone(), image)).collect();
    let images = usage.images.into_iter().map(|image| ListedImage {
        whole: whole.remove(&image.id).map(|image| Whole {
            digest: image.digest.to_string(),
            architecture: image.config.architecture,
            layers: image.layers.len(),
            content_bytes: image.size_bytes,
        }),
        id: image.id.to_string(),
        names: image.names,
        last_used: timestamp(image.last_used),
        is_used: image.is_used,
        own_bytes: image.own_bytes,
        shared_bytes: image.shared_bytes,
    });
    Listed { images: images.collect(), shared_bytes: usage.shared_bytes, other_bytes: usage.other_bytes }
}

fn timestamp(time: SystemTime) -> Timestamp {
    let millis = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis();
    Timestamp::from_millis(i64::try_from(millis).unwrap_or(i64::MAX))
}

fn as_json(listed: &Listed) -> String {
    // Plain strings and numbers: there is nothing that JSON cannot hold.
    serde_json::to_string_pretty(listed).unwrap_or_default() + "\n"
}

/// A line for each name, in the order of names.
fn as_table(listed: &Listed) -> String {
    let mut rows = Vec::new();
    for image in &listed.images {
        let id = image.id.split_once(':').map_or("", |(_, hex)| hex);
        for name in &image.names {
            let content = image.whole.as_ref().map(|whole| size(whole.content_bytes));
            rows.push([
                familiar(name),
                id.get(..12).unwrap_or(id).to_owned(),
                content.unwrap_or_else(|| "damaged".to_owned()),
                size(image.own_bytes),
                size(image.shared_bytes),
                if image.is_used { "now".to_owned() } else { image.last_used.to_string() },
            ]);
        }
    }
    rows.sort();
    table(["NAME", "ID", "CONTENT", "OWN", "SHARED", "LAST USED"], &rows)
}

/// As people write it; a name that is no registry's is somebody's word.
fn familiar(name: &str) -> String {
    match Reference::parse(name) {
        Ok(reference) => reference.familiar(),
        Err(_) => escaped(name).to_string(),
    }
}
