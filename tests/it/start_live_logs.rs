//! Where a deployment's readers find the log of a task that runs: what the configuration makes of its URL.

use docker_worker::config::Ssl;
use docker_worker::queue::task_id::TaskId;
use serde_json::{Value, json};

use crate::support::{Site, certify, read_until};

/// Where the live log of a task that has begun is to be found, as the queue was told.
fn live_log_url(site: &Site, task: &TaskId) -> String {
    let request = format!("{task}/runs/0/artifacts/public%2Flogs%2Flive.log");
    let made = site.deployment.wire.await_exchange(&request);
    assert_eq!((made.status, &made.payload["storageType"]), (200, &json!("reference")), "{made:?}");
    made.payload["url"].as_str().unwrap().to_owned()
}

/// Fails the test unless the log can be read there, as somebody reads it who trusts `certificate` and asks the DNS.
fn assert_readable(site: &Site, url: &str, certificate: &str) {
    let options = ["--silent", "--show-error", "--fail", "--no-buffer", "--cacert", certificate];
    let dns = ["--connect-to", "::127.0.0.1:", url];
    let mut curl = site.deployment.program("curl", &[&options[..], &dns].concat()).spawn().unwrap();
    let rest = read_until(&mut curl, "begun");
    curl.kill().unwrap();
    curl.wait().unwrap();
    rest.join().unwrap();
}

#[test]
fn the_originals_production_profile_serves_live_logs_under_the_name_that_there_is() {
    let site = Site::new();
    let Ssl { certificate, key } = certify(site.worker.scratch());
    let files = json!({ "certificate": certificate, "key": key });
    let certificate = certificate.unwrap();
    let named = "https://localhost:";
    // Base32 of 203.0.113.7.
    let made_up = "https://zmahcb";
    for (case, variables, more, begin, end) in [
        ("nobody has a secret", vec![], json!({}), named, ""),
        ("a secret", vec![("DNS_SERVER_SECRET", "sesame")], json!({}), made_up, ".taskcluster-worker.net"),
        (
            "a secret, switched off",
            vec![("DNS_SERVER_SECRET", "sesame")],
            json!({ "statelessHostname": { "enabled": false } }),
            named,
            "",
        ),
    ] {
        let mut config = json!({ "host": "localhost", "publicIp": "203.0.113.7", "ssl": files });
        let more: &Value = &more;
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let worker = site.start_by_runner(&config, &variables);
        let task = site.deployment.create(&site.payload("echo begun; sleep 1000"));
        let url = live_log_url(&site, &task);
        let host = url.rsplit_once(':').unwrap().0;
        assert!(url.starts_with(begin) && host.ends_with(end), "{case}: {url}");
        assert_readable(&site, &url, certificate.to_str().unwrap());
        site.deployment.cancel(&task);
        worker.stop();
    }
}
