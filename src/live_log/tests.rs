use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::*;
use crate::config::Logging;
use crate::task_log::spool::Spool;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

/// A server on loopback, and a log that it serves.
struct Served {
    server: LiveLogServer,
    spool: Spool,
    offer: Offer,
    _directory: tempfile::TempDir,
}

async fn serve(limits: Limits) -> Served {
    let loopback = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let logging = Logging { live_log_address: loopback, ..Logging::default() };
    let config = ConfigFile { logging, ..ConfigFile::default() };
    let server = LiveLogServer::start_with(&config, Events::none(), limits).await.unwrap();
    let (directory, spool) = Spool::temporary(1 << 30);
    let offer = server.offer(spool.reader(), Timestamp::now()).unwrap();
    Served { server, spool, offer, _directory: directory }
}

impl Served {
    /// The path of the log's URL.
    fn path(&self) -> String {
        let base = format!("http://localhost:{}", self.server.address().port());
        self.offer.url().strip_prefix(&base).unwrap().to_owned()
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.server.address()).await.unwrap()
    }

    /// A connection on which a request is sent; `headers` with their line ends.
    async fn ask(&self, method: &str, path: &str, headers: &str) -> TcpStream {
        let mut stream = self.connect().await;
        let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    /// So many readers, and no place for another one.
    async fn fill(&self, places: usize) -> Vec<TcpStream> {
        self.spool.output(b"text");
        let mut readers = Vec::new();
        for _ in 0..places {
            let mut reader = self.ask("GET", &self.path(), "").await;
            reader.read_exact(&mut [0; 9]).await.unwrap();
            readers.push(reader);
        }
        assert!(self.get("").await.head.starts_with("http/1.1 503"));
        readers
    }

    /// What is replied to a request for the log, to its end.
    async fn get(&self, headers: &str) -> Reply {
        rest(self.ask("GET", &self.path(), headers).await).await
    }
}

/// A reply, its body put together.
#[derive(Debug)]
struct Reply {
    head: String,
    body: String,
    whole: bool,
}

impl Reply {
    fn has(&self, text: &str) -> bool {
        self.head.contains(&text.to_lowercase())
    }
}

/// Everything that still comes.
async fn rest(mut stream: TcpStream) -> Reply {
    let mut bytes = Vec::new();
    timeout(LONG, stream.read_to_end(&mut bytes)).await.unwrap().unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let head = head.to_lowercase();
    if !head.contains("transfer-encoding: chunked") {
        return Reply { body: body.to_owned(), whole: true, head };
    }
    let (mut body, mut left, mut whole) = (String::new(), body, false);
    while let Some((size, more)) = left.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        whole = size == 0;
        body += &more[..size];
        left = more.get(size + 2..).unwrap_or_default();
    }
    Reply { head, body, whole }
}

#[tokio::test]
async fn a_reader_follows_the_log_from_its_start_to_its_end() {
    let served = serve(LIMITS).await;
    served.spool.output(b"before\r\n");
    let mut stream = served.ask("GET", &served.path(), "").await;
    let mut first = vec![0; 1000];
    let mut seen = String::new();
    while !seen.contains("before") {
        let read = timeout(LONG, stream.read(&mut first)).await.unwrap().unwrap();
        seen += std::str::from_utf8(&first[..read]).unwrap();
    }
    served.spool.output(b"after\r\n");
    assert!(served.spool.end().is_none());
    let late = served.get("").await;
    assert_eq!((late.body.as_str(), late.whole), ("before\r\nafter\r\n", true));
    let mut end = String::new();
    timeout(LONG, stream.read_to_string(&mut end)).await.unwrap().unwrap();
    assert_eq!(end, "7\r\nafter\r\n\r\n0\r\n\r\n");
    let head = seen.to_lowercase();
    for header in [
        "http/1.1 200 ok",
        "content-type: text/plain; charset=utf-8",
        "access-control-allow-origin: *",
        "access-control-expose-headers: transfer-encoding",
        "transfer-encoding: chunked",
        "x-content-type-options: nosniff",
    ] {
        assert!(head.contains(header), "{header}: {head}");
    }
}

#[tokio::test]
async fn only_the_secret_opens_a_log_and_only_while_it_is_offered() {
    let served = serve(LIMITS).await;
    served.spool.output(b"text");
    let other = served.server.offer(served.spool.reader(), Timestamp::now()).unwrap();
    let withdrawn = other.url().replace(served.offer.url().split_once("/log/").unwrap().0, "");
    let path = served.path();
    assert_eq!(path.len(), "/log/".len() + 22);
    assert_ne!(withdrawn, path);
    drop(other);
    let (start, end) = path.split_at(10);
    let wrong = format!("{start}{}{}", if end.starts_with('A') { "B" } else { "A" }, &end[1..]);
    for (method, path, status) in [
        ("GET", wrong.as_str(), "401"),
        ("GET", "/log/", "401"),
        ("GET", &path[..path.len() - 1], "401"),
        ("GET", &format!("{path}/"), "401"),
        ("GET", &withdrawn, "401"),
        ("GET", "/", "404"),
        ("GET", &path[1..], "400"),
        ("PUT", &path, "405"),
        ("OPTIONS", &path, "204"),
    ] {
        let reply = rest(served.ask(method, path, "").await).await;
        assert!(reply.head.starts_with(&format!("http/1.1 {status}")), "{method} {path}: {reply:?}");
        assert!(status == "400" || reply.has("Access-Control-Allow-Origin: *"), "{reply:?}");
    }
    assert_eq!(format!("{:?}", served.server.logs.offers), "Offers(1)", "no secret in it");
}

#[tokio::test]
async fn a_range_is_what_is_asked_for_and_goes_on_where_it_is_open() {
    let served = serve(LIMITS).await;
    served.spool.output(b"0123456789");
    for (range, body, content_range) in
        [("2-4", "234", "bytes 2-4/*"), ("9-9", "9", "bytes 9-9/*"), ("0-0", "0", "bytes 0-0/*")]
    {
        let reply = served.get(&format!("Range: bytes={range}\r\n")).await;
        assert!(reply.head.starts_with("http/1.1 206"), "{reply:?}");
        assert_eq!(reply.body, body, "{range}");
        assert!(reply.has(&format!("Content-Range: {content_range}")), "{reply:?}");
        assert!(reply.has(&format!("Content-Length: {}", body.len())), "{reply:?}");
    }
    let cases = [("5-", "56789abc"), ("-3", "789abc"), ("8-11", "89ab"), ("10-", "abc"), ("11-12", "bc")];
    let asked = cases.map(|(range, _)| (range, format!("Range: bytes={range}\r\n")));
    let mut streams = Vec::new();
    for (_, header) in &asked {
        streams.push(served.ask("GET", &served.path(), header).await);
    }
    // They are asked before there is more.
    tokio::time::sleep(Duration::from_millis(50)).await;
    served.spool.output(b"abc");
    assert!(served.spool.end().is_none());
    for ((range, body), stream) in cases.into_iter().zip(streams) {
        let reply = rest(stream).await;
        assert!(reply.head.starts_with("http/1.1 206"), "{range}: {reply:?}");
        assert_eq!((reply.body.as_str(), reply.whole), (body, true), "{range}");
    }
    let beyond = served.get("Range: bytes=13-\r\n").await;
    assert!(beyond.head.starts_with("http/1.1 416") && beyond.has("Content-Range: bytes */13"), "{beyond:?}");
    let ended = served.get("Range: bytes=10-\r\n").await;
    assert!(ended.has("Content-Range: bytes 10-12/13") && ended.body == "abc", "{ended:?}");
    let several = served.get("Range: bytes=1-2,4-5\r\n").await;
    assert!(several.head.starts_with("http/1.1 200") && several.body == "0123456789abc", "{several:?}");
}

#[tokio::test]
async fn whoever_does_not_read_costs_others_nothing_and_is_let_go() {
    let limits = Limits { idle_time: Duration::from_millis(300), ..LIMITS };
    let served = serve(limits).await;
    // Never read, but held open.
    let mut silent = Vec::new();
    for _ in 0..10 {
        silent.push(served.ask("GET", &served.path(), "").await);
    }
    let line = "x".repeat(99) + "\n";
    let begun = Instant::now();
    for _ in 0..300 {
        served.spool.output(line.repeat(1000).as_bytes());
        tokio::task::yield_now().await;
    }
    let spooled = begun.elapsed();
    assert!(served.spool.end().is_none());
    let reply = served.get("").await;
    assert_eq!((reply.body.len(), reply.whole), (30_000_000, true), "{spooled:?}");
    for stream in silent {
        // What the kernel held for it comes, and then the end, without the last chunk.
        let mut bytes = Vec::new();
        let mut stream = stream;
        tokio::time::sleep(Duration::from_millis(400)).await;
        let ended = timeout(LONG, stream.read_to_end(&mut bytes)).await.unwrap();
        assert!(ended.is_err() || !bytes.ends_with(b"0\r\n\r\n"), "{} bytes", bytes.len());
        assert!(bytes.len() < 30_000_000);
    }
}

#[tokio::test]
async fn a_slow_reader_gets_everything_as_long_as_it_reads() {
    let limits = Limits { idle_time: Duration::from_millis(500), ..LIMITS };
    let served = serve(limits).await;
    served.spool.output(&vec![b'x'; 8 << 20]);
    assert!(served.spool.end().is_none());
    let mut stream = served.ask("GET", &served.path(), "").await;
    let mut bytes = vec![0; 1 << 20];
    let mut read = 0;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(40)).await;
        read += stream.read(&mut bytes[..100_000]).await.unwrap();
    }
    let mut last = Vec::new();
    timeout(LONG, stream.read_to_end(&mut last)).await.unwrap().unwrap();
    assert!(read + last.len() > 8 << 20);
    assert!(last.ends_with(b"x\r\n0\r\n\r\n") || last.ends_with(b"xx"), "{:?}", &last[last.len() - 10..]);
}

#[tokio::test]
async fn a_flood_of_connections_that_say_nothing_keeps_nobody_out() {
    let limits = Limits { asking: 8, asking_time: LONG, ..LIMITS };
    let served = serve(limits).await;
    served.spool.output(b"text");
    let mut flood = Vec::new();
    for _ in 0..100 {
        flood.push(served.connect().await);
    }
    let mut reader = served.ask("GET", &served.path(), "").await;
    let mut seen = vec![0; 9];
    timeout(LONG, reader.read_exact(&mut seen)).await.unwrap().unwrap();
    assert_eq!(seen, b"HTTP/1.1 ");
    for _ in 0..100 {
        flood.push(served.connect().await);
    }
    assert!(served.spool.end().is_none());
    let reply = rest(reader).await;
    assert!(reply.body == "text" && reply.whole, "{reply:?}");
    let mut cut = 0;
    for mut stream in flood {
        // Those who asked last may still ask.
        let read = timeout(Duration::from_millis(1), stream.read(&mut [0; 8])).await;
        cut += usize::from(read.is_ok_and(|read| matches!(read, Ok(0) | Err(_))));
    }
    assert!(cut >= 200 - limits.asking, "{cut} are cut");
}

#[tokio::test]
async fn readers_beyond_the_limit_are_told_so_and_places_become_free() {
    let limits = Limits { reading: 2, ..LIMITS };
    let served = serve(limits).await;
    let mut readers = served.fill(2).await;
    // It goes without a word, and the log is silent.
    readers.pop();
    let deadline = Instant::now() + LONG;
    loop {
        let mut reader = served.ask("GET", &served.path(), "").await;
        let mut status = [0; 12];
        reader.read_exact(&mut status).await.unwrap();
        if &status == b"HTTP/1.1 200" {
            break;
        }
        assert!(Instant::now() < deadline, "its place stays taken");
    }
}

#[tokio::test]
async fn readers_of_one_log_leave_places_for_those_of_another() {
    let served = serve(Limits { reading_one: 2, ..LIMITS }).await;
    let (_directory, other) = Spool::temporary(1 << 20);
    other.output(b"other");
    assert!(other.end().is_none());
    let other = served.server.offer(other.reader(), Timestamp::now()).unwrap();
    let _readers = served.fill(2).await;
    let (_, path) = other.url().split_once("/log/").unwrap();
    assert_eq!(rest(served.ask("GET", &format!("/log/{path}"), "").await).await.body, "other");
}

#[tokio::test]
async fn what_takes_too_long_or_is_too_long_is_cut() {
    let limits =
        Limits { asking_time: Duration::from_millis(200), rest_time: Duration::from_millis(200), ..LIMITS };
    let served = serve(limits).await;
    let mut slow = served.connect().await;
    slow.write_all(b"GET /log/").await.unwrap();
    let mut bytes = Vec::new();
    let ended = timeout(LONG, slow.read_to_end(&mut bytes)).await.unwrap();
    assert!(ended.is_err() || bytes.is_empty() || bytes.starts_with(b"HTTP/1.1 408"), "{bytes:?}");
    for headers in [format!("X: {}\r\n", "x".repeat(100_000)), "X: y\r\n".repeat(1000)] {
        let mut stream = served.connect().await;
        let request = format!("GET {} HTTP/1.1\r\n{headers}\r\n", served.path());
        // It may be cut while it is being said.
        if stream.write_all(request.as_bytes()).await.is_ok() {
            let mut reply = Vec::new();
            let ended = timeout(LONG, stream.read_to_end(&mut reply)).await.unwrap();
            assert!(ended.is_err() || reply.starts_with(b"HTTP/1.1 431"), "{reply:?}");
        }
    }
    // A reader who has been served is not one who asks; the log's end is what counts then.
    served.spool.output(&vec![b'x'; 30 << 20]);
    let mut reader = served.ask("GET", &served.path(), "").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    reader.read_exact(&mut [0; 1000]).await.unwrap();
    assert!(served.spool.end().is_none());
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut left = Vec::new();
    let ended = timeout(LONG, reader.read_to_end(&mut left)).await.unwrap();
    assert!(ended.is_err() || left.len() < 30 << 20, "the log's file is given back");
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let served = serve(LIMITS).await;
    let logging = Logging {
        live_log_address: Some(served.server.address().ip()),
        live_log_port: Some(served.server.address().port()),
        ..Logging::default()
    };
    let config = ConfigFile { logging, ..ConfigFile::default() };
    let error = LiveLogServer::start(&config, Events::none()).await.unwrap_err().to_string();
    assert!(error.contains(&served.server.address().to_string()) && error.contains("liveLogPort"), "{error}");
}
