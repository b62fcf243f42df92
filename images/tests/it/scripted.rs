//! A registry that says exactly what a test wants, broken HTTP included, and notes what it is asked.
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use images::digest::Digest;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::sample::Sample;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The value of a parameter of the query, as it is spelled.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let query = self.path.split_once('?')?.1;
        query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|it| it.1)
    }

    /// The first byte that a Range header asks for.
    pub fn from(&self) -> usize {
        let range = self.header("range").and_then(|value| value.strip_prefix("bytes="));
        range.and_then(|range| range.trim_end_matches('-').parse().ok()).unwrap_or(0)
    }
}

#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Body,
}

#[derive(Clone, Debug)]
pub enum Body {
    /// With its true length.
    Whole(Vec<u8>),
    /// With a length that is not true, then the connection closes.
    Announced(Vec<u8>, usize),
    /// Without a length, in one chunk.
    Chunked(Vec<u8>),
    /// The same again and again.
    Endless(Vec<u8>),
    /// One byte at a time, with pauses.
    Dripping(Duration),
    /// With a length that is not reached: the rest never comes.
    Stalled(Vec<u8>, usize),
    /// Nothing ever, not even a status line.
    Silence,
    /// Header after header.
    EndlessHeaders,
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Reply {
        Reply { status, headers: Vec::new(), body: Body::Whole(body.into()) }
    }

    pub fn body(status: u16, body: Body) -> Reply {
        Reply { status, headers: Vec::new(), body }
    }

    pub fn with(mut self, name: &str, value: impl Into<String>) -> Reply {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

/// What an honest registry answers about one image, whatever its name and tag.
pub fn honest(sample: &Sample, request: &Request) -> Reply {
    if request.path.contains("/manifests/") {
        let media_type =
            sample.manifest["mediaType"].as_str().unwrap_or("application/vnd.oci.image.manifest.v1+json");
        return Reply::new(200, sample.manifest_bytes()).with("Content-Type", media_type);
    }
    let path = request.path.split('?').next().unwrap();
    let digest = path.rsplit('/').next().unwrap();
    let blob =
        sample.layers.iter().chain([&sample.config]).find(|blob| Digest::of(blob).to_string() == digest);
    match (blob, request.from()) {
        (None, _) => Reply::new(404, r#"{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown"}]}"#),
        (Some(blob), 0) => Reply::new(200, blob.clone()),
        (Some(blob), from) => {
            let range = format!("bytes {from}-{}/{}", blob.len() - 1, blob.len());
            Reply::new(206, &blob[from..]).with("Content-Range", range)
        }
    }
}

/// A request for a layer, not for the configuration.
pub fn is_layer(sample: &Sample, request: &Request) -> bool {
    request.path.contains("/blobs/") && !request.path.ends_with(&sample.id())
}

pub struct ScriptedServer {
    pub address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    /// Ends when this value goes.
    _open: Sender<()>,
}

type Handler = dyn Fn(&Request) -> Reply + Send + Sync;

/// What a connection's thread shares with the server.
#[derive(Clone)]
struct Shared {
    handler: Arc<Handler>,
    requests: Arc<Mutex<Vec<Request>>>,
    closed: Arc<Mutex<Receiver<()>>>,
    tls: Option<Arc<rustls::ServerConfig>>,
}

impl ScriptedServer {
    pub fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> ScriptedServer {
        ScriptedServer::listen(TcpListener::bind("127.0.0.1:0").unwrap(), None, handler)
    }

    /// At another address of this host.
    pub fn start_at(
        address: &str,
        handler: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> ScriptedServer {
        ScriptedServer::listen(TcpListener::bind((address, 0)).unwrap(), None, handler)
    }

    /// With TLS, by a certificate and key in PEM files.
    pub fn start_tls(
        certificate: &std::path::Path,
        key: &std::path::Path,
        handler: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> ScriptedServer {
        ScriptedServer::start_tls_at("127.0.0.1", certificate, key, handler)
    }

    /// The same at another address of this host.
    pub fn start_tls_at(
        address: &str,
        certificate: &std::path::Path,
        key: &std::path::Path,
        handler: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> ScriptedServer {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let chain = CertificateDer::pem_file_iter(certificate).unwrap().map(Result::unwrap).collect();
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap())
            .unwrap();
        ScriptedServer::listen(TcpListener::bind((address, 0)).unwrap(), Some(Arc::new(config)), handler)
    }

    fn listen(
        listener: TcpListener,
        tls: Option<Arc<rustls::ServerConfig>>,
        handler: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> ScriptedServer {
        let address = listener.local_addr().unwrap();
        let (open, closed) = channel();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let shared = Shared {
            handler: Arc::new(handler),
            requests: Arc::clone(&requests),
            closed: Arc::new(Mutex::new(closed)),
            tls,
        };
        // Ends with the test's process: an accept that waits harms nobody.
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = shared.clone();
                thread::spawn(move || drop(shared.serve(stream)));
            }
        });
        ScriptedServer { address, requests, _open: open }
    }

    /// `127.0.0.1:PORT/x/y:1`.
    pub fn name(&self) -> String {
        format!("{}/x/y:1", self.address)
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

impl Shared {
    fn serve(&self, stream: TcpStream) -> io::Result<()> {
        match &self.tls {
            None => {
                let reader = BufReader::new(stream.try_clone()?);
                self.answer(reader, stream)
            }
            Some(config) => {
                let connection =
                    rustls::ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
                let stream = Arc::new(Mutex::new(rustls::StreamOwned::new(connection, stream)));
                self.answer(BufReader::new(Half(Arc::clone(&stream))), Half(stream))
            }
        }
    }

    fn answer(&self, mut reader: impl BufRead, mut out: impl Write) -> io::Result<()> {
        while let Some(request) = read_request(&mut reader)? {
            self.requests.lock().unwrap().push(request.clone());
            let reply = (self.handler)(&request);
            if !self.write(&mut out, &reply)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Whether the connection can go on.
    fn write(&self, out: &mut impl Write, reply: &Reply) -> io::Result<bool> {
        let mut head = format!("HTTP/1.1 {} Scripted\r\n", reply.status);
        for (name, value) in &reply.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        match &reply.body {
            Body::Whole(body) => {
                out.write_all(format!("{head}Content-Length: {}\r\n\r\n", body.len()).as_bytes())?;
                out.write_all(body)?;
                out.flush()?;
                return Ok(true);
            }
            Body::Announced(body, length) => {
                out.write_all(format!("{head}Content-Length: {length}\r\n\r\n").as_bytes())?;
                out.write_all(body)?;
            }
            Body::Chunked(body) => {
                out.write_all(
                    format!("{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n", body.len()).as_bytes(),
                )?;
                out.write_all(body)?;
                out.write_all(b"\r\n0\r\n\r\n")?;
            }
            Body::Endless(piece) => {
                out.write_all(format!("{head}Transfer-Encoding: chunked\r\n\r\n").as_bytes())?;
                loop {
                    out.write_all(format!("{:x}\r\n", piece.len()).as_bytes())?;
                    out.write_all(piece)?;
                    out.write_all(b"\r\n")?;
                }
            }
            Body::Dripping(pause) => {
                out.write_all(format!("{head}Content-Length: 100000\r\n\r\n").as_bytes())?;
                while self.pause(*pause) {
                    out.write_all(b"x")?;
                    out.flush()?;
                }
            }
            Body::Stalled(body, length) => {
                out.write_all(format!("{head}Content-Length: {length}\r\n\r\n").as_bytes())?;
                out.write_all(body)?;
                out.flush()?;
                while self.pause(Duration::from_secs(1)) {}
            }
            Body::Silence => while self.pause(Duration::from_secs(1)) {},
            Body::EndlessHeaders => {
                out.write_all(head.as_bytes())?;
                loop {
                    out.write_all(format!("X-Filler: {}\r\n", "x".repeat(1000)).as_bytes())?;
                }
            }
        }
        out.flush()?;
        Ok(false)
    }

    /// Waits; `false` once the server is gone.
    fn pause(&self, pause: Duration) -> bool {
        self.closed.lock().unwrap().recv_timeout(pause) == Err(RecvTimeoutError::Timeout)
    }
}

/// Reading and writing side of one TLS stream; a connection does one at a time.
struct Half(Arc<Mutex<rustls::StreamOwned<rustls::ServerConnection, TcpStream>>>);

impl Read for Half {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.lock().unwrap().read(buffer)
    }
}

impl Write for Half {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.lock().unwrap().flush()
    }
}

fn read_request(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let line = line.trim_end().to_owned();
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    let mut words = lines[0].split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let header = |line: &String| {
        line.split_once(':').map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
    };
    let headers = lines[1..].iter().filter_map(header).collect();
    let mut request = Request { method, path, headers, body: String::new() };
    let length = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    reader.take(length).read_to_string(&mut request.body)?;
    Ok(Some(request))
}
