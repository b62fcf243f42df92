//! A taskcluster proxy that is an image: it has the task's scopes from its start, and its credentials by a way that neither the
//! task nor a list of processes shows.

use std::fs;
use std::time::Duration;

use docker_worker::queue::RunState;
use serde_json::{Value, json};

use super::{Host, TOOLS, beside};
use crate::support::{Site, Terms, WatchedRegistry, await_that};

/// A site whose worker has that image from a registry.
fn site(variables: &[&str]) -> (Site, Value) {
    let site = Site::with(Terms { claim_time: Duration::from_secs(20), ..Terms::default() });
    let registry = WatchedRegistry::serve_on(&site.internet, &site.worker.image(&beside(variables)));
    let mut registries = json!({});
    for image in [&site.image, &registry.name] {
        let (place, _) = image.split_once('/').unwrap();
        registries[place] = json!({ "plainHttp": true, "privateAddresses": true });
    }
    let config = json!({ "registries": registries, "taskclusterProxy": { "image": registry.name } });
    (site, config)
}

fn definition(site: &Site, script: &str) -> Value {
    let mut payload = site.payload(&format!("{TOOLS}{script}"));
    payload["features"] = json!({ "taskclusterProxy": true });
    let mut definition = site.deployment.definition(&payload);
    definition["scopes"] = json!(["queue:cancel-task:x", "secrets:get:y"]);
    definition
}

#[test]
fn it_starts_with_placeholders_and_has_each_claims_credentials_before_the_task_and_after_a_reclaim() {
    let (site, config) = site(&["PLAIN=1"]);
    let mut worker = site.start(&config);
    let script = "ask taskcluster /arguments; echo $TASKCLUSTER_PROXY_URL; ask taskcluster /credentials; \
                  until ask taskcluster /credentials | grep -q '^2 '; do sleep 1; done; ask taskcluster /credentials";
    let task = site.deployment.create_task(definition(&site, script));
    site.deployment.await_printed(&task, "http://taskcluster");
    // While it runs: nobody's arguments have the token, of whichever namespace they are.
    let tokens = || -> Vec<Value> {
        let exchanges = site.deployment.wire.exchanges();
        exchanges.iter().filter_map(|it| it.reply.pointer("/credentials").cloned()).collect()
    };
    let claimed = site
        .deployment
        .wire
        .exchanges()
        .iter()
        .find_map(|it| it.reply.pointer("/tasks/0/credentials").cloned());
    let claimed = claimed.unwrap();
    let token = claimed["accessToken"].as_str().unwrap();
    let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path().join("cmdline"));
    let listed: Vec<String> = processes.filter_map(|path| fs::read_to_string(path).ok()).collect();
    assert!(listed.iter().any(|line| line.contains("--client-id=none")));
    assert!(!listed.iter().any(|line| line.contains(token)));

    let status = site.deployment.await_resolved(&task);
    let log = site.deployment.log(&task);
    assert_eq!(status.state, RunState::Completed, "{log}");
    let root_url = site.deployment.access()["rootUrl"].as_str().unwrap().to_owned();
    let arguments = format!(
        "--client-id=none\r\n--access-token=none\r\n--root-url={root_url}\r\nqueue:cancel-task:x\r\n\
         secrets:get:y\r\nqueue:create-artifact:{task}/0\r\n"
    );
    assert!(log.contains(&arguments), "{log}");
    let put = |count: usize| -> Value {
        let line = log.lines().find_map(|line| line.strip_prefix(&format!("{count} "))).unwrap();
        serde_json::from_str(line).unwrap()
    };
    assert_eq!(put(1), claimed, "{log}");
    assert!(tokens().contains(&put(2)) && put(2) != claimed, "{log}");
    worker.await_logged("\"Credentials updated\"");
    worker.stop();
}

#[test]
fn one_that_does_not_take_the_credentials_is_none() {
    let (site, config) = site(&["LOSES=/credentials", "SAYS=not mine"]);
    let worker = site.start(&config);
    let task = site.deployment.create_task(definition(&site, "echo ran"));
    let status = site.deployment.await_resolved(&task);
    let log = site.deployment.log(&task);
    assert_eq!(status.state, RunState::Failed, "{log}");
    let expected = "Error calling 'link' for taskclusterProxy : Failed to initialize taskcluster proxy service. It did not take the credentials of the task: failed to hear an answer from";
    assert!(log.contains(expected) && log.contains("] taskclusterProxy: not mine"), "{log}");
    assert!(!log.contains("ran\r"), "{log}");
    worker.stop();
    await_that("the end of all", || site.worker.containers().is_empty());
}

#[test]
fn a_run_without_a_deployment_has_no_credentials_for_it() {
    let host = Host::with(&["PLAIN=1"], |image| json!({ "taskclusterProxyImage": image }));
    let run = host.run(&host.payload("taskclusterProxy", "true"));
    assert!(run.log.contains("This worker has no deployment to call."), "{run:?}");
}
