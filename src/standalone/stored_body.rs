//! The body of a reply that sends a file.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::fs::File;
use tokio::io::{AsyncRead, ReadBuf};

/// Bytes of one piece.
const PIECE_BYTES: usize = 64 << 10;

/// What is left of a file to be sent.
pub(super) struct StoredBody {
    file: File,
    left: u64,
    piece: Vec<u8>,
}

impl StoredBody {
    /// So many bytes from where the file stands.
    pub(super) fn new(file: File, bytes: u64) -> StoredBody {
        StoredBody { file, left: bytes, piece: vec![0; PIECE_BYTES] }
    }
}

impl Body for StoredBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let StoredBody { file, left, piece } = self.get_mut();
        if *left == 0 {
            return Poll::Ready(None);
        }
        let most = usize::try_from(*left).unwrap_or(usize::MAX).min(piece.len());
        let mut buffer = ReadBuf::new(piece.get_mut(..most).unwrap_or_default());
        if let Err(error) = ready!(Pin::new(file).poll_read(context, &mut buffer)) {
            return Poll::Ready(Some(Err(error)));
        }
        let read = buffer.filled();
        if read.is_empty() {
            return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())));
        }
        *left -= u64::try_from(read.len()).unwrap_or(*left).min(*left);
        Poll::Ready(Some(Ok(Frame::data(Bytes::copy_from_slice(read)))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
