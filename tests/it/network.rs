//! Tasks on a network, on hosts of the tests' own: what a task reaches, what it does not, and what is left.

use std::fs;
use std::net::UdpSocket;
use std::time::Duration;

use crate::support::{Internet, OUTSIDE, Run, Worker, answer_one, busybox_image, compiled, file, finish};

/// More than any task here takes.
const LIMIT: Duration = Duration::from_secs(60);

/// The task's own address, in shell.
const OWN_ADDRESS: &str = "ip -4 -o address show eth0 | awk '{ split($4, a, \"/\"); print a[1] }'";

/// Shell that connects to each `address port` and prints those that answer. All at once: what is dropped takes a second.
fn try_all(targets: &[(&str, u16)]) -> String {
    let each = targets.iter().map(|(address, port)| {
        format!("(echo | nc -w 1 {address} {port} >/dev/null 2>&1 && echo reached {address} {port}) &\n")
    });
    each.chain(["wait\n".to_owned()]).collect()
}

fn run(worker: &Worker, script: &str) -> Run {
    let source = worker.image(&busybox_image()).source;
    worker.run(&source, &["/bin/sh", "-c", script])
}

fn heard_nothing(socket: &UdpSocket) -> bool {
    socket.recv_from(&mut [0; 64]).is_err()
}

#[test]
fn a_task_reaches_the_outside_by_its_uplink_and_leaves_nothing() {
    let internet = Internet::new();
    let server = internet.outside.listen("0.0.0.0:8080");
    let worker = Worker::on(&internet);
    let source = worker.image(&busybox_image()).source;
    let script = format!(
        "ping -c 1 -W 5 {OUTSIDE} >/dev/null && echo pinged
        cat /sys/class/net/eth0/mtu; ip route; ip -6 -o address show eth0; echo said | nc {OUTSIDE} 8080"
    );
    let (child, artifacts) = worker.start_run(&["--image", &source], &["/bin/sh", "-c", &script]);
    let visit = server.visit();
    assert_eq!((visit.said.as_str(), visit.from.as_str()), ("said\n", "192.0.2.2"), "masqueraded");
    assert_eq!(internet.host.parameter("ipv4/ip_forward"), "1");
    drop(visit);
    let run = Run::collect(finish(child, LIMIT), artifacts).expect(0, "the task");
    assert_eq!(run.output(), "pinged\n1400\ndefault via 169.254.1.1 dev eth0 onlink \n");
    internet.assert_as_before();
}

#[test]
fn a_task_is_told_what_it_has_sent_and_received() {
    let internet = Internet::new();
    let server = internet.outside.listen("0.0.0.0:8080");
    let worker = Worker::on(&internet);
    let source = worker.image(&busybox_image()).source;
    let script = format!("head -c 1000000 /dev/zero | nc {OUTSIDE} 8080");
    let (child, artifacts) = worker.start_run(&["--image", &source], &["/bin/sh", "-c", &script]);
    drop(server.visit());
    let run = Run::collect(finish(child, LIMIT), artifacts).expect(0, "the task");
    let bytes = |name: &str| run.resolution["resources"][name].as_u64().unwrap();
    let (received, sent) = (bytes("networkReceivedBytes"), bytes("networkSentBytes"));
    // With what carries it, and acknowledged.
    assert!((1_000_000..1_500_000).contains(&sent) && (1..sent / 2).contains(&received), "{run:?}");
    let line = format!(", received {received} B, sent {sent} B");
    let [.., resources, footer] = run.log.lines().collect::<Vec<_>>()[..] else { panic!("{run:?}") };
    assert!(resources.contains("] Resources: wall ") && resources.ends_with(&line), "{run:?}");
    assert!(footer.contains("] Successful task run"), "{run:?}");
    internet.assert_as_before();
}

#[test]
fn a_task_without_a_network_has_loopback_only_and_the_host_is_not_touched() {
    let internet = Internet::new();
    let worker = Worker::on(&internet);
    let source = worker.image(&busybox_image()).source;
    let script = format!(
        "ls /sys/class/net; ping -c 1 -W 1 127.0.0.1 >/dev/null && echo self; ping -c 1 -W 1 {OUTSIDE}"
    );
    let run = worker.run_with(&["--image", &source, "--network", "none"], &["/bin/sh", "-c", &script]);
    assert!(run.output().starts_with("lo\nself\n"), "{run:?}");
    assert_eq!(run.status, 1, "{run:?}");
    assert!(!worker.run_directory().join("network").exists());
    internet.assert_as_before();
}

#[test]
fn s48_no_address_of_the_host_answers_a_task() {
    let internet = Internet::new();
    let addresses = ["169.254.1.1", "192.0.2.2", "203.0.113.5", "255.255.255.255", "224.0.0.1"];
    let tcp = internet.host.listen("0.0.0.0:8080");
    let all = internet.host.listen("[::]:8081");
    let udp = internet.host.receive("0.0.0.0:8080");
    let worker = Worker::on(&internet);
    let mut script = try_all(
        &addresses.iter().flat_map(|address| [(*address, 8080), (*address, 8081)]).collect::<Vec<_>>(),
    );
    for address in addresses {
        script += &format!(
            "(ping -c 1 -W 1 {address} >/dev/null && echo pinged {address}) & echo x | nc -u -w 1 {address} 8080 &\n"
        );
    }
    // Not by a name of the link either: there is no IPv6 on it.
    script += "wait; ping -6 -c 1 -W 1 fe80::1%eth0 2>&1 >/dev/null | tail -n 1; ip -6 -o address show eth0; echo done\n";
    let run = run(&worker, &script).expect(0, "the task");
    let lines: Vec<String> = run.output().lines().map(str::to_owned).collect();
    assert!(
        !lines
            .iter()
            .any(|line| line.starts_with("reached") || line.starts_with("pinged") || line.contains("inet6")),
        "{run:?}"
    );
    assert_eq!(lines.last().map(String::as_str), Some("done"), "{run:?}");
    assert!(!tcp.was_visited() && !all.was_visited() && heard_nothing(&udp));
    internet.assert_as_before();
}

#[test]
fn s49_two_tasks_do_not_reach_each_other_whichever_worker_runs_them() {
    let internet = Internet::new();
    let meeting = internet.outside.listen("0.0.0.0:8080");
    let workers = [Worker::on(&internet), Worker::on(&internet)];
    // It listens, tells its address, and lives until the meeting is over.
    let first =
        format!("echo secret >/tmp/index.html; httpd -p 80 -h /tmp; {OWN_ADDRESS} | nc {OUTSIDE} 8080");
    let source = workers[0].image(&busybox_image()).source;
    let (child, artifacts) = workers[0].start_run(&["--image", &source], &["/bin/sh", "-c", &first]);
    let visit = meeting.visit();
    let address = visit.said.trim();
    let script = format!(
        "ping -c 1 -W 1 {address} >/dev/null && echo pinged\n{}ping -c 1 -W 5 {OUTSIDE} >/dev/null && echo outside",
        try_all(&[(address, 80)])
    );
    for worker in &workers {
        let run = run(worker, &script).expect(0, "the second task");
        assert_eq!(run.output(), "outside\n", "{run:?}");
        // The tables are there as long as anybody needs them.
        let tables = internet.host.tool("nft", &["list", "tables"]);
        assert_eq!(tables.matches("table netdev docker_worker_").count(), 1, "{tables}");
    }
    drop(visit);
    Run::collect(finish(child, LIMIT), artifacts).expect(0, "the first task");
    internet.assert_as_before();
}

#[test]
fn s50_no_packet_arrives_at_a_metadata_service() {
    let internet = Internet::new();
    let addresses = ["169.254.169.254", "169.254.170.2", "100.100.100.200", "192.0.0.192"];
    for address in &addresses[..1] {
        internet.host.tool("ip", &["address", "add", &format!("{address}/32"), "dev", "lo"]);
    }
    for address in &addresses[1..] {
        internet.outside.tool("ip", &["address", "add", &format!("{address}/32"), "dev", "lo"]);
    }
    internet.host.tool("ip", &["address", "add", "fd00:ec2::254/128", "dev", "lo"]);
    let services = [&internet.host, &internet.outside].map(|namespace| namespace.listen("[::]:80"));
    let datagrams = [&internet.host, &internet.outside].map(|namespace| namespace.receive("[::]:80"));
    let worker = Worker::on(&internet);
    let mut script = try_all(&addresses.map(|address| (address, 80)));
    for address in addresses.iter().chain(&["fd00:ec2::254"]) {
        script += &format!(
            "ping -c 1 -W 1 {address} >/dev/null 2>&1 && echo pinged {address}\necho x | nc -u -w 1 {address} 80 2>/dev/null\n"
        );
    }
    let run = run(&worker, &(script + "echo done")).expect(0, "the task");
    assert_eq!(run.output(), "done\n");
    assert!(!services.iter().any(|service| service.was_visited()));
    assert!(datagrams.iter().all(heard_nothing));
    internet.host.tool("ip", &["address", "del", "169.254.169.254/32", "dev", "lo"]);
    internet.assert_as_before();
}

#[test]
fn s51_frames_with_a_foreign_source_are_dropped_where_they_enter() {
    let internet = Internet::new();
    let meeting = internet.outside.listen("0.0.0.0:8080");
    let worker = Worker::on(&internet);
    let source = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/spoof.c")).unwrap();
    let spoof = fs::read(compiled("spoof", &source)).unwrap();
    let image = worker.image(&busybox_image().layer(&[file("spoof", spoof).mode(0o755)])).source;
    let script = format!("own=$({OWN_ADDRESS}); echo $own $(/spoof $own) | nc {OUTSIDE} 8080");
    let (child, artifacts) = worker.start_run(&["--image", &image], &["/bin/sh", "-c", &script]);
    let visit = meeting.visit();
    let (address, sent) = visit.said.trim().split_once(' ').unwrap();
    assert_eq!(sent, "sent 8");
    let rules = internet.host.tool("nft", &["list", "ruleset"]);
    let dropped = rules.split("chain pinned").nth(1).unwrap().split("counter packets ").nth(1).unwrap();
    let dropped: u32 = dropped.split(' ').next().unwrap().parse().unwrap();
    assert!(dropped >= 8, "{rules}");
    let neighbours = internet.host.tool("ip", &["neighbour"]);
    let own: Vec<&str> = neighbours.lines().filter(|line| line.contains(" dev dw")).collect();
    assert_eq!(own.len(), 1, "{neighbours}");
    assert!(own[0].starts_with(address) && own[0].trim_end().ends_with("PERMANENT"), "{neighbours}");
    assert!(!neighbours.contains("02:66:06:06:06:06"), "{neighbours}");
    drop(visit);
    Run::collect(finish(child, LIMIT), artifacts).expect(0, "the task");
    internet.assert_as_before();
}

#[test]
fn s52_an_address_is_not_given_again_for_a_minute_and_its_connections_are_forgotten() {
    let internet = Internet::new();
    let server = internet.outside.listen("0.0.0.0:8080");
    let worker = Worker::on(&internet);
    let config = worker.fresh("config");
    // Room for two tasks.
    fs::write(&config, "network:\n  addresses: 10.99.0.0/30\n").unwrap();
    let options = ["--image", &worker.image(&busybox_image()).source, "--config", config.to_str().unwrap()];
    let script = format!("{OWN_ADDRESS}; ping -c 1 {OUTSIDE} >/dev/null; nc {OUTSIDE} 8080 </dev/null");
    let mut addresses: Vec<String> = Vec::new();
    for _ in 0..2 {
        let (child, artifacts) = worker.start_run(&options, &["/bin/sh", "-c", &script]);
        let visit = server.visit();
        // The check below finds something if it is there.
        assert!(internet.host.tool("cat", &["/proc/net/nf_conntrack"]).contains("src=10.99."));
        drop(visit);
        let run = Run::collect(finish(child, LIMIT), artifacts).expect(0, "a task");
        addresses.push(run.output().trim().to_owned());
        let connections = internet.host.tool("cat", &["/proc/net/nf_conntrack"]);
        assert!(!connections.contains("src=10.99."), "{connections}");
    }
    addresses.sort();
    assert_eq!(addresses, ["10.99.0.1", "10.99.0.2"]);
    let run = worker.run_with(&options, &["true"]).expect(125, "all addresses rest");
    assert!(run.words().contains("network.addresses"), "{run:?}");
    internet.assert_as_before();
}

#[test]
fn s53_a_task_whose_rules_cannot_be_loaded_does_not_start() {
    let internet = Internet::new();
    for (case, change, said) in [
        ("nft is missing", "mount -t tmpfs none /usr/sbin", "--network none"),
        ("nft fails", "mount --bind /bin/false /usr/sbin/nft", "refused them"),
        ("nft cannot be run", "mount --bind /etc/passwd /usr/sbin/nft", "/usr/sbin/nft"),
    ] {
        let worker = Worker::on_changed(&internet, change, "-");
        let run = run(&worker, "echo it ran").expect(125, case);
        assert!(run.words().contains(said), "{case}: {run:?}");
        assert!(!run.log.contains("it ran"), "{case}: {run:?}");
        internet.assert_as_before();
    }
}

/// A table of somebody's whose chain drops by policy what its rules do not accept, in place of the one that is there.
fn filter(chains: &str, rules: &str) -> String {
    format!(
        "table ip filter\ndelete table ip filter\ntable ip filter {{\n {chains} chain FORWARD {{\n type filter hook forward priority filter; policy drop;\n {rules}\n }}\n}}\n"
    )
}

/// Rules for what comes from tasks and for what goes to them.
fn accepting(verdict: &str) -> String {
    format!("iifname \"dw*\" {verdict}\noifname \"dw*\" {verdict}\n")
}

#[test]
fn a_foreign_chain_that_drops_is_named_until_rules_let_tasks_through() {
    let internet = Internet::new();
    internet.host.nft(&filter("", ""));
    let worker = Worker::on(&internet);
    let ping = format!("ping -c 1 -W 1 {OUTSIDE} >/dev/null && echo pinged");
    let lost = run(&worker, &ping).expect(1, "dropped");
    let line =
        lost.log.lines().find(|line| line.contains("the chain FORWARD of the nftables table ip filter"));
    let remedy = line.and_then(|line| line.split_once("outside: ")).expect("a remedy").1;
    let check = worker.call(&["check"]);
    assert!(String::from_utf8_lossy(&check.stdout).contains(remedy), "{check:?}");
    internet.host.tool("sh", &["-c", remedy]);
    let user_chain = format!("chain USER {{\n {} }}\n", accepting("accept"));
    for (case, rules) in [
        ("after the remedy", String::new()),
        ("in a chain that is jumped to", filter(&user_chain, "jump USER")),
    ] {
        internet.host.nft(&rules);
        let run = run(&worker, &ping).expect(0, case);
        assert_eq!(run.output(), "pinged\n", "{case}");
        let check = worker.call(&["check"]);
        let said = run.words() + &String::from_utf8_lossy(&check.stdout);
        assert!(!said.contains("the chain FORWARD"), "{case}: {said}");
    }
    // Rules that are not for all of a task's packets are no remedy.
    for rules in [
        accepting("drop"),
        accepting("ip daddr 192.0.2.9 accept"),
        "iifname \"dw*\" accept\n".to_owned(),
        accepting("accept").replace("dw*", "dwx*"),
        accepting("accept").replace("name", "name !="),
    ] {
        internet.host.nft(&filter("", &rules));
        let check = worker.call(&["check"]);
        assert!(String::from_utf8_lossy(&check.stdout).contains("the chain FORWARD"), "{rules}: {check:?}");
    }
    internet.host.nft("delete table ip filter\n");
    internet.assert_as_before();
}

#[test]
fn a_range_that_somebody_else_uses_is_refused_and_named() {
    let internet = Internet::new();
    internet.host.tool("ip", &["route", "add", "10.231.7.0/24", "via", "192.0.2.1"]);
    let worker = Worker::on(&internet);
    let refused = run(&worker, "echo it ran").expect(125, "occupied");
    assert!(
        refused.log.contains("10.231.7.0/24") && refused.log.contains("network.addresses"),
        "{refused:?}"
    );
    let check = worker.call(&["check"]);
    assert!(String::from_utf8_lossy(&check.stdout).contains("10.231.7.0/24"), "{check:?}");
    internet.host.tool("ip", &["route", "del", "10.231.7.0/24"]);
    internet.assert_as_before();
}

#[test]
fn forwarding_that_the_worker_may_not_switch_on_is_named() {
    let internet = Internet::new();
    let read_only = "mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys";
    let worker = Worker::on_changed(&internet, read_only, "-");
    let refused = run(&worker, "echo it ran").expect(125, "read-only parameters");
    assert!(refused.log.contains("/proc/sys") && !refused.log.contains("it ran"), "{refused:?}");
    let check = worker.call(&["check"]);
    assert!(String::from_utf8_lossy(&check.stdout).contains("net.ipv4.ip_forward=1"), "{check:?}");
    internet.assert_as_before();
}

/// Gives a worker's mount namespace resolvers of its own: the host's file, and that of systemd-resolved if there is text.
const WITH_RESOLVERS: &str = r#"mount -t tmpfs none /run
mkdir -p /run/systemd/resolve
[ ! -s "$0/upstream" ] || cp "$0/upstream" /run/systemd/resolve/resolv.conf
file=$(realpath -m /etc/resolv.conf)
[ -e "$file" ] || touch "$file"
mount --bind "$0/host" "$file""#;

#[test]
fn names_are_asked_of_the_hosts_resolvers_else_of_those_behind_them_else_of_the_configurations() {
    let internet = Internet::new();
    let resolver = internet.outside.receive(&format!("{OUTSIDE}:53"));
    let serving = std::thread::spawn(move || {
        // Two questions, A and AAAA in any order, for each of three tasks.
        for _ in 0..6 {
            answer_one(&resolver, [192, 0, 2, 1]);
        }
    });
    let (loopback, reachable, silent) =
        ("nameserver 127.0.0.53\n", format!("nameserver {OUTSIDE}\n"), "192.0.2.77");
    for (case, host, upstream, configured) in [
        ("the host's", format!("{loopback}{reachable}search example.test\n"), "", silent),
        ("those behind it", loopback.to_owned(), reachable.as_str(), silent),
        ("the configuration's", loopback.to_owned(), "", OUTSIDE),
    ] {
        let scratch = tempfile::tempdir().unwrap();
        fs::write(scratch.path().join("host"), host).unwrap();
        fs::write(scratch.path().join("upstream"), upstream).unwrap();
        let worker = Worker::on_changed(&internet, WITH_RESOLVERS, scratch.path().to_str().unwrap());
        let file = worker.fresh("config");
        fs::write(&file, format!("network:\n  dns: [{configured}]\n")).unwrap();
        let options = ["--image", &worker.image(&busybox_image()).source, "--config", file.to_str().unwrap()];
        let run = worker.run_with(&options, &["nslookup", "some.example.test."]).expect(0, case);
        assert!(
            run.output().contains("192.0.2.1") && !run.output().contains("127.0.0.53"),
            "{case}: {run:?}"
        );
    }
    serving.join().unwrap();
    internet.assert_as_before();
}
