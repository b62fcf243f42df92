//! Calls of a deployment's services as they go over the wire, signed by the `hawk` crate, their replies as they come.

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::handshake;
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// Who calls.
#[derive(Clone, Debug)]
pub struct Signer {
    pub client_id: String,
    pub access_token: String,
    pub certificate: Option<String>,
}

/// What was answered.
#[derive(Clone, Debug)]
pub struct Answered {
    pub status: u16,
    pub location: Option<String>,
    /// JSON, or null.
    pub body: Value,
}

/// Makes a call of `METHOD service/path` with a payload of JSON, or without one where it is null.
pub async fn call(root_url: &str, signer: Option<&Signer>, call: &str, payload: &Value) -> Answered {
    call_signed_for(root_url, signer, call, payload, payload).await
}

/// The same with a signature for another payload.
pub async fn call_signed_for(
    root_url: &str,
    signer: Option<&Signer>,
    call: &str,
    payload: &Value,
    signed: &Value,
) -> Answered {
    let text = |payload: &Value| if payload.is_null() { String::new() } else { payload.to_string() };
    let (method, path) = call.split_once(' ').unwrap();
    let (service, path) = path.split_once('/').unwrap();
    let url: Uri = format!("{root_url}/api/{service}/v1/{path}").parse().unwrap();
    let mut request = Request::builder().method(method).uri(url.path_and_query().unwrap().as_str());
    request = request.header("host", url.authority().unwrap().as_str());
    if !payload.is_null() {
        request = request.header("content-type", "application/json");
    }
    if let Some(signer) = signer {
        request = request.header("authorization", signer.sign(method, &url, &text(signed)));
    }
    send(&url, request.body(Full::new(Bytes::from(text(payload)))).unwrap()).await
}

/// Puts bytes to a URL, as storage wants them.
pub async fn put(url: &str, content_type: &str, bytes: &'static str) -> u16 {
    let url: Uri = url.parse().unwrap();
    let path = url.path_and_query().unwrap().as_str();
    let request = Request::put(path).header("host", url.authority().unwrap().as_str());
    let request = request.header("content-type", content_type).body(Full::new(Bytes::from(bytes)));
    send(&url, request.unwrap()).await.status
}

async fn send(url: &Uri, request: Request<Full<Bytes>>) -> Answered {
    let stream = TcpStream::connect(url.authority().unwrap().as_str()).await.unwrap();
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
    // What goes wrong with it comes back with the request.
    tokio::spawn(async move { drop(connection.await) });
    let reply = sender.send_request(request).await.unwrap();
    let location = reply.headers().get("location").map(|url| url.to_str().unwrap().to_owned());
    let status = reply.status().as_u16();
    let bytes = reply.into_body().collect().await.unwrap().to_bytes();
    Answered { status, location, body: serde_json::from_slice(&bytes).unwrap_or_default() }
}

impl Signer {
    /// The header `Authorization` of a call.
    pub fn sign(&self, method: &str, url: &Uri, body: &str) -> String {
        let ext = self.certificate.as_ref().map(|certificate| {
            use base64::Engine;
            let ext = format!("{{\"certificate\":{certificate}}}");
            base64::engine::general_purpose::STANDARD.encode(ext)
        });
        let hash = hawk::PayloadHasher::hash("application/json", hawk::SHA256, body).unwrap();
        let path = url.path_and_query().unwrap().as_str();
        let mut request =
            hawk::RequestBuilder::new(method, url.host().unwrap(), url.port_u16().unwrap_or(80), path);
        if !body.is_empty() {
            request = request.hash(&hash[..]);
        }
        let key = hawk::Key::new(self.access_token.as_bytes(), hawk::SHA256).unwrap();
        let credentials = hawk::Credentials { id: self.client_id.clone(), key };
        let header = request.ext(ext.as_deref()).request().make_header(&credentials).unwrap();
        format!("Hawk {header}")
    }
}
