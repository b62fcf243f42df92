//! Where the task comes from: a file, the command line alone, or a deployment.

use std::error::Error;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::options::RunArguments;
use super::{MALFORMED, deployed, wrong_use};
use crate::cli::help::image_called;
use crate::cli::operator::Operator;
use crate::cli::refusal::Refusal;
use crate::cli::{HOST_UNFIT, WRONG_USE};
use crate::limits;
use crate::queue::definition::{Submission, Submitted};
use crate::queue::task_id::TaskId;
use crate::timestamp::Timestamp;

/// What a task is read from that comes over standard input.
const STANDARD_INPUT: &str = "-";

/// Reads the task, before anything of the host is touched.
pub(super) fn submit(options: &RunArguments, operator: &Operator) -> Result<(TaskId, Submitted), Refusal> {
    let mut submission = match (&options.task, &options.root_url, &options.task_id) {
        (Some(path), _, _) => {
            let bytes = read_task(path).map_err(|error| unreadable(path, &error))?;
            Submission::parse(&bytes).map_err(|error| malformed(options, &error))?
        }
        (None, Some(root_url), Some(task_id)) => deployed::fetch(root_url, task_id, operator)?,
        (None, None, _) | (None, Some(_), None) => options.bare_payload(),
    };
    options.apply(&mut submission).map_err(|error| wrong_use(&error))?;
    let no_id = |error| Refusal::new(HOST_UNFIT, format!("failed to make a task id: {error}"));
    let task_id = options.task_id.clone().map_or_else(TaskId::random, Ok).map_err(no_id)?;
    let submitted =
        submission.into_task(&task_id, Timestamp::now()).map_err(|error| malformed(options, &error))?;
    Ok((task_id, submitted))
}

/// What is wrong with a task, and in which file, where it comes from one.
fn malformed(options: &RunArguments, error: &dyn Error) -> Refusal {
    let refusal = Refusal::because(MALFORMED, error);
    match &options.task {
        Some(path) if path.as_os_str() == STANDARD_INPUT => {
            Refusal::new(MALFORMED, format!("standard input: {}", refusal.sentence))
        }
        Some(path) => Refusal::new(MALFORMED, format!("{}: {}", path.display(), refusal.sentence)),
        None => refusal,
    }
}

fn read_task(path: &Path) -> io::Result<Vec<u8>> {
    // One byte more than is allowed, so that the limit is noticed.
    let most = limits::DEFINITION_BYTES as u64 + 1;
    let mut bytes = Vec::new();
    if path.as_os_str() == STANDARD_INPUT {
        io::stdin().lock().take(most).read_to_end(&mut bytes)?;
    } else {
        File::open(path)?.take(most).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

fn unreadable(path: &Path, error: &io::Error) -> Refusal {
    let hint = match image_called(path) {
        Some(image) => format!("; to run the image of that name: docker-worker run --image {image}"),
        None => String::new(),
    };
    Refusal::new(WRONG_USE, format!("failed to read the task file {}: {error}{hint}", path.display()))
}
