//! How connections end, one by one and all at once.

use rustix::net::sockopt::set_socket_linger;

use super::*;

#[tokio::test]
async fn with_the_door_all_connections_end_the_tasks_and_those_to_the_outside() {
    let fixture = Fixture::new().await;
    let mut streams = Vec::new();
    for path in ["hang", "x"] {
        let mut stream = TcpStream::connect(fixture.address).await.unwrap();
        let request = format!("GET /queue/v1/{path} HTTP/1.1\r\nHost: t\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        streams.push(stream);
    }
    // One of them has been answered and may ask again, the other one waits.
    while fixture.requests() < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let Fixture { address, door, seen, server, .. } = fixture;
    door.close().await;
    let counts = || seen.connections.each_ref().map(|count| count.load(Ordering::Relaxed));
    timeout(LIMIT, async {
        while counts() != [2, 2] {
            seen.is_over.notified().await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("{:?} of the connections to the outside are over", counts()));
    for mut stream in streams {
        let mut rest = Vec::new();
        // Closed, or reset where something was left unread.
        drop(timeout(LIMIT, stream.read_to_end(&mut rest)).await.unwrap());
    }
    assert!(TcpStream::connect(address).await.is_err(), "the listener is there");
    assert_eq!(server.places.free(), places::ALL);
    assert_eq!(Arc::strong_count(&server), 1, "something of the task is left");
}

#[tokio::test]
async fn an_order_is_answered_in_its_turn_and_what_is_out_of_turn_ends_the_process() {
    use super::super::super::messages::{Handed, Reports, Sending};
    let (ours, theirs) = UnixStream::pair().unwrap();
    let serving = tokio::spawn(async move { attend(&theirs).await });
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let handed = || Handed::from(&credentials("task"));
    let begin =
        |task| Order::Begin { task, address: Ipv4Addr::LOCALHOST, scopes: Vec::new(), credentials: handed() };
    let open = Order::Open { root_url: "http://127.0.0.1:1".to_owned() };
    let renew = Order::Renew { task: 9, credentials: handed() };
    for order in [open, begin(3), renew, Order::Ping, Order::End { task: 3 }] {
        let is_begin = matches!(order, Order::Begin { .. });
        let listener = is_begin.then(|| listener.try_clone().unwrap().into());
        Sending::of(&order, listener).unwrap().finish(&ours).await.unwrap();
    }
    let mut reports = Reports::default();
    let [begun, renewed, ended] =
        [Report::Begun { task: 3 }, Report::Renewed { task: 9 }, Report::Ended { task: 3 }];
    for expected in [Report::Ready, begun, renewed, Report::Alive, ended] {
        assert_eq!(reports.next(&ours).await.unwrap(), Some(expected));
    }
    Sending::of(&begin(4), None).unwrap().finish(&ours).await.unwrap();
    assert!(matches!(serving.await.unwrap(), Err(ServeError::Order(_))));
    assert_eq!(reports.next(&ours).await.unwrap(), None);
}

/// A client whose request has no answer.
async fn hanging(fixture: &Fixture, path: &str) -> TcpStream {
    let before = fixture.requests();
    let mut stream = TcpStream::connect(fixture.address).await.unwrap();
    let request = format!("GET /queue/v1/{path} HTTP/1.1\r\nHost: t\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    fixture.asked(before + 1).await;
    stream
}

/// Waits until all connections to the outside are over, and with them the task's places are free again.
async fn over(fixture: &Fixture) {
    let [begun, ended] = &fixture.seen.connections;
    let all = async {
        while ended.load(Ordering::Relaxed) < begun.load(Ordering::Relaxed) {
            fixture.seen.is_over.notified().await;
        }
    };
    timeout(LIMIT, all).await.unwrap();
}

#[tokio::test]
async fn a_client_that_is_gone_is_not_answered_and_its_place_is_free_at_once() {
    let fixture = Fixture::new().await;
    let begun = tokio::time::Instant::now();
    for path in ["hang", "half"] {
        let stream = hanging(&fixture, path).await;
        // It is reset, as whenever something is sent to a client that has ended.
        set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
        drop(stream);
        over(&fixture).await;
    }
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_client_that_has_said_its_last_is_answered_for_a_minute_and_a_silent_one_for_as_long_as_it_takes() {
    let fixture = Fixture::new().await;
    let silent = hanging(&fixture, "hang").await;
    for (path, heard, time) in [("hang", "HTTP/1.1 504", 59..70), ("half", "HTTP/1.1 200", 89..190)] {
        let mut stream = hanging(&fixture, path).await;
        stream.shutdown().await.unwrap();
        let begun = tokio::time::Instant::now();
        tokio::time::pause();
        let mut text = Vec::new();
        drop(timeout(Duration::from_secs(250), stream.read_to_end(&mut text)).await.unwrap());
        let took = begun.elapsed().as_secs();
        assert!(time.contains(&took), "{path}: {took} s");
        assert!(text.starts_with(heard.as_bytes()), "{}", String::from_utf8_lossy(&text));
        tokio::time::resume();
    }
    let mut rest = [0; 1];
    let heard = silent.try_read(&mut rest);
    assert_eq!(heard.map_err(|error| error.kind()), Err(io::ErrorKind::WouldBlock));
    // What it has asked for before it said its last, it hears.
    let two = "GET /queue/v1/a HTTP/1.1\r\nHost: t\r\n\r\nGET /queue/v1/b HTTP/1.1\r\nHost: t\r\n\r\n";
    let mut stream = TcpStream::connect(fixture.address).await.unwrap();
    stream.write_all(two.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut text = String::new();
    timeout(LIMIT, stream.read_to_string(&mut text)).await.unwrap().unwrap();
    assert_eq!(text.matches("HTTP/1.1 203").count(), 2, "{text}");
}
