//! How the hooks of several features go together, shown with features of the test's own.

use std::future::pending;
use std::net::Ipv4Addr;

use super::*;
use crate::artifact::storage::Storage;
use crate::artifact::{Destination, PublisherParts, Store};
use crate::config::Logging;
use crate::event::Events;
use crate::interrupt::{Interrupt, Interrupter, Notice, channel};
use crate::known_features::{ARTIFACTS, BULK_LOG, KNOWN_FEATURES, LOCAL_LIVE_LOG, Support};
use crate::queue::definition::Submission;
use crate::queue::task_id::TaskId;
use crate::queue::{Claim, Credentials, EmbeddedQueue, StorageType, WorkerIdentity, WorkerQueue};
use crate::timestamp::Timestamp;

#[test]
fn exactly_the_features_that_work_have_a_behaviour() {
    let mut behave: Vec<_> = FEATURES.iter().map(|row| row.feature.name).collect();
    let here = KNOWN_FEATURES.iter().filter(|feature| feature.support == Support::Here);
    let mut works: Vec<_> = here.map(|feature| feature.name).collect();
    behave.sort_unstable();
    works.sort_unstable();
    assert_eq!(behave, works);
}

/// What a feature of the test does in each of its hooks.
#[derive(Clone, Copy)]
enum Does {
    Contributes(&'static str),
    Fails(&'static str),
    Hangs,
}

impl Does {
    async fn in_a_hook(self) -> Result<(), FeatureError> {
        match self {
            Does::Contributes(_) => Ok(()),
            Does::Fails(why) => Err(why.into()),
            Does::Hangs => pending().await,
        }
    }
}

impl Feature for Does {
    fn link<'a>(&'a mut self, run: &'a RunContext, link: &'a mut Link<'_>) -> Hook<'a> {
        if let Does::Contributes(value) = self {
            let task = run.run.task_id.as_str().len().to_string();
            link.contributions.environment.push(((*value).to_owned(), task));
        }
        Box::pin(self.in_a_hook())
    }

    fn killed<'a>(&'a mut self, _run: &'a RunContext, _killed: &'a mut Killed<'_>) -> Hook<'a> {
        Box::pin(self.in_a_hook())
    }
}

/// A run that nobody works on.
async fn claim() -> Claim {
    let author = EmbeddedQueue::in_memory(Box::new(Timestamp::now)).unwrap();
    let task_id = TaskId::random().unwrap();
    let submission = Submission::parse(br#"{"image": "i", "maxRunTime": 1}"#).unwrap();
    let definition = submission.into_task(&task_id, Timestamp::now()).unwrap().definition;
    author.create_task(&task_id, &definition).await.unwrap();
    let identity = WorkerIdentity { worker_group: "g".to_owned(), worker_id: "w".to_owned() };
    let queue = WorkerQueue::embedded(author);
    queue.claim_work(&definition.task_queue_id, &identity, 1).await.unwrap().claims.remove(0)
}

fn publisher(claim: Claim, run: &RunContext) -> Publisher {
    Publisher::new(PublisherParts {
        queue: claim.queue,
        expires: claim.expires,
        store: Store::Directory(Arc::new(Destination::Nowhere)),
        reserved: Vec::new(),
        scratch: run.data.clone(),
        log: None,
        config: Arc::clone(&run.config),
        events: Events::none(),
        interrupts: run.interrupts.clone(),
    })
}

struct Fixture {
    active: Active,
    publisher: Publisher,
    interrupter: Interrupter,
    contributions: Contributions,
    scratch: tempfile::TempDir,
}

impl Fixture {
    async fn of(behaviours: [Does; 3]) -> Fixture {
        let claim = claim().await;
        let scratch = tempfile::tempdir().unwrap();
        let (interrupter, interrupts) = channel();
        let run = claim.queue.run().clone();
        let context = RunContext {
            run: run.clone(),
            definition: claim.definition.clone(),
            worker_id: "w".to_owned(),
            signing_key: None,
            scopes: Vec::new(),
            config: Arc::new(ConfigFile::default()),
            data: scratch.path().to_owned(),
            log: Spool::create(&scratch.path().join("log"), 1 << 20).unwrap(),
            events: Events::none().of(&run),
            live_log: None,
            proxy: None,
            credentials: None,
            interrupts,
        };
        let mut active = Active::start(context, None);
        let rows = [&LOCAL_LIVE_LOG, &BULK_LOG, &ARTIFACTS].into_iter().zip(behaviours);
        active.features.extend(rows.map(|(row, does)| (row, Box::new(does) as Box<dyn Feature>)));
        let publisher = publisher(claim, &active.run);
        Fixture { active, publisher, interrupter, contributions: Contributions::default(), scratch }
    }

    async fn link(&mut self) -> Result<(), StageError> {
        self.active.link(Link { network: None, contributions: &mut self.contributions }).await
    }

    async fn killed(&mut self) -> Result<(), StageError> {
        let log = self.scratch.path().join("log");
        self.active
            .killed(Killed { log: &log, image_id: None, image_artifact: None, publisher: &self.publisher })
            .await
    }
}

#[tokio::test]
async fn one_feature_that_fails_keeps_no_other_from_its_hook_and_the_log_names_all() {
    let mut fixture =
        Fixture::of([Does::Fails("no room"), Does::Contributes("A"), Does::Fails("no luck")]).await;
    let said = "Error calling 'link' for localLiveLog : no room | Error calling 'link' for artifactHandler : no luck";
    assert_eq!(fixture.link().await.unwrap_err().to_string(), said);
    assert_eq!(fixture.contributions.environment, [("A".to_owned(), "22".to_owned())]);
    let said = "Error calling 'killed' for artifactHandler : no luck | Error calling 'killed' for localLiveLog : no room";
    assert_eq!(fixture.killed().await.unwrap_err().to_string(), said, "in reverse on the way out");
}

#[tokio::test]
async fn an_interrupt_ends_a_stage_before_the_commands_end() {
    let mut fixture = Fixture::of([Does::Contributes("A"), Does::Hangs, Does::Contributes("B")]).await;
    let interrupter = fixture.interrupter.clone();
    let (linked, ()) =
        tokio::join!(fixture.link(), async { interrupter.interrupt(Interrupt::Shutdown, Notice::Signal) });
    assert!(matches!(linked, Err(StageError::Interrupted)), "{linked:?}");
}

#[tokio::test(start_paused = true)]
async fn a_second_interrupt_ends_one_hook_after_the_commands_end_and_the_others_have_their_turn() {
    let mut fixture = Fixture::of([Does::Fails("no room"), Does::Hangs, Does::Contributes("A")]).await;
    let interrupter = fixture.interrupter.clone();
    let hour = std::time::Duration::from_secs(3600);
    let interrupted = async {
        interrupter.interrupt(Interrupt::Shutdown, Notice::Signal);
        tokio::time::sleep(hour).await;
        interrupter.interrupt(Interrupt::Shutdown, Notice::Signal);
        tokio::time::Instant::now()
    };
    let (killed, interrupted) = tokio::join!(fixture.killed(), interrupted);
    let said = "Error calling 'killed' for bulkLogHandler : it had not ended when another interrupt came | Error calling 'killed' for localLiveLog : no room";
    assert_eq!(killed.unwrap_err().to_string(), said);
    assert!(interrupted.elapsed() < hour);
}

#[tokio::test(start_paused = true)]
async fn after_a_second_interrupt_every_hook_has_a_moment_and_no_more() {
    let mut fixture = Fixture::of([Does::Hangs, Does::Hangs, Does::Hangs]).await;
    fixture.interrupter.interrupt(Interrupt::Shutdown, Notice::Signal);
    fixture.interrupter.interrupt(Interrupt::Shutdown, Notice::Signal);
    let hour = std::time::Duration::from_secs(3600);
    let killed = tokio::time::timeout(hour, fixture.killed()).await.expect("an end of the last hook as well");
    assert_eq!(killed.unwrap_err().to_string().matches("it had not ended when another").count(), 3);
}

#[tokio::test]
async fn a_task_does_not_wait_long_for_its_live_log_to_be_listed_and_whoever_finds_it_may_read_it() {
    let deployment = Storage::start(&[]).await;
    let credentials =
        Credentials { client_id: "w".to_owned(), access_token: "s".to_owned(), certificate: None };
    let queue = WorkerQueue::deployment(&deployment.url(""), credentials).unwrap();
    let identity = WorkerIdentity { worker_group: "g".to_owned(), worker_id: "w".to_owned() };
    let claim = queue.claim_work("p/w", &identity, 1).await.unwrap().claims.remove(0);
    let mut fixture = Fixture::of([Does::Hangs; 3]).await;
    fixture.publisher = publisher(claim, &fixture.active.run);
    // There is no answer about it.
    let name = ArtifactName::new("public/silent").unwrap();
    fixture.active.features = vec![(&LOCAL_LIVE_LOG, live_log(&name))];
    let logging = Logging { live_log_address: Some(Ipv4Addr::LOCALHOST.into()), ..Logging::default() };
    let config = ConfigFile { logging, ..ConfigFile::default() };
    let server = Arc::new(LiveLogServer::start(&config, Events::none()).await.unwrap());
    fixture.active.run.live_log = Some(Arc::clone(&server));
    tokio::time::pause();
    let minute = std::time::Duration::from_secs(60);
    let created = tokio::time::timeout(minute, fixture.active.created(&fixture.publisher)).await;
    created.expect("an end within a minute").unwrap();
    let log = std::fs::read_to_string(fixture.scratch.path().join("log")).unwrap();
    assert!(log.contains("Perhaps the log cannot be read while the task runs"), "{log}");
    assert_eq!(format!("{server:?}").matches("Offers(1)").count(), 1, "{server:?}");
}

fn live_log(name: &ArtifactName) -> Box<dyn Feature> {
    let switches = FeatureSwitches::of_defaults(&[]);
    (local_live_log::ROW.start)(&Wishes { payload: None, switches: &switches, log: name })
}

#[tokio::test]
async fn a_live_log_is_a_reference_while_the_task_runs_and_a_link_afterwards() {
    let logging = Logging { live_log_address: Some(Ipv4Addr::LOCALHOST.into()), ..Logging::default() };
    let config = ConfigFile { logging, ..ConfigFile::default() };
    let name = ArtifactName::new("public/logs/live.log").unwrap();
    for (is_over, storage_type) in [(false, StorageType::Reference), (true, StorageType::Link)] {
        let mut fixture = Fixture::of([Does::Hangs; 3]).await;
        fixture.active.features = vec![(&LOCAL_LIVE_LOG, live_log(&name))];
        let server = LiveLogServer::start(&config, Events::none()).await.unwrap();
        fixture.active.run.live_log = Some(Arc::new(server));
        fixture.active.created(&fixture.publisher).await.unwrap();
        if is_over {
            fixture.killed().await.unwrap();
        }
        let records = fixture.publisher.into_records();
        let live = records.iter().find(|record| record.name == name).unwrap();
        assert_eq!(live.storage_type, storage_type);
    }
}
