//! What the process that serves tasks reaches of the host that it runs on, whatever its code may do: programs of its user
//! and its group stand for it here.

use std::fs;
use std::net::IpAddr;

use serde_json::json;

use crate::support::{Internet, OUTSIDE, Site, Started, Worker, await_that};
use crate::taskcluster_proxy::{
    AWAIT_RELEASE, completed, definition, group_of, of, proxy_of, waiting_definition,
};

/// Who the process is, beside its group.
const USER: u32 = 65_533;

/// Whether somebody of that user and group gets a connection from the host.
fn reaches(internet: &Internet, who: (u32, u32), (address, port): (&str, u16)) -> bool {
    by(internet, who, &format!("exec 3<>/dev/tcp/{address}/{port}"))
}

/// Whether a script of somebody's comes to its end in time.
fn by(internet: &Internet, (user, group): (u32, u32), script: &str) -> bool {
    let mut command = internet.host.command("setpriv");
    command.args([&format!("--reuid={user}"), &format!("--regid={group}"), "--clear-groups"]);
    command.args(["timeout", "1", "bash", "-c", script]).output().unwrap().status.success()
}

#[test]
fn s59_who_serves_tasks_reaches_of_its_host_the_deployment_and_the_resolver_only() {
    let site = Site::new();
    let internet = &site.internet;
    let own =
        ["127.0.0.1", "127.0.0.2", "::1", "192.0.2.2", "203.0.113.5", "169.254.169.254", "fd00:ec2::254"];
    for address in &own[5..] {
        internet.host.tool("ip", &["address", "add", address, "dev", "lo"]);
    }
    internet.outside.tool("ip", &["address", "add", "169.254.170.2/32", "dev", "lo"]);
    let _listening = [&internet.host, &internet.outside].map(|namespace| namespace.listen("[::]:8080"));
    let datagrams = internet.host.receive("127.0.0.1:8080");
    let worker = site.start(&json!({}));
    let script = format!("get /api/queue/v1/ping; echo first; {AWAIT_RELEASE}; get /api/queue/v1/ping");
    let task = site.deployment.create_task(waiting_definition(&site, &script));
    site.deployment.await_printed(&task, "first");
    let group = group_of(proxy_of(&site.worker));
    // Who has its user only is somebody else, whose host this is.
    let (proxy, stranger) = ((USER, group), (USER, USER));
    let assert_confined = || {
        for address in own.into_iter().chain(["169.254.170.2"]) {
            assert!(!reaches(internet, proxy, (address, 8080)), "{address}");
            assert!(reaches(internet, stranger, (address, 8080)), "{address}: nobody is there");
        }
        assert!(reaches(internet, proxy, (OUTSIDE, 8080)));
    };
    assert_confined();
    let (_, port) = site.deployment.root_url.rsplit_once(':').unwrap();
    assert!(reaches(internet, proxy, ("127.0.0.1", port.parse().unwrap())), "{}", site.deployment.root_url);
    assert!(by(internet, proxy, "echo from the proxy >/dev/udp/127.0.0.1/8080; true"));
    assert!(by(internet, stranger, "echo from a stranger >/dev/udp/127.0.0.1/8080"));
    let mut datagram = [0; 64];
    await_that("a datagram", || match datagrams.recv(&mut datagram) {
        Ok(length) => datagram[..length] == *b"from a stranger\n" || panic!("{datagram:?}"),
        Err(_) => false,
    });
    let rules = internet.host.tool("nft", &["list", "ruleset"]);
    let resolver = format!("{} . udp . 53", resolver());
    assert!(rules.contains(&resolver), "{resolver}: {rules}");
    // What it is asked, it answers; and the rules stay as long as it does.
    site.release();
    assert_eq!(completed(&site, &task).matches("\"alive\":true").count(), 2);
    assert_confined();
    worker.stop();
    internet.assert_as_before();
}

/// The host's own: who asks for an address of the host's gets outside, and who asks for one outside gets to the host.
const TRANSLATIONS: &str = "table ip translations { chain output { type nat hook output priority -100; \
    ip daddr 192.0.2.2 tcp dport 8081 dnat to 198.51.100.7:8080; \
    ip daddr 198.51.100.7 tcp dport 8082 redirect to :8080; }; }";

#[test]
fn who_serves_tasks_is_held_by_whom_it_asks_for_wherever_the_host_leads_that() {
    let site = Site::new();
    let internet = &site.internet;
    let _listening = [&internet.host, &internet.outside].map(|namespace| namespace.listen("[::]:8080"));
    internet.host.tool("nft", &[TRANSLATIONS]);
    let worker = site.start(&json!({}));
    let script = format!("get /api/queue/v1/ping; echo first; {AWAIT_RELEASE}; get /api/queue/v1/ping");
    let task = site.deployment.create_task(waiting_definition(&site, &script));
    site.deployment.await_printed(&task, "first");
    let group = group_of(proxy_of(&site.worker));
    for (place, is_open) in [(("192.0.2.2", 8081), false), ((OUTSIDE, 8082), true)] {
        assert!(reaches(internet, (USER, USER), place), "{place:?}: nobody is there");
        assert_eq!(reaches(internet, (USER, group), place), is_open, "{place:?}");
    }
    site.release();
    assert_eq!(completed(&site, &task).matches("\"alive\":true").count(), 2);
    worker.stop();
    internet.host.tool("nft", &["delete table ip translations"]);
    internet.assert_as_before();
}

/// Whom this host asks for names.
fn resolver() -> IpAddr {
    let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let mut named = text.lines().filter_map(|line| line.strip_prefix("nameserver")?.trim().parse().ok());
    named.next().unwrap_or(IpAddr::from([127, 0, 0, 1]))
}

#[test]
fn of_two_workers_each_reaches_its_deployment_on_loopback_and_the_rules_go_with_the_last() {
    let site = Site::new();
    let other = Worker::on(&site.internet);
    let start = |worker: &Worker, id: &str, user: u32| {
        let config = site.config(&json!({ "workerId": id, "taskclusterProxy": { "user": user } }));
        Started::of(worker.command(&["start", "--config", &config]).spawn().unwrap())
    };
    let users = [USER, 65_001];
    let workers =
        [(&site.worker, start(&site.worker, "one", users[0])), (&other, start(&other, "other", users[1]))];
    let script = format!("get /api/queue/v1/ping; echo first; {AWAIT_RELEASE}; get /api/queue/v1/ping");
    let tasks = [(); 2].map(|()| site.deployment.create_task(waiting_definition(&site, &script)));
    for task in &tasks {
        site.deployment.await_printed(task, "first");
    }
    let proxies = workers.each_ref().map(|(worker, _)| proxy_of(worker));
    for (proxy, user) in proxies.iter().zip(users) {
        assert!(of(*proxy, "status").contains(&format!("Uid:\t{user}\t{user}\t{user}\t{user}\n")));
    }
    let groups = proxies.map(group_of);
    assert_ne!(groups[0], groups[1]);
    // By now the rules of both are there.
    for (worker, _) in &workers {
        let cache = worker.data().join("caches").join(&worker.caches()[0]);
        fs::write(cache.join("content/go"), "").unwrap();
    }
    for task in &tasks {
        assert_eq!(completed(&site, task).matches("\"alive\":true").count(), 2);
    }
    let [(_, one), (_, two)] = workers;
    one.stop();
    let last = site.deployment.create_task(definition(&site, "get /api/queue/v1/ping", &[]));
    assert!(completed(&site, &last).contains("\"alive\":true"));
    let _listening = site.internet.host.listen("127.0.0.1:8080");
    assert!(!reaches(&site.internet, (users[1], groups[1]), ("127.0.0.1", 8080)));
    assert!(reaches(&site.internet, (users[1], groups[0]), ("127.0.0.1", 8080)));
    two.stop();
    site.internet.assert_as_before();
}

/// Gives a worker's mount namespace a file of hosts of its own, and keeps everything else that names are asked of.
const WITH_HOSTS: &str = "mount --bind \"$0\" /etc/hosts";

#[test]
fn a_deployment_by_a_name_of_the_hosts_own_is_reached_wherever_that_leads_by_now() {
    let site = Site::new();
    let scratch = tempfile::tempdir().unwrap();
    let hosts = scratch.path().join("hosts");
    fs::write(&hosts, "127.0.0.1 tc.test\n").unwrap();
    let worker = Worker::on_changed(&site.internet, WITH_HOSTS, hosts.to_str().unwrap());
    let (_, port) = site.deployment.root_url.rsplit_once(':').unwrap();
    let config = site.config(&json!({ "rootUrl": format!("http://tc.test:{port}") }));
    let started = Started::of(worker.command(&["start", "--config", &config]).spawn().unwrap());
    // Longer than names that were looked at count as new.
    let script = "get /api/queue/v1/ping; sleep 2";
    for (addresses, others) in
        [(vec!["127.0.0.1"], vec!["127.0.0.2"]), (vec!["127.0.0.1", "127.0.0.2"], vec![])]
    {
        let lines: String = addresses.iter().map(|address| format!("{address} tc.test\n")).collect();
        fs::write(&hosts, lines).unwrap();
        let task = site.deployment.create_task(definition(&site, script, &[]));
        assert!(completed(&site, &task).contains("\"alive\":true"));
        let rules = site.internet.host.tool("nft", &["list", "ruleset"]);
        let opening = |address: &str| format!("{address} . tcp . {port}");
        assert!(addresses.iter().all(|address| rules.contains(&opening(address))), "{addresses:?}: {rules}");
        assert!(!others.iter().any(|address| rules.contains(&opening(address))), "{others:?}: {rules}");
    }
    started.stop();
    site.internet.assert_as_before();
}
