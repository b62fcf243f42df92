//! `docker-worker pull`: images into the store.

use std::process::ExitCode;

use clap::Args;
use images::source::Source;

use super::{hearing, open, operators_options, refused, source, told, until_interrupted};
use crate::cli::operator::Operator;
use crate::cli::refusal::Refusal;
use crate::config::Config;

/// Options of `pull`.
#[derive(Debug, Args)]
pub struct PullArguments {
    /// Names in registries, or archives.
    #[arg(value_name = "IMAGE", required = true, value_parser = source)]
    pub images: Vec<Source>,
    /// Says nothing on standard error but why an image is not there.
    #[arg(short, long)]
    pub quiet: bool,
}

/// Pulls one image after the other, and prints their names.
pub(in crate::cli) fn main(options: &PullArguments, config: Config, operator: &Operator) -> ExitCode {
    told(pull(options, config, operator), operator)
}

fn pull(options: &PullArguments, config: Config, operator: &Operator) -> Result<String, Refusal> {
    let store = open(&config, operator)?;
    let pulling = operators_options(config, operator);
    let events = hearing(operator);
    until_interrupted(operator, &pulling.cancel, async {
        let mut names = String::new();
        for image in &options.images {
            let lease = store.pull(image, &pulling, &events).await.map_err(|error| refused(&error))?;
            names += &format!("{}\n", lease.image().name);
        }
        Ok(names)
    })
}
