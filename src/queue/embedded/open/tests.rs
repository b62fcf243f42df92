use std::path::PathBuf;

use rusqlite::named_params;

use super::super::{EmbeddedQueue, Part};
use super::*;
use crate::queue::definition::Submission;
use crate::queue::task_id::TaskId;
use crate::queue::{RunState, runs};
use crate::text::chain;
use crate::timestamp::Timestamp;

/// Makes a database of an earlier version in a directory, with a task in it.
fn make_earlier(path: &Path, version: i64, task_id: &TaskId) {
    let database = Connection::open(path).unwrap();
    database.execute_batch(include_str!("version_3.sql")).unwrap();
    database.pragma_update(None, "application_id", APPLICATION).unwrap();
    database.pragma_update(None, "user_version", version).unwrap();
    let submission = Submission::parse(br#"{"image": "i", "maxRunTime": 60}"#).unwrap();
    let mut task = submission.into_task(task_id, Timestamp::now()).unwrap().definition;
    task.metadata.name = "from before".to_owned();
    let mut status = runs::define(task_id, &task);
    runs::schedule(&mut status, Timestamp::now());
    let insert =
        "INSERT INTO tasks VALUES (:task_id, :task_queue_id, :task_id, 'pending', 0, :since, :due, :expires,
                  :definition, :status)";
    let values = named_params! {
        ":task_id": task_id.as_str(),
        ":task_queue_id": task.task_queue_id,
        ":since": runs::since(&status).unwrap().as_millis(),
        ":due": task.deadline.as_millis(),
        ":expires": task.expires.as_millis(),
        ":definition": serde_json::to_string(&task).unwrap(),
        ":status": serde_json::to_string(&status).unwrap(),
    };
    database.execute(insert, values).unwrap();
}

/// The columns of all tables, and the indices.
fn tables(database: &Connection) -> Vec<String> {
    let columns = "SELECT format('%s.%s %s %d %d', tables.name, columns.name, columns.type, \"notnull\", pk)
                   FROM sqlite_schema AS tables JOIN pragma_table_info(tables.name) AS columns
                   WHERE tables.type = 'table'
                   UNION SELECT name FROM sqlite_schema WHERE type = 'index' ORDER BY 1";
    let mut statement = database.prepare(columns).unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
}

#[test]
fn the_tables_of_an_earlier_version_become_those_of_this_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("queue.sqlite");
    make_earlier(&path, OLDEST, &TaskId::random().unwrap());
    assert_eq!(tables(&in_file(&path).unwrap()), tables(&in_memory().unwrap()));
}

#[tokio::test]
async fn a_queue_of_an_earlier_version_goes_on_where_it_lies_and_from_a_copy_of_it() {
    let [place, restored] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let file = |name: &str| -> PathBuf { place.path().join(name) };
    let task_id = TaskId::random().unwrap();
    make_earlier(&file("queue.sqlite"), OLDEST, &task_id);
    EmbeddedQueue::restore(restored.path(), &file("queue.sqlite")).unwrap();
    for directory in [place.path(), restored.path()] {
        let queue = EmbeddedQueue::in_directory(directory, Box::new(Timestamp::now)).unwrap();
        assert_eq!(queue.status(&task_id).await.unwrap().state, RunState::Pending);
        let definition = queue.definition(&task_id).await.unwrap();
        assert!(definition.text().contains(r#""name":"from before""#), "{}", definition.text());
        let recent = queue.recent_tasks(Part { after: None, most: 9 }).await.unwrap();
        assert_eq!(recent.items.iter().map(|task| task.name.as_str()).collect::<Vec<_>>(), ["from before"]);
    }
}

#[test]
fn a_version_that_is_not_known_is_refused_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    for version in [OLDEST - 1, VERSION + 1] {
        let path = directory.path().join(version.to_string());
        make_earlier(&path, version, &TaskId::random().unwrap());
        let told = chain(&in_file(&path).unwrap_err());
        assert!(told.contains(&format!("it is of version {version},")), "{told}");
        let database = Connection::open(&path).unwrap();
        assert!(
            database.query_row("SELECT definition FROM tasks", [], |row| row.get::<_, String>(0)).is_ok()
        );
    }
}
