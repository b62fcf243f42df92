//! `docker-worker rmi`: names out of the store, and with them what nothing else needs.

use std::process::ExitCode;

use clap::Args;
use images::store::{GcPolicy, Store, StoreError};

use super::named::{Meant, meant};
use super::open;
use crate::cli::operator::Operator;
use crate::cli::refusal::Refusal;
use crate::cli::{FAILED, output};
use crate::config::Config;
use crate::text::excerpt;

/// Options of `rmi`.
#[derive(Debug, Args)]
pub struct RmiArguments {
    /// Names or ids of images in the store.
    #[arg(value_name = "IMAGE", required = true)]
    pub images: Vec<String>,
}

/// Removes them all, or none if one is not there. Prints the names that are gone.
pub(in crate::cli) fn main(options: &RmiArguments, config: &Config, operator: &Operator) -> ExitCode {
    let removed = open(config, operator).and_then(|store| {
        let names = names(&store, &options.images)?;
        remove(&store, &names, operator).map_err(|error| Refusal::because(FAILED, &error))
    });
    match removed {
        Ok(names) => output::print(&names, ExitCode::SUCCESS, operator),
        Err(refusal) => refusal.tell(operator),
    }
}

fn names(store: &Store, words: &[String]) -> Result<Vec<String>, Refusal> {
    let mut names = Vec::new();
    for word in words {
        let shown = excerpt(word);
        match meant(store, word).map_err(|error| Refusal::because(FAILED, &error))? {
            Meant::Name(name) => names.push(name),
            Meant::Id(found) => names.extend(found),
            Meant::Several => {
                let sentence = format!("several images' ids begin with \"{shown}\": write more of it");
                return Err(Refusal::new(FAILED, sentence));
            }
            Meant::Archive(_) | Meant::Nothing => {
                let sentence = format!(
                    "there is no image \"{shown}\" in the store: \"docker-worker images\" lists what there is"
                );
                return Err(Refusal::new(FAILED, sentence));
            }
        }
    }
    names.sort();
    names.dedup();
    Ok(names)
}

fn remove(store: &Store, names: &[String], operator: &Operator) -> Result<String, StoreError> {
    let used = store.used()?;
    let mut gone = String::new();
    for name in names {
        if store.remove_named(name)? {
            gone += &format!("{name}\n");
        }
        if used.contains(name) {
            operator.note(&format!(
                "{name} is in use: what it takes is freed by the next \"docker-worker gc\" after that"
            ));
        }
    }
    store.gc(GcPolicy::Unreferenced)?;
    Ok(gone)
}
