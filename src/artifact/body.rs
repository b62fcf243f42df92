//! The body of a PUT: so many bytes, held in memory or read while they are sent, and how far it has come.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Bytes, Frame, SizeHint};
use tokio::sync::{mpsc, watch};

/// A body of known length.
pub(super) struct Body {
    pieces: Pieces,
    left: u64,
    sent: watch::Sender<u64>,
}

enum Pieces {
    Whole(Bytes),
    Read(mpsc::Receiver<io::Result<Bytes>>),
}

impl Body {
    pub(super) fn whole(bytes: Bytes) -> Body {
        let left = bytes.len() as u64;
        Body { pieces: Pieces::Whole(bytes), left, sent: watch::Sender::new(0) }
    }

    /// As somebody else reads them; `length` is what they have to have together.
    pub(super) fn read(pieces: mpsc::Receiver<io::Result<Bytes>>, length: u64) -> Body {
        Body { pieces: Pieces::Read(pieces), left: length, sent: watch::Sender::new(0) }
    }

    /// Tells how far it has come.
    pub(super) fn progress(&self) -> Progress {
        Progress(self.sent.subscribe())
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let bytes = match &mut self.pieces {
            Pieces::Whole(bytes) => std::mem::take(bytes),
            Pieces::Read(pieces) => match ready!(pieces.poll_recv(context)) {
                Some(Ok(bytes)) => bytes,
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into()))),
            },
        };
        let count = bytes.len() as u64;
        self.left = self.left.saturating_sub(count);
        self.sent.send_modify(|sent| *sent += count);
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// How far a body has come.
pub(super) struct Progress(watch::Receiver<u64>);

impl Progress {
    /// Waits until nothing has moved for so long.
    pub(super) async fn stalled(&mut self, silence: Duration) {
        while let Ok(Ok(())) = tokio::time::timeout(silence, self.0.changed()).await {}
        // The body is gone when all of it is sent: then it is the reply that may be late.
        if self.0.has_changed().is_err() {
            tokio::time::sleep(silence).await;
        }
    }
}
