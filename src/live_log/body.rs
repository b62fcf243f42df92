//! A part of a log as the body of a reply, read when the reader can take it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;

use crate::task_log::reader::LogReader;

/// Bytes of one piece: all that a reader costs.
const PIECE_BYTES: usize = 64 << 10;

/// A reader's place among those of all logs, and among those of its own.
pub(super) type Place = [OwnedSemaphorePermit; 2];

/// Bytes of a log, from one on.
pub(super) struct LogBody {
    offset: u64,
    end: End,
    state: State,
    _place: Place,
}

/// Where it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Before this byte, which is there.
    Known(u64),
    /// Before this byte, if the log comes so far.
    AtMost(u64),
    /// With the log.
    Log,
}

enum State {
    /// Nobody has asked for more.
    Idle(LogReader),
    /// The next piece is awaited.
    Awaiting(Pin<Box<dyn Future<Output = Piece> + Send>>),
    Over,
}

/// Some bytes, and the reader for the next ones.
type Piece = (LogReader, io::Result<Vec<u8>>);

impl LogBody {
    pub(super) fn new(log: LogReader, offset: u64, end: End, place: Place) -> LogBody {
        LogBody { offset, end, state: State::Idle(log), _place: place }
    }

    /// Bytes before its end, as far as that is bounded.
    fn left(&self) -> u64 {
        match self.end {
            End::Known(end) | End::AtMost(end) => end.saturating_sub(self.offset),
            End::Log => u64::MAX,
        }
    }

    /// What to await for the next piece.
    fn next(&self, mut log: LogReader) -> State {
        let (offset, left) = (self.offset, self.left());
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE_BYTES);
        if most == 0 {
            return State::Over;
        }
        State::Awaiting(Box::pin(async move {
            let next = log.next(offset, most).await;
            (log, next)
        }))
    }
}

impl Body for LogBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        loop {
            match std::mem::replace(&mut self.state, State::Over) {
                State::Over => return Poll::Ready(None),
                State::Idle(log) => self.state = self.next(log),
                State::Awaiting(mut awaiting) => {
                    let Poll::Ready((log, next)) = awaiting.as_mut().poll(context) else {
                        self.state = State::Awaiting(awaiting);
                        return Poll::Pending;
                    };
                    let bytes = next?;
                    if bytes.is_empty() {
                        return Poll::Ready(None);
                    }
                    self.offset += bytes.len() as u64;
                    self.state = State::Idle(log);
                    return Poll::Ready(Some(Ok(Frame::data(bytes.into()))));
                }
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self.end {
            End::Known(_) => SizeHint::with_exact(self.left()),
            End::AtMost(_) | End::Log => SizeHint::default(),
        }
    }
}
