use std::path::PathBuf;

use rusqlite::named_params;

use super::super::{EmbeddedQueue, Part, StoppedQueue};
use super::*;
use crate::queue::definition::Submission;
use crate::queue::task_id::TaskId;
use crate::queue::{RunState, WorkerIdentity, WorkerQueue, runs};
use crate::text::chain;
use crate::timestamp::Timestamp;

/// Makes a database of an earlier version, with a task in it.
fn make_earlier(path: &Path, version: i64, task_id: &TaskId) -> Connection {
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
    database
}

/// Rows of each table, also such as nobody has written.
const FILLING: &str = r#"
    INSERT INTO tasks
        SELECT id, 'p/' || id, 'group', 'completed', 3, 100, NULL, 200, definition, '{"of": "' || id || '"}'
        FROM (SELECT 'named' AS id, '{"metadata": {"name": "a name"}, "more": 1}' AS definition
              UNION ALL SELECT 'nameless', '{"metadata": {}}'
              UNION ALL SELECT 'numbered', '{"metadata": {"name": 5}}'
              UNION ALL SELECT 'malformed', '{"metadata": {"name": "cut o'
              UNION ALL SELECT 'empty', '');
    INSERT INTO artifacts VALUES ('named', 0, 'public/a', 300, '{}', NULL), ('named', 1, 'public/b', 301, '{}', 'word');
    INSERT INTO dependencies VALUES ('named', 'nameless', 0, 0), ('named', 'numbered', 1, 1);
    INSERT INTO task_groups VALUES ('group', 'scheduler', 400, NULL), ('sealed', 'scheduler', 401, 5);
    INSERT INTO workers VALUES ('p/named', 'g', 'w', 1, 2, NULL, '[]'), ('p/named', 'g', 'v', 1, 2, 3, '[]');
    INSERT INTO purges VALUES ('p/named', 'cache', 500);
    INSERT INTO indexed_tasks VALUES ('a.b', 600, '{}');
    INSERT INTO secrets VALUES ('a/b', 700, '{}');
"#;

/// All that is in a database, a line for each row, under the name of its table. The definitions of tasks are rows of their
/// own.
fn contents(database: &Connection) -> Vec<String> {
    let texts = |query: &str| -> Vec<String> {
        let mut statement = database.prepare(query).unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    };
    let mut found = Vec::new();
    for table in texts("SELECT name FROM sqlite_schema WHERE type = 'table'") {
        let columns = texts(&format!("SELECT name FROM pragma_table_info('{table}')"));
        let is_own = |column: &&String| table == "tasks" && *column == "definition";
        let kept: Vec<_> = columns.iter().filter(|it| !is_own(it)).map(|it| format!("quote({it})")).collect();
        found.extend(texts(&format!("SELECT '{table}: ' || {} FROM {table}", kept.join(" || ' ' || "))));
        if columns.iter().any(|column| is_own(&column)) {
            found.extend(texts("SELECT 'definitions: ' || task_id || ' ' || quote(definition) FROM tasks"));
        }
    }
    found.sort();
    found
}

/// The same of a database of this version, where a definition has a name beside it.
fn contents_now(database: &Connection) -> Vec<String> {
    let mut found = contents(database);
    found.retain(|line| !line.starts_with("definitions: "));
    let definitions = "SELECT 'definitions: ' || task_id || ' ' || quote(definition) FROM definitions";
    let mut statement = database.prepare(definitions).unwrap();
    found.extend(statement.query_map([], |row| row.get::<_, String>(0)).unwrap().map(Result::unwrap));
    found.sort();
    found
}

/// A file that cannot be brought up, for its last table is in the way.
fn make_stubborn(path: &Path) -> Connection {
    let database = make_earlier(path, OLDEST, &TaskId::random().unwrap());
    database.execute_batch(FILLING).unwrap();
    database.execute_batch("CREATE TABLE releases (required TEXT) STRICT").unwrap();
    database
}

fn version_of(database: &Connection) -> i64 {
    database.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
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
    drop(make_earlier(&path, OLDEST, &TaskId::random().unwrap()));
    assert_eq!(tables(&in_file(&path).unwrap()), tables(&in_memory().unwrap()));
}

#[test]
fn each_row_of_an_earlier_version_is_there_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("queue.sqlite");
    let earlier = make_earlier(&path, OLDEST, &TaskId::random().unwrap());
    earlier.execute_batch(FILLING).unwrap();
    let mut expected = contents(&earlier);
    drop(earlier);
    // What is no JSON is a text in JSON now.
    for (before, now) in [
        (r#"malformed '{"metadata": {"name": "cut o'"#, r#"malformed '"{\"metadata\": {\"name\": \"cut o"'"#),
        ("empty ''", r#"empty '""'"#),
    ] {
        let line = expected.iter_mut().find(|line| **line == format!("definitions: {before}")).unwrap();
        *line = format!("definitions: {now}");
    }
    expected.sort();
    let database = in_file(&path).unwrap();
    assert_eq!(contents_now(&database), expected);
    let names = "SELECT group_concat(task_id || '=' || name, ' ' ORDER BY task_id) FROM definitions
                 WHERE name <> 'from before'";
    let names: String = database.query_row(names, [], |row| row.get(0)).unwrap();
    assert_eq!(names, "empty= malformed= named=a name nameless= numbered=5");
}

#[tokio::test]
async fn a_task_of_an_earlier_version_whose_definition_is_malformed_is_in_no_others_way() {
    let place = tempfile::tempdir().unwrap();
    let malformed = TaskId::random().unwrap();
    let earlier = make_earlier(&place.path().join("queue.sqlite"), OLDEST, &malformed);
    earlier.execute("UPDATE tasks SET definition = '{\"metadata\": '", []).unwrap();
    drop(earlier);
    let queue = EmbeddedQueue::in_directory(place.path(), Box::new(Timestamp::now)).unwrap();
    let other = TaskId::random().unwrap();
    let submission = Submission::parse(br#"{"image": "i", "maxRunTime": 60}"#).unwrap();
    let task = submission.into_task(&other, queue.now()).unwrap().definition;
    queue.create_task(&other, &task).await.unwrap();
    let worker = WorkerIdentity { worker_group: "g".to_owned(), worker_id: "w".to_owned() };
    let work = WorkerQueue::embedded(queue).claim_work(&task.task_queue_id, &worker, 9).await.unwrap();
    let claimed: Vec<_> = work.claims.iter().map(|claim| claim.queue.run().task_id.clone()).collect();
    assert_eq!(claimed, [malformed, other]);
    assert_eq!(work.claims[0].definition.text(), r#""{\"metadata\": ""#);
}

#[test]
fn what_cannot_be_brought_up_stays_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("queue.sqlite");
    let before = contents(&make_stubborn(&path));
    let told = chain(&in_file(&path).unwrap_err());
    assert!(told.contains(path.to_str().unwrap()) && told.contains("cannot be brought up"), "{told}");
    let database = Connection::open(&path).unwrap();
    assert_eq!((version_of(&database), contents(&database)), (OLDEST, before));
}

#[tokio::test]
async fn a_copy_that_cannot_be_brought_up_takes_nothings_place() {
    let [place, elsewhere] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let task_id = TaskId::random().unwrap();
    drop(make_earlier(&place.path().join("queue.sqlite"), OLDEST, &task_id));
    let copy = elsewhere.path().join("copy");
    drop(make_stubborn(&copy));
    let told = chain(&EmbeddedQueue::restore(place.path(), &copy).unwrap_err());
    assert!(told.contains(copy.to_str().unwrap()) && told.contains("cannot be brought up"), "{told}");
    let queue = EmbeddedQueue::in_directory(place.path(), Box::new(Timestamp::now)).unwrap();
    assert_eq!(queue.status(&task_id).await.unwrap().state, RunState::Pending);
}

#[test]
fn whoever_is_killed_while_tables_are_brought_up_leaves_them_as_they_were() {
    let [place, left] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let path = place.path().join("queue.sqlite");
    let mut database = make_earlier(&path, OLDEST, &TaskId::random().unwrap());
    database.execute_batch(FILLING).unwrap();
    let before = contents(&database);
    prepare(&database).unwrap();
    // So that what is being written gets into the file's log while it is.
    database.pragma_update(None, "cache_size", 1).unwrap();
    let transaction = database.transaction().unwrap();
    transaction.execute_batch(CHANGES[0].1).unwrap();
    for name in ["queue.sqlite", "queue.sqlite-wal"] {
        std::fs::copy(place.path().join(name), left.path().join(name)).unwrap();
    }
    assert_ne!(std::fs::metadata(left.path().join("queue.sqlite-wal")).unwrap().len(), 0);
    let found = Connection::open(left.path().join("queue.sqlite")).unwrap();
    assert_eq!((version_of(&found), contents(&found)), (OLDEST, before.clone()));
    drop(found);
    let brought_up = in_file(&left.path().join("queue.sqlite")).unwrap();
    assert_eq!((version_of(&brought_up), contents_now(&brought_up).len()), (VERSION, before.len()));
}

#[tokio::test]
async fn a_queue_of_an_earlier_version_goes_on_where_it_lies_and_from_a_copy_of_it() {
    let [place, restored] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let file = |name: &str| -> PathBuf { place.path().join(name) };
    let task_id = TaskId::random().unwrap();
    drop(make_earlier(&file("queue.sqlite"), OLDEST, &task_id));
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
fn a_copy_of_a_stopped_queue_of_an_earlier_version_leaves_both_of_that_version() {
    for with_log in [false, true] {
        let [place, elsewhere] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let path = place.path().join("queue.sqlite");
        let mut earlier = make_earlier(&path, OLDEST, &TaskId::random().unwrap());
        if with_log {
            prepare(&earlier).unwrap();
        }
        let change = earlier.transaction().unwrap();
        change.execute_batch(CHANGES[0].1).unwrap();
        change.pragma_update(None, "user_version", 4).unwrap();
        change.commit().unwrap();
        let before = contents(&earlier);
        drop(earlier);
        let queue = StoppedQueue::take(place.path()).unwrap();
        assert!(StoppedQueue::take(place.path()).is_err());
        let copied = elsewhere.path().join("copy");
        let mut file = std::fs::File::create(&copied).unwrap();
        std::io::copy(&mut queue.copy(&mut || true).unwrap(), &mut file).unwrap();
        drop(queue);
        for path in [&path, &copied] {
            let database = Connection::open(path).unwrap();
            assert_eq!((version_of(&database), contents(&database)), (4, before.clone()));
        }
        assert_eq!(std::fs::read_dir(place.path().join("copies")).unwrap().count(), 0);
        EmbeddedQueue::restore(place.path(), &copied).unwrap();
        assert_eq!(version_of(&Connection::open(&path).unwrap()), VERSION);
    }
}

#[test]
fn a_version_that_is_not_known_is_refused_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    for version in [OLDEST - 1, VERSION + 1] {
        let path = directory.path().join(version.to_string());
        drop(make_earlier(&path, version, &TaskId::random().unwrap()));
        let told = chain(&in_file(&path).unwrap_err());
        assert!(told.contains(&format!("it is of version {version},")), "{told}");
        let database = Connection::open(&path).unwrap();
        assert!(
            database.query_row("SELECT definition FROM tasks", [], |row| row.get::<_, String>(0)).is_ok()
        );
    }
}
