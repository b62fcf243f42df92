//! Random layers, merged by us and by a model that knows nothing but paths.
//!
//! The model keeps a map of paths and does to it, entry by entry, what the image specification says;
//! whiteouts and opaque marks of a layer come first, for they concern lower layers only.
use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use crate::hostile_layers::{listing, merged};
use crate::layer_tar::{Entry, dir, file, hardlink, index, symlink, tar};

/// One step of a layer, on paths of at most three components out of four names.
#[derive(Debug, Clone)]
enum Step {
    Directory(String),
    File(String, u8),
    Symlink(String),
    HardLink(String, String),
    Whiteout(String),
    Opaque(String),
}

fn path() -> impl Strategy<Value = String> {
    vec(prop_oneof!["a", "b", "c", "d"], 1..=3).prop_map(|names| names.join("/"))
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => path().prop_map(Step::Directory),
        4 => (path(), any::<u8>()).prop_map(|(path, byte)| Step::File(path, byte)),
        1 => path().prop_map(Step::Symlink),
        2 => (path(), path()).prop_map(|(path, target)| Step::HardLink(path, target)),
        2 => path().prop_map(Step::Whiteout),
        1 => path().prop_map(Step::Opaque),
    ]
}

/// What the model holds at a path; files are told apart by who wrote them.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Thing {
    Directory,
    File(u8),
    Symlink,
}

type Model = BTreeMap<String, Thing>;

fn remove_below(model: &mut Model, path: &str) {
    let prefix = format!("{path}/");
    model.retain(|other, _| !other.starts_with(&prefix));
}

fn remove(model: &mut Model, path: &str) {
    model.remove(path);
    remove_below(model, path);
}

fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at])
}

/// Puts a thing and makes its parents; what was no directory in their place goes.
fn put(model: &mut Model, path: &str, thing: Thing) {
    for parent in parents(path) {
        if model.get(parent) != Some(&Thing::Directory) {
            remove(model, parent);
            model.insert(parent.into(), Thing::Directory);
        }
    }
    if thing != Thing::Directory || model.get(path) != Some(&Thing::Directory) {
        remove(model, path);
    }
    model.insert(path.into(), thing);
}

/// Keeps the steps that mean something in a layer and gives them as entries. A parent that is a file
/// or link of the same layer would refuse or redirect; those have tests of their own.
fn honest(steps: &[Step], below: &Model) -> Vec<Step> {
    let mut own = Model::new();
    let mut kept = Vec::new();
    for step in steps {
        let (path, thing) = match step {
            Step::Directory(path) => (path, Some(Thing::Directory)),
            Step::File(path, byte) => (path, Some(Thing::File(*byte))),
            Step::Symlink(path) => (path, Some(Thing::Symlink)),
            // Its own parents are made first, and a directory cannot be linked.
            Step::HardLink(path, target) if parents(path).any(|parent| parent == target) => (path, None),
            Step::HardLink(path, target) => (path, linked(&own, below, target)),
            Step::Whiteout(path) | Step::Opaque(path) => (path, None),
        };
        let is_mark = matches!(step, Step::Whiteout(_) | Step::Opaque(_));
        let blocked = |path: &str| own.get(path).is_some_and(|thing| *thing != Thing::Directory);
        let opaque_on_other = matches!(step, Step::Opaque(path) if blocked(path));
        if parents(path).any(blocked) || opaque_on_other || (thing.is_none() && !is_mark) {
            continue;
        }
        match (step, thing) {
            (Step::Opaque(path), _) => put(&mut own, path, Thing::Directory),
            (_, Some(thing)) => put(&mut own, path, thing),
            (_, None) => {
                if let Some((parent, _)) = path.rsplit_once('/') {
                    put(&mut own, parent, Thing::Directory);
                }
            }
        }
        kept.push(step.clone());
    }
    kept
}

/// What a hard link leads to: a thing of its own layer, else of the lower ones; never a directory.
fn linked(own: &Model, below: &Model, target: &str) -> Option<Thing> {
    if parents(target).any(|parent| own.get(parent).is_some_and(|thing| *thing != Thing::Directory)) {
        return None;
    }
    let lower_parents = || parents(target).all(|parent| below.get(parent) == Some(&Thing::Directory));
    let thing = own.get(target).or_else(|| below.get(target).filter(|_| lower_parents()));
    thing.filter(|thing| **thing != Thing::Directory).cloned()
}

fn apply(model: &mut Model, steps: &[Step]) {
    let below = model.clone();
    for step in steps {
        match step {
            Step::Whiteout(path)
                if parents(path).all(|parent| model.get(parent) == Some(&Thing::Directory)) =>
            {
                remove(model, path);
            }
            Step::Opaque(path) => remove_below(model, path),
            _ => {}
        }
    }
    let mut own = Model::new();
    for step in steps {
        let (path, thing) = match step {
            Step::Directory(path) | Step::Opaque(path) => (path.as_str(), Thing::Directory),
            Step::File(path, byte) => (path.as_str(), Thing::File(*byte)),
            Step::Symlink(path) => (path.as_str(), Thing::Symlink),
            Step::HardLink(path, target) => (path.as_str(), linked(&own, &below, target).unwrap()),
            Step::Whiteout(path) => match path.rsplit_once('/') {
                Some((parent, _)) if !is_in_gone_directory(path, steps) => (parent, Thing::Directory),
                _ => continue,
            },
        };
        put(&mut own, path, thing.clone());
        put(model, path, thing);
    }
}

/// Whether a directory above is whited out itself and holds nothing but whiteouts.
fn is_in_gone_directory(path: &str, steps: &[Step]) -> bool {
    let is_whited_out =
        |parent: &str| steps.iter().any(|step| matches!(step, Step::Whiteout(other) if other == parent));
    let holds_something = |parent: &str| {
        steps.iter().any(|step| match step {
            Step::Whiteout(_) => false,
            Step::Directory(other)
            | Step::Opaque(other)
            | Step::File(other, _)
            | Step::Symlink(other)
            | Step::HardLink(other, _) => other == parent || other.starts_with(&format!("{parent}/")),
        })
    };
    parents(path).any(|parent| is_whited_out(parent) && !holds_something(parent))
}

fn entry(step: &Step) -> Entry {
    match step {
        Step::Directory(path) => dir(path),
        Step::File(path, byte) => file(path, [*byte]),
        Step::Symlink(path) => symlink(path, "t"),
        Step::HardLink(path, target) => hardlink(path, target),
        Step::Whiteout(path) => match path.rsplit_once('/') {
            Some((parent, name)) => file(format!("{parent}/.wh.{name}"), ""),
            None => file(format!(".wh.{path}"), ""),
        },
        Step::Opaque(path) => file(format!("{path}/.wh..wh..opq"), ""),
    }
}

/// In the words of `listing`: no directories but empty ones.
fn shown(model: &Model) -> BTreeMap<String, String> {
    let has_child = |path: &str| model.keys().any(|other| other.starts_with(&format!("{path}/")));
    let kept = model.iter().filter(|(path, thing)| **thing != Thing::Directory || !has_child(path));
    kept.map(|(path, thing)| {
        let what = match thing {
            Thing::Directory => "/".into(),
            Thing::File(byte) => [*byte].escape_ascii().to_string(),
            Thing::Symlink => "-> t".into(),
        };
        (path.clone(), what)
    })
    .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn merged_layers_are_what_their_steps_say(layers in vec(vec(step(), 0..12), 1..5)) {
        let mut model = Model::new();
        let mut indexed = Vec::new();
        for steps in &layers {
            let steps = honest(steps, &model);
            let entries: Vec<_> = steps.iter().map(entry).collect();
            indexed.push(index(&tar(&entries)).unwrap());
            apply(&mut model, &steps);
        }
        let tree = merged(&indexed).unwrap();
        prop_assert_eq!(listing(&tree, &indexed), shown(&model));
    }
}
