//! In whose name requests are made, and what becomes of one that is too long to be told.

use super::*;

#[tokio::test]
async fn new_credentials_sign_the_next_request() {
    let fixture = Fixture::new().await;
    fixture.door.renew(&credentials("second"));
    let request =
        Request::get("/queue/v1/x").header("host", "taskcluster").body(whole(Bytes::new())).unwrap();
    let (_, text) = fixture.ask(request).await;
    assert!(text.contains("authorization: Hawk id=\"second\""), "{text}");
}

#[tokio::test]
async fn credentials_are_not_the_tasks_to_change() {
    let fixture = Fixture::new().await;
    for (request, expected) in [
        ("PUT /credentials HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}", "403"),
        ("GET /credentials HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n", "405"),
        ("CONNECT elsewhere.example:443 HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n", "405"),
        ("CONNECT /queue/v1/ping HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n", "40"),
    ] {
        let text = fixture.send(request).await;
        assert!(text.starts_with(&format!("HTTP/1.1 {expected}")), "{request}: {text}");
    }
    assert_eq!(fixture.requests(), 0);
}

/// Credentials that no header holds.
fn too_long() -> Credentials {
    let scopes = format!(r#"{{"scopes":["{}"]}}"#, "s".repeat(bounds::SIGNED_BYTES));
    Credentials { certificate: Some(scopes), ..credentials("long") }
}

#[tokio::test]
async fn a_task_whose_requests_nobody_would_take_is_not_served_and_others_are() {
    let fixture = Fixture::new().await;
    let open = |scopes, credentials| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Door::open(&fixture.server, listener, Task { address: Ipv4Addr::LOCALHOST, scopes, credentials })
    };
    let many = vec!["queue:x".to_owned(); bounds::SIGNED_BYTES / 8];
    for (scopes, credentials) in [(many, credentials("task")), (Vec::new(), too_long())] {
        let why = open(scopes, credentials).err().map(|error| chain(&error)).unwrap();
        assert!(why.contains("give the task fewer scopes"), "{why}");
    }
    assert!(fixture.ask(get("/queue/v1/x")).await.1.contains("Hawk id=\"first\""));
}

#[tokio::test]
async fn with_new_credentials_that_nobody_would_take_requests_are_told_so_until_there_are_others() {
    let fixture = Fixture::new().await;
    fixture.door.renew(&too_long());
    for path in ["/queue/v1/x", "/bewit"] {
        let mut request = get(path);
        *request.body_mut() = whole(Bytes::from("http://tc/x"));
        let (response, text) = fixture.ask(request).await;
        assert_eq!(response.status().as_u16(), 500);
        assert!(text.contains("give the task fewer scopes"), "{text}");
    }
    assert_eq!(fixture.requests(), 0);
    fixture.door.renew(&credentials("third"));
    assert!(fixture.ask(get("/queue/v1/x")).await.1.contains("Hawk id=\"third\""));
}

#[tokio::test]
async fn a_signed_url_is_no_longer_than_it_may_be_whatever_the_scopes() {
    let fixture = Fixture::new().await;
    let scopes = "s".repeat(bounds::SIGNED_BYTES - 100);
    let certificate = Some(format!(r#"{{"scopes":["{scopes}"]}}"#));
    fixture.door.renew(&Credentials { certificate, ..credentials("long") });
    for (more, status) in [(0, 303), (1, 413)] {
        let url = format!("http://tc/{}", "x".repeat(bounds::URL_BYTES - "http://tc/".len() + more));
        let mut request = get("/bewit");
        *request.body_mut() = whole(Bytes::from(url));
        let (response, text) = fixture.ask(request).await;
        assert_eq!(response.status().as_u16(), status, "{}", text.len());
        let head: usize = response.headers().values().map(|value| value.len()).sum();
        // What one place has room for.
        assert!(head + text.len() < 160 << 10, "{head} {}", text.len());
        assert!(!response.headers().contains_key("x-taskcluster-proxy-temp-scopes"));
        assert_eq!(response.headers()["x-taskcluster-proxy-temp-clientid"], "long");
    }
}
