//! The way to the queue of `standalone` on a host of a test's own, for its worker and its clients, by way of a wire.
//!
//! ```text
//!   client ──► 127.0.0.1:8239 ──┐                                         ┌──► 127.0.0.1:8239 ──┐
//!                               ├─(firewall)──► wire ──(from 127.0.0.3)───┤                     ├─ standalone
//!   worker ──► its own port ────┘                                         └──► its own port ────┘
//! ```

use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tokio::sync::oneshot;

use super::internet::Internet;
use super::wire::Wire;

/// Where the queue listens: for clients, unless it is told otherwise, and for its worker, whose port the kernel chooses.
const QUEUE: &str = "ip daddr 127.0.0.1 tcp dport { 8239, 32768-60999 }";

/// Where the wire calls from, so that the firewall leaves its own calls alone.
const WIRE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

/// See the module's head. It is as before when the value goes.
pub struct WayToQueue<'a> {
    pub wire: Arc<Wire>,
    internet: &'a Internet,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl WayToQueue<'_> {
    pub fn lay(internet: &Internet) -> WayToQueue<'_> {
        let wire = Wire::as_called(WIRE);
        let (stop, stopped) = oneshot::channel();
        let carried = Arc::clone(&wire);
        // A thread is where the one is that has started it.
        let (port, thread) = internet.host.within(|| {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            (listener.local_addr().unwrap().port(), thread::spawn(|| carry(carried, listener, stopped)))
        });
        internet.host.nft(&format!(
            "table ip way {{ chain output {{ type nat hook output priority -100;
             ip saddr != {WIRE} {QUEUE} redirect to :{port}; }}; }}"
        ));
        WayToQueue { wire, internet, stop: Some(stop), thread: Some(thread) }
    }
}

fn carry(wire: Arc<Wire>, listener: TcpListener, stopped: oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    listener.set_nonblocking(true).unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        tokio::select! {
            () = wire.carry(listener) => {}
            // An error is the value's end.
            _ = stopped => {}
        }
    });
}

impl Drop for WayToQueue<'_> {
    fn drop(&mut self) {
        self.stop.take();
        let ended = self.thread.take().map(JoinHandle::join);
        if !thread::panicking() {
            ended.into_iter().for_each(|ended| ended.unwrap());
            self.internet.host.tool("nft", &["delete", "table", "ip", "way"]);
        }
    }
}
