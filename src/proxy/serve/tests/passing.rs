//! What a request is like when it arrives, and what its answer says.

use super::*;

#[tokio::test]
async fn a_request_arrives_as_it_was_sent_but_for_its_signature_and_what_is_the_connections() {
    let fixture = Fixture::new().await;
    let request = Request::get("/api/queue/v1/a%2Fb//c?d=%20&a=1")
        .header("host", "taskcluster")
        .header("authorization", "forged")
        .header("connection", "x-hop")
        .header("x-hop", "1")
        .header("upgrade", "websocket")
        .header("x-kept", "1");
    let (response, text) = fixture.ask(request.body(whole(Bytes::new())).unwrap()).await;
    assert!(text.starts_with("GET /api/queue/v1/a%2Fb//c?d=%20&a=1\n"), "{text}");
    let host = fixture.root_url.strip_prefix("http://").unwrap();
    for line in [format!("host: {host}\n"), "x-kept: 1\n".to_owned(), "\n0 bytes".to_owned()] {
        assert!(text.contains(&line), "{line}: {text}");
    }
    assert!(text.contains("authorization: Hawk id=\"first\""), "{text}");
    assert!(!text.contains("x-hop") && !text.contains("upgrade"), "{text}");
    let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
    assert_eq!((response.status().as_u16(), header("x-own")), (203, "1".to_owned()));
    assert_eq!(header("x-taskcluster-authorized-scopes"), "[\"a:*\"]");
    assert_eq!(header("x-taskcluster-proxy-perm-clientid"), "first");
    let endpoint = format!("{}/api/queue/v1/a%2Fb//c?d=%20&a=1", fixture.root_url);
    assert_eq!(header("x-taskcluster-endpoint"), endpoint);
}

#[tokio::test]
async fn a_name_arrives_with_the_bytes_that_it_was_written_with() {
    let fixture = Fixture::new().await;
    for name in ["public%2Ffun@work.txt", "public/fun%40work.txt", "a%252Fb", "%e2%82%ac", "a//b/../c"] {
        let path = format!("/api/queue/v1/artifacts/{name}");
        let text =
            fixture.send(&format!("GET {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")).await;
        assert!(text.contains(&format!("GET {path}\n")), "{name}: {text}");
    }
}

#[tokio::test]
async fn a_body_that_is_kept_arrives_with_its_length_and_a_larger_one_whole() {
    let fixture = Fixture::new().await;
    for (count, length) in [(2, Some(2 << 20)), ((kept::BYTES >> 20) + 4, None)] {
        let request = Request::put("/queue/v1/large").header("host", "taskcluster").body(pieces(count));
        let (_, text) = fixture.ask(request.unwrap()).await;
        assert!(text.contains(&format!("\n{} bytes", count << 20)), "{text}");
        let header = length.map(|length: usize| format!("content-length: {length}\n"));
        assert_eq!(text.contains("content-length"), header.is_some(), "{text}");
        assert!(header.is_none_or(|header| text.contains(&header)), "{text}");
        // What was kept has been given back with the request.
        let Server { kept, .. } = &*fixture.server;
        assert_eq!(kept.available_permits(), KEPT_BYTES);
    }
}

#[tokio::test]
async fn requests_of_one_connection_go_out_by_one_and_others_by_their_own() {
    let fixture = Fixture::new().await;
    let get = "GET /queue/v1/x HTTP/1.1\r\nHost: t\r\n\r\n";
    let last = "GET /queue/v1/x HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";
    for expected in [1, 2] {
        let text = fixture.send(&format!("{get}{get}{last}")).await;
        assert_eq!(text.matches("HTTP/1.1 203").count(), 3, "{text}");
        assert_eq!(fixture.seen.connections[0].load(Ordering::Relaxed), expected);
    }
}

#[tokio::test]
async fn two_hundred_requests_back_to_back_are_answered_in_turn_by_one_connection() {
    let fixture = Fixture::new().await;
    let mut requests = String::new();
    for number in 1000..1200 {
        let end = if number < 1199 { "keep-alive" } else { "close" };
        requests += &format!("GET /queue/v1/{number} HTTP/1.1\r\nHost: t\r\nConnection: {end}\r\n\r\n");
    }
    // None of them waits for the answer before.
    let text = fixture.send(&requests).await;
    let answers = text.matches("HTTP/1.1 203").count();
    assert_eq!(answers, 200, "{text}");
    let asked: Vec<String> = (1000..1200).map(|number| format!("GET /api/queue/v1/{number}")).collect();
    assert_eq!(text.lines().filter(|line| line.starts_with("GET ")).collect::<Vec<_>>(), asked);
    assert_eq!((fixture.requests(), fixture.seen.connections[0].load(Ordering::Relaxed)), (200, 1));
}

#[tokio::test]
async fn who_would_speak_by_a_web_socket_has_an_answer_in_http_and_may_ask_again() {
    let fixture = Fixture::new().await;
    let upgrade = "GET /queue/v1/socket HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let last = "GET /queue/v1/next HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";
    let text = fixture.send(&format!("{upgrade}{last}")).await;
    assert_eq!(text.matches("HTTP/1.1 203").count(), 2, "{text}");
    assert!(text.contains("GET /api/queue/v1/next\n") && !text.contains("upgrade: "), "{text}");
}
