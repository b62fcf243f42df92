//! `docker-worker standalone` for those who do not call it directly: pages of other origins, and clients behind a reverse
//! proxy.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{OwnQueue, finish};

const LIMIT: Duration = Duration::from_secs(60);

/// Where clients find the queue that is behind a reverse proxy.
const PUBLIC: &str = "https://tc.example.com:8443";

/// The head of a reply as curl shows it, in lower case.
fn head(own: &OwnQueue, options: &[&str]) -> String {
    let child = own.curl(&[&["--include"][..], options].concat()).spawn().unwrap();
    let text = String::from_utf8_lossy(&finish(child, LIMIT).stdout).to_lowercase();
    text.split("\r\n\r\n").next().unwrap().to_owned()
}

#[test]
fn pages_of_all_origins_may_call_as_they_may_call_taskcluster() {
    let own = OwnQueue::new();
    let standalone = own.start();
    let task = format!("{}/api/queue/v1/task/fN1SbArXTPSVFNUvaOlinQ", own.root_url);
    let (status, nothing) = (format!("{task}/status"), format!("{}/api/queue/v1/nothing", own.root_url));
    let (storage, page) = (format!("{}/storage/1/x/y", own.root_url), format!("{}/", own.root_url));
    let cases: [(&[&str], &str, bool); 6] = [
        (&["--request", "OPTIONS", &task], "200", true),
        (&["--request", "OPTIONS", &nothing], "404", true),
        (&["--request", "OPTIONS", &storage], "200", true),
        (&[&status], "404", true),
        (&[&storage], "403", true),
        (&[&page], "200", false),
    ];
    for (options, code, is_allowed) in cases {
        let options = [&["--header", "Origin: https://other.example.com"][..], options].concat();
        let head = head(&own, &options);
        assert!(head.starts_with(&format!("http/1.1 {code} ")), "{options:?}: {head}");
        for line in [
            "access-control-allow-origin: *",
            "access-control-max-age: 900",
            "access-control-allow-methods: options,get,head,post,put,delete,trace,connect",
            "access-control-allow-headers: x-requested-with,content-type,authorization,accept,origin,cache-control",
        ] {
            assert_eq!(head.contains(line), is_allowed, "{options:?}: {line}: {head}");
        }
        assert!(!head.contains("access-control-allow-credentials"), "{head}");
    }
    assert!(head(&own, &["--request", "OPTIONS", &task]).contains("allow: get,put"));
    let asked = finish(own.curl(&["--request", "POST", &nothing]).spawn().unwrap(), LIMIT);
    let told = String::from_utf8_lossy(&asked.stdout).into_owned();
    assert!(told.contains("there is no method POST /api/queue/v1/nothing here"), "{told}");
    standalone.stop();
}

#[test]
fn behind_a_reverse_proxy_calls_are_signed_for_the_root_url_whatever_is_said_in_headers() {
    let own = OwnQueue::new();
    let standalone = own.start_with(&json!({}), &["--root-url", &format!("{PUBLIC}/")]);
    let task_id = own.create_script("echo at $TASKCLUSTER_ROOT_URL");
    own.await_state(&task_id, "completed");
    let path = format!("/api/queue/v1/task/{task_id}/artifacts/public%2Flogs%2Flive_backing.log");
    let (url, public) = (format!("{}{path}", own.root_url), format!("location: {PUBLIC}/storage/"));
    let signed = |root_url: &str| {
        let header = own.root().sign("GET", &format!("{root_url}{path}").parse().unwrap(), "");
        format!("Authorization: {header}")
    };
    // A proxy passes on the name by which it was called, or does not.
    for host in ["tc.example.com:8443", "tc.example.com", "127.0.0.1:8239"] {
        let host = format!("Host: {host}");
        let head = head(&own, &["--header", &host, "--header", &signed(PUBLIC), &url]);
        assert!(head.starts_with("http/1.1 303 ") && head.contains(&public), "{host}: {head}");
    }
    let forged = [
        "X-Forwarded-Host: evil.example.com",
        "X-Forwarded-Port: 99",
        "X-Forwarded-Proto: http",
        "Forwarded: host=evil.example.com;proto=http",
    ];
    let forged = forged.map(|header| ["--header", header]).concat();
    let head_of_anybody = head(&own, &[&forged[..], &[&url]].concat());
    assert!(head_of_anybody.contains(&public), "{head_of_anybody}");
    let mine = signed(PUBLIC);
    let head_of_mine = head(&own, &[&forged[..], &["--header", &mine, &url]].concat());
    assert!(head_of_mine.contains(&public), "{head_of_mine}");
    let other = signed("http://evil.example.com:99");
    let host = "Host: evil.example.com";
    let refused = head(&own, &[&forged[..], &["--header", host, "--header", &other, &url]].concat());
    assert!(refused.starts_with("http/1.1 401 "), "{refused}");
    // The worker's own way, which needs no proxy.
    let request = format!("GET {}", path.replace("/api/queue/v1", "queue"));
    let location = own.call_as(Some(&own.root()), &request, &Value::Null).location.unwrap();
    let log = finish(own.curl(&["--compressed", &location]).spawn().unwrap(), LIMIT);
    assert!(location.starts_with(&own.root_url), "{location}");
    assert!(String::from_utf8_lossy(&log.stdout).contains(&format!("at {PUBLIC}\r")), "{log:?}");
    let told = String::from_utf8_lossy(&standalone.stop().finished.stderr).into_owned();
    assert!(told.contains(&format!("export TASKCLUSTER_ROOT_URL={PUBLIC}\n")), "{told}");
}

#[test]
fn calls_to_an_ipv6_address_are_signed_for_it_with_its_brackets_or_without() {
    let mut own = OwnQueue::new();
    let standalone = own.start_with(&json!({}), &["--listen", "::1"]);
    own.root_url = "http://[::1]:8239".to_owned();
    // The worker's own client signs with them.
    let task_id = own.create_script("true");
    own.await_state(&task_id, "completed");
    let (path, root) = ("/api/auth/v1/scopes/current", own.root());
    let key = hawk::Key::new(root.access_token.as_bytes(), hawk::SHA256).unwrap();
    let credentials = hawk::Credentials { id: root.client_id, key };
    for (host, status) in [("[::1]", 200), ("::1", 200), ("::2", 401)] {
        let request = hawk::RequestBuilder::new("GET", host, 8239, path).request();
        let header = format!("Authorization: Hawk {}", request.make_header(&credentials).unwrap());
        let head = head(&own, &["--globoff", "--header", &header, &format!("{}{path}", own.root_url)]);
        assert!(head.starts_with(&format!("http/1.1 {status} ")), "{host}: {head}");
    }
    standalone.stop();
}
