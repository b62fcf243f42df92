//! An image that is an artifact, beside curl and sha256sum, which only fetch and hash it: over a line of 1 Gbit/s, and over
//! one without a bound. The archive is in `archive.tar.zst` of the directory, and is published anew for each round.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::time::{Duration, Instant};

use docker_worker::queue::artifact_name::ArtifactName;
use docker_worker::queue::task_id::TaskId;
use docker_worker::queue::{RunId, Verdict, WorkerIdentity};
use docker_worker::timestamp::Timestamp;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

use crate::site::{Site, millis, number};
use crate::table::{heading, median, row, spread};

const NAME: &str = "public/image.tar.zst";
/// Bytes a second of the slower line.
const LINE: u64 = 125_000_000;

pub async fn measure(site: &Site, rounds: usize) {
    let megabytes = std::fs::metadata(site.directory.join("archive.tar.zst")).unwrap().len() / 1_000_000;
    for (line, rate) in [("1 Gbit/s", Some(LINE)), ("loopback", None)] {
        let root_url = lead_to(site, rate).await;
        let worker = site.start(&json!({ "rootUrl": root_url })).await;
        let (mut alone, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let task_id = publish(site).await;
            alone.push(fetched(&root_url, &task_id).await);
            ours.push(run_in(site, &task_id).await);
        }
        let peak = number(&format!("/proc/{}/status", worker.pid), "VmHWM") / 1024.0;
        worker.stop().await;
        let head = format!("{megabytes} MB by {line}, n={rounds}: min / median / max s");
        heading(&[&head, "peak RSS of the worker, MB", "of fetch and hash"]);
        row("curl, sha256sum", &[&spread(&alone), &"", &"1.00"]);
        let of = format!("{:.2}", median(&ours) / median(&alone));
        row("claimed to the end of `true` in the image", &[&spread(&ours), &format!("{peak:.1}"), &of]);
    }
}

/// Has a task published the archive.
async fn publish(site: &Site) -> TaskId {
    let worker = WorkerIdentity { worker_group: "benches".to_owned(), worker_id: "maker".to_owned() };
    let task_id = site.create_for("maker", &json!({})).await;
    let run = RunId { task_id: task_id.clone(), run_id: 0 };
    site.queue.claim_run(&run, &worker).await.unwrap();
    let expires = Timestamp::now().plus(Duration::from_secs(3600));
    let body =
        json!({ "storageType": "s3", "contentType": "application/zstd", "expires": expires }).to_string();
    let name = ArtifactName::new(NAME).unwrap();
    let path = name.as_str().replace('/', "%2F");
    let url = format!("{}/api/queue/v1/task/{task_id}/runs/0/artifacts/{path}", site.root_url);
    let authorization = site.signer().sign("POST", &url.parse().unwrap(), &body);
    let created = curl(&[
        "--header",
        &format!("authorization: {authorization}"),
        "--header",
        "content-type: application/json",
        "--data-raw",
        &body,
        &url,
    ])
    .await;
    let created: Value = serde_json::from_slice(&created).unwrap();
    let archive = site.directory.join("archive.tar.zst");
    curl(&[
        "--header",
        "content-type: application/zstd",
        "--upload-file",
        archive.to_str().unwrap(),
        created["putUrl"].as_str().unwrap(),
    ])
    .await;
    site.queue.run(run).report(Verdict::Completed).await.unwrap();
    task_id
}

async fn curl(arguments: &[&str]) -> Vec<u8> {
    let mut curl = Command::new("curl");
    let output = curl.args(["--silent", "--show-error", "--fail"]).args(arguments).output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

/// Seconds that it takes to fetch and hash it.
async fn fetched(root_url: &str, task_id: &TaskId) -> f64 {
    let url = format!("{root_url}/api/queue/v1/task/{task_id}/artifacts/{}", NAME.replace('/', "%2F"));
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "curl --silent --fail --location \"$1\" | sha256sum", "sh", &url])
        .stdout(Stdio::null());
    let started = Instant::now();
    assert!(shell.status().await.unwrap().success());
    started.elapsed().as_secs_f64()
}

/// Seconds of a whole task in the image.
async fn run_in(site: &Site, task_id: &TaskId) -> f64 {
    let mut payload = site.payload(&["/bin/true"]);
    payload["image"] = json!({ "type": "task-image", "taskId": task_id, "path": NAME });
    let task_id = site.create(&payload).await;
    let run = site.completed(&task_id).await;
    millis(run.started.unwrap(), run.resolved.unwrap()) / 1000.0
}

/// A root URL that leads to the site's server, by a line on which so many bytes a second come back.
async fn lead_to(site: &Site, rate: Option<u64>) -> String {
    let server: SocketAddr = site.root_url.strip_prefix("http://").unwrap().parse().unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            // Whoever ends a connection in its middle is not what is measured.
            tokio::spawn(async move { drop(carry(client, server, rate).await) });
        }
    });
    format!("http://{address}")
}

async fn carry(mut client: TcpStream, server: SocketAddr, rate: Option<u64>) -> io::Result<()> {
    let mut server = TcpStream::connect(server).await?;
    let (mut from_server, mut to_server) = server.split();
    let (mut from_client, mut to_client) = client.split();
    let there = async {
        copy(&mut from_client, &mut to_server).await?;
        to_server.shutdown().await
    };
    let back = async {
        let Some(rate) = rate else {
            copy(&mut from_server, &mut to_client).await?;
            return to_client.shutdown().await;
        };
        let (mut piece, mut sent, began) = (vec![0; 256 << 10], 0_u64, Instant::now());
        loop {
            let count = from_server.read(&mut piece).await?;
            if count == 0 {
                return to_client.shutdown().await;
            }
            to_client.write_all(&piece[..count]).await?;
            sent += count as u64;
            let due = Duration::from_micros(sent.saturating_mul(1_000_000) / rate);
            tokio::time::sleep(due.saturating_sub(began.elapsed())).await;
        }
    };
    tokio::try_join!(there, back).map(drop)
}
