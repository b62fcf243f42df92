//! How connections end, one by one and all at once.

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
    use super::super::super::messages::{Handed, Reports, send_order};
    use std::os::fd::AsFd;
    let (ours, theirs) = UnixStream::pair().unwrap();
    let serving = tokio::spawn(async move { attend(&theirs).await });
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let handed = || Handed::from(&credentials("task"));
    let begin =
        |task| Order::Begin { task, address: Ipv4Addr::LOCALHOST, scopes: Vec::new(), credentials: handed() };
    send_order(&ours, &Order::Open { root_url: "http://127.0.0.1:1".to_owned() }, None).await.unwrap();
    send_order(&ours, &begin(3), Some(listener.as_fd())).await.unwrap();
    send_order(&ours, &Order::Renew { task: 9, credentials: handed() }, None).await.unwrap();
    send_order(&ours, &Order::End { task: 3 }, None).await.unwrap();
    let mut reports = Reports::default();
    for expected in [Report::Ready, Report::Begun { task: 3 }, Report::Ended { task: 3 }] {
        assert_eq!(reports.next(&ours).await.unwrap(), Some(expected));
    }
    send_order(&ours, &begin(4), None).await.unwrap();
    assert!(matches!(serving.await.unwrap(), Err(ServeError::Order(_))));
    assert_eq!(reports.next(&ours).await.unwrap(), None);
}
