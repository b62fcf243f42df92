//! The embedded queue's HTTP API held against the real services: the same calls, the same answers.
//!
//! `tests/it/recorded.json` holds what a Taskcluster deployment has answered to [`SCRIPT`], without what differs each
//! time (ids, times, secrets, URLs, wording). `RECORD=1 cargo test --test deployment recorded` records it anew.

use std::fs;

use serde_json::Value;

use crate::script::play;
use crate::support::{Deployment, Terms};

const RECORDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/recorded.json");

#[test]
fn what_is_answered_is_what_the_real_services_answer() {
    let recorded: Vec<Value> = serde_json::from_slice(&fs::read(RECORDED).unwrap()).unwrap();
    let deployment = Deployment::start(Terms::default());
    let (root, worker) = (deployment.signer("root"), deployment.signer("worker"));
    let root_url = deployment.root_url.clone();
    let answered = deployment.within(async move { play(&root_url, &root, &worker).await });
    assert_eq!(answered.len(), recorded.len());
    let differing: Vec<_> = answered.iter().zip(&recorded).filter(|(own, real)| own != real).collect();
    assert!(
        differing.is_empty(),
        "(own, real): {}",
        serde_json::to_string_pretty(&differing).unwrap_or_default()
    );
}
