//! `docker-worker check`: what this host offers and lacks, with the remedy.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::operator::Operator;
use super::{HOST_UNFIT, output};
use crate::config::Config;
use crate::host::{self, Facts, Item, Status};

/// Options of `check`.
#[derive(Debug, Args)]
pub struct CheckArguments {
    /// Prints one JSON document.
    #[arg(long)]
    pub json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    status: Status,
    items: &'a [Item],
}

/// Prints the report; the status is 0 when tasks can run.
pub(super) fn main(options: &CheckArguments, config: &Config, operator: &Operator) -> ExitCode {
    let facts = Facts::gather(config);
    let mut items = host::items(&facts);
    items.extend(host::profile_item(&facts));
    items.extend(host::network_items(&config.file.network));
    let status = items.iter().map(|item| item.status).max().unwrap_or(Status::Works);
    let text = if options.json { as_json(status, &items) } else { as_text(status, &items) };
    let exit_status = match status {
        Status::Works | Status::Degraded => ExitCode::SUCCESS,
        Status::Missing => ExitCode::from(HOST_UNFIT),
    };
    output::print(&text, exit_status, operator)
}

/// The last line: what all of it means for tasks.
fn verdict(status: Status, items: &[Item]) -> String {
    let names: Vec<&str> = items.iter().filter(|item| item.status == status).map(|item| item.name).collect();
    match status {
        Status::Works => "Tasks can run here.".to_owned(),
        Status::Degraded => {
            format!("Tasks can run here, with less than they could have: {}.", names.join(", "))
        }
        Status::Missing => format!("No task can run here: {}.", names.join(", ")),
    }
}

fn as_json(status: Status, items: &[Item]) -> String {
    let report = Report { status, items };
    // Plain strings and words: there is nothing that JSON cannot hold.
    serde_json::to_string_pretty(&report).unwrap_or_default() + "\n"
}

fn as_text(status: Status, items: &[Item]) -> String {
    let mut text = String::new();
    for Item { name, status, found, remedy } in items {
        let word = match status {
            Status::Works => "works",
            Status::Degraded => "degraded",
            Status::Missing => "missing",
        };
        text += &format!("{word:<9} {name:<17} {found}\n");
        if let Some(remedy) = remedy {
            text += &format!("{:<27} remedy: {remedy}\n", "");
        }
    }
    text + &format!("\n{}\n", verdict(status, items))
}
