//! Printed statuses that follow what proxies say.

use weft_policy::bundle::{Bundle, ObjectName};

use super::*;
use crate::app::tests::{Proxy, workload};

const NAMED: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: web, appProtocol: http}]}
";
const ROUTE: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec: {parentRefs: [{group: '', kind: Service, name: web}], rules: [{backendRefs: [{name: web, port: 80}]}]}
";

/// `status reason` of a condition.
async fn condition(control: &Control, kind: &str, pointer: &str, name: &str) -> String {
    let (status, object) = control.call("get", &format!("/api/v1/resources/{kind}/shop/web"), Value::Null).await;
    assert_eq!(status, 200, "{object}");
    let conditions = object.pointer(pointer).and_then(Value::as_array).unwrap_or_else(|| panic!("{object}"));
    let found = conditions.iter().find(|condition| condition["type"] == name).unwrap_or_else(|| panic!("{object}"));
    format!("{} {}", found["status"].as_str().unwrap(), found["reason"].as_str().unwrap())
}

#[tokio::test]
async fn statuses_follow_what_proxies_register_and_acknowledge() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    control.apply(NAMED).await;
    let served = async || condition(&control, "services", "/status/conditions", "Served").await;
    assert_eq!(served().await, "False TargetPortNotFound");
    let svid = control.join("shop/web").await;
    let mut told = workload("web-1", "shop", "127.0.0.11", Some("web"));
    told.port_names = [(8080, "web".to_owned())].into();
    let mut proxy = Proxy::connect(&control, &svid, "web-1", Some(told), Bundle::default()).await;
    let name = ObjectName::new("shop", "web");
    let target = |bundle: &Bundle| bundle.services.get(&name)?.ports.first().map(|port| port.target_port);
    proxy.take_until(|bundle| target(bundle) == Some(8080)).await;
    assert_eq!(served().await, "True Served");

    let revision = control.apply(ROUTE).await;
    let programmed = async || condition(&control, "httproutes", "/status/parents/0/conditions", "Programmed").await;
    let delta = proxy.delta().await;
    assert_eq!(programmed().await, "False Pending");
    proxy.accept(&delta).await;
    let (_, synced) =
        control.call("get", &format!("/api/v1/revisions/{revision}/status?wait_ms=10000"), Value::Null).await;
    assert_eq!(programmed().await, "True Programmed", "{synced}");
}
