//! What the worker and its proxy say to each other: a length of four bytes, then so many bytes of JSON.
//!
//! A task's listener goes along with the first byte of the order that begins it (`SCM_RIGHTS`, unix(7)). The worker reads
//! what the proxy says with a bound that no honest report comes near, and takes no descriptors from it.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::IoSliceMut;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::net::UnixStream;

use crate::limits::DEFINITION_BYTES;
use crate::queue::Credentials;

/// Bytes of an order: a task's scopes, and once more in its certificate, where each quotation mark takes two.
const ORDER_BYTES: usize = 4 * DEFINITION_BYTES;

/// Bytes of a report.
const REPORT_BYTES: usize = 8 << 10;

/// Bytes of the length before each message.
const LENGTH_BYTES: usize = 4;

/// Bytes that are read at once.
const PIECE_BYTES: usize = 16 << 10;

/// Descriptors that came and have found no order yet: the next order's, at most.
const WAITING_LISTENERS: usize = 2;

/// What the worker wants.
#[derive(Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub(super) enum Order {
    /// The first one: which deployment is called.
    Open { root_url: String },
    /// A task is to be served. Its listener comes along.
    Begin { task: u64, address: Ipv4Addr, scopes: Vec<String>, credentials: Handed },
    /// Its credentials have changed.
    Renew { task: u64, credentials: Handed },
    /// It is over.
    End { task: u64 },
    /// Nothing, but to answer.
    Ping,
}

/// What the proxy has done. Each order is answered, in the order in which they came.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub(super) enum Report {
    /// It serves tasks.
    Ready,
    /// This one is served.
    Begun { task: u64 },
    /// This one cannot be served.
    Failed { task: u64, why: String },
    /// This one's requests are made with its new credentials, if it is served.
    Renewed { task: u64 },
    /// Nobody is connected any more.
    Ended { task: u64 },
    /// It hears.
    Alive,
}

/// Credentials on their way.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Handed {
    client_id: String,
    access_token: String,
    certificate: Option<String>,
}

impl From<&Credentials> for Handed {
    fn from(credentials: &Credentials) -> Handed {
        let Credentials { client_id, access_token, certificate } = credentials.clone();
        Handed { client_id, access_token, certificate }
    }
}

impl From<Handed> for Credentials {
    fn from(handed: Handed) -> Credentials {
        let Handed { client_id, access_token, certificate } = handed;
        Credentials { client_id, access_token, certificate }
    }
}

/// A message on its way.
pub(super) struct Sending {
    bytes: Vec<u8>,
    sent: usize,
    listener: Option<OwnedFd>,
}

impl Sending {
    /// An order, and a listener with it if it begins a task.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidInput`] for one of too many bytes.
    pub(super) fn of(order: &Order, listener: Option<OwnedFd>) -> io::Result<Sending> {
        Ok(Sending { bytes: framed(order, ORDER_BYTES)?, sent: 0, listener })
    }

    /// It begins a task.
    pub(super) fn has_listener(&self) -> bool {
        self.listener.is_some()
    }

    /// Sends what is left of it. May be dropped while it waits, and called again.
    ///
    /// # Errors
    ///
    /// The kernel's answer.
    pub(super) async fn finish(&mut self, stream: &UnixStream) -> io::Result<()> {
        while let Some(rest) = self.bytes.get(self.sent..).filter(|rest| !rest.is_empty()) {
            let listener = self.listener.as_ref().map(AsFd::as_fd);
            self.sent += stream.async_io(Interest::WRITABLE, || send_piece(stream, rest, listener)).await?;
            self.listener = None;
        }
        Ok(())
    }
}

/// Sends a report.
///
/// # Errors
///
/// The kernel's answer.
pub(super) async fn send_report(stream: &UnixStream, report: &Report) -> io::Result<()> {
    Sending { bytes: framed(report, REPORT_BYTES)?, sent: 0, listener: None }.finish(stream).await
}

/// Orders as they come.
#[derive(Default)]
pub(super) struct Orders {
    bytes: Vec<u8>,
    listeners: VecDeque<OwnedFd>,
}

impl Orders {
    /// The next one, with the listener that came along; `None` when the worker has closed its end. May be dropped while
    /// it waits.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidData`] for what is no order.
    pub(super) async fn next(&mut self, stream: &UnixStream) -> io::Result<Option<(Order, Option<OwnedFd>)>> {
        loop {
            if let Some(order) = take(&mut self.bytes, ORDER_BYTES)? {
                let has_listener = matches!(order, Order::Begin { .. });
                let listener = if has_listener { self.listeners.pop_front() } else { None };
                return Ok(Some((order, listener)));
            }
            let Orders { bytes, listeners } = self;
            if stream.async_io(Interest::READABLE, || receive(stream, bytes, listeners)).await? == 0 {
                return Ok(None);
            }
            if listeners.len() > WAITING_LISTENERS {
                return Err(malformed("descriptors that no order speaks of"));
            }
        }
    }
}

/// Reports as they come.
#[derive(Debug, Default)]
pub(super) struct Reports(Vec<u8>);

impl Reports {
    /// The next one; `None` when the proxy is gone. May be dropped while it waits.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidData`] for what is no report.
    pub(super) async fn next(&mut self, stream: &UnixStream) -> io::Result<Option<Report>> {
        loop {
            if let Some(report) = take(&mut self.0, REPORT_BYTES)? {
                return Ok(Some(report));
            }
            stream.readable().await?;
            let mut piece = [0; PIECE_BYTES];
            match stream.try_read(&mut piece) {
                Ok(0) => return Ok(None),
                Ok(length) => self.0.extend_from_slice(piece.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // The proxy died with something of ours unread.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }
}

fn framed(message: &impl Serialize, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; LENGTH_BYTES];
    serde_json::to_writer(&mut bytes, message)?;
    let length = bytes.len() - LENGTH_BYTES;
    let too_large = || io::Error::new(io::ErrorKind::InvalidInput, format!("{length} bytes are too many"));
    let length = u32::try_from(length).ok().filter(|_| length <= most).ok_or_else(too_large)?;
    if let Some(place) = bytes.first_chunk_mut() {
        *place = length.to_be_bytes();
    }
    Ok(bytes)
}

/// Takes a message off the beginning of what has come, if all of it has.
fn take<T: DeserializeOwned>(bytes: &mut Vec<u8>, most: usize) -> io::Result<Option<T>> {
    let Some(length) = bytes.first_chunk().map(|length| u32::from_be_bytes(*length)) else { return Ok(None) };
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > most {
        return Err(malformed("a message that is too long"));
    }
    let end = LENGTH_BYTES + length;
    let Some(message) = bytes.get(LENGTH_BYTES..end) else { return Ok(None) };
    // What stands there is not told: it may be a secret.
    let message = serde_json::from_slice(message).map_err(|_| malformed("a message that says nothing"))?;
    bytes.drain(..end);
    bytes.shrink_to(PIECE_BYTES);
    Ok(Some(message))
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what}: are both of the same build?"))
}

fn send_piece(stream: &UnixStream, bytes: &[u8], listener: Option<BorrowedFd<'_>>) -> io::Result<usize> {
    let listeners: Vec<BorrowedFd<'_>> = listener.into_iter().collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !listeners.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&listeners)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(sendmsg(stream.as_fd(), &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?)
}

/// Reads a piece of what has come; 0 at the end.
fn receive(stream: &UnixStream, bytes: &mut Vec<u8>, listeners: &mut VecDeque<OwnedFd>) -> io::Result<usize> {
    let mut piece = [0; PIECE_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut piece)];
    let received = recvmsg(stream.as_fd(), &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            listeners.extend(descriptors);
        }
    }
    bytes.extend_from_slice(piece.get(..received.bytes).unwrap_or_default());
    Ok(received.bytes)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use std::time::Duration;

    use tokio::io::AsyncWriteExt;
    use tokio::time::timeout;

    use super::*;

    fn begin(task: u64) -> Order {
        let credentials = Credentials {
            client_id: "task".to_owned(),
            access_token: "hush".to_owned(),
            certificate: Some("x\"".repeat(1 << 20)),
        };
        let scopes = vec!["a:*".to_owned()];
        Order::Begin { task, address: Ipv4Addr::LOCALHOST, scopes, credentials: (&credentials).into() }
    }

    #[tokio::test]
    async fn an_order_arrives_whole_with_its_own_listener() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let sockets = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let sending = async {
            for (task, socket) in (0..).zip(&sockets) {
                for (order, socket) in [(begin(task), Some(socket)), (Order::End { task }, None)] {
                    let listener = socket.map(|socket| socket.try_clone().unwrap().into());
                    let mut order = Sending::of(&order, listener).unwrap();
                    // Given up and begun again in the midst.
                    while timeout(Duration::from_micros(50), order.finish(&ours)).await.is_err() {}
                }
            }
        };
        let receiving = async {
            let mut orders = Orders::default();
            for (expected, socket) in (0..).zip(&sockets) {
                let (order, listener) = orders.next(&theirs).await.unwrap().unwrap();
                let Order::Begin { task, credentials, .. } = order else { panic!("not its beginning") };
                assert_eq!((task, credentials.certificate.unwrap().len()), (expected, 2 << 20));
                let listener = TcpListener::from(listener.unwrap());
                assert_eq!(listener.local_addr().unwrap(), socket.local_addr().unwrap());
                let (order, listener) = orders.next(&theirs).await.unwrap().unwrap();
                assert!(matches!(order, Order::End { task } if task == expected) && listener.is_none());
            }
            orders
        };
        let ((), mut orders) = tokio::join!(sending, receiving);
        drop(ours);
        assert!(orders.next(&theirs).await.unwrap().is_none());
    }

    #[test]
    fn an_order_that_is_too_large_is_an_error_before_it_is_sent() {
        let scopes = |bytes| Order::Begin {
            task: 1,
            address: Ipv4Addr::LOCALHOST,
            scopes: vec!["x".repeat(bytes)],
            credentials: Handed { client_id: String::new(), access_token: String::new(), certificate: None },
        };
        assert!(Sending::of(&scopes(ORDER_BYTES - 1000), None).is_ok());
        let refused = Sending::of(&scopes(ORDER_BYTES), None).err().unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
    }

    #[tokio::test]
    async fn what_is_no_report_or_too_long_for_one_is_an_error_before_it_is_kept() {
        for bytes in [&b"\0\0\0\x02{}"[..], b"\0\0\x21\0{", b"\xff\xff\xff\xff"] {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            theirs.write_all(bytes).await.unwrap();
            let error = Reports::default().next(&ours).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn a_report_arrives_in_pieces_and_an_end_in_the_midst_is_an_end() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut reports = Reports::default();
        let bytes = framed(&Report::Begun { task: 7 }, REPORT_BYTES).unwrap();
        for half in bytes.chunks(bytes.len() / 2 + 1) {
            theirs.write_all(half).await.unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(reports.next(&ours).await.unwrap(), Some(Report::Begun { task: 7 }));
        theirs.write_all(&bytes[..5]).await.unwrap();
        drop(theirs);
        assert_eq!(reports.next(&ours).await.unwrap(), None);
    }
}
