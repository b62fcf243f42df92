//! A connection through a proxy to a host that speaks TLS.

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{HOST, PROXY_AUTHORIZATION, USER_AGENT};
use hyper::upgrade::Upgraded;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::limits::Limits;

use super::AGENT;
use super::connect::{BUFFER_BYTES, within};
use super::error::RegistryError;
use super::proxy::Proxy;
use super::url::Origin;

/// Has the proxy connect to a host (RFC 9110 9.3.6). What comes of it is the host's own stream.
pub(super) async fn open<S>(
    stream: S,
    proxy: &Proxy,
    origin: &Origin,
    limits: &Limits,
) -> Result<TokioIo<Upgraded>, RegistryError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed =
        |source| RegistryError::Proxy { proxy: proxy.to_string(), origin: origin.to_string(), source };
    let host = if origin.host.contains(':') { format!("[{}]", origin.host) } else { origin.host.clone() };
    let target = format!("{host}:{}", origin.port);
    let mut request = Request::builder()
        .method(Method::CONNECT)
        .uri(&target)
        .header(HOST, &target)
        .header(USER_AGENT, AGENT);
    if let Some(authorization) = &proxy.authorization {
        request = request.header(PROXY_AUTHORIZATION, authorization);
    }
    let invalid = |_| RegistryError::Challenge { url: origin.to_string() };
    let request = request.body(Empty::<Bytes>::new()).map_err(invalid)?;
    let mut builder = http1::Builder::new();
    builder.max_buf_size(BUFFER_BYTES).max_headers(limits.header_fields);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(failed)?;
    // Its errors reach whoever waits for the response.
    tokio::spawn(connection.with_upgrades());
    let opening = async {
        let response = sender.send_request(request).await.map_err(failed)?;
        let status = response.status();
        if !status.is_success() {
            return Err(refused(proxy, origin, status));
        }
        hyper::upgrade::on(response).await.map(TokioIo::new).map_err(failed)
    };
    within(limits.first_byte, "connect by way of", proxy, opening).await?
}

/// A proxy that answers for itself.
pub(super) fn refused(proxy: &Proxy, origin: &Origin, status: hyper::StatusCode) -> RegistryError {
    RegistryError::ProxyStatus { proxy: proxy.to_string(), origin: origin.to_string(), status }
}
