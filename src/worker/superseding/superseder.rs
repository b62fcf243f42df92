//! The question to a superseder: which tasks supersede this one?

use std::io::Read;
use std::time::Duration;

use flate2::read::MultiGzDecoder;
use images::store::Encoding;
use serde::Deserialize;
use tokio::time::timeout;

use crate::download::{DownloadError, Downloader};
use crate::payload::superseder::question;
use crate::queue::task_id::TaskId;
use crate::queue::{ArtifactPlace, Custody};
use crate::text::excerpt;

/// How long a superseder has for its answer.
const TIME: Duration = Duration::from_secs(5);

/// Bytes of an answer, as it is sent and as it is read.
const BYTES: u64 = 1 << 20;

/// Tasks that may stand in a list: each of them is claimed.
const TASKS: usize = 100;

/// Why a task is carried out alone.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Alone {
    /// Nothing supersedes it: in the original's words.
    NotSuperseding(&'static str),
    /// The superseder does not say: one sentence.
    Error(String),
}

/// Asks for the tasks that supersede one, in order, with itself among them.
pub(super) async fn ask(
    downloader: &Downloader,
    (url, custody): (&str, Custody),
    task_id: &TaskId,
) -> Result<Vec<TaskId>, Alone> {
    let place = ArtifactPlace { url: question(url, task_id), custody };
    let failed = |why: &str| {
        Alone::Error(format!("failed to ask which tasks supersede {task_id}: {}: {why}", excerpt(url)))
    };
    match timeout(TIME, answer(downloader, &place)).await {
        Ok(Ok(answer)) => read(&answer, task_id).map_err(|alone| match alone {
            Alone::Error(why) => failed(&why),
            alone @ Alone::NotSuperseding(_) => alone,
        }),
        Ok(Err(error)) => Err(failed(&error.to_string())),
        Err(_) => Err(failed(&format!("it has not answered in {} s", TIME.as_secs()))),
    }
}

async fn answer(downloader: &Downloader, place: &ArtifactPlace) -> Result<Vec<u8>, DownloadError> {
    let too_long = || DownloadError::Refused(format!("the answer has more than {BYTES} bytes"));
    let mut download = downloader.begin(place, None).await?;
    let mut sent = Vec::new();
    while let Some(chunk) = download.chunk().await? {
        sent.extend_from_slice(&chunk);
        if sent.len() as u64 > BYTES {
            return Err(too_long());
        }
    }
    match download.encoding {
        Encoding::Identity => Ok(sent),
        Encoding::Gzip => {
            let mut answer = Vec::new();
            let inflated = MultiGzDecoder::new(sent.as_slice()).take(BYTES + 1).read_to_end(&mut answer);
            inflated.map_err(|error| DownloadError::Refused(format!("inflate the answer: {error}")))?;
            if answer.len() as u64 > BYTES { Err(too_long()) } else { Ok(answer) }
        }
    }
}

/// What an answer says of a task.
fn read(answer: &[u8], task_id: &TaskId) -> Result<Vec<TaskId>, Alone> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        supersedes: Option<Vec<String>>,
    }
    let answer: Answer = serde_json::from_slice(answer)
        .map_err(|error| Alone::Error(format!("the answer is no list of tasks: {error}")))?;
    let names = answer.supersedes.unwrap_or_default();
    if names.is_empty() {
        return Err(Alone::NotSuperseding("no tasks supersede this one"));
    }
    if names.len() > TASKS {
        return Err(Alone::Error(format!("it lists more than {TASKS} tasks")));
    }
    let mut list = Vec::new();
    for name in &names {
        let listed = TaskId::parse(name)
            .map_err(|_| Alone::Error(format!("it lists \"{}\", which is no task id", excerpt(name))))?;
        // Then none of the two orders would be the right one.
        if list.contains(&listed) {
            return Err(Alone::Error(format!("it lists {listed} twice")));
        }
        list.push(listed);
    }
    if !list.contains(task_id) {
        return Err(Alone::NotSuperseding("initial taskId not included in result from superseder"));
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tasks(count: usize) -> Vec<TaskId> {
        (0..count).map(|_| TaskId::random().unwrap()).collect()
    }

    fn listing(tasks: &[TaskId]) -> Vec<u8> {
        let names: Vec<_> = tasks.iter().map(TaskId::as_str).collect();
        serde_json::to_vec(&serde_json::json!({ "supersedes": names, "more": [1] })).unwrap()
    }

    #[test]
    fn the_order_of_the_list_is_kept() {
        let all = tasks(TASKS);
        assert_eq!(read(&listing(&all), &all[7]), Ok(all.clone()));
    }

    #[test]
    fn an_answer_that_names_nobody_else_leaves_a_task_alone() {
        let all = tasks(2);
        for (answer, message) in [
            (b"{}".to_vec(), "no tasks supersede this one"),
            (br#"{"supersedes": []}"#.to_vec(), "no tasks supersede this one"),
            (br#"{"supersedes": null}"#.to_vec(), "no tasks supersede this one"),
            (listing(&all[1..]), "initial taskId not included in result from superseder"),
        ] {
            assert_eq!(read(&answer, &all[0]), Err(Alone::NotSuperseding(message)));
        }
    }

    #[test]
    fn an_answer_that_is_no_order_of_tasks_is_an_error() {
        let all = tasks(TASKS + 1);
        let twice = [&all[..2], &all[..1]].concat();
        let wrong = br#"{"supersedes": ["../../etc"]}"#.to_vec();
        for answer in [b"<html>".to_vec(), b"7".to_vec(), listing(&twice), wrong, listing(&all)] {
            assert!(matches!(read(&answer, &all[0]), Err(Alone::Error(_))));
        }
    }
}
