//! Files as people write them, good and wrong.

use std::collections::BTreeSet;

use super::*;

fn parse(text: &str) -> Result<Config, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.yaml");
    std::fs::write(&path, text).unwrap();
    Config::load(Some(&path)).map_err(|e| e.to_string())
}

#[test]
fn partial_files_keep_the_defaults() {
    let config = parse("bind: 127.0.0.9\nports: {api: 0}\nadvertise: [mesh.example]\n").unwrap();
    assert_eq!(config.grpc_address(), "127.0.0.9:15012".parse().unwrap());
    assert_eq!(config.ports.api, 0);
    assert_eq!(config.svid_ttl_seconds, 86_400);
    config.validate().unwrap();
}

#[test]
fn the_file_in_the_documentation_is_good() {
    let config = parse(include_str!("../../../../docs/hosts/control.yaml")).unwrap();
    config.validate().unwrap();
    assert_eq!(config.api_address(), "10.1.0.5:15013".parse().unwrap());
}

#[test]
fn the_documentation_lists_every_limit_with_its_default() {
    let page = include_str!("../../../../docs/configuration.md");
    let (_, page) = page.split_once("\nBelow `limits`.").expect("its part about limits");
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let listed: BTreeSet<String> = rows.map(|row| row.split(" | ").take(2).collect::<Vec<_>>().join(" | ")).collect();
    let numbers = Config::default().numbers().into_iter();
    let limits = numbers.filter_map(|(key, number, _)| Some((key.strip_prefix("limits.")?, number)));
    let known: BTreeSet<String> = limits.map(|(key, number)| format!("| `{key}` | {number}")).collect();
    assert_eq!(listed, known);
}

#[test]
fn unknown_fields_and_wrong_values_are_named() {
    let error = parse("bund: 127.0.0.9\n").unwrap_err();
    assert!(error.contains("bund"), "{error}");
    let told = "coalesce_quiet_ms: 500\ncoalesce_max_ms: 1\ntrust_domain: Not A Domain\nadvertise: [ok.example, 'no name']\n\
                builtin_filters: /nowhere\nlog: 'a=b=c'\nlimits: {max_connections: 0, request_timeout_ms: 99999999999}\n";
    let error = parse(told).unwrap().validate().unwrap_err().to_string();
    let keys: Vec<_> = error.lines().map(|line| line.split(": ").next().unwrap()).collect();
    let expect = [
        "limits.max_connections",
        "limits.request_timeout_ms",
        "coalesce_max_ms",
        "trust_domain",
        "advertise[1]",
        "builtin_filters",
        "log",
    ];
    assert_eq!(keys, expect, "{error}");
    assert!(Config::load(Some(Path::new("/nowhere/x.yaml"))).unwrap_err().to_string().contains("/nowhere/x.yaml"));
}

#[test]
fn numbers_that_no_port_or_time_can_be_are_told_at_once_with_the_rest() {
    let told =
        "ports: {grpc: 99999, api: 7, metrics: 7}\nsvid_ttl_seconds: -5\nlog: inof\nlimits: {max_tokens: many}\n";
    let expect = "ports.grpc: 99999 is not from 0 to 65535\n\
                  svid_ttl_seconds: -5 is not from 0 to 31536000\n\
                  limits.max_tokens: \"many\" is not from 1 to 1000000\n\
                  log: 'inof' is no level; levels are off, error, warn, info, debug, trace, or TARGET=LEVEL\n\
                  ports.metrics: 127.0.0.1:7 collides with ports.api";
    assert_eq!(parse(told).unwrap_err(), expect);
    let error = parse("ports: {grpc: 99999}\nbund: 127.0.0.9\n").unwrap_err();
    assert!(error.contains("ports.grpc: 99999") && error.contains("bund"), "{error}");
}

#[test]
fn a_mistyped_level_is_refused_and_ports_of_its_own_are_asked_for() {
    let error = |text: &str| parse(text).unwrap().validate().err().map(|error| error.to_string());
    for good in ["info", "'off'", "weft_control=debug,info", "DEBUG"] {
        assert_eq!(error(&format!("log: {good}\n")), None, "{good}");
    }
    for (bad, word) in [("inof", "inof"), ("info,debgu", "debgu"), ("''", "")] {
        let told = error(&format!("log: {bad}\n")).unwrap();
        assert!(told.starts_with(&format!("log: '{word}' is no level")), "{told}");
    }
    assert_eq!(error("ports: {api: 15014}\n").unwrap(), "ports.metrics: 127.0.0.1:15014 collides with ports.api");
    assert_eq!(error("ports: {grpc: 0, api: 0}\n"), None, "any free ones are two");
}

#[test]
fn others_are_told_where_this_one_is_reached() {
    let check = |text: &str, expect: Option<&str>| {
        let config = parse(text).unwrap();
        config.validate().unwrap();
        assert_eq!(config.replica_address().as_deref(), expect, "{text}");
    };
    check("bind: 10.0.0.5\n", Some("10.0.0.5:15012"));
    check("bind: '::'\nadvertise: ['fd00::5', mesh.example]\n", Some("[fd00::5]:15012"));
    check("bind: 0.0.0.0\nadvertise: [mesh.example]\n", Some("mesh.example:15012"));
    check("bind: 0.0.0.0\n", None);
    check("bind: 0.0.0.0\nreplica_address: a.example:443\n", Some("a.example:443"));
    for wrong in ["a.example", "a.example:0", "me@a:1", "https://a:1"] {
        let error = parse(&format!("replica_address: '{wrong}'\n")).unwrap().validate().unwrap_err().to_string();
        assert_eq!(error, format!("replica_address: {wrong:?} is no HOST:PORT"));
    }
}

#[test]
fn a_store_in_etcd_is_named_with_its_files() {
    let text = "store: 'etcd://a:2379,b:2379/mesh'\netcd: {ca_file: /ca, user: weft, password_file: /password}\n";
    let config = parse(text).unwrap();
    config.validate().unwrap();
    let Ok(StoreKind::Etcd(location)) = config.store_kind() else { panic!("{}", config.store) };
    assert_eq!(location.to_string(), config.store);
    assert!(config.etcd_options(location).err().unwrap().to_string().contains("/ca"), "which is not there");
    let told = "store: consul\netcd: {cert_file: /cert, user: weft}\n";
    let error = parse(told).unwrap().validate().unwrap_err().to_string();
    let expect = "store: \"consul\" is no etcd://HOST:PORT,HOST:PORT/PREFIX, nor \"redb\"\n\
                  etcd.cert_file: needs etcd.key_file as well\n\
                  etcd.cert_file: needs etcd.ca_file as well\n\
                  etcd.user: needs etcd.password_file as well";
    assert_eq!(error, expect);
    let large = parse("store: 'etcd://a:1'\nlimits: {max_object_bytes: 1000000}\n").unwrap();
    let error = large.validate().unwrap_err().to_string();
    assert_eq!(error, "limits.max_object_bytes: a store in etcd takes at most 524288 bytes");
    assert_eq!(Config::default().store_kind(), Ok(StoreKind::Redb));
}
