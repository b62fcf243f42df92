use super::*;

fn refused(text: &str) -> String {
    ConfigFile::parse(text).unwrap_err().to_string()
}

#[test]
fn a_mistake_is_named_with_its_line_and_what_may_have_been_meant() {
    let size = "must be a number of bytes, as 1000000, or with a unit, as 512M or 4G";
    let cases = [
        (
            "capacity: 2\n",
            "line 1, column 1: \"capacity\" is not a key that exists here (known here: provisionerId, ",
        ),
        (
            "workerId: w\nlimits:\n  memroy: 2G\n",
            "line 3, column 3: \"memroy\" is not a key that exists here (did you mean \"memory\"?)",
        ),
        (
            "features:\n  bulkLog:\n    on: true\n",
            "line 3, column 5: \"on\" is not a key that exists here (known here: enabled)",
        ),
        (
            "features:\n  artifacts: {enabled: true}\n  bulklog: {enabled: false}\n",
            "line 3, column 3: \"bulklog\" is not a key that exists here (did you mean \"bulkLog\"?)",
        ),
        ("features: {bulkLog: {}}\n", "line 1, column 21: the key \"enabled\" has to be there"),
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
        artifacts: {skipCompressionExtensions: [.x]}\ndockerConfig: {allowSocketcall: true}\n";
    let file = ConfigFile::parse(text).unwrap();
    assert_eq!(file.worker_pool(), "p/w");
    assert_eq!(file.log_bytes(), 100);
    assert_eq!(file.container_limits().memory_bytes, Some(3 << 29));
    assert_eq!(file.container_limits().pids, Some(7));
    assert_eq!(file.registry_access().hosts["plain:5000"].scheme, Scheme::Http);
    assert_eq!(file.socketcall(), SocketCall::Allowed);
    assert!(file.is_disabled("bulkLog") && !file.is_disabled("artifacts"));
    assert!(file.skips_compression("a.x") && !file.skips_compression("a.gz"));
}

#[test]
fn what_is_compressed_already_is_stored_as_it_is() {
    for (name, expected) in
        [("a.gz", true), ("a.GZ", false), ("a.txt", false), ("alz4", true), ("a.zst", true)]
    {
        assert_eq!(ConfigFile::default().skips_compression(name), expected, "{name}");
    }
}
