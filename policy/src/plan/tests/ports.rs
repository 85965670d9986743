//! Where a port of a service leads at each of its workloads.

use super::*;

#[test]
fn a_target_by_name_is_what_the_workloads_declare() {
    type Others<'a> = &'a [(&'a str, Option<u16>)];

    fn check(workloads: &[(&str, &str)], target: Option<(u16, Others<'_>)>, told: &[&str]) {
        let mut text = "apiVersion: v1\nkind: Service\nmetadata: {name: named, namespace: shop}\nspec: {selector: {app: named}, ports: [{port: 80, targetPort: http}]}\n".to_owned();
        for (index, (workload, ports)) in workloads.iter().enumerate() {
            text.push_str(&format!("---\napiVersion: weft.dev/v1alpha1\nkind: Workload\nmetadata: {{name: {workload}, namespace: shop, labels: {{app: named}}}}\nspec: {{address: 127.0.1.{index}, ports: [{ports}]}}\n"));
        }
        let world = shop_and(&text);
        let service = &bundle(&world, &["shop/web-1"]).services[&name("shop/named")];
        let found = service.ports.first().map(|port| (port.target_port, port.other_targets.clone()));
        let others = |others: Others<'_>| others.iter().map(|(workload, port)| (name(workload), *port)).collect();
        assert_eq!(found, target.map(|(port, all)| (port, others(all))), "{workloads:?}");
        let expect: Vec<_> = told.iter().map(|message| format!("spec.ports[0].targetPort: {message}")).collect();
        assert_eq!(undone(&world), expect, "{workloads:?}");
        let Some(Resource::Service(service)) =
            world.get(&ObjectKey::new(Kind::Service, "shop", "named")).map(|e| &e.resource)
        else {
            panic!("no service")
        };
        assert_eq!(service_status(&world, service)[0].status, told.is_empty(), "{workloads:?}");
    }
    let nobody = "port 80 is not served: no workload behind it declares a port named http";
    check(&[], None, &[nobody]);
    check(&[("a", "{port: 8080}")], None, &[nobody]);
    check(&[("a", "{name: http, port: 8080}, {name: other, port: 9090}")], Some((8080, &[])), &[]);
    check(&[("a", "{name: http, port: 8080}"), ("b", "{name: http, port: 8080}")], Some((8080, &[])), &[]);
    check(
        &[("a", "{name: http, port: 8080}"), ("b", "{port: 8080}")],
        Some((8080, &[("shop/b", None)])),
        &["Workload shop/b declares no port named http: it is no endpoint of port 80"],
    );
    // Each by its own number; most have that of the port.
    let own = [("a", "{name: http, port: 8080}"), ("b", "{name: http, port: 9090}")];
    check(&own, Some((8080, &[("shop/b", Some(9090))])), &[]);
    check(
        &[own[0], own[1], ("c", "{name: http, port: 9090}"), ("d", "{port: 9090}")],
        Some((9090, &[("shop/a", Some(8080)), ("shop/d", None)])),
        &["Workload shop/d declares no port named http: it is no endpoint of port 80"],
    );
}

#[test]
fn one_without_the_port_is_no_endpoint_of_it() {
    for port in ["{port: 80, targetPort: 8080}", "{port: 8080}"] {
        let mut text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: some, namespace: shop}}\nspec: {{selector: {{app: some}}, ports: [{port}]}}\n"
        );
        for (workload, ports) in [("a", "{port: 8080}, {port: 9090}"), ("b", "{port: 9090}"), ("c", "")] {
            text.push_str(&format!("---\napiVersion: weft.dev/v1alpha1\nkind: Workload\nmetadata: {{name: {workload}, namespace: shop, labels: {{app: some}}}}\nspec: {{address: 127.0.1.1, ports: [{ports}]}}\n"));
        }
        let world = shop_and(&text);
        let found = &bundle(&world, &["shop/web-1"]).services[&name("shop/some")].ports[0];
        assert_eq!(found.other_targets, [(name("shop/b"), None), (name("shop/c"), None)].into(), "{port}");
        let query = serde_json::from_str(r#"{"from": "shop/web", "to": "some"}"#).unwrap();
        let endpoints = &crate::explain::explain(&world, &query).unwrap().backends[0].endpoints;
        assert_eq!(endpoints.iter().map(|it| it.workload.as_str()).collect::<Vec<_>>(), ["shop/a"], "{port}");
    }
}

#[test]
fn each_endpoint_of_a_named_port_is_reached_at_its_own_number() {
    let mut text = "apiVersion: v1\nkind: Service\nmetadata: {name: named, namespace: shop}\n\
                    spec: {selector: {app: named}, ports: [{port: 80, targetPort: http}]}\n"
        .to_owned();
    for (workload, ports) in
        [("a", "{name: http, port: 8080}"), ("b", "{name: http, port: 9090}"), ("c", "{port: 8080}")]
    {
        text.push_str(&format!(
            "---\napiVersion: weft.dev/v1alpha1\nkind: Workload\nmetadata: {{name: {workload}, namespace: shop, labels: {{app: \
             named}}}}\nspec: {{address: 127.0.1.1, ports: [{ports}]}}\n"
        ));
    }
    let query = serde_json::from_str(r#"{"from": "shop/web", "to": "named"}"#).unwrap();
    let explanation = crate::explain::explain(&shop_and(&text), &query).unwrap();
    let endpoints = explanation.backends[0].endpoints.iter();
    let reached: Vec<_> = endpoints.map(|it| (it.workload.as_str(), it.address.port())).collect();
    assert_eq!(reached, [("shop/a", 8080), ("shop/b", 9090)], "one without the port is no endpoint of it");
}
