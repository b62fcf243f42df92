//! kill -9 at each step of a plan: `delete` makes the host as it was before.
use crate::busybox::Bundle;
use runtime::host::HostFacts;
use runtime::id::ContainerId;
use runtime::plan::{Step, Undo, plan};
use serde_json::json;

fn bundle() -> Bundle {
    let mut bundle = Bundle::shell("exec sleep 1000");
    std::fs::create_dir(bundle.path("source")).unwrap();
    let source = bundle.path("source");
    bundle.bind(&source, "/source", &["rbind", "rw"]);
    bundle.config["process"]["terminal"] = json!(true);
    bundle
}

#[test]
fn s47_a_monitor_killed_at_any_step_leaves_nothing_after_delete() {
    let bundle = bundle();
    let spec = runtime::spec::parse(bundle.config.clone()).unwrap().spec;
    let plan = plan(&ContainerId::new(&bundle.id).unwrap(), &spec, &HostFacts::gather().unwrap()).unwrap();
    // The last step of each side does not return.
    let steps = plan.host.len() + plan.child.len() - 1;
    assert!(steps > 50);
    for stop_after in 1..=steps {
        let number = stop_after.to_string();
        let ran = bundle.tell(&["run", "--stop-after", &number, &bundle.id]);
        assert_eq!(ran.status, -1, "killed after step {stop_after}: {ran:?}");
        // PID 1 follows its monitor by itself, or is killed here.
        let deleted = bundle.tell(&["delete", "--force", &bundle.id]);
        assert_eq!(deleted.status, 0, "after step {stop_after}: {deleted:?}");
        assert_eq!(bundle.leftovers(), Vec::<String>::new(), "after step {stop_after}");
    }
    // And the id can be used again.
    let mut again = Bundle::shell("exit 4");
    again.id = bundle.id.clone();
    assert_eq!(again.run().status, 4);
}

#[test]
fn every_step_that_outlives_its_process_is_in_the_journal() {
    let bundle = bundle();
    let spec = runtime::spec::parse(bundle.config.clone()).unwrap().spec;
    let plan = plan(&ContainerId::new(&bundle.id).unwrap(), &spec, &HostFacts::gather().unwrap()).unwrap();
    for step in &plan.host {
        assert_eq!(step.undo() == Undo::Journal, matches!(step, Step::CreateCgroup { .. }), "{step}");
    }
}

#[test]
fn s47_a_monitor_killed_at_any_moment_leaves_nothing_after_delete() {
    let bundle = bundle();
    for round in 0..20_u32 {
        let mut child = bundle.command(&["run", &bundle.id]).spawn().unwrap();
        let moment = rustix::event::Timespec { tv_sec: 0, tv_nsec: i64::from(round) * 700_000 };
        rustix::event::poll(&mut [], Some(&moment)).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(bundle.tell(&["delete", "--force", &bundle.id]).status, 0);
        assert_eq!(bundle.leftovers(), Vec::<String>::new(), "round {round}");
    }
}
