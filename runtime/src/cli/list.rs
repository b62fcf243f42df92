//! `list` and `state`: what is known of containers.

use lexopt::Arg;
use serde::Serialize;

use super::log::rfc_3339;
use super::{Global, Problem, only_id, print};
use crate::execute::sentence;
use crate::id::ContainerId;
use crate::spec::on_one_line;
use crate::state::{self, ContainerDirectory, Known, StateError, Status};

/// How a list is printed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Table,
    Ids,
    Json,
}

/// One line of `list --format json`, with runc's names.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    oci_version: &'static str,
    id: String,
    pid: i32,
    status: Status,
    bundle: String,
    created: String,
}

pub(super) fn list(global: &Global, mut arguments: lexopt::Parser) -> Result<u8, Problem> {
    let mut form = Form::Table;
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Long("quiet") | Arg::Short('q') => form = Form::Ids,
            Arg::Long("format") | Arg::Short('f') => {
                form = match arguments.value()?.to_str() {
                    Some("table") => Form::Table,
                    Some("json") => Form::Json,
                    other => return Err(Problem::Usage(format!("unknown format {other:?}: table or json"))),
                };
            }
            other => return Err(other.unexpected().into()),
        }
    }
    let ids = state::list(&global.root).map_err(|error| Problem::because("list containers", &error))?;
    let mut rows = Vec::new();
    for id in ids {
        match ContainerDirectory::open(&global.root, &id).and_then(|directory| directory.look()) {
            Ok(known) => rows.push(row(&id, &known)),
            Err(StateError::Missing { .. }) => {} // It ended while we were looking.
            // As runc: one that cannot be read hides none of the others.
            Err(error) => global.log.warning(&format!("failed to list {id}: {}", sentence(&error))),
        }
    }
    print(&render(&rows, form))
}

fn row(id: &ContainerId, known: &Known) -> Row {
    let state = known.state.as_ref();
    Row {
        oci_version: state::OCI_VERSION,
        id: id.to_string(),
        pid: state.filter(|_| known.init.is_some()).map_or(0, |state| state.pid),
        status: known.status,
        bundle: state.map(|state| state.bundle.display().to_string()).unwrap_or_default(),
        created: state.map(|state| rfc_3339(state.created)).unwrap_or_default(),
    }
}

fn render(rows: &[Row], form: Form) -> String {
    match form {
        Form::Json => serde_json::to_string(rows).unwrap_or_default() + "\n",
        Form::Ids => rows.iter().map(|row| format!("{}\n", row.id)).collect(),
        Form::Table => {
            let width = rows.iter().map(|row| row.id.len()).fold(2, usize::max);
            let mut text =
                format!("{:width$}  {:>7}  {:8}  {:20}  BUNDLE\n", "ID", "PID", "STATUS", "CREATED");
            for Row { id, pid, status, created, bundle, .. } in rows {
                let bundle = on_one_line(bundle.chars());
                text += &format!("{id:width$}  {pid:>7}  {status:8}  {created:20}  {bundle}\n");
            }
            text
        }
    }
}

pub(super) fn state(global: &Global, arguments: lexopt::Parser) -> Result<u8, Problem> {
    let id = only_id(arguments)?;
    let because = |error: &dyn std::error::Error| Problem::because(&format!("tell the state of {id}"), error);
    let directory = ContainerDirectory::open(&global.root, &id).map_err(|error| because(&error))?;
    let known = directory.look().map_err(|error| because(&error))?;
    match known.state {
        Some(mut state) => {
            state.annotations = directory.spec().map_err(|error| because(&error))?.annotations;
            print(&(state.to_oci(known.status) + "\n"))
        }
        None => Err(Problem::Failed(format!(
            "failed to tell the state of {id}: it is being created, or a crash left it so; `delete {id}` then"
        ))),
    }
}
