//! Bodies that do not stand still: whoever sends one, a task or a service, holds a place of the process as long as it lasts.

use std::error::Error;
use std::time::Duration;

use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Body as HttpBody, Bytes, Frame};
use tokio::time::timeout;

use super::Body;

/// How long nothing may come of a request.
pub(super) const OF_A_TASK: Duration = Duration::from_secs(90);

/// How long nothing may come of a response, which a service may be making while it is sent.
pub(super) const OF_A_SERVICE: Duration = Duration::from_secs(15 * 60);

/// Why there is no more of a body.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    /// It stands still.
    #[error("nothing has come of it for {} s", .0.as_secs())]
    Silent(Duration),
    /// Its connection does not do what it should.
    #[error(transparent)]
    Broken(Box<dyn Error + Send + Sync>),
}

/// The next piece of a body; nothing at its end.
pub(super) async fn next<B>(body: &mut B, silence: Duration) -> Result<Option<Frame<Bytes>>, BodyError>
where
    B: HttpBody<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Unpin,
{
    let frame = timeout(silence, body.frame()).await.map_err(|_| BodyError::Silent(silence))?;
    frame.transpose().map_err(|error| BodyError::Broken(error.into()))
}

/// A body that ends with an error when nothing has come of it for so long.
pub(super) fn steady<B>(body: B, silence: Duration) -> Body
where
    B: HttpBody<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin + 'static,
{
    let frames = stream::try_unfold(body, move |mut body| async move {
        let frame = next(&mut body, silence).await?;
        Ok::<_, Box<dyn Error + Send + Sync>>(frame.map(|frame| (frame, body)))
    });
    BodyExt::boxed_unsync(StreamBody::new(frames))
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stands_still_ends_with_an_error() {
        let pieces = || stream::iter([Ok::<_, Box<dyn Error + Send + Sync>>(Frame::data(Bytes::from("a")))]);
        let whole = steady(StreamBody::new(pieces()), OF_A_TASK);
        assert_eq!(whole.collect().await.unwrap().to_bytes(), "a");
        let mut standing = steady(StreamBody::new(pieces().chain(stream::pending())), OF_A_TASK);
        assert!(standing.frame().await.unwrap().is_ok());
        let error = standing.frame().await.unwrap().unwrap_err();
        assert_eq!(error.to_string(), "nothing has come of it for 90 s");
    }
}
