use std::time::Duration;

use super::*;

fn caches() -> (tempfile::TempDir, Caches) {
    let directory = tempfile::tempdir().unwrap();
    let caches = reopen(&directory, &[]);
    (directory, caches)
}

/// What a next worker sees, if the containers `there` have resisted.
fn reopen(directory: &tempfile::TempDir, there: &[&str]) -> Caches {
    let caches = Caches::open(&directory.path().join("caches")).unwrap();
    let there = there.iter().map(|&id| id.to_owned()).collect();
    caches.sweep(|| Ok::<_, CacheError>(there)).unwrap();
    caches
}

fn take(caches: &Caches, name: &str) -> CacheLease {
    caches.take(name, &ContainerId::new("container").unwrap(), &|| true).unwrap()
}

fn release(lease: CacheLease, fate: Fate) {
    if let Some(discarded) = lease.release(fate).unwrap() {
        discarded.remove().unwrap();
    }
}

/// Purges what there is of a cache now: how many instances are out of reach, and how many are in use.
fn purge(caches: &Caches, name: &str) -> (usize, usize) {
    let before = Timestamp::from_millis(Timestamp::now().as_millis() + 1);
    let purged = caches.purge(&[PurgeRequest { cache_name: name.to_owned(), before }], &|| true).unwrap();
    let counts = (purged.discarded.len(), purged.in_use.len());
    purged.discarded.into_iter().try_for_each(Discarded::remove).unwrap();
    counts
}

/// What lies in the trash.
fn trash(directory: &tempfile::TempDir) -> usize {
    let entries = std::fs::read_dir(directory.path().join("caches/trash")).unwrap();
    entries.filter(|entry| is_id(entry.as_ref().unwrap().file_name().to_str().unwrap())).count()
}

fn put(lease: &CacheLease, text: &str) {
    std::fs::write(lease.content().join("file"), text).unwrap();
}

fn get(lease: &CacheLease) -> Option<String> {
    std::fs::read_to_string(lease.content().join("file")).ok()
}

#[test]
fn who_is_there_is_asked_when_nobody_can_take_an_instance_any_more() {
    let (_directory, caches) = caches();
    let there = || {
        let taken = caches.take("late", &ContainerId::new("container").unwrap(), &|| false);
        assert!(matches!(&taken, Err(CacheError::Place(_))), "{taken:?}");
        Ok::<_, CacheError>(BTreeSet::new())
    };
    caches.leftovers(there, &|| true).unwrap();
    take(&caches, "late");
}

#[test]
fn a_cache_persists_over_restarts() {
    let (directory, caches) = caches();
    let lease = take(&caches, "level-1");
    assert_eq!(lease.origin(), Origin::Miss);
    put(&lease, "kept");
    release(lease, Fate::Keep);
    let lease = take(&reopen(&directory, &[]), "level-1");
    assert_eq!((lease.origin(), get(&lease).as_deref()), (Origin::Hit, Some("kept")));
}

#[test]
fn two_tasks_never_share_an_instance() {
    let (directory, caches) = caches();
    let first = take(&caches, "shared");
    put(&first, "first");
    let second = take(&reopen(&directory, &[]), "shared");
    assert_eq!((second.origin(), get(&second)), (Origin::Miss, None));
    release(first, Fate::Keep);
    release(second, Fate::Keep);
    let (third, fourth) = (take(&caches, "shared"), take(&caches, "shared"));
    assert_eq!((third.origin(), fourth.origin()), (Origin::Hit, Origin::Hit));
    assert_ne!(third.content(), fourth.content());
}

#[test]
fn what_is_given_back_is_free_at_once_although_a_process_is_being_started() {
    let (_directory, caches) = caches();
    let lease = take(&caches, "x");
    let as_a_forked_process_has_it = lease.lock.try_clone().unwrap();
    release(lease, Fate::Keep);
    assert_eq!(take(&caches, "x").origin(), Origin::Hit);
    drop(as_a_forked_process_has_it);
}

#[test]
fn the_one_that_was_used_last_is_taken_first() {
    let (_directory, caches) = caches();
    let (first, second) = (take(&caches, "x"), take(&caches, "x"));
    put(&first, "first");
    put(&second, "second");
    release(second, Fate::Keep);
    let mut record = first.record.clone();
    record.last_used = Timestamp::from_millis(Timestamp::now().as_millis() + 60_000);
    record.used_by = None;
    record.write(&caches.instance(&first.id)).unwrap();
    drop(first);
    assert_eq!(get(&take(&caches, "x")).as_deref(), Some("first"));
}

#[test]
fn what_is_purged_or_unknown_or_left_in_use_is_gone_after_a_restart() {
    let (directory, caches) = caches();
    release(take(&caches, "purged"), Fate::Purge);
    drop(take(&caches, "left in use")); // The worker died.
    std::fs::create_dir(directory.path().join("caches").join("0".repeat(2 * ID_BYTES))).unwrap();
    let kept = take(&caches, "held");
    let caches = reopen(&directory, &[]);
    let left = caches.entries().unwrap().own;
    assert_eq!(left, BTreeSet::from([kept.id.clone()]));
    assert_eq!(take(&caches, "left in use").origin(), Origin::Miss);
}

#[test]
fn a_cache_stays_as_long_as_the_container_that_may_write_to_it_and_is_nobody_elses() {
    let (directory, caches) = caches();
    let content = take(&caches, "x").content(); // The worker died.
    let caches = reopen(&directory, &["container"]);
    assert!(content.exists());
    assert_eq!(take(&caches, "x").origin(), Origin::Miss);
    reopen(&directory, &[]);
    assert!(!content.exists());
}

#[test]
fn what_the_worker_did_not_make_is_left_alone_and_named() {
    let (directory, caches) = caches();
    let place = directory.path().join("caches");
    for name in ["home", "0123456789abcdef", &"A".repeat(2 * ID_BYTES)] {
        std::fs::create_dir_all(place.join(name).join("files")).unwrap();
    }
    std::fs::create_dir(place.join("trash/files")).unwrap();
    let foreign = caches.sweep(|| Ok::<_, CacheError>(BTreeSet::new())).unwrap();
    let foreign: Vec<String> = foreign.iter().map(Foreign::to_string).collect();
    assert!(foreign[0].contains("3 that docker-worker did not make"), "{foreign:?}");
    assert!(foreign[1].contains("1 that docker-worker did not make"), "{foreign:?}");
    assert_eq!(std::fs::read_dir(&place).unwrap().count(), 3 + 2, "and the marker and the trash");
    assert!(place.join("trash/files").exists());
}

#[test]
fn a_name_is_never_a_path() {
    let (directory, caches) = caches();
    let lease = take(&caches, "../../escape");
    assert!(lease.content().starts_with(directory.path().join("caches")));
    assert!(!directory.path().join("escape").exists());
    assert_eq!(lease.name(), "../../escape");
}

#[test]
fn a_purge_takes_what_is_named_and_was_made_before() {
    let (directory, caches) = caches();
    for name in ["old", "other"] {
        release(take(&caches, name), Fate::Keep);
    }
    let long_ago = PurgeRequest { cache_name: "old".to_owned(), before: Timestamp::from_millis(1) };
    assert!(caches.purge(&[long_ago], &|| true).unwrap().discarded.is_empty());
    assert_eq!(purge(&caches, "old"), (1, 0));
    assert_eq!(trash(&directory), 0);
    assert_eq!(take(&caches, "old").origin(), Origin::Miss);
    assert_eq!(take(&caches, "other").origin(), Origin::Hit);
}

#[test]
fn an_instance_that_cannot_go_keeps_no_other_from_it() {
    let (directory, caches) = caches();
    let leases = [take(&caches, "x"), take(&caches, "x")];
    // Its place in the trash is taken.
    let stuck = leases[0].content().parent().unwrap().file_name().unwrap().to_owned();
    leases.into_iter().for_each(|lease| release(lease, Fate::Keep));
    let taken = directory.path().join("caches/trash").join(stuck);
    std::fs::create_dir_all(taken.join("not empty")).unwrap();
    let before = Timestamp::now().plus(Duration::from_millis(1));
    let request = PurgeRequest { cache_name: "x".to_owned(), before };
    let purged = caches.purge(&[request], &|| true).unwrap();
    assert_eq!((purged.discarded.len(), purged.errors.len()), (1, 1), "{purged:?}");
    // It is marked, and so nobody's.
    assert_eq!(take(&caches, "x").origin(), Origin::Miss);
}

#[test]
fn an_instance_that_is_purged_while_a_task_has_it_goes_when_it_comes_back() {
    let (directory, caches) = caches();
    let lease = take(&caches, "x");
    put(&lease, "poisoned");
    // By another process as well as by this one.
    assert_eq!(purge(&reopen(&directory, &[]), "x"), (0, 1));
    assert!(lease.content().exists(), "the task has it to its end");
    let made_later = take(&caches, "x");
    put(&made_later, "fresh");
    release(made_later, Fate::Keep);
    let discarded = lease.release(Fate::Keep).unwrap();
    assert_eq!(discarded.as_ref().map(Discarded::name), Some("x"));
    discarded.unwrap().remove().unwrap();
    assert_eq!(get(&take(&caches, "x")).as_deref(), Some("fresh"));
}

#[test]
fn a_purged_instance_whose_worker_died_is_nobodys() {
    let (directory, caches) = caches();
    let lease = take(&caches, "x");
    assert_eq!(purge(&caches, "x"), (0, 1));
    let content = lease.content();
    drop(lease); // The worker died; its container may live.
    let caches = reopen(&directory, &["container"]);
    assert!(content.exists());
    assert_eq!(purge(&caches, "x"), (0, 1));
    reopen(&directory, &[]);
    assert!(!content.exists());
}

#[test]
fn a_mark_alone_keeps_tasks_away_and_the_next_sweep_removes() {
    let (directory, caches) = caches();
    release(take(&caches, "x"), Fate::Keep);
    let id = caches.entries().unwrap().own.pop_first().unwrap();
    record::mark(&caches.instance(&id)).unwrap(); // The worker died before it moved the instance.
    assert_eq!(take(&caches, "x").origin(), Origin::Miss);
    let caches = reopen(&directory, &[]);
    assert!(!caches.entries().unwrap().own.contains(&id));
}

#[test]
fn what_lies_in_the_trash_is_removed_by_the_next_sweep_once_nobody_removes_it() {
    let (directory, caches) = caches();
    let discarded = take(&caches, "x").release(Fate::Purge).unwrap().unwrap();
    reopen(&directory, &[]);
    assert_eq!(trash(&directory), 1, "somebody is at it");
    drop(discarded); // The worker died.
    reopen(&directory, &[]);
    assert_eq!(trash(&directory), 0);
}

#[test]
fn the_oldest_free_instance_is_discarded_first_and_one_in_use_never() {
    let (_directory, caches) = caches();
    let leases = ["first", "second", "held"].map(|name| take(&caches, name));
    let [first, second, _held] = leases;
    release(second, Fate::Keep);
    std::thread::park_timeout(std::time::Duration::from_millis(2));
    release(first, Fate::Keep);
    let next = || caches.discard_oldest(&|| true).unwrap().map(|it| it.name().to_owned());
    assert_eq!([next(), next(), next()], [Some("second".to_owned()), Some("first".to_owned()), None]);
}

#[test]
fn usage_names_each_instance_with_its_room_and_whether_a_task_has_it() {
    let (_directory, caches) = caches();
    let (small, large) = (take(&caches, "small"), take(&caches, "large"));
    std::fs::write(large.content().join("file"), vec![1; 1 << 20]).unwrap();
    release(small, Fate::Keep);
    let usage = caches.usage(&|| true).unwrap();
    let seen: Vec<_> = usage.iter().map(|it| (it.name.as_str(), it.is_used, it.is_partial)).collect();
    assert_eq!(seen, [("large", true, false), ("small", false, false)]);
    assert!(usage[0].bytes >= 1 << 20 && usage[1].bytes < 1 << 20, "{usage:?}");
    assert!(caches.usage(&|| false).unwrap().iter().all(|it| it.is_partial));
}
