//! What goes through the proxy, seen by a server that answers with what it was asked.

use std::convert::Infallible;
use std::net::SocketAddr;

use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

/// The request's line, its header and the length of its body, a line each.
async fn echo(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let mut text = format!("{} {}\n", head.method, head.uri);
    for (name, value) in &head.headers {
        text += &format!("{name}: {}\n", value.to_str().unwrap_or_default());
    }
    let bytes = body.collect().await.map(|body| body.to_bytes().len());
    text += &format!("{bytes:?} bytes\n");
    Ok(Response::builder().status(203).header("x-own", "1").body(Full::from(text)).unwrap())
}

struct Fixture {
    /// Where the task would connect to.
    door: SocketAddr,
    root_url: String,
    renew: watch::Sender<Credentials>,
    _serving: Serving,
    _server: Background,
}

impl Fixture {
    async fn new() -> Fixture {
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let root_url = format!("http://{}", server.local_addr().unwrap());
        let server = Background::start(async move {
            loop {
                let (stream, _) = server.accept().await.unwrap();
                let served = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service_fn(echo));
                tokio::spawn(async { drop(served.await) });
            }
        });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let door = listener.local_addr().unwrap();
        let (renew, credentials) = watch::channel(credentials("first"));
        let caller = Caller { credentials, scopes: vec!["a:*".to_owned()] };
        let serving = Proxy::new(&root_url).serve(listener, caller).await.unwrap();
        Fixture { door, root_url, renew, _serving: serving, _server: server }
    }

    async fn ask(&self, request: Request<Body>) -> (Response<()>, String) {
        let stream = TcpStream::connect(self.door).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        let _connection = Background::start(async { drop(connection.await) });
        let (head, body) = sender.send_request(request).await.unwrap().into_parts();
        let text = body.collect().await.unwrap().to_bytes();
        (Response::from_parts(head, ()), String::from_utf8(text.to_vec()).unwrap())
    }
}

fn credentials(client_id: &str) -> Credentials {
    Credentials { client_id: client_id.to_owned(), access_token: "hush".to_owned(), certificate: None }
}

fn empty() -> Body {
    Full::new(Bytes::new()).map_err(|never| match never {}).boxed_unsync()
}

#[tokio::test]
async fn a_request_arrives_as_it_was_sent_but_for_its_signature_and_what_is_the_connections() {
    let fixture = Fixture::new().await;
    let request = Request::get("/api/queue/v1/a%2Fb//c?d=%20&a=1")
        .header("host", "taskcluster")
        .header("authorization", "forged")
        .header("connection", "x-hop")
        .header("x-hop", "1")
        .header("x-kept", "1");
    let (response, text) = fixture.ask(request.body(empty()).unwrap()).await;
    assert!(text.starts_with("GET /api/queue/v1/a%2Fb//c?d=%20&a=1\n"), "{text}");
    let host = fixture.root_url.strip_prefix("http://").unwrap();
    for line in [format!("host: {host}\n"), "x-kept: 1\n".to_owned(), "Ok(0) bytes".to_owned()] {
        assert!(text.contains(&line), "{line}: {text}");
    }
    assert!(text.contains("authorization: Hawk id=\"first\"") && !text.contains("x-hop"), "{text}");
    let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
    assert_eq!((response.status().as_u16(), header("x-own")), (203, "1".to_owned()));
    assert_eq!(header("x-taskcluster-authorized-scopes"), "[\"a:*\"]");
    assert_eq!(header("x-taskcluster-proxy-perm-clientid"), "first");
    let endpoint = format!("{}/api/queue/v1/a%2Fb//c?d=%20&a=1", fixture.root_url);
    assert_eq!(header("x-taskcluster-endpoint"), endpoint);
}

#[tokio::test]
async fn a_body_beyond_what_is_kept_arrives_whole() {
    let fixture = Fixture::new().await;
    let piece = Bytes::from(vec![b'x'; 1 << 20]);
    let pieces = (KEPT_BYTES >> 20) + 4;
    let frames = std::iter::repeat_n(piece, pieces).map(|piece| Ok(Frame::data(piece)));
    let body = StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync();
    let request = Request::put("/queue/v1/large").header("host", "taskcluster").body(body).unwrap();
    let (_, text) = fixture.ask(request).await;
    assert!(text.contains(&format!("Ok({}) bytes", pieces << 20)), "{text}");
}

#[tokio::test]
async fn new_credentials_sign_the_next_request() {
    let fixture = Fixture::new().await;
    fixture.renew.send_replace(credentials("second"));
    // The event loop passes them on when it comes to it.
    tokio::task::yield_now().await;
    let request = Request::get("/queue/v1/x").header("host", "taskcluster").body(empty()).unwrap();
    let (_, text) = fixture.ask(request).await;
    assert!(text.contains("authorization: Hawk id=\"second\""), "{text}");
}

#[tokio::test]
async fn s_of_two_lengths_the_pieces_count_and_what_follows_is_another_request() {
    let fixture = Fixture::new().await;
    for lengths in
        ["Content-Length: 4\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 4"]
    {
        let request =
            format!("POST /queue/v1/first HTTP/1.1\r\nHost: t\r\nConnection: close\r\n{lengths}\r\n\r\n");
        let pieces = "2\r\nab\r\n0\r\n\r\nGET /queue/v1/second HTTP/1.1\r\nHost: t\r\n\r\n";
        let mut stream = TcpStream::connect(fixture.door).await.unwrap();
        stream.write_all(format!("{request}{pieces}").as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert!(text.contains("Ok(2) bytes") && !text.contains("second"), "{lengths}: {text}");
        assert!(!text.contains("content-length: 4\n"), "{lengths}: {text}");
    }
}
