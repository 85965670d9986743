//! ExternalServices on the wire: only to who can do what they say, and whole or not at all.

use super::*;
use crate::bundle::{External, ExternalEndpoint, ExternalPort, ExternalProtocol, ExternalTls};

fn external() -> External {
    External {
        name: name("shop/api"),
        mesh_wide: true,
        created: Revision(7),
        hosts: vec!["api.example.com".to_owned(), "*.example.org".to_owned()],
        ports: vec![ExternalPort { port: 80, target_port: 443, protocol: ExternalProtocol::Grpc }],
        endpoints: vec![ExternalEndpoint { address: "192.0.2.7".to_owned(), port: Some(8443) }],
        tls: Some(ExternalTls { server_name: Some("front.example".to_owned()), roots_pem: Some("PEM".to_owned()) }),
        traffic: None,
    }
}

#[test]
fn what_is_sent_is_received() {
    let least = External { mesh_wide: false, endpoints: Vec::new(), tls: None, ..external() };
    for sent in [external(), least].map(Object::External) {
        let envelope = encode(&sent);
        assert_eq!(envelope.requires, [EXTERNAL_SERVICE]);
        assert_eq!(receive(vec![envelope]).unwrap().delta.upserts, std::slice::from_ref(&sent));
        assert_eq!((sent.closed(), sent.without_preferences()), (None, None));
        let key = v1::Key::from(&sent.key());
        assert_eq!(Key::try_from(key).unwrap(), sent.key());
    }
}

#[test]
fn what_cannot_be_meant_is_refused_by_key() {
    let check = |change: fn(&mut External), expect: &str| {
        let mut sent = external();
        change(&mut sent);
        let envelope = encode(&Object::External(sent));
        let refused = receive(vec![envelope.clone()]).unwrap_err();
        assert_eq!(
            (refused.key, refused.reason.starts_with(expect)),
            (envelope.key, true),
            "{expect}: {}",
            refused.reason
        );
    };
    check(|it| it.hosts[0] = "Api.example".to_owned(), "hosts[0]: \"Api.example\" is not a host");
    check(|it| it.hosts[1] = "*.svc".to_owned(), "hosts[1]: \"*.svc\" is not outside the mesh");
    check(|it| it.ports[0].target_port = 0, "ports[0].target_port: 0 is not a port");
    check(|it| it.endpoints[0].port = Some(0), "endpoints[0].port: 0 is not a port");
    check(|it| it.endpoints[0].address = "web".to_owned(), "endpoints[0].address: \"web\" has one label");
    check(|it| it.tls.as_mut().unwrap().server_name = Some("*.example".to_owned()), "tls.server_name: ");
}
