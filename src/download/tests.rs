use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// Answers each connection's one request with the next of these, and closes it.
struct Server {
    origin: String,
    requests: Arc<Mutex<Vec<String>>>,
    _serving: Background,
}

impl Server {
    async fn start(answers: &[&str]) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (answers, seen): (Vec<String>, _) =
            (answers.iter().map(|answer| answer.replace("ORIGIN", &origin)).collect(), Arc::clone(&requests));
        let serving = Background::start(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = vec![0; 4096];
                let count = stream.read(&mut head).await.unwrap();
                seen.lock().unwrap().push(String::from_utf8_lossy(&head[..count]).to_lowercase());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        Server { origin, requests, _serving: serving }
    }

    fn place(&self, custody: Custody) -> ArtifactPlace {
        ArtifactPlace { url: format!("{}/x?signature=secret", self.origin), custody }
    }

    fn request(&self, number: usize) -> String {
        self.requests.lock().unwrap()[number].clone()
    }
}

/// All bytes of a download, or what went wrong.
async fn whole(begun: Result<Download, DownloadError>) -> Result<Vec<u8>, DownloadError> {
    let mut download = begun?;
    let mut bytes = Vec::new();
    while let Some(chunk) = download.chunk().await? {
        bytes.extend_from_slice(&chunk);
    }
    assert_eq!(download.total.unwrap_or(download.received()), download.received());
    Ok(bytes)
}

async fn get(server: &Server, rest: Option<&Rest>) -> Result<Vec<u8>, DownloadError> {
    whole(Downloader::default().begin(&server.place(Custody::Deployment), rest).await).await
}

#[tokio::test]
async fn bytes_come_with_what_is_known_of_them() {
    let server = Server::start(&[
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nETag: \"t\"\r\nContent-Encoding: gzip\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nETag: W/\"t\"\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ])
    .await;
    let place = server.place(Custody::Deployment);
    let mut first = Downloader::default().begin(&place, None).await.unwrap();
    assert_eq!((first.encoding, first.total), (Encoding::Gzip, Some(3)));
    assert_eq!(first.chunk().await.unwrap().unwrap(), "abc");
    assert_eq!(first.rest(), Some(Rest { from: 3, total: 3, tag: "\"t\"".to_owned() }));
    let second = Downloader::default().begin(&place, None).await.unwrap();
    // A weak tag does not tell bytes from others.
    assert_eq!((second.encoding, second.total, second.rest()), (Encoding::Identity, None, None));
    assert_eq!(whole(Ok(second)).await.unwrap(), b"abc");
    let asked = server.request(0);
    assert!(asked.starts_with("get /x?signature=secret http/1.1\r\n"), "{asked}");
    for absent in ["authorization", "cookie", "range"] {
        assert!(!asked.contains(absent), "{asked}");
    }
}

#[tokio::test]
async fn only_the_rest_of_the_same_bytes_is_taken_for_it() {
    let rest = Rest { from: 3, total: 6, tag: "\"t\"".to_owned() };
    let part = "HTTP/1.1 206 Partial Content\r\nContent-Length: 3\r\n";
    let cases = [
        (format!("{part}Content-Range: bytes 3-5/6\r\nETag: \"t\"\r\n\r\ndef"), true),
        (format!("{part}Content-Range: bytes 3-5/6\r\n\r\ndef"), true),
        (format!("{part}Content-Range: bytes 3-5/6\r\nETag: \"u\"\r\n\r\ndef"), false),
        (format!("{part}Content-Range: bytes 2-4/6\r\n\r\ncde"), false),
        (format!("{part}Content-Range: bytes 3-5/7\r\n\r\ndef"), false),
        (format!("{part}\r\ndef"), false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 6\r\nETag: \"t\"\r\n\r\nabcdef".to_owned(), false),
        ("HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 0\r\n\r\n".to_owned(), false),
    ];
    for (answer, is_rest) in cases {
        let server = Server::start(&[&answer]).await;
        let got = get(&server, Some(&rest)).await;
        let request = server.request(0);
        assert!(
            request.contains("range: bytes=3-\r\n") && request.contains("if-range: \"t\"\r\n"),
            "{request}"
        );
        match (got, is_rest) {
            (Ok(bytes), true) => assert_eq!(bytes, b"def", "{answer}"),
            (Err(DownloadError::NotTheRest(_)), false) => {}
            (other, _) => panic!("{answer}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn what_passes_is_told_from_what_stays_and_no_word_of_a_url_is_told() {
    let passing = [
        "HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 429 X\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "nonsense\r\n\r\n",
        "",
    ];
    let refused = [
        "HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 403 X\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 204 X\r\n\r\n",
        "HTTP/1.1 206 X\r\nContent-Length: 3\r\nContent-Range: bytes 0-2/3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Encoding: br\r\n\r\nabc",
        "HTTP/1.1 302 X\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 302 X\r\nContent-Length: 0\r\n\r\n",
        // Where a storage leads on to is anybody's word.
        "HTTP/1.1 302 X\r\nLocation: ORIGIN/y\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 307 X\r\nLocation: /y\r\nContent-Length: 0\r\n\r\n",
    ];
    let answers =
        passing.iter().map(|answer| (answer, true)).chain(refused.iter().map(|answer| (answer, false)));
    for (answer, is_passing) in answers {
        let server = Server::start(&[answer]).await;
        let error = get(&server, None).await.unwrap_err();
        assert_eq!(matches!(error, DownloadError::Passing(_)), is_passing, "{answer}: {error:?}");
        assert!(!error.to_string().contains("signature"), "{error}");
    }
    let nobody = Server::start(&[]).await;
    let place = nobody.place(Custody::Deployment);
    drop(nobody);
    let error = Downloader::default().begin(&place, None).await.unwrap_err();
    assert!(matches!(error, DownloadError::Passing(_)), "{error:?}");
    for url in ["", "/x", "ftp://example.com/x", "http://", "https:///x"] {
        let place = ArtifactPlace { url: url.to_owned(), custody: Custody::Deployment };
        let error = Downloader::default().begin(&place, None).await.unwrap_err();
        assert!(matches!(error, DownloadError::Refused(_)), "{url}: {error:?}");
    }
}

#[test]
fn no_redirect_leads_out_of_tls() {
    let redirect = |to: &str| Response::builder().status(302).header(LOCATION, to).body(()).unwrap();
    let from = Uri::from_static("https://a.example/x");
    let to = |location: &str| redirected(&from, redirect(location).headers());
    assert_eq!(to("https://b.example/y").unwrap(), "https://b.example/y");
    assert_eq!(to("/y?z").unwrap(), "https://a.example/y?z");
    for wrong in ["http://a.example/x", "//b.example/y", "", "y", "javascript:0"] {
        assert!(matches!(to(wrong), Err(DownloadError::Refused(_))), "{wrong}");
    }
}

/// Answers one request with three bytes of many, then with one more after each pause, for ever.
async fn dripping(pause: Duration) -> (ArtifactPlace, Background) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/x", listener.local_addr().unwrap());
    let serving = Background::start(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\nabc";
        stream.write_all(head.as_bytes()).await.unwrap();
        loop {
            tokio::time::sleep(pause).await;
            stream.write_all(b"x").await.unwrap();
        }
    });
    (ArtifactPlace { url, custody: Custody::Deployment }, serving)
}

#[tokio::test]
async fn silence_ends_a_download_and_so_do_drops() {
    let day = Duration::from_secs(24 * 3600);
    for (pause, why) in [
        (day * 2, "nothing has come for 60 s"),
        (SILENCE * 2, "nothing has come for 60 s"),
        (SILENCE / 6, "bytes came in 120 s"),
    ] {
        let (place, _serving) = dripping(pause).await;
        let mut download = Downloader::default().begin(&place, None).await.unwrap();
        assert_eq!(download.chunk().await.unwrap().as_deref(), Some(&b"abc"[..]));
        // Nobody waits for what is to come.
        tokio::time::pause();
        let ended = timeout(day, async {
            loop {
                if let Err(error) = download.chunk().await {
                    return error;
                }
            }
        });
        let error = ended.await.expect("it goes on for a day");
        assert!(matches!(error, DownloadError::Passing(_)) && error.to_string().contains(why), "{error}");
        tokio::time::resume();
    }
}
