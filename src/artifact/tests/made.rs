//! Artifacts that are made while they are stored.

use std::io::Write;

use super::*;

/// Publishes what somebody makes.
async fn made(
    run: &Fixture,
    make: impl FnOnce(&mut dyn Write) -> Result<(), MakeError> + Send + 'static,
) -> Result<u64, PublishError> {
    run.publisher.publish_made(run.description("public/made.tar"), Box::new(make)).await
}

fn numbers() -> Vec<u8> {
    (0..200_000_u32).flat_map(u32::to_le_bytes).collect()
}

fn write_numbers(out: &mut dyn Write) -> Result<(), MakeError> {
    Ok(numbers().chunks(1000).try_for_each(|part| out.write_all(part))?)
}

#[tokio::test]
async fn what_is_made_arrives_compressed_also_at_the_second_attempt() {
    let run = run(ArtifactStorage::S3, &[Answer::Refuse(503, "SlowDown")]).await;
    assert_eq!(made(&run, write_numbers).await.unwrap(), numbers().len() as u64);
    let put = run.put();
    assert_eq!(put.len(), 2);
    for put in put {
        assert_eq!(put.headers["content-encoding"], "gzip");
        let mut decoded = Vec::new();
        GzDecoder::new(&put.body[..]).read_to_end(&mut decoded).unwrap();
        assert!(decoded == numbers());
    }
    let creation = "POST /artifacts/public%2Fmade.tar";
    assert_eq!(run.calls().iter().filter(|call| *call == creation).count(), 1);
    let records = run.publisher.into_records();
    let record = (records[0].size, records[0].content_encoding);
    assert_eq!(record, (Some(numbers().len() as u64), Some("gzip")));
}

#[tokio::test]
async fn an_object_has_no_encoding() {
    let run = run(ArtifactStorage::Object, &[]).await;
    made(&run, write_numbers).await.unwrap();
    assert!(run.put()[0].body == numbers());
    assert_eq!(run.publisher.into_records()[0].content_encoding, None);
}

#[tokio::test]
async fn what_cannot_be_made_is_no_artifact_and_says_why() {
    let mut run = run(ArtifactStorage::S3, &[]).await;
    let failed = made(&run, |out| {
        out.write_all(&[7; 3 << 20])?;
        Err("the sea is rough".into())
    });
    assert_eq!(failed.await.unwrap_err().to_string(), "the sea is rough");

    let mut config = ConfigFile::default();
    config.artifacts.max_bytes = Some(100_000);
    run.publisher.config = Arc::new(config);
    let too_large = made(&run, |out| (0..40).try_for_each(|_| write_numbers(out))).await;
    let said = "store it: it has more than 100000 bytes (artifacts.maxBytes)";
    assert_eq!(too_large.unwrap_err().to_string(), said);

    let interrupter = run.interrupter.clone();
    let interrupted = made(&run, move |out| {
        interrupter.interrupt(Interrupt::Shutdown, Notice::Signal);
        loop {
            out.write_all(&[0; 1000])?;
        }
    });
    assert!(matches!(interrupted.await, Err(PublishError::Interrupted)));
    assert_eq!(run.calls(), [""; 0]);
}
