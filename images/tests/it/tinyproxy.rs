//! Debian's tinyproxy on a loopback port of its own.
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub struct TinyProxy {
    /// `127.0.0.1:PORT`.
    pub address: String,
    child: Child,
    directory: tempfile::TempDir,
}

impl TinyProxy {
    /// For one user, by name and password.
    pub fn start(user: &str, password: &str) -> TinyProxy {
        let directory = tempfile::tempdir().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let path = directory.path().join("tinyproxy.conf");
        let config = format!(
            "Port {}\nListen 127.0.0.1\nAllow 127.0.0.1\nBasicAuth {user} {password}\nLogLevel Connect\nLogFile \"{}\"\n",
            address.port(),
            directory.path().join("log").display()
        );
        fs::write(&path, config).unwrap();
        let child = Command::new("tinyproxy")
            .args(["-d", "-c"])
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("tinyproxy is installed");
        let proxy = TinyProxy { address: address.to_string(), child, directory };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < deadline, "tinyproxy does not listen at {address}");
            std::thread::park_timeout(Duration::from_millis(1));
        }
        proxy
    }

    /// The first lines of all requests that it has had so far.
    pub fn requests(&self) -> Vec<String> {
        let log = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        let request =
            |line: &str| line.split_once("Request (file descriptor ").map(|(_, rest)| rest.to_owned());
        log.lines()
            .filter_map(request)
            .filter_map(|rest| Some(rest.split_once("): ")?.1.to_owned()))
            .collect()
    }
}

impl Drop for TinyProxy {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}
