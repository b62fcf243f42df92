//! The invariants of the architecture that a compiler does not hold: who may depend on whom, which words
//! and which `unsafe` may stand where, and how long a file may grow.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use serde_json::Value;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Licences that may be linked in. GPL may not.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "bzip2-1.0.6", // As BSD: of libbz2-rs-sys.
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "LGPL-2.0-or-later",
    "LGPL-3.0-or-later",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "OpenSSL",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

#[test]
fn crates_depend_only_downwards() {
    let allowed = [
        ("docker-worker", vec!["apparmor", "images", "runtime"]),
        ("runtime", vec!["apparmor"]),
        ("images", vec![]),
        ("apparmor", vec![]),
    ];
    let metadata = metadata();
    let ours: BTreeSet<&str> = allowed.iter().map(|(name, _)| *name).collect();
    for (name, expected) in &allowed {
        let found: Vec<&str> =
            normal_dependencies(&metadata, name).into_iter().filter(|name| ours.contains(name)).collect();
        assert!(found.iter().all(|dependency| expected.contains(dependency)), "{name} depends on {found:?}");
    }
}

#[test]
fn the_runtime_knows_no_network_library_and_no_async() {
    let metadata = metadata();
    let reached = transitive_dependencies(&metadata, "runtime");
    for library in ["tokio", "hyper", "rustls", "mio", "rusqlite", "clap"] {
        assert!(!reached.contains(library), "runtime reaches {library}");
    }
}

#[test]
fn the_runtime_speaks_no_taskcluster() {
    for file in rust_files(&["runtime/src", "apparmor/src"]) {
        let text = fs::read_to_string(&file).unwrap().to_lowercase();
        for word in ["taskcluster", "payload", "artifact"] {
            assert!(!text.contains(word), "{file} says {word:?}: policy belongs in the worker");
        }
    }
}

#[test]
fn what_the_page_is_bundled_with_is_permitted_and_comes_from_no_named_registry() {
    let lock = fs::read_to_string(Path::new(ROOT).join("src/standalone/page/package-lock.json")).unwrap();
    let lock: Value = serde_json::from_str(&lock).unwrap();
    for (name, package) in lock["packages"].as_object().unwrap() {
        let licence = package["license"].as_str().unwrap_or_default();
        assert!(LICENCES.contains(&licence), "{name:?}: {licence:?}");
        assert_eq!(package.get("resolved"), None, "{name}");
    }
}

/// The rooms of the worker, from the top floor down. Rooms of one line do not use one another.
const FLOORS: &[&[&str]] = &[
    &["cli"],
    &["worker"],
    &["standalone"],
    &["task"],
    &["gc"],
    &["registry"],
    &["features"],
    &["sidecar"],
    &["live_log", "proxy"],
    &["download"],
    &["artifact"],
    &["task_log"],
    &["payload"],
    &["event"],
    &["cleanup"],
    &["claim_file"],
    &["queue"],
    &["document"],
    &["demo_directory"],
    &["host"],
    &["container", "root_file_system"],
    &["apparmor_profiles"],
    &["run_directory"],
    &["cache"],
    &["undo_containers"],
    &["signing_key"],
    &["config"],
    &["net"],
    &["parent_group"],
    &["spec"],
    &["draft", "own_directory"],
    &[
        "directories",
        "file_lock",
        "random",
        "remove_tree",
        "root",
        "line_writer",
        "scopes",
        "tree_size",
        "yaml",
    ],
    &["processors", "elf"],
    &["known_features", "units", "suggestion", "readiness", "background", "interrupt", "patience"],
    &["text"],
    &["limits", "timestamp"],
];

#[test]
fn rooms_of_the_worker_use_only_what_stands_below_them() {
    let floor = |room: &str| FLOORS.iter().position(|rooms| rooms.contains(&room));
    for file in rust_files(&["src"]) {
        let room = file["src/".len()..].split(['/', '.']).next().unwrap().to_owned();
        if ["main", "lib"].contains(&room.as_str()) {
            continue;
        }
        let own = floor(&room).unwrap_or_else(|| panic!("{file}: give the room {room} its floor"));
        let text = fs::read_to_string(Path::new(ROOT).join(&file)).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        if file.ends_with("/tests.rs") {
            continue;
        }
        for path in code.split("crate::").skip(1) {
            let used = path.split(|letter: char| !letter.is_alphanumeric() && letter != '_').next().unwrap();
            let below = floor(used).is_some_and(|floor| floor > own);
            assert!(used == room || below, "{file} uses {used}, which does not stand below {room}");
        }
    }
}

#[test]
fn unsafe_stands_behind_two_doors_only() {
    for file in rust_files(&["src", "runtime", "images", "apparmor", "tests"]) {
        if file.starts_with("runtime/src/sys") || file == "images/src/sys.rs" {
            continue;
        }
        for (number, line) in fs::read_to_string(Path::new(ROOT).join(&file)).unwrap().lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for what in ["{", "fn", "impl", "extern"] {
                let door = ["unsafe", what].join(" ");
                assert!(!code.contains(&door), "{file}:{}: {door}", number + 1);
            }
        }
    }
}

#[test]
fn a_plan_is_pure() {
    for file in rust_files(&["runtime/src/plan"]) {
        let text = fs::read_to_string(Path::new(ROOT).join(&file)).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for word in ["crate::sys", "std::fs", "rustix", "nix::", "libc::"] {
            assert!(
                !code.contains(word),
                "{file} uses {word}: what a plan knows of the host is in HostFacts"
            );
        }
    }
}

#[test]
fn no_file_outgrows_its_subject() {
    for file in rust_files(&["src", "runtime", "images", "apparmor", "tests"]) {
        let lines = fs::read_to_string(Path::new(ROOT).join(&file)).unwrap().lines().count();
        assert!(lines <= 600, "{file} has {lines} lines: split it by meaning");
    }
}

#[test]
fn modules_are_named_for_their_subject() {
    for file in rust_files(&["src", "runtime/src", "images/src", "apparmor/src"]) {
        let name = Path::new(&file).file_stem().unwrap().to_str().unwrap().to_owned();
        for smell in ["mod", "utils", "util", "common", "helpers", "helper", "manager", "types", "misc"] {
            assert_ne!(name, smell, "{file}");
        }
    }
}

#[test]
fn every_linked_library_has_a_licence_that_fits() {
    let metadata = metadata();
    for package in metadata["packages"].as_array().unwrap() {
        let licence = package["license"].as_str().unwrap_or_default().replace('/', " OR ");
        let fits = licence.split(" OR ").any(|choice| {
            let terms = choice.trim_matches(|letter: char| "() ".contains(letter));
            terms.split(" AND ").all(|term| {
                let term = term.trim_matches(|letter: char| "() ".contains(letter));
                LICENCES.contains(&term.split(" WITH ").next().unwrap_or_default())
            })
        });
        assert!(fits, "{} has the licence {licence:?}", package["name"]);
    }
}

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--filter-platform",
            "x86_64-unknown-linux-gnu",
        ])
        .current_dir(ROOT)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Names of the packages that `name` links directly.
fn normal_dependencies<'a>(metadata: &'a Value, name: &str) -> Vec<&'a str> {
    let id = package_id(metadata, name);
    let node = metadata["resolve"]["nodes"].as_array().unwrap().iter().find(|node| node["id"] == id).unwrap();
    let dependencies = node["deps"].as_array().unwrap().iter();
    let linked = dependencies
        .filter(|dep| dep["dep_kinds"].as_array().unwrap().iter().any(|kind| kind["kind"].is_null()));
    linked.map(|dep| package_name(metadata, &dep["pkg"])).collect()
}

fn transitive_dependencies<'a>(metadata: &'a Value, name: &'a str) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut open = vec![name];
    while let Some(package) = open.pop() {
        for dependency in normal_dependencies(metadata, package) {
            if reached.insert(dependency) {
                open.push(dependency);
            }
        }
    }
    reached
}

fn package_id(metadata: &Value, name: &str) -> Value {
    let packages = metadata["packages"].as_array().unwrap();
    packages.iter().find(|package| package["name"] == name).unwrap()["id"].clone()
}

fn package_name<'a>(metadata: &'a Value, id: &Value) -> &'a str {
    let packages = metadata["packages"].as_array().unwrap();
    packages.iter().find(|package| package["id"] == *id).unwrap()["name"].as_str().unwrap()
}

/// All Rust files below `folders`, by their path from the project's root.
fn rust_files(folders: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    let mut open: Vec<_> =
        folders.iter().map(|folder| Path::new(ROOT).join(folder)).filter(|path| path.exists()).collect();
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path.strip_prefix(ROOT).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}
