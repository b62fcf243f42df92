//! Requests that nobody sends who means well.

use super::*;

#[tokio::test]
async fn of_two_lengths_the_pieces_count_and_what_follows_is_another_request() {
    let fixture = Fixture::new().await;
    for lengths in
        ["Content-Length: 4\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 4"]
    {
        let before = fixture.requests();
        let request =
            format!("POST /queue/v1/first HTTP/1.1\r\nHost: t\r\nConnection: close\r\n{lengths}\r\n\r\n");
        let pieces = "2\r\nab\r\n0\r\n\r\nGET /queue/v1/second HTTP/1.1\r\nHost: t\r\n\r\n";
        let text = fixture.send(&format!("{request}{pieces}")).await;
        assert!(text.contains("\n2 bytes") && !text.contains("second"), "{lengths}: {text}");
        assert!(!text.contains("content-length: 4\n"), "{lengths}: {text}");
        assert_eq!(fixture.requests(), before + 1);
    }
}

#[tokio::test]
async fn a_length_that_has_two_meanings_is_refused_before_anybody_is_asked() {
    let fixture = Fixture::new().await;
    for header in [
        "Transfer-Encoding: chunked, gzip",
        "Transfer-Encoding: chunked,",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: gzip",
        "Content-Length: 4\r\nContent-Length: 5",
        "Content-Length: +4",
        "Content-Length : 4",
    ] {
        let request = format!(
            "POST /queue/v1/x HTTP/1.1\r\nHost: t\r\nConnection: close\r\n{header}\r\n\r\n2\r\nab\r\n0\r\n\r\n"
        );
        let text = fixture.send(&request).await;
        assert!(text.starts_with("HTTP/1.1 400"), "{header}: {text}");
    }
    assert_eq!(fixture.requests(), 0);
}

#[tokio::test]
async fn a_service_that_would_speak_another_protocol_is_not_let_through() {
    let fixture = Fixture::new().await;
    let request = "GET /queue/v1/101 HTTP/1.1\r\nHost: t\r\nConnection: close, upgrade\r\nUpgrade: x\r\n\r\n";
    let text = fixture.send(request).await;
    assert!(text.starts_with("HTTP/1.1 50"), "{text}");
}

#[tokio::test]
async fn an_answer_whose_head_is_too_long_is_not_asked_for_again() {
    let fixture = Fixture::new().await;
    // By a connection that is new, and by one that is there already.
    let first = "GET /queue/v1/x HTTP/1.1\r\nHost: t\r\n\r\n";
    let long = "POST /queue/v1/long HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    for (requests, asked) in [(long.to_owned(), 1), (format!("{first}{long}"), 1 + 2)] {
        let text = fixture.send(&requests).await;
        assert!(text.contains("HTTP/1.1 502") && text.contains("failed to send the request"), "{text}");
        assert_eq!(fixture.requests(), asked);
    }
}

#[tokio::test]
async fn a_connection_that_is_not_the_tasks_is_closed_unanswered() {
    let fixture = Fixture::of_task_at(Ipv4Addr::new(10, 231, 0, 1)).await;
    let mut stream = TcpStream::connect(fixture.address).await.unwrap();
    // It may be closed before all of that is sent.
    drop(stream.write_all(b"GET /queue/v1/ping HTTP/1.1\r\nHost: t\r\n\r\n").await);
    let mut heard = Vec::new();
    let end = timeout(LIMIT, stream.read_to_end(&mut heard)).await.unwrap();
    assert!(heard.is_empty(), "{end:?} {}", String::from_utf8_lossy(&heard));
    assert_eq!(fixture.requests(), 0);
}

#[tokio::test]
async fn another_form_of_a_target_leads_nowhere_else() {
    let fixture = Fixture::new().await;
    let elsewhere = "http://elsewhere.example";
    for (target, expected) in [
        (format!("{elsewhere}/api/queue/v1/ping"), "GET /api/queue/v1/ping\n"),
        (format!("{elsewhere}:81/queue/v1/x?a=b"), "GET /api/queue/v1/x?a=b\n"),
        (elsewhere.to_owned(), "HTTP/1.1 404"),
        ("//elsewhere.example/x".to_owned(), "HTTP/1.1 404"),
        ("/api/queue/v1//elsewhere.example/x".to_owned(), "GET /api/queue/v1//elsewhere.example/x\n"),
        ("/api/../elsewhere/v1/x".to_owned(), "GET /api/../elsewhere/v1/x\n"),
        ("/api%2Fqueue/v1/ping".to_owned(), "HTTP/1.1 404"),
        ("/%2Fapi/queue/v1/ping".to_owned(), "HTTP/1.1 404"),
        ("elsewhere.example/x".to_owned(), "HTTP/1.1 400"),
        ("*".to_owned(), "HTTP/1.1 404"),
    ] {
        let request =
            format!("GET {target} HTTP/1.1\r\nHost: elsewhere.example\r\nConnection: close\r\n\r\n");
        let text = fixture.send(&request).await;
        assert!(text.contains(expected), "{target}: {text}");
        assert!(!text.contains("host: elsewhere"), "{target}: {text}");
    }
}

#[tokio::test]
async fn a_head_has_so_many_bytes_and_lines_at_most() {
    let fixture = Fixture::new().await;
    let line = |bytes: usize| format!("X-Long: {}\r\n", "x".repeat(bytes));
    let lines = |count: usize| "X: 1\r\n".repeat(count);
    let long_name = format!("{}: 1\r\n", "x".repeat(BUFFER_BYTES));
    for (header, expected) in [
        (line(BUFFER_BYTES / 2), "HTTP/1.1 203"),
        (line(BUFFER_BYTES), "HTTP/1.1 431"),
        (line(64 * BUFFER_BYTES), ""),
        (long_name, "HTTP/1.1 431"),
        (lines(90), "HTTP/1.1 203"),
        (lines(101), "HTTP/1.1 431"),
        (lines(100_000), ""),
    ] {
        let request = format!("GET /queue/v1/x HTTP/1.1\r\nHost: t\r\nConnection: close\r\n{header}\r\n");
        let text = fixture.send(&request).await;
        // Of a connection that is closed before all was sent the answer may be lost.
        let is_as_expected =
            if expected.is_empty() { !text.contains(" 203 ") } else { text.starts_with(expected) };
        assert!(is_as_expected, "{} {}: {text}", header.len(), header.lines().count());
    }
    assert_eq!(fixture.requests(), 2);
}

#[tokio::test]
async fn a_head_that_takes_its_time_is_waited_for_no_longer_than_others() {
    let fixture = Fixture::new().await;
    let mut stream = TcpStream::connect(fixture.address).await.unwrap();
    let begun = tokio::time::Instant::now();
    tokio::time::pause();
    let slow = async {
        for byte in "GET /queue/v1/x HTTP/1.1\r\nHost: t\r\nX-Slow: ".bytes().chain(std::iter::repeat(b'x')) {
            if stream.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
    };
    timeout(Duration::from_secs(300), slow).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(120), "{:?}", begun.elapsed());
    assert_eq!(fixture.requests(), 0);
}
