use images::registry::{Proxies, Scheme};

use super::*;
use crate::known_features::{KNOWN_FEATURES, Support};

fn refused(text: &str) -> String {
    ConfigFile::parse(text).unwrap_err().to_string()
}

#[test]
fn a_mistake_is_named_with_its_line_and_what_may_have_been_meant() {
    let size = "must be a number of bytes, as 1000000, or with a unit, as 512M or 4G";
    let cases = [
        (
            "capacitance: 2\n",
            "line 1, column 1: \"capacitance\" is not a key that exists here (known here: provisionerId, ",
        ),
        (
            "workerId: w\nlimits:\n  memroy: 2G\n",
            "line 3, column 3: \"memroy\" is not a key that exists here (did you mean \"memory\"?)",
        ),
        (
            "features:\n  bulkLog:\n    on: true\n",
            "line 3, column 5: \"on\" is not a key that exists here (known here: enabled, image, token)",
        ),
        (
            "features:\n  artifacts: {enabled: true}\n  bulklog: {enabled: false}\n",
            "line 3, column 3: \"bulklog\" is not a key that exists here (did you mean \"bulkLog\"?)",
        ),
        ("features: [bulkLog]\n", "line 1, column 11: must be an object"),
        ("workerId: [1]\n", "line 1, column 11: must be a single value"),
        ("workerId: a\nworkerId: b\n", "line 2, column 1: the field \"workerId\" is there twice"),
        ("---\nworkerId: a\n---\n", "line 3, column 1: a second document begins"),
        (
            "limits: {memory: 1000}\n",
            "line 1, column 18: must be at least 6291456 bytes (6M), as no container",
        ),
        ("limits: {memory: 0}\n", "line 1, column 18: must be at least 6291456 bytes (6M), as no container"),
        ("limits:\n  log: 1GB\n", &format!("line 2, column 8: {size}")),
        ("limits: {log: -1}\n", "line 1, column 10: must be a number of bytes"),
        ("limits: {pids: 0}\n", "line 1, column 16: must be at least 1"),
        ("limits: {pids: -1}\n", "line 1, column 16: must be a whole number from 0 to 4294967295"),
        ("capacity: 0\n", "line 1, column 11: must be at least 1"),
        ("maxTaskRunTime: 0\n", "line 1, column 17: must be at least 1"),
        ("task: {reclaimDivisor: 1}\n", "line 1, column 24: must be above 1 and at most 100"),
        ("worker: {cpus: 1-}\n", "line 1, column 16: \"1-\" is no list of processors below 1024, as 0-3,8"),
        ("dockerConfig: {randomizationFactor: 25}\n", "line 1, column 37: must be a number from 0 to 1"),
        ("dockerConfig: {maxAttempts: 0}\n", "line 1, column 29: must be at least 1"),
        ("worker: {nice: 20}\n", "line 1, column 16: must be a number from -20 to 19"),
        ("taskclusterProxy: {user: 0}\n", "line 1, column 26: must be the number of a user, and not root's"),
        ("network: {dns: [x]}\n", "line 1, column 16: \"x\" is no IPv4 address"),
        ("network: {addresses: x}\n", "line 1, column 22: \"x\" is no range of addresses"),
        ("cache: {volumeCachePath: caches}\n", "line 1, column 26: must be an absolute path"),
        ("capacityManagement: {diskspaceThreshold: much}\n", &format!("line 1, column 42: {size}")),
    ];
    for (text, expected) in cases {
        let problem = refused(text);
        assert!(problem.starts_with(expected), "{text}: {problem}");
    }
}

#[test]
fn a_file_beyond_its_bound_is_refused_and_not_cut() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.yml");
    let comment = |bytes: u64| format!("#{}", "x".repeat(usize::try_from(bytes).unwrap() - 1));
    std::fs::write(&path, comment(CONFIG_FILE_BYTES)).unwrap();
    assert_eq!(ConfigFile::read(&path).unwrap(), ConfigFile::default());
    std::fs::write(&path, comment(CONFIG_FILE_BYTES + 1)).unwrap();
    assert!(matches!(ConfigFile::read(&path), Err(ConfigError::TooLarge { .. })));
}

#[test]
fn an_empty_file_is_all_defaults() {
    for text in ["", "\n", "# nothing\n"] {
        let file = ConfigFile::parse(text).unwrap_or_else(|message| panic!("{text:?}: {message}"));
        assert_eq!(file, ConfigFile::default(), "{text:?}");
    }
    let file = ConfigFile::default();
    assert_eq!(file.worker_pool(), "local/docker-worker");
    assert_eq!(file.log_bytes(), 4_294_967_296);
}

#[test]
fn known_keys_take_effect() {
    let text = "provisionerId: p\nworkerType: w\nlimits: {log: 100, memory: 1.5G, pids: 7}\n\
        registries: {\"plain:5000\": {plainHttp: true}}\n\
        features: {bulkLog: {enabled: false}}\ncache: {volumeCachePath: /c}\n\
        artifacts: {skipCompressionExtensions: [.x]}\ndockerConfig: {allowSocketcall: true}\n\
        images: {limits: {layerBytes: 40G}}\nrequireAppArmor: true\n";
    let file = ConfigFile::parse(text).unwrap();
    assert_eq!(file.worker_pool(), "p/w");
    assert_eq!(file.log_bytes(), 100);
    assert_eq!(file.container_limits().memory_bytes, Some(3 << 29));
    assert_eq!(file.container_limits().pids, Some(7));
    assert_eq!(file.images.limits.layer_bytes, Some(40 << 30));
    assert_eq!(file.registry_access(Access::operator()).hosts["plain:5000"].scheme, Scheme::Http);
    assert_eq!(file.socketcall(), SocketCall::Allowed);
    assert!(file.require_app_armor && !ConfigFile::default().require_app_armor);
    assert!(file.is_disabled("bulkLog") && !file.is_disabled("artifacts"));
    assert!(file.skips_compression("a.x") && !file.skips_compression("a.gz"));
}

#[test]
fn a_host_is_named_as_urls_name_it() {
    for (name, is_one) in [
        ("worker.example.com", true),
        ("192.0.2.1", true),
        ("\"2001:db8::1\"", true),
        ("bad host", false),
        ("\"host:80\"", false),
        ("https://host", false),
        ("\"\"", false),
    ] {
        let parsed = ConfigFile::parse(&format!("host: {name}\n"));
        assert_eq!(parsed.is_ok(), is_one, "{name}");
        assert!(parsed.is_ok_and(|file| file.host.is_some()) || !is_one, "{name}");
    }
}

#[test]
fn proxies_are_read_as_docker_writes_them_and_not_repeated() {
    let text = "proxies: {httpsProxy: \"http://me:sesame@p:3128\", httpProxy: \"p:80\", noProxy: \"a.b,10.0.0.0/8\"}\n";
    let file = ConfigFile::parse(text).unwrap();
    let expected = Proxies::new("http://me:sesame@p:3128", "http://p:80", "a.b,10.0.0.0/8").unwrap();
    assert_eq!(file.registry_access(Access::default()).proxies, expected);
    let printed = format!("{file:?} {}", serde_json::to_string(&file).unwrap());
    assert!(!printed.contains("sesame") && printed.contains("10.0.0.0/8"), "{printed}");
    for (url, problem) in [
        ("socks5://me:sesame@p:1", "only http:// and https://"),
        ("http://me:sesame@", "write it as http://HOST:PORT"),
    ] {
        let told = refused(&format!("proxies: {{httpProxy: \"{url}\"}}\n"));
        assert!(told.starts_with("line 1") && told.contains(problem) && !told.contains("sesame"), "{told}");
    }
}

#[test]
fn what_is_compressed_already_is_stored_as_it_is() {
    for (name, expected) in
        [("a.gz", true), ("a.GZ", false), ("a.txt", false), ("alz4", true), ("a.zst", true)]
    {
        assert_eq!(ConfigFile::default().skips_compression(name), expected, "{name}");
    }
}

/// The configuration that the original came with, as far as it differs from ours in nothing but its age.
const ORIGINAL: &str = r#"
monitorProject: docker-worker
deviceManagement: {kvm: {enabled: true}, cpu: {enabled: false}}
features: {bulkLog: {enabled: false}, relengAPIProxy: {enabled: true, image: i, token: t}}
dockerConfig: {allowPrivileged: false, defaultRegistry: registry.hub.docker.com, maxAttempts: 5, delayFactor: 15000,
  randomizationFactor: 0.25, allowDisableSeccomp: false}
ssl: {certificate: /etc/star.crt, key: /etc/star.key}
host: localhost
statelessHostname: {enabled: true, secret: sesame, domain: taskcluster-worker.net}
testMode: false
workerNodeType: m5.large
instanceId: i-1
instanceType: m5.large
region: none
publicIp: 203.0.113.1
privateIp: 192.0.2.1
workerLocation: '{"cloud":"none"}'
workerId: w
workerGroup: g
workerType: t
provisionerId: p
restrictCPU: false
dindImage: taskcluster/dind-service:v4.0
alivenessCheckInterval: 30000
capacity: 2
capacityManagement: {diskspaceThreshold: 30000000000}
dockerVolume: /mnt
garbageCollection: {imageExpiration: 7200000, containerExpiration: 1800000, interval: 60000}
shutdown: {enabled: true, afterIdleSeconds: 300, nodeTerminationPoll: 5000}
cache: {volumeCachePath: /mnt/var/cache/docker-worker}
logging: {secureLiveLogging: true, liveLogChunkInterval: 5000}
task: {reclaimDivisor: 1.3, dequeueCount: 15}
taskQueue: {pollInterval: 5000}
registries: {"registry.example": {username: u, password: sesame}}
taskcluster: {clientId: c, accessToken: sesame, certificate: {"signature": "sesame"}}
rootUrl: https://tc.example
createQueue: true
pulse: {username: u}
influx: {}
schema: {}
metricsCollection: {hostMetricsInterval: 60000}
ed25519SigningKeyLocation: /etc/key
artifacts: {skipCompressionExtensions: [.gz]}
dockerSave: {expiration: 7 days}
interactive: {ssl: true, minTime: 180}
taskclusterProxyImage: a
taskclusterLogImage: b
testdroidProxyImage: c
balrogVPNProxyImage: d
testdroid: {url: u, username: n, password: sesame}
phone: {enabled: false}
dockerWorkerPrivateKey: /etc/k
signingKeyLocation: /etc/s
"#;

#[test]
fn a_file_of_the_originals_is_accepted_and_what_has_no_effect_is_named() {
    let file = ConfigFile::parse(ORIGINAL).unwrap();
    assert_eq!((file.worker_pool().as_str(), file.capacity()), ("p/t", 2));
    assert_eq!(file.taskcluster.certificate.as_ref().unwrap().reveal(), r#"{"signature":"sesame"}"#);
    assert!((file.reclaim_divisor() - 1.3).abs() < f64::EPSILON);
    // A worker that may claim may pull.
    assert_eq!((file.free_bytes(), file.image_limits().free_disk_bytes), (30_000_000_000, 1_000_000_000));
    let unused = file.unused();
    for used in [
        "capacity",
        "host",
        "ssl.key",
        "restrictCPU",
        "registries.registry.example.password",
        "rootUrl",
        "balrogVPNProxyImage",
        "taskclusterProxyImage",
        "testdroid",
        "features.relengAPIProxy.token",
    ] {
        assert!(!unused.iter().any(|key| key == used), "{used}");
    }
    for name in [
        "monitorProject",
        "dockerConfig.defaultRegistry",
        "garbageCollection.interval",
        "shutdown.nodeTerminationPoll",
    ] {
        assert!(unused.iter().any(|key| key == name), "{name} is not in {unused:?}");
    }
    assert_eq!(ConfigFile::default().unused(), [""; 0]);
}

/// What stood in the original's first configurations and in no later one.
const FIRST: &str = r#"
features: {relengAPIProxy: {image: "i", token: sesame}}
isolatedContainers: true
phone: {enabled: false, sims: '1', type: null}
shutdown: {enabled: false, minimumCycleSeconds: null}
logging: {secureLiveLogging: false, liveLogChunkInterval: 5000, liveLogExpires: 1 year, bulkLogExpires: 1 year}
task: {reclaimDivisor: 1.3, dequeueCount: 15, slowdownDivisor: 10}
taskQueue: {pollInterval: 5000, expiration: 300000, maxRetries: 5, requestRetryInterval: 2000, pollIntervalMultiplier: 2}
registries: {"quay.io/mozilla": {username: u, password: sesame, email: e, auth: sesame, serveraddress: s}}
influx: {connectionString: null, maxDelay: 600}
"#;

#[test]
fn the_originals_first_files_are_accepted_too() {
    let file = ConfigFile::parse(FIRST).unwrap();
    assert!(file.restrict_cpu && !file.is_disabled("relengAPIProxy"));
    let expected = [
        "influx",
        "logging.bulkLogExpires",
        "logging.liveLogChunkInterval",
        "logging.liveLogExpires",
        "phone",
        "shutdown.minimumCycleSeconds",
        "task.dequeueCount",
        "task.slowdownDivisor",
        "taskQueue.expiration",
        "taskQueue.maxRetries",
        "taskQueue.pollIntervalMultiplier",
        "taskQueue.requestRetryInterval",
        "registries.quay.io/mozilla.email",
        "registries.quay.io/mozilla.serveraddress",
    ];
    assert_eq!(file.unused(), expected);
}

#[test]
fn images_beside_tasks_are_there_where_all_is_said_that_they_need() {
    let names = |text: &str| {
        let file = ConfigFile::parse(text).unwrap();
        let images = [file.taskcluster_proxy_image(), file.testdroid_image(), file.releng_api_image()];
        images.map(|image| image.map(|image| image.as_str().to_owned()))
    };
    assert_eq!(names(ORIGINAL).each_ref().map(Option::as_deref), [Some("a"), Some("c"), Some("i")]);
    assert_eq!(names(""), [None, None, None]);
    assert_eq!(names("testdroidProxyImage: c\nfeatures: {relengAPIProxy: {image: i}}"), [None, None, None]);
    let lent = "taskclusterProxy: {image: x}\ntaskclusterProxyImage: y\n\
                testdroid: {url: u, username: n, password: p}\nfeatures: {relengAPIProxy: {token: t}}";
    let defaults = ["x", "taskcluster/testdroid-proxy:0.0.7", "taskcluster/relengapi-proxy:2.3.1"];
    assert_eq!(names(lent).each_ref().map(Option::as_deref), defaults.map(Some));
    let error = ConfigFile::parse("capacity: 1\nbalrogVPNProxyImage: A B").unwrap_err().to_string();
    assert!(error.contains("must be the name of an image") && error.contains("line 2"), "{error}");
}

#[test]
fn what_is_in_force_is_spelt_out_without_its_secrets() {
    let file = ConfigFile::parse(ORIGINAL).unwrap().in_force();
    let text = serde_json::to_string(&file).unwrap();
    assert!(!text.contains("sesame") && !format!("{file:?}").contains("sesame"), "{text}");
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["taskcluster"]["accessToken"], "<hidden>");
    assert_eq!(value["shutdown"]["afterIdleSeconds"], 300);
    assert_eq!(value["artifacts"]["maxBytes"], 5_368_709_120_u64);
    assert_eq!(value["monitorProject"], serde_json::Value::Null);
}

#[test]
fn only_what_has_no_value_is_null_where_the_configuration_says_nothing() {
    fn nulls(value: &serde_json::Value, path: &str, found: &mut Vec<String>) {
        match value {
            serde_json::Value::Null => found.push(path.to_owned()),
            serde_json::Value::Object(members) => {
                for (key, value) in members {
                    nulls(value, &format!("{path}/{key}"), found);
                }
            }
            _ => {}
        }
    }
    let value = serde_json::to_value(ConfigFile::default().in_force()).unwrap();
    let mut found = Vec::new();
    nulls(&value, "", &mut found);
    let mut expected = [
        // Whoever and wherever the worker is.
        "/provisionerId",
        "/proxies/httpProxy",
        "/proxies/httpsProxy",
        "/proxies/noProxy",
        "/workerType",
        "/workerGroup",
        "/workerId",
        "/instanceType",
        "/instanceId",
        "/publicIp",
        "/privateIp",
        "/workerLocation",
        "/rootUrl",
        "/taskcluster/clientId",
        "/taskcluster/accessToken",
        "/taskcluster/certificate",
        // Not there.
        "/balrogVPNProxyImage",
        "/taskclusterProxy/image",
        "/taskclusterProxyImage",
        "/testdroid/url",
        "/testdroid/username",
        "/testdroid/password",
        "/testdroidProxyImage",
        // No bound.
        "/maxTaskRunTime",
        "/worker/cpus",
        "/statelessHostname/secret",
        // No other disk than the worker's own.
        "/dockerVolume",
        // The host's: spelt out where it is known.
        "/ed25519SigningKeyLocation",
        // In the data directory.
        "/cache/volumeCachePath",
        "/dockerConfig/credentialsFile",
        // All there is.
        "/limits/memory",
    ];
    expected.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, expected);
    for path in ["/features/bulkLog/enabled", "/features/chainOfTrust/enabled"] {
        assert_eq!(value.pointer(path), Some(&serde_json::Value::Bool(true)), "{path}");
    }
    let here = KNOWN_FEATURES.iter().filter(|feature| feature.support == Support::Here);
    assert_eq!(value["features"].as_object().unwrap().len(), here.count());
    assert_eq!(
        (&value["limits"]["pids"], &value["images"]["limits"]["layers"]),
        (&16_384.into(), &127.into())
    );
    assert_eq!(value["artifacts"]["skipCompressionExtensions"][20], "lz4");
}

#[test]
fn a_worker_of_a_deployment_tries_for_minutes_to_have_an_image_and_a_person_does_not() {
    let pauses = |file: &ConfigFile| {
        let limits = file.image_limits();
        let (first, longest) = limits.backoff;
        (limits.attempts, first.as_millis(), longest.as_secs(), limits.backoff_spread_percent)
    };
    assert_eq!(pauses(&ConfigFile::default()), (5, 1000, 30, 25));
    assert_eq!(pauses(&ConfigFile::default().in_force()), (5, 15_000, 3600, 25));
    let text = "dockerConfig: {maxAttempts: 3, delayFactor: 100, randomizationFactor: 0.5}\n";
    assert_eq!(pauses(&ConfigFile::parse(text).unwrap().in_force()), (3, 100, 3600, 50));
}

#[test]
fn a_profile_stands_below_what_the_file_says() {
    let mut file = ConfigFile::parse("taskQueue: {pollInterval: 700}\n").unwrap();
    file.apply(Profile::named("test").unwrap());
    assert_eq!(file.poll_interval(), Duration::from_millis(700));
    assert_eq!(file.free_bytes(), 1_000_000_000);
    assert_eq!(file.cache.volume_cache_path.as_deref(), Some(Path::new("/tmp/test-cache")));
    assert_eq!(file.docker_config.delay_factor, Some(100));
    file.apply(Profile::named("production").unwrap());
    assert_eq!(file.logging.secure_live_logging, Some(true));
    assert_eq!(Profile::named("staging"), None);
}
