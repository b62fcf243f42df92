//! What goes through a door, seen by a server that answers with what it was asked.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::*;
use crate::background::Background;
use crate::queue::Credentials;

/// More than anything takes that a test waits for.
const LIMIT: Duration = Duration::from_secs(120);

/// What the server has seen.
#[derive(Default)]
struct Seen {
    requests: AtomicUsize,
    /// Connections that have come, and of those the ones that are over.
    connections: [AtomicUsize; 2],
    is_over: Notify,
}

/// The request's line, its header and the length of its body, a line each; a request for `hang` has no answer.
async fn echo(request: Request<Incoming>, seen: Arc<Seen>) -> Result<Response<Full<Bytes>>, Infallible> {
    seen.requests.fetch_add(1, Ordering::Relaxed);
    let (head, body) = request.into_parts();
    if head.uri.path().ends_with("/hang") {
        std::future::pending::<()>().await;
    }
    let mut text = format!("{} {}\n", head.method, head.uri);
    for (name, value) in &head.headers {
        text += &format!("{name}: {}\n", value.to_str().unwrap_or_default());
    }
    let mut body = body;
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        length += frame.unwrap().into_data().map_or(0, |data| data.len());
    }
    text += &format!("{length} bytes\n");
    let status = if head.uri.path().ends_with("/101") { 101 } else { 203 };
    Ok(Response::builder().status(status).header("x-own", "1").body(Full::from(text)).unwrap())
}

struct Fixture {
    /// Where the task would connect to.
    address: SocketAddr,
    door: Door,
    server: Arc<Server>,
    root_url: String,
    seen: Arc<Seen>,
    _upstream: Background,
}

impl Fixture {
    async fn new() -> Fixture {
        Fixture::of_task_at(Ipv4Addr::LOCALHOST).await
    }

    async fn of_task_at(task: Ipv4Addr) -> Fixture {
        let upstream = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let root_url = format!("http://{}", upstream.local_addr().unwrap());
        let seen = Arc::<Seen>::default();
        let heard = Arc::clone(&seen);
        let upstream = Background::start(async move {
            loop {
                let (stream, _) = upstream.accept().await.unwrap();
                let seen = Arc::clone(&heard);
                tokio::spawn(async move {
                    seen.connections[0].fetch_add(1, Ordering::Relaxed);
                    let service = service_fn(|request| echo(request, Arc::clone(&seen)));
                    let served = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service);
                    drop(served.await);
                    seen.connections[1].fetch_add(1, Ordering::Relaxed);
                    seen.is_over.notify_one();
                });
            }
        });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let server = Arc::new(Server::new(&root_url).unwrap());
        let scopes = vec!["a:*".to_owned()];
        let whose = Task { address: task, scopes, credentials: credentials("first") };
        let door = Door::open(&server, listener, whose).unwrap();
        Fixture { address, door, server, root_url, seen, _upstream: upstream }
    }

    async fn ask(&self, request: Request<Body>) -> (Response<()>, String) {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        let _connection = Background::start(async { drop(connection.await) });
        let (head, body) = sender.send_request(request).await.unwrap().into_parts();
        let text = body.collect().await.unwrap().to_bytes();
        (Response::from_parts(head, ()), String::from_utf8(text.to_vec()).unwrap())
    }

    /// Sends bytes as they are; gives all that comes until the connection's end.
    async fn send(&self, bytes: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let mut text = Vec::new();
        timeout(LIMIT, stream.read_to_end(&mut text)).await.unwrap().unwrap();
        String::from_utf8(text).unwrap()
    }

    fn requests(&self) -> usize {
        self.seen.requests.load(Ordering::Relaxed)
    }
}

fn credentials(client_id: &str) -> Credentials {
    Credentials { client_id: client_id.to_owned(), access_token: "hush".to_owned(), certificate: None }
}

fn empty() -> Body {
    Full::new(Bytes::new()).map_err(|never| match never {}).boxed_unsync()
}

fn pieces(count: usize) -> Body {
    let piece = Bytes::from(vec![b'x'; 1 << 20]);
    let frames = std::iter::repeat_n(piece, count).map(|piece| Ok(Frame::data(piece)));
    StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync()
}

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
    let (response, text) = fixture.ask(request.body(empty()).unwrap()).await;
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
async fn new_credentials_sign_the_next_request() {
    let fixture = Fixture::new().await;
    fixture.door.renew(credentials("second"));
    let request = Request::get("/queue/v1/x").header("host", "taskcluster").body(empty()).unwrap();
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
    assert_eq!(server.connections.available_permits(), CONNECTIONS);
    assert_eq!(Arc::strong_count(&server), 1, "something of the task is left");
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
async fn an_order_is_answered_in_its_turn_and_what_is_out_of_turn_ends_the_process() {
    use super::super::messages::{Handed, Reports, send_order};
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
