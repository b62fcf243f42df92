//! What goes through a door, seen by a server that answers with what it was asked.

mod ends;
mod hostile;
mod identity;
mod passing;

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use http_body_util::StreamBody;
use hyper::Request;
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::bounds::BUFFER_BYTES;
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

/// The request's line, its header and the length of its body, a line each; a request for `hang` has no answer, one for `half`
/// the beginning of one, one for `long` one with a long head.
async fn echo(request: Request<Incoming>, seen: Arc<Seen>) -> Result<Response<Body>, Infallible> {
    seen.requests.fetch_add(1, Ordering::Relaxed);
    let (head, body) = request.into_parts();
    if head.uri.path().ends_with("/hang") {
        std::future::pending::<()>().await;
    }
    if head.uri.path().ends_with("/half") {
        let begun = stream::iter([Ok(Frame::data(Bytes::from("half")))]);
        return Ok(Response::new(StreamBody::new(begun.chain(stream::pending())).boxed_unsync()));
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
    let own = if head.uri.path().ends_with("/long") { "1".repeat(2 * BUFFER_BYTES) } else { "1".to_owned() };
    Ok(Response::builder().status(status).header("x-own", own).body(whole(text.into())).unwrap())
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
        let door = Door::open(&server, listener, whose).unwrap_or_else(|error| panic!("{error}"));
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

    /// Sends bytes as they are; gives all that comes until the connection's end, which may come before all is sent.
    async fn send(&self, bytes: &str) -> String {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut reader, mut writer) = stream.into_split();
        let mut text = Vec::new();
        let spoken =
            async { tokio::join!(writer.write_all(bytes.as_bytes()), reader.read_to_end(&mut text)) };
        drop(timeout(LIMIT, spoken).await.unwrap());
        String::from_utf8(text).unwrap()
    }

    fn requests(&self) -> usize {
        self.seen.requests.load(Ordering::Relaxed)
    }

    /// Waits until the server was asked so often.
    async fn asked(&self, times: usize) {
        let asked = async {
            while self.requests() < times {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(LIMIT, asked).await.unwrap_or_else(|_| panic!("asked {} times", self.requests()));
    }
}

fn credentials(client_id: &str) -> Credentials {
    Credentials { client_id: client_id.to_owned(), access_token: "hush".to_owned(), certificate: None }
}

/// A request without a body.
fn get(path: &str) -> Request<Body> {
    Request::get(path).header("host", "taskcluster").body(whole(Bytes::new())).unwrap()
}

fn pieces(count: usize) -> Body {
    let piece = Bytes::from(vec![b'x'; 1 << 20]);
    let frames = std::iter::repeat_n(piece, count).map(|piece| Ok(Frame::data(piece)));
    StreamBody::new(stream::iter(frames)).boxed_unsync()
}
