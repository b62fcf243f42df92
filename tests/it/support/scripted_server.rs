//! A server that answers every request alike: what a registry would have to be broken for.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::{self, JoinHandle};

/// Serves one answer until the value goes.
pub struct ScriptedServer {
    /// `127.0.0.1:PORT`
    pub address: String,
    thread: Option<JoinHandle<()>>,
}

impl ScriptedServer {
    pub fn start(content_type: &str, body: &[u8]) -> ScriptedServer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        let answer = [head.as_bytes(), body].concat();
        let thread = thread::spawn(move || {
            // A request that cannot be parsed ends the server: `drop` sends an empty one.
            while let Ok((stream, _)) = listener.accept() {
                if !serve(stream, &answer) {
                    return;
                }
            }
        });
        ScriptedServer { address, thread: Some(thread) }
    }
}

/// Reads a request's head and answers. False at the end of the stream.
fn serve(mut stream: TcpStream, answer: &[u8]) -> bool {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let head = lines.by_ref().take_while(|line| !line.is_empty()).count();
    // A client may go before the end of a long answer.
    if let Err(error) = stream.write_all(answer) {
        eprintln!("scripted server: {error}");
    }
    head > 0
}

impl Drop for ScriptedServer {
    fn drop(&mut self) {
        drop(TcpStream::connect(&self.address));
        self.thread.take().into_iter().for_each(|thread| thread.join().unwrap());
    }
}
