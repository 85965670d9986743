//! Files that are good, and the mistakes of those that are not.

use super::*;

const GOOD: &str = "
name: reviews-1
state_dir: /tmp/x
control: {address: 'https://127.0.0.1:15012', ca_file: /tmp/ca.pem}
workload: {namespace: shop, service_account: reviews, address: 127.0.0.11, ports: [{port: 8080, protocol: http}]}
listen: {explicit: '127.0.0.11:15080', mesh: '127.0.0.11:15008', admin: '127.0.0.11:15000'}
";

fn refused(change: (&str, &str), expect: &str) {
    let text = GOOD.replace(change.0, change.1);
    let error = Config::parse(Path::new("proxy.yaml"), &text).expect_err(change.1).to_string();
    assert!(error.contains(expect), "{error}");
    assert!(error.contains("proxy.yaml"), "{error}");
}

#[test]
fn a_good_file_has_its_defaults() {
    let config = Config::parse(Path::new("proxy.yaml"), GOOD).unwrap();
    assert_eq!(config.workload_name(), "reviews-1");
    assert_eq!(config.drain_timeout(), Duration::from_secs(30));
    assert_eq!(config.limits, Limits::default());
    assert!(!config.danger_plaintext_tunnel);
    assert_eq!(config.congestion_control, CongestionControl::Cubic);
}

#[test]
fn the_files_in_the_documentation_are_good() {
    let hosts = Config::parse(Path::new("proxy.yaml"), include_str!("../../../../docs/hosts/proxy.yaml")).unwrap();
    assert_eq!(hosts.told().mesh_address, "10.1.0.11:15008");
    let page = include_str!("../../../../docs/configuration.md");
    let blocks = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let files: Vec<_> = blocks.filter(|block| block.starts_with("name: ")).collect();
    assert_eq!(files.len(), 1);
    let all = Config::parse(Path::new("proxy.yaml"), files[0]).unwrap();
    assert!(all.capture.is_some() && all.workload_name() == "reviews-1");
}

#[test]
fn certificates_for_servers_outside_are_for_somebody() {
    let with = |name: &str, namespaces: &str| {
        let setting = format!("{{certificate_file: /c, key_file: /k, namespaces: {namespaces}}}");
        let text = format!("{GOOD}outside_certificates: {{{name}: {setting}}}\n");
        Config::parse(Path::new("proxy.yaml"), &text).map_err(|error| error.to_string())
    };
    assert_eq!(with("bank", "[shop]").unwrap().outside_certificates["bank"].namespaces, ["shop"]);
    let refused = |name, namespaces, expect: &str| assert_eq!(with(name, namespaces).unwrap_err(), expect);
    let nobody = "proxy.yaml: outside_certificates.bank.namespaces: is empty, so that nobody may ask for it";
    refused("bank", "[]", nobody);
    let no_namespace = "proxy.yaml: outside_certificates.bank.namespaces[1]: \"*\" is no namespace";
    refused("bank", "[shop, '*']", no_namespace);
    let no_label =
        "proxy.yaml: outside_certificates.Bank: its name is no label: lower-case letters, digits and '-', at most 63";
    refused("Bank", "[shop]", no_label);
}

#[test]
fn a_control_plane_has_an_address_or_several() {
    let addresses = |written: &str| {
        let text = GOOD.replace("'https://127.0.0.1:15012'", written);
        let control = Config::parse(Path::new("proxy.yaml"), &text).unwrap().control;
        control.address.iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(addresses("'https://a:15012'"), ["https://a:15012"]);
    assert_eq!(addresses("['https://a:15012', 'https://[::1]:15012']"), ["https://a:15012", "https://[::1]:15012"]);
}

#[test]
fn who_listens_on_all_addresses_is_reached_at_the_workloads() {
    let config = Config::parse(Path::new("proxy.yaml"), &GOOD.replace("mesh: '127.0.0.11", "mesh: '0.0.0.0")).unwrap();
    assert_eq!(config.told().mesh_address, "127.0.0.11:15008");
}

#[test]
fn bad_files_are_refused_by_name() {
    refused(("name: reviews-1", "name: ''"), "name: \"\" is not a name");
    refused(("name: reviews-1", "name: 'Bad Name'"), "name: \"Bad Name\" is not a name");
    refused(("address: 127.0.0.11", "service: my.app, address: 127.0.0.11"), "workload.service: \"my.app\" is not");
    refused(("address: 127.0.0.11", "name: a..b, address: 127.0.0.11"), "workload.name: \"a..b\" is not a name");
    refused(("address: 127.0.0.11", "labels: {a: \"x\\ny\"}, address: 127.0.0.11"), "workload.labels: \"a\" its value");
    refused(("mesh: '127.0.0.11", "mesh: '224.0.0.1"), "listen.mesh: 224.0.0.1");
    refused(("mesh: '127.0.0.11:15008", "mesh: '127.0.0.11:0"), "listen.mesh: port 0");
    refused(("name: reviews-1", "log: inof\nname: reviews-1"), "'inof' is no level");
    refused(("name: reviews-1", "drain_timeout_s: 0\nname: reviews-1"), "drain_timeout_s: 0 must be at least 1");
    refused(("name: reviews-1", "congestion_control: reno\nname: reviews-1"), "congestion_control: ");
    refused(("name: reviews-1", "workers: 0\nname: reviews-1"), "workers: 0 must be at least 1");
    refused(("name: reviews-1", "workers: 257\nname: reviews-1"), "workers: 257 must be at most 256");
    refused(("name: reviews-1", "limits: {max_connections: 0}\nname: reviews-1"), "limits.max_connections");
    refused(("name: reviews-1", "limits: {http_fields: 129}\nname: reviews-1"), "http_fields: 129 must be at most 128");
    refused(("name: reviews-1", "limits: {stalled_bytes: 10}\nname: reviews-1"), "stalled_bytes: 10 must be at least");
    refused(
        ("name: reviews-1", "limits: {quic_far_stream_window_bytes: 65536}\nname: reviews-1"),
        "must be at least limits.quic_stream_window_bytes, which is 262144",
    );
    refused(("protocol: http", "protocol: udp"), "UDP is not carried yet");
    refused(("127.0.0.11:15000", "10.0.0.1:15000"), "not a loopback");
    refused(("https://127", "http://127"), "must start with https://");
    let (one, many) = ("'https://127.0.0.1:15012'", vec!["https://a:1"; 17].join(","));
    refused((one, "[]"), "control.address: at least one is needed");
    refused((one, "['https://a:1', 'http://b:1']"), "control.address: 'http://b:1' must start with https://");
    refused((one, "['https://a:1', 'https://a:1']"), "control.address: 'https://a:1' stands there twice");
    refused((one, "['https://']"), "control.address: 'https://' is no address");
    refused((one, &format!("[{many}]")), "control.address: 17 are more than 16");
    refused((one, "7"), "an address such as https://HOST:15012, or a list of them");
    refused(("state_dir", "state_dirr"), "state_dirr");
    refused(("[{port: 8080, protocol: http}]", "[{port: 1}, {port: 1}]"), "listed twice");
    refused(("protocol: http", "protocol: smtp"), "smtp");
    refused(("listen:", "capture: {}\nlisten:"), "needs listen.outbound");
    refused(
        ("listen: {", "capture: {}\nlisten: {outbound: '[::]:15001', "),
        "capture: needs listen.inbound: what comes to workload.ports would pass by the proxy",
    );
}

#[test]
fn every_mistake_is_told_at_once_under_its_key() {
    let text = GOOD
        .replace("name: reviews-1", "drain_timeout_s: 18446744073709551615\nlog: inof\nname: Reviews 1")
        .replace("admin: '127.0.0.11:15000'", "admin: '127.0.0.11:15080', metrics: '0.0.0.0:15080'");
    let limits = "limits: {http_head_timeout_ms: 0, tunnel_idle_timeout_s: 18446744073709551615, peer_silence_s: 3}\n";
    let error = Config::parse(Path::new("proxy.yaml"), &(text + limits)).unwrap_err().to_string();
    let told: Vec<_> = error.lines().collect();
    let expect = [
        "name: \"Reviews 1\" is not a name",
        "workload.name: \"Reviews 1\" is not a name",
        "limits.http_head_timeout_ms: 0 must be at least 1",
        "limits.tunnel_idle_timeout_s: 18446744073709551615 must be at most 34560000",
        "limits.peer_silence_s: 3 must be at least 4",
        "drain_timeout_s: 18446744073709551615 must be at most 86400",
        "log: ",
        "listen.admin: 127.0.0.11:15080 collides with listen.explicit, 127.0.0.11:15080",
        "listen.metrics: 0.0.0.0:15080 collides with listen.explicit, 127.0.0.11:15080",
        "listen.metrics: 0.0.0.0:15080 collides with listen.admin, 127.0.0.11:15080",
    ];
    assert_eq!(told.len(), expect.len(), "{error}");
    for (told, expect) in told.iter().zip(expect) {
        assert!(told.starts_with(&format!("proxy.yaml: {expect}")), "{told}\n{expect}");
    }
}

#[test]
fn a_value_that_is_no_number_is_told_under_its_key() {
    for value in ["99999999999999999999999", "-1", "soon", "1.5"] {
        let text = format!("{GOOD}limits: {{app_idle_timeout_s: {value}}}\n");
        let error = Config::parse(Path::new("proxy.yaml"), &text).unwrap_err().to_string();
        assert!(error.contains("limits.app_idle_timeout_s"), "{value}: {error}");
    }
}

#[test]
fn numbers_that_no_port_can_be_are_told_at_once_with_the_rest() {
    let text =
        GOOD.replace("port: 8080", "port: 80800").replace("admin: '127.0.0.11:15000'", "admin: '127.0.0.11:15080'");
    let more =
        "drain_timeout_s: -1\ncapture: {exclude_ports: [53, 99999]}\nlimits: {max_connections: many, http_fields: 0}\n";
    let error = Config::parse(Path::new("proxy.yaml"), &(text + more)).unwrap_err().to_string();
    let expect = "proxy.yaml: workload.ports[0].port: 80800 is not from 1 to 65535\n\
                  proxy.yaml: capture.exclude_ports[1]: 99999 is not from 0 to 65535\n\
                  proxy.yaml: drain_timeout_s: -1 is not from 1 to 86400\n\
                  proxy.yaml: limits.max_connections: \"many\" is not from 1 to 1048576\n\
                  proxy.yaml: limits.http_fields: 0 is not from 1 to 128\n\
                  proxy.yaml: listen.admin: 127.0.0.11:15080 collides with listen.explicit, 127.0.0.11:15080\n\
                  proxy.yaml: capture: needs listen.outbound\n\
                  proxy.yaml: capture: needs listen.inbound: what comes to workload.ports would pass by the proxy";
    assert_eq!(error, expect);
}
