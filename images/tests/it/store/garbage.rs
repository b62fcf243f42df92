//! Garbage collection by age, and one that is killed or called back in the midst of its work.
use std::cell::Cell;
use std::fs::{self, File, FileTimes};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use images::store::{Collected, GcPolicy, StoreError};
use rustix::process::{Signal, getpid, kill_process};

use crate::sample::{Compression, Sample, TestStore, noise_tar, open_store};
use crate::store::{check_content, find, find_leased, pull, pull_leased, source};

const HOUR: Duration = Duration::from_secs(3600);

/// Makes it look as if no name had been used for so long.
fn unused_for(test: &TestStore, age: Duration) {
    let then = FileTimes::new().set_modified(SystemTime::now() - age);
    for name in fs::read_dir(test.root().join("names")).unwrap() {
        let file = File::options().write(true).open(name.unwrap().path()).unwrap();
        file.set_times(then).unwrap();
    }
}

fn unused_since(test: &TestStore, age: Duration) -> Collected {
    test.store.gc(GcPolicy::UnusedSince(SystemTime::now() - age)).unwrap()
}

fn layouts<const N: usize>(directory: &Path) -> [String; N] {
    std::array::from_fn(|number| {
        let sample = Sample::of(&[noise_tar(&number.to_string(), 10_000)], Compression::Gzip);
        sample.write_layout(&directory.join(number.to_string()))
    })
}

#[test]
fn what_nobody_has_used_for_long_goes_and_what_is_leased_is_used_now() {
    let directory = tempfile::tempdir_in(crate::DISK).unwrap();
    let test = TestStore::new();
    let [old, leased, fresh] = layouts(directory.path());
    pull(&test.store, &old).unwrap();
    let lease = pull_leased(&test.store, &leased).unwrap();
    unused_for(&test, 2 * HOUR);
    pull(&test.store, &fresh).unwrap();
    assert_eq!(unused_since(&test, 3 * HOUR), Collected::default());
    assert_eq!(test.store.used().unwrap(), std::slice::from_ref(&leased));

    let collected = unused_since(&test, HOUR);
    assert_eq!(collected, Collected { names: vec![old], images: 1, layers: 1, blobs: 3 });
    // From the end of its use on it stays as long as others.
    drop(lease);
    assert_eq!(test.store.used().unwrap(), [""; 0]);
    assert_eq!(unused_since(&test, HOUR), Collected::default());
    unused_for(&test, 2 * HOUR);
    let mut both = unused_since(&test, HOUR).names;
    both.sort();
    assert_eq!(both, [leased, fresh]);
    assert!(test.store.list().unwrap().is_empty());
}

#[test]
fn an_image_goes_with_the_last_of_its_names() {
    let directory = tempfile::tempdir_in(crate::DISK).unwrap();
    let test = TestStore::new();
    let sample = Sample::small(Compression::Gzip);
    let names = ["one", "two"].map(|name| sample.write_layout(&directory.path().join(name)));
    pull(&test.store, &names[0]).unwrap();
    unused_for(&test, 2 * HOUR);
    let lease = pull_leased(&test.store, &names[1]).unwrap();
    // The image is used, whatever it is called.
    assert_eq!(unused_since(&test, HOUR), Collected::default());
    drop(lease);
    assert!(test.store.remove(&source(&names[0])).unwrap());
    assert_eq!(unused_since(&test, HOUR), Collected::default());
    unused_for(&test, 2 * HOUR);
    assert_eq!(unused_since(&test, HOUR).images, 1);
}

#[test]
fn whoever_calls_it_back_gets_the_rest_of_the_work_done_later() {
    let directory = tempfile::tempdir_in(crate::DISK).unwrap();
    let test = TestStore::new();
    let empty = test.files();
    let [name] = layouts(directory.path());
    let mut asked = 0;
    // Called back at each question in turn, until none is left to be asked.
    for limit in 0.. {
        pull(&test.store, &name).unwrap();
        let questions = Cell::new(0);
        let wanted = || questions.replace(questions.get() + 1) < limit;
        test.store.gc_while(GcPolicy::All, &wanted).unwrap();
        asked = asked.max(questions.get());
        if questions.get() <= limit {
            break;
        }
        if let Some(lease) = find_leased(&test.store, &name) {
            assert_eq!(lease.image().name, name);
        }
    }
    assert!(asked > 5, "{asked}");
    test.store.gc(GcPolicy::All).unwrap();
    assert_eq!(test.files(), empty);
}

#[test]
fn whoever_waits_for_another_process_can_be_called_back() {
    let test = TestStore::new();
    let lock = test.root().join("lock");
    let held = File::options().read(true).write(true).create(true).truncate(false).open(&lock).unwrap();
    held.lock().unwrap();
    let questions = Cell::new(0);
    let wanted = || questions.replace(questions.get() + 1) < 3;
    let ended = test.store.gc_while(GcPolicy::Unreferenced, &wanted);
    assert!(matches!(&ended, Err(StoreError::Unwanted { path }) if *path == lock), "{ended:?}");
}

/// Names the store, for a child; and the question at which it is killed.
const STORE: &str = "IMAGES_TEST_GC_STORE";
const QUESTION: &str = "IMAGES_TEST_GC_QUESTION";

/// In a child: collects everything, is killed at the question that it was told, and is true otherwise.
fn collected_as_child() -> bool {
    let (Some(root), Ok(question)) = (std::env::var_os(STORE), std::env::var(QUESTION)) else {
        return false;
    };
    let (store, rest) = (open_store(Path::new(&root)), Cell::new(question.parse::<u32>().unwrap()));
    let wanted = || {
        if rest.get() == 0 {
            kill_process(getpid(), Signal::KILL).unwrap();
        }
        rest.set(rest.get() - 1);
        true
    };
    store.gc_while(GcPolicy::All, &wanted).unwrap();
    true
}

#[test]
fn a_collection_killed_between_any_two_steps_leaves_whole_images_or_none() {
    if collected_as_child() {
        return;
    }
    let directory = tempfile::tempdir_in(crate::DISK).unwrap();
    let test = TestStore::new();
    let empty = test.files();
    let name = Sample::small(Compression::Gzip).write_layout(directory.path());
    let me = "store::garbage::a_collection_killed_between_any_two_steps_leaves_whole_images_or_none";
    let mut killed = 0;
    for question in 0.. {
        let image = pull(&test.store, &name).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", me]).env(STORE, test.root()).env(QUESTION, question.to_string());
        if child.output().unwrap().status.success() {
            break;
        }
        killed += 1;
        // As the next process finds it, which may come at any time.
        let store = open_store(&test.root());
        assert!(store.list().unwrap().iter().all(|found| *found == image), "{question}");
        check_content(&store, &pull_leased(&store, &name).unwrap());
        store.gc(GcPolicy::All).unwrap();
        assert_eq!(test.files(), empty, "{question}");
    }
    assert!(killed > 8, "{killed}");
    assert!(find(&test.store, &name).is_none());
}
