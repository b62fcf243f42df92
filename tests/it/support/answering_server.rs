//! A server that answers each request as the test says, and remembers them all.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::net::{Shutdown, shutdown};
use serde_json::{Value, json};

/// One request.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub body: Vec<u8>,
}

impl Request {
    /// `METHOD PATH`, as tests name it.
    pub fn line(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    /// Its body, if that is JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

type Requests = Arc<(Mutex<Vec<Request>>, Condvar)>;

/// Serves until the value goes.
pub struct AnsweringServer {
    /// `127.0.0.1:PORT`
    pub address: String,
    requests: Requests,
    /// The one that the thread waits at.
    listener: TcpListener,
    thread: Option<JoinHandle<()>>,
}

impl AnsweringServer {
    /// `answer` gives status and body.
    pub fn start(answer: impl Fn(&Request, &str) -> (u16, Value) + Send + Sync + 'static) -> AnsweringServer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let requests = Requests::default();
        let (own, seen) = (address.clone(), Arc::clone(&requests));
        let waiting = listener.try_clone().unwrap();
        let thread = thread::spawn(move || {
            while let Ok((stream, _)) = waiting.accept() {
                // A client that ends may leave one cut short.
                let Some(request) = read(&stream) else { continue };
                let (status, body) = answer(&request, &own);
                let (list, news) = &*seen;
                list.lock().unwrap().push(request);
                news.notify_all();
                write(stream, status, &body.to_string());
            }
        });
        AnsweringServer { address, requests, listener, thread: Some(thread) }
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.0.lock().unwrap().clone()
    }

    /// Waits until so many requests have come of which that is true.
    pub fn await_requests(&self, count: usize, is_meant: impl Fn(&Request) -> bool) {
        let (list, news) = &*self.requests;
        let is_missing =
            |list: &mut Vec<Request>| list.iter().filter(|request| is_meant(request)).count() < count;
        let (list, waited) =
            news.wait_timeout_while(list.lock().unwrap(), Duration::from_secs(60), is_missing).unwrap();
        let lines: Vec<_> = list.iter().map(Request::line).collect();
        assert!(!waited.timed_out(), "there were only these requests: {lines:#?}");
    }
}

/// How a service refuses: status and body.
pub fn refusal(status: u16, message: &str) -> (u16, Value) {
    (status, json!({ "code": "Refused", "message": format!("{message}\n\n---\n\n* statusCode: {status}") }))
}

/// None at the end of the stream.
fn read(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut head = Vec::new();
    for line in reader.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty()) {
        head.push(line);
    }
    let mut words = head.first()?.split(' ').map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let length =
        head.iter().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    Some(Request { method, path, body })
}

fn write(mut stream: TcpStream, status: u16, body: &str) {
    let head = format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nConnection: close\r\n");
    let length = format!("Content-Length: {}\r\n\r\n", body.len());
    // A client may be gone: it was killed.
    if let Err(error) = stream.write_all([&head, &length, body].concat().as_bytes()) {
        eprintln!("answering server: {error}");
    }
}

impl Drop for AnsweringServer {
    fn drop(&mut self) {
        // Whoever waits at it gets an error, in whichever network that is.
        shutdown(&self.listener, Shutdown::Both).unwrap();
        self.thread.take().into_iter().for_each(|thread| thread.join().unwrap());
    }
}
