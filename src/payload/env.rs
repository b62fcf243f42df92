//! The environment of a task's command, put together from its five sources.
//!
//! ```text
//!   lowest   docker's four     HOME, HOSTNAME, TERM, PATH; only where nothing else sets them; an empty HOME is none
//!            the image's env
//!            the features'     e.g. TASKCLUSTER_PROXY_URL; the first feature wins
//!            payload.env
//!   highest  the worker's      TASK_ID and the like: no task can forge them, not even one that has no value here
//! ```

use std::collections::BTreeMap;

/// Where an image says nothing else.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The variables that are the worker's alone. What has no value is not set, whatever image and payload say (the
/// original wrote the word `undefined`, O14).
#[derive(Clone, Copy, Debug, Default)]
pub struct Reserved<'a> {
    /// `TASK_ID`.
    pub task_id: &'a str,
    /// `RUN_ID`.
    pub run_id: u32,
    /// `TASKCLUSTER_ROOT_URL`.
    pub root_url: Option<&'a str>,
    /// `TASKCLUSTER_WORKER_TYPE`.
    pub worker_type: Option<&'a str>,
    /// `TASKCLUSTER_WORKER_GROUP`.
    pub worker_group: Option<&'a str>,
    /// `TASKCLUSTER_WORKER_POOL`: `<provisionerId>/<workerType>`.
    pub worker_pool: Option<&'a str>,
    /// `TASKCLUSTER_INSTANCE_TYPE`.
    pub instance_type: Option<&'a str>,
    /// `TASKCLUSTER_PUBLIC_IP`.
    pub public_ip: Option<&'a str>,
    /// `TASKCLUSTER_WORKER_LOCATION`: a JSON text of the provider's.
    pub worker_location: Option<&'a str>,
}

/// The sources of an environment.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    /// `NAME=value` as the image's config has them.
    pub image: &'a [String],
    /// Name and value, features in hook order.
    pub features: &'a [(String, String)],
    /// `payload.env`.
    pub payload: &'a BTreeMap<String, String>,
    /// The worker's own; nothing of it, and nothing kept from the others, where the container is not a task's.
    pub reserved: Option<Reserved<'a>>,
    /// The home directory of the command's user, from the image's passwd; `/` where it has none.
    pub home: &'a str,
    /// The container's host name.
    pub hostname: &'a str,
}

/// Puts the environment together, as `NAME=value`, sorted by name.
#[must_use]
pub fn environment(sources: &Sources<'_>) -> Vec<String> {
    let own = dockers_own(sources.home, sources.hostname);
    let mut env: BTreeMap<&str, String> =
        own.into_iter().map(|(name, value)| (name, value.to_owned())).collect();
    // A text without "=" is no variable.
    env.extend(
        sources
            .image
            .iter()
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name, value.into())),
    );
    // In reverse, so that the first one is the last to be written.
    env.extend(sources.features.iter().rev().map(|(name, value)| (name.as_str(), value.clone())));
    env.extend(sources.payload.iter().map(|(name, value)| (name.as_str(), value.clone())));
    for (name, value) in sources.reserved.iter().flat_map(reserved_variables) {
        match value {
            Some(value) => env.insert(name, value),
            None => env.remove(name),
        };
    }
    // As in runc: programs take an empty one for the root directory, or fail.
    env.entry("HOME").and_modify(|home| {
        if home.is_empty() {
            sources.home.clone_into(home);
        }
    });
    env.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// An environment for an image: without what is added to that of any container, which in another one would be of this one.
#[must_use]
pub fn without_dockers_own(environment: &[String], home: &str, hostname: &str) -> Vec<String> {
    let own = dockers_own(home, hostname);
    let is_own = |pair: &&String| pair.split_once('=').is_some_and(|pair| own.contains(&pair));
    environment.iter().filter(|pair| !is_own(pair)).cloned().collect()
}

fn dockers_own<'a>(home: &'a str, hostname: &'a str) -> [(&'static str, &'a str); 4] {
    [("HOME", home), ("HOSTNAME", hostname), ("TERM", "xterm"), ("PATH", DEFAULT_PATH)]
}

/// Whether a variable of this name is the worker's to set.
#[must_use]
pub fn is_reserved(name: &str) -> bool {
    reserved_variables(&Reserved::default()).iter().any(|(reserved, _)| *reserved == name)
}

fn reserved_variables(reserved: &Reserved<'_>) -> [(&'static str, Option<String>); 9] {
    let run_id = reserved.run_id.to_string();
    [
        ("TASK_ID", Some(reserved.task_id)),
        ("RUN_ID", Some(run_id.as_str())),
        ("TASKCLUSTER_ROOT_URL", reserved.root_url),
        ("TASKCLUSTER_WORKER_TYPE", reserved.worker_type),
        ("TASKCLUSTER_WORKER_GROUP", reserved.worker_group),
        ("TASKCLUSTER_WORKER_POOL", reserved.worker_pool),
        ("TASKCLUSTER_INSTANCE_TYPE", reserved.instance_type),
        ("TASKCLUSTER_PUBLIC_IP", reserved.public_ip),
        ("TASKCLUSTER_WORKER_LOCATION", reserved.worker_location),
    ]
    .map(|(name, value)| (name, value.map(str::to_owned)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(
        image: &[&str],
        features: &[(&str, &str)],
        payload: &[(&str, &str)],
        expected: &[(&str, Option<&str>)],
    ) {
        let image: Vec<String> = image.iter().map(|&pair| pair.to_owned()).collect();
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let features: Vec<_> = features.iter().map(owned).collect();
        let payload: BTreeMap<_, _> = payload.iter().map(owned).collect();
        let reserved = Reserved { task_id: "T", run_id: 2, worker_type: Some("w"), ..Reserved::default() };
        let sources = Sources {
            image: &image,
            features: &features,
            payload: &payload,
            reserved: Some(reserved),
            home: "/root",
            hostname: "0123",
        };
        let env = environment(&sources);
        for (name, value) in expected {
            let prefix = format!("{name}=");
            let found: Vec<_> = env.iter().filter_map(|pair| pair.strip_prefix(&prefix)).collect();
            assert_eq!(found, value.iter().copied().collect::<Vec<_>>(), "{name} in {env:?}");
        }
    }

    #[test]
    fn docker_adds_four_variables_below_the_image() {
        check(
            &[],
            &[],
            &[],
            &[
                ("HOME", Some("/root")),
                ("HOSTNAME", Some("0123")),
                ("TERM", Some("xterm")),
                ("PATH", Some(DEFAULT_PATH)),
            ],
        );
        check(
            &["PATH=/bin", "HOME=/h", "TERM=dumb", "HOSTNAME=n"],
            &[],
            &[],
            &[("HOME", Some("/h")), ("HOSTNAME", Some("n")), ("TERM", Some("dumb")), ("PATH", Some("/bin"))],
        );
    }

    #[test]
    fn each_source_overrides_the_one_below_it() {
        let features = [("A", "first feature"), ("A", "second feature"), ("B", "feature")];
        check(
            &["A=image", "B=image", "C=image", "D==x=", "nothing"],
            &features,
            &[("B", "payload")],
            &[
                ("A", Some("first feature")),
                ("B", Some("payload")),
                ("C", Some("image")),
                ("D", Some("=x=")),
                ("nothing", None),
            ],
        );
    }

    #[test]
    fn a_task_cannot_forge_what_the_worker_sets() {
        let forged = [("TASK_ID", "other"), ("RUN_ID", "9"), ("TASKCLUSTER_WORKER_TYPE", "other")];
        check(
            &["TASK_ID=image"],
            &forged,
            &forged,
            &[("TASK_ID", Some("T")), ("RUN_ID", Some("2")), ("TASKCLUSTER_WORKER_TYPE", Some("w"))],
        );
    }

    #[test]
    fn a_reserved_variable_without_a_value_is_not_set_by_anybody() {
        let forged = [("TASKCLUSTER_PUBLIC_IP", "1.2.3.4"), ("TASKCLUSTER_ROOT_URL", "forged")];
        check(
            &["TASKCLUSTER_WORKER_LOCATION={}", "TASKCLUSTER_ROOT_URL=image"],
            &forged,
            &forged,
            &[
                ("TASKCLUSTER_PUBLIC_IP", None),
                ("TASKCLUSTER_ROOT_URL", None),
                ("TASKCLUSTER_WORKER_LOCATION", None),
            ],
        );
    }

    #[test]
    fn an_image_gets_what_somebody_has_chosen() {
        let environment = ["HOME=/root", "HOSTNAME=0123", "PATH=/bin", "TASK_ID=T", "TERM=xterm"];
        let environment = environment.map(str::to_owned);
        assert_eq!(without_dockers_own(&environment, "/root", "0123"), ["PATH=/bin", "TASK_ID=T"]);
        assert_eq!(without_dockers_own(&environment, "/", "4567").len(), 4);
    }

    #[test]
    fn an_empty_home_is_the_one_of_the_passwd() {
        check(&["HOME="], &[], &[], &[("HOME", Some("/root"))]);
        check(&["HOME=/h"], &[], &[("HOME", "")], &[("HOME", Some("/root"))]);
        check(&[], &[], &[("TERM", "")], &[("TERM", Some(""))]);
    }
}
