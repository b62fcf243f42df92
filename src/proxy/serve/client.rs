//! The task's end of a connection: read from and written to by who serves it, and watched meanwhile.
//!
//! A client that has said all it has to say may still hear the answer, as with the original; from here it looks the same as
//! one that is gone and hears nothing. What tells them apart is what is written: the first one takes it, the other one's
//! host resets the connection. While there is nothing to write, because a service takes its time, nothing tells them apart,
//! so that the time is short which that may take: then something is written.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::net::{Shutdown, shutdown};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf, Ready};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// How long a service may take to answer a client that has said its last: longer than services do.
pub(super) const AFTER_END: Duration = Duration::from_secs(60);

/// How long such a client waits for the next byte of an answer. It has been told by then if none has begun.
const SILENCE_AFTER_END: Duration = Duration::from_secs(90);

/// See the module's head.
#[derive(Clone)]
pub(super) struct Client(Arc<Shared>);

struct Shared {
    stream: TcpStream,
    /// How often something was written.
    writes: AtomicU64,
}

impl Client {
    pub(super) fn of(stream: TcpStream) -> Client {
        Client(Arc::new(Shared { stream, writes: AtomicU64::new(0) }))
    }

    /// Waits until the client has said its last, and from then on as long as a service may take to answer it.
    pub(super) async fn overdue(&self) {
        // What goes wrong with that is for `gone`.
        drop(self.ended().await);
        sleep(AFTER_END).await;
    }

    /// Waits until nobody hears what is answered, as far as that can be known.
    pub(super) async fn gone(&self) {
        let Shared { stream, writes } = &*self.0;
        let mut is_lost = self.ended().await.is_ok_and(|what| what.is_error());
        while !is_lost {
            let before = writes.load(Ordering::Relaxed);
            let reset = timeout(SILENCE_AFTER_END, stream.ready(Interest::ERROR)).await;
            is_lost = reset.is_ok() || writes.load(Ordering::Relaxed) == before;
        }
    }

    /// Waits until the client has said its last, or the connection is reset. Whether there is something to be read makes no
    /// difference to this: more requests may have come before the end.
    async fn ended(&self) -> io::Result<Ready> {
        self.0.stream.ready(Interest::PRIORITY | Interest::ERROR).await
    }

    /// Tries again and again, each time that the socket is ready, until it was.
    fn write(
        &self,
        context: &mut Context<'_>,
        attempt: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        let Shared { stream, writes } = &*self.0;
        loop {
            ready!(stream.poll_write_ready(context))?;
            match attempt(stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => {
                    writes.fetch_add(1, Ordering::Relaxed);
                    return Poll::Ready(written);
                }
            }
        }
    }
}

impl AsyncRead for Client {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let stream = &self.0.stream;
        loop {
            ready!(stream.poll_read_ready(context))?;
            match stream.try_read_buf(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read.map(drop)),
            }
        }
    }
}

impl AsyncWrite for Client {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.write(context, |stream| stream.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write(context, |stream| stream.try_write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(shutdown(&self.0.stream, Shutdown::Write).map_err(Into::into))
    }
}
