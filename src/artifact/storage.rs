//! A storage on loopback for tests, as strict as S3 is, that misbehaves when it is told to. Below `/api/` it is the
//! deployment that gives out its URLs.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::deployment::{Deployment, SILENT, refusal};
use crate::background::Background;

/// Bytes of a body that are kept.
const KEPT_BYTES: usize = 1 << 20;

/// What becomes of one request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    /// It is stored.
    Store,
    /// The body is read, and refused with a status and S3's word for it.
    Refuse(u16, &'static str),
    /// The same, before the body is read.
    RefuseEarly(u16, &'static str),
    /// The connection is cut after so many bytes of the body.
    Cut(usize),
    /// Nothing is said, and nothing is read of the body before [`Storage::wake`].
    Hang,
    /// It is stored, but not before [`Storage::wake`].
    Wait,
}

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) headers: BTreeMap<String, String>,
    /// Its first bytes.
    pub(super) body: Vec<u8>,
    /// How many there were.
    pub(super) length: u64,
}

impl Received {
    /// Whether a client of that id signed it.
    pub(crate) fn is_signed_by(&self, client_id: &str) -> bool {
        let signed = format!("id=\"{client_id}\"");
        self.headers.get("authorization").is_some_and(|header| header.contains(&signed))
    }
}

/// The storage; gone with this value.
pub(crate) struct Storage {
    address: SocketAddr,
    shared: Arc<Shared>,
    _accepting: Background,
}

struct Shared {
    answers: Mutex<VecDeque<Answer>>,
    creations: Mutex<VecDeque<Answer>>,
    deployment: Mutex<Deployment>,
    received: Mutex<Vec<Received>>,
    /// Connections.
    open: watch::Sender<usize>,
    awake: watch::Sender<bool>,
}

impl Storage {
    /// Answers so, request by request; all that come later are stored.
    pub(crate) async fn start(answers: &[Answer]) -> Storage {
        Storage::start_at("127.0.0.1:0".parse().unwrap(), answers).await
    }

    pub(super) async fn start_at(address: SocketAddr, answers: &[Answer]) -> Storage {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            answers: Mutex::new(answers.iter().copied().collect()),
            creations: Mutex::default(),
            deployment: Mutex::default(),
            received: Mutex::default(),
            open: watch::Sender::new(0),
            awake: watch::Sender::new(false),
        });
        let accepting = Background::start(accept(listener, Arc::clone(&shared)));
        Storage { address, shared, _accepting: accepting }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn received(&self) -> MutexGuard<'_, Vec<Received>> {
        self.shared.received.lock().unwrap()
    }

    /// What becomes of the next calls that create artifacts.
    pub(super) fn answer_creations(&self, answers: &[Answer]) {
        self.shared.creations.lock().unwrap().extend(answers);
    }

    /// What hangs reads what there is to its end.
    pub(super) fn wake(&self) {
        self.shared.awake.send_replace(true);
    }

    /// Waits until as many uploads have come.
    pub(super) async fn puts(&self, count: usize) {
        let have_come = async {
            while self.received().iter().filter(|it| !it.path.starts_with("/api/")).count() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), have_come).await.unwrap();
    }

    /// Waits until as many connections are open.
    pub(super) async fn connections(&self, count: usize) {
        self.shared.open.subscribe().wait_for(|open| *open == count).await.unwrap();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        shared.open.send_modify(|open| *open += 1);
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let mut stream = BufReader::new(stream);
            while matches!(serve(&mut stream, &shared).await, Ok(true)) {}
            shared.open.send_modify(|open| *open -= 1);
        });
    }
}

/// Serves one request; false when the connection is over.
async fn serve(stream: &mut BufReader<TcpStream>, shared: &Shared) -> io::Result<bool> {
    let Some(mut received) = head(stream).await? else { return Ok(false) };
    let length = match length(&received) {
        Ok(length) => length,
        Err(fault) => {
            reply(stream, 411, &error(fault)).await?;
            return Ok(false);
        }
    };
    if received.path.starts_with("/api/") {
        read_body(stream, &mut received, length).await?;
        return serve_call(stream, shared, received).await;
    }
    assert_eq!(received.method, "PUT", "{}", received.path);
    let answer = shared.answers.lock().unwrap().pop_front().unwrap_or(Answer::Store);
    let most = match answer {
        Answer::Store | Answer::Refuse(..) | Answer::Wait => length,
        Answer::Cut(most) => most as u64,
        Answer::RefuseEarly(..) | Answer::Hang => 0,
    };
    read_body(stream, &mut received, most).await?;
    let number = {
        let mut all = shared.received.lock().unwrap();
        all.push(received);
        all.len() - 1
    };
    match answer {
        Answer::Store => reply(stream, 200, "").await?,
        Answer::Wait => {
            if shared.awake.subscribe().wait_for(|awake| *awake).await.is_ok() {
                reply(stream, 200, "").await?;
            }
        }
        Answer::Refuse(status, code) => reply(stream, status, &error(code)).await?,
        Answer::RefuseEarly(status, code) => {
            reply(stream, status, &error(code)).await?;
            // As servers do that mean their answer to be read: a connection that is cut takes it along.
            tokio::io::copy(stream, &mut tokio::io::sink()).await?;
            return Ok(false);
        }
        Answer::Cut(_) => return Ok(false),
        Answer::Hang => {
            if shared.awake.subscribe().wait_for(|awake| *awake).await.is_ok() {
                let rest = tokio::io::copy(stream, &mut tokio::io::sink()).await?;
                shared.received.lock().unwrap()[number].length = rest;
            }
            return Ok(false);
        }
    }
    Ok(true)
}

/// Answers a call of the API; false when the connection is over.
async fn serve_call(
    stream: &mut BufReader<TcpStream>,
    shared: &Shared,
    received: Received,
) -> io::Result<bool> {
    if received.path.ends_with(SILENT) {
        return std::future::pending().await;
    }
    let is_creation = received.method == "POST" && received.path.contains("/artifacts/");
    let planned = if is_creation { shared.creations.lock().unwrap().pop_front() } else { None };
    let base = format!("http://{}", stream.get_ref().local_addr()?);
    let answer = match planned {
        Some(Answer::Refuse(status, code) | Answer::RefuseEarly(status, code)) => refusal(status, code, "no"),
        None | Some(Answer::Store | Answer::Wait | Answer::Cut(_) | Answer::Hang) => {
            shared.deployment.lock().unwrap().answer(&received, &base)
        }
    };
    shared.received.lock().unwrap().push(received);
    match planned {
        // It is stored, and nobody hears of it.
        Some(Answer::Cut(_)) => return Ok(false),
        Some(Answer::Hang) => return std::future::pending().await,
        None | Some(Answer::Store | Answer::Wait | Answer::Refuse(..) | Answer::RefuseEarly(..)) => {}
    }
    let (status, body) = answer;
    let body = if body.is_null() { String::new() } else { body.to_string() };
    reply(stream, status, &body).await.map(|()| true)
}

async fn head(stream: &mut BufReader<TcpStream>) -> io::Result<Option<Received>> {
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    let words: Vec<String> = line.split_ascii_whitespace().map(str::to_owned).collect();
    let Ok([method, path, _]) = <[String; 3]>::try_from(words) else { panic!("no request: {line}") };
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        if line == "\r\n" {
            return Ok(Some(Received { method, path, headers, body: Vec::new(), length: 0 }));
        }
        let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("no header: {line}"));
        let known = headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        assert_eq!(known, None, "the header {name} stands there twice");
    }
}

/// As S3: the length is told before the body, and a body in chunks is not taken.
fn length(received: &Received) -> Result<u64, &'static str> {
    if received.headers.contains_key("transfer-encoding") {
        return Err("NotImplemented");
    }
    let length = received.headers.get("content-length").ok_or("MissingContentLength")?;
    length.parse().map_err(|_| "InvalidArgument")
}

async fn read_body(stream: &mut BufReader<TcpStream>, received: &mut Received, most: u64) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    while received.length < most {
        let room = buffer.len().min(usize::try_from(most - received.length).unwrap());
        let read = stream.read(&mut buffer[..room]).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let kept = read.min(KEPT_BYTES.saturating_sub(received.body.len()));
        received.body.extend_from_slice(&buffer[..kept]);
        received.length += read as u64;
    }
    Ok(())
}

fn error(code: &str) -> String {
    if code.is_empty() { String::new() } else { format!("<Error><Code>{code}</Code></Error>") }
}

async fn reply(stream: &mut BufReader<TcpStream>, status: u16, body: &str) -> io::Result<()> {
    let text = format!("HTTP/1.1 {status} S\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    stream.get_mut().write_all(text.as_bytes()).await
}
