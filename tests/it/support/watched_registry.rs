//! A registry that notes what it is asked for, and holds layers back in the middle until a test lets them go.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use super::image::WrittenImage;
use super::internet::Internet;

/// More than anything takes that a test waits for.
const LIMIT: Duration = Duration::from_secs(60);

/// Serves one image until the test's process ends.
pub struct WatchedRegistry {
    /// What `--image` takes.
    pub name: String,
    shared: Arc<Shared>,
}

/// A blob, or the manifest, as somebody asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// `manifest`, or the blob's digest.
    pub what: String,
    /// The first byte that was wanted.
    pub from: usize,
}

struct Shared {
    layout: PathBuf,
    manifest: String,
    layers: Vec<String>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    asked: Vec<Asked>,
    /// Layers are not served beyond this byte.
    hold_at: Option<usize>,
    /// Requests that wait there.
    held: usize,
    /// The next requests that are answered with 503.
    refused: usize,
}

impl WatchedRegistry {
    pub fn serve(image: &WrittenImage) -> WatchedRegistry {
        WatchedRegistry::serve_at(TcpListener::bind("127.0.0.1:0").unwrap(), image)
    }

    /// The same on a host of the test's own.
    pub fn serve_on(internet: &Internet, image: &WrittenImage) -> WatchedRegistry {
        let listener = internet.host.within(|| TcpListener::bind("127.0.0.1:0").unwrap());
        WatchedRegistry::serve_at(listener, image)
    }

    fn serve_at(listener: TcpListener, image: &WrittenImage) -> WatchedRegistry {
        let name = format!("{}/watched/image:1", listener.local_addr().unwrap());
        let layout = image.source.strip_prefix("oci:").unwrap().strip_suffix(":latest").unwrap();
        let shared = Arc::new(Shared {
            layout: PathBuf::from(layout).join("blobs/sha256"),
            manifest: image.manifest.clone(),
            layers: image.layers.clone(),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let serving = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&serving);
                // Whoever is killed in the middle breaks the connection off: that is what the tests do.
                thread::spawn(move || shared.answer(stream).unwrap_or_default());
            }
        });
        WatchedRegistry { name, shared }
    }

    /// Serves so many bytes of each layer and holds the rest back.
    pub fn hold_layers_at(&self, bytes: usize) {
        self.shared.lock().hold_at = Some(bytes);
    }

    /// Is at fault for so many requests.
    pub fn refuse(&self, times: usize) {
        self.shared.lock().refused = times;
    }

    /// How many more it will be at fault for.
    pub fn refuses(&self) -> usize {
        self.shared.lock().refused
    }

    /// Lets all that is held back go.
    pub fn let_go(&self) {
        self.shared.lock().hold_at = None;
        self.shared.changed.notify_all();
    }

    /// Waits until a layer is held back.
    pub fn await_held(&self) {
        self.shared.wait(|state| state.held > 0);
    }

    /// Waits until `what` was asked for so many times.
    pub fn await_asked(&self, what: &str, times: usize) {
        self.shared.wait(|state| state.asked.iter().filter(|asked| asked.what == what).count() >= times);
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.shared.lock().asked.clone()
    }

    /// The requests for this blob.
    pub fn asked_for(&self, digest: &str) -> Vec<Asked> {
        self.asked().into_iter().filter(|asked| asked.what == digest).collect()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn wait(&self, is_so: impl Fn(&State) -> bool) {
        let waited = self.changed.wait_timeout_while(self.lock(), LIMIT, |state| !is_so(state)).unwrap();
        let is_late = waited.1.timed_out();
        assert!(!is_late, "waited {LIMIT:?}; so far: {:?}", waited.0.asked);
    }

    fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let lines = BufReader::new(stream.try_clone()?).lines().map_while(Result::ok);
        let lines: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
        if self.is_at_fault() {
            let head = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            return stream.write_all(head.as_bytes());
        }
        let path = lines.first().and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
        let range = lines.iter().find_map(|line| {
            line.to_ascii_lowercase().strip_prefix("range: bytes=")?.split('-').next()?.parse().ok()
        });
        let Some((what, digest, kind)) = self.find(path) else {
            return stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        };
        let from = range.unwrap_or(0);
        self.lock().asked.push(Asked { what, from });
        self.changed.notify_all();
        let blob = fs::read(self.layout.join(digest.trim_start_matches("sha256:")))?;
        let rest = &blob[from..];
        let status = if range.is_some() { "206 Partial Content" } else { "200 OK" };
        let mut head =
            format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n", rest.len());
        if range.is_some() {
            head += &format!("Content-Range: bytes {from}-{}/{}\r\n", blob.len() - 1, blob.len());
        }
        stream.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes())?;
        let free = if self.layers.contains(&digest) { self.free(from, blob.len()) } else { blob.len() };
        stream.write_all(&blob[from..free])?;
        if free < blob.len() {
            self.held();
        }
        stream.write_all(&blob[free..])
    }

    fn is_at_fault(&self) -> bool {
        let mut state = self.lock();
        let is_at_fault = state.refused > 0;
        state.refused = state.refused.saturating_sub(1);
        is_at_fault
    }

    /// What is asked for, the digest of what is served, its type.
    fn find(&self, path: &str) -> Option<(String, String, &str)> {
        let last = path.rsplit('/').next()?.to_owned();
        if path.contains("/manifests/") {
            let kind = "application/vnd.oci.image.manifest.v1+json";
            return Some(("manifest".to_owned(), self.manifest.clone(), kind));
        }
        path.contains("/blobs/").then_some((last.clone(), last, "application/octet-stream"))
    }

    /// The first byte that is held back.
    fn free(&self, from: usize, size: usize) -> usize {
        self.lock().hold_at.map_or(size, |hold_at| hold_at.clamp(from, size))
    }

    fn held(&self) {
        let mut state = self.lock();
        state.held += 1;
        self.changed.notify_all();
        state = self.changed.wait_while(state, |state| state.hold_at.is_some()).unwrap();
        state.held -= 1;
    }
}
