//! A proxy that holds only what it uses tells what it does not hold from what there is not.

use super::*;

/// What a proxy of `shop` makes of it that holds two services and was answered this much.
fn goes(answered: &[&str], egress: Egress, meant: Meant<'_>, host: Option<&str>) -> String {
    let services = [
        service("shop/web", Some("10.0.0.1"), &[("shop/web-1", "127.0.0.11")]),
        service("shop/far", Some("192.168.0.1"), &[]),
    ];
    let ask = |text: &&str| text.parse().map(Ask::address).unwrap_or_else(|_| Ask::Service(name(text)));
    let table = RouteTable::new(&Arc::new(Bundle {
        services: services.into_iter().map(|service| (service.name.clone(), service)).collect(),
        answered: answered.iter().map(ask).collect(),
        ..Bundle::default()
    }));
    let ranges = Some(Ranges::around(["10.0.0.1", "127.0.0.11"].map(|text| text.parse().unwrap())));
    resolved(&table, &MeshSettings { ranges, ..mesh(egress) }, meant, host)
}

/// Asked for by name, and by a captured connection where it is an address.
fn check(answered: &[&str], host: &str, expect: &str) {
    for egress in [Egress::Allow, Egress::RegistryOnly] {
        let expect = if expect == "outside" && egress != Egress::Allow { "registry only" } else { expect };
        assert_eq!(goes(answered, egress, Meant::Nothing, Some(host)), expect, "{host}");
        if let Ok(address) = host.strip_suffix(":8080").unwrap_or(host).parse() {
            let meant = Meant::Address(SocketAddr::new(address, 8080));
            assert_eq!(goes(answered, egress, meant, Some("example.com")), expect, "captured, {host}");
        }
    }
}

#[test]
fn what_is_not_held_is_asked_for_and_never_outside() {
    let check = |host: &str, expect: &str| check(&[], host, expect);
    check("web", "shop/web:80");
    check("10.0.0.1:8080", "shop/web:8080");
    check("webb", "unknown service shop/webb");
    check("WEBB.", "unknown service shop/webb");
    check("webb.other:8080", "unknown service other/webb");
    check("webb.other.svc.cluster.local", "unknown service other/webb");
    check("webb.empty.mesh.local:8080", "unknown service empty/webb");
    check("10.0.0.77", "unknown address 10.0.0.77");
    check("::ffff:10.0.0.77", "unknown address 10.0.0.77");
    // An endpoint may stand behind a service that is not held, too.
    check("127.0.0.11:8080", "unknown address 127.0.0.11");
}

#[test]
fn what_nobody_in_the_mesh_can_be_called_is_not_asked_for() {
    let check = |host: &str, expect: &str| check(&[], host, expect);
    check("web-0.web.shop.svc.cluster.local:80", "no such service");
    check("web.nowhere.svc:80", "no such service");
    check("we_b", "no such service");
    check("example.com:443", "outside");
    check("db.internal:80", "outside");
    check("localhost:80", "outside");
    check("printer", "outside");
    check("PRINTER.", "outside");
    check("93.184.216.34", "outside");
}

#[test]
fn what_was_answered_is_not_asked_for_again() {
    let check = |host: &str, expect: &str| check(&["shop/webb", "other/webb", "10.0.0.77", "127.0.0.11"], host, expect);
    check("webb", "no such service");
    check("webb.other", "no such service");
    check("webbb", "unknown service shop/webbb");
    check("10.0.0.77", "outside");
    check("10.0.0.78", "unknown address 10.0.0.78");
    check("127.0.0.11:8080", "shop/web:8080@shop/web-1");
}

/// A captured connection to an address outside, whose requests may mean the mesh.
#[test]
fn a_request_on_a_connection_to_the_outside_is_asked_for_too() {
    let meant = Meant::Address("93.184.216.34:80".parse().unwrap());
    let check = |host: &str, expect: &str| assert_eq!(goes(&["shop/label"], Egress::Allow, meant, Some(host)), expect);
    check("web", "shop/web:80");
    check("label", "outside");
    check("other-label", "unknown service shop/other-label");
    check("webb.shop", "unknown service shop/webb");
    check("10.0.0.78", "unknown address 10.0.0.78");
    check("example.com", "outside");
}
