//! Printed statuses that follow what proxies say.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio_util::sync::CancellationToken;
use weft_policy::bundle::{Bundle, ObjectName};

use super::*;
use crate::app::tests::{Proxy, workload};
use crate::ca::Authority;
use crate::config::Config;
use crate::hub::Hub;
use crate::metrics::Metrics;
use crate::store::{Store, Table, Write};

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
    let target = |bundle: &Bundle| {
        let service = bundle.services.get(&name).filter(|service| !service.endpoints.is_empty())?;
        service.ports.first().map(|port| port.target_port)
    };
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

#[tokio::test]
async fn a_condition_tells_since_when_it_has_its_status_whatever_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    control.apply(NAMED).await;
    let (_, shown) = control.call("get", "/api/v1/resources/services/shop/web", Value::Null).await;
    control.app.stop().await;
    // Long ago, in the words of the store.
    let store = Store::open(&dir.path().join("weft.redb"), 1_000).unwrap();
    let row = json!({ "uid": shown["metadata"]["uid"], "conditions": { "Served": ["False", 1_000_000] } });
    let row = crate::store::write_record(&row).unwrap();
    let write = Write::PutRow(Table::Conditions, "services/shop/web".to_owned(), row);
    store.commit(None, vec![write]).unwrap();
    drop(store);
    let control = Control::start(dir.path()).await;
    let since = async || {
        let (_, shown) = control.call("get", "/api/v1/resources/services/shop/web", Value::Null).await;
        let condition = &shown["status"]["conditions"][0];
        let text = |key: &str| condition[key].as_str().unwrap().to_owned();
        (text("status"), text("lastTransitionTime"))
    };
    assert_eq!(since().await, ("False".to_owned(), "1970-01-12T13:46:40Z".to_owned()));
    control.apply(&NAMED.replace("targetPort: web", "targetPort: 8080")).await;
    let (status, changed) = since().await;
    assert_eq!(status, "True");
    let parsed = time::OffsetDateTime::parse(&changed, &time::format_description::well_known::Rfc3339).unwrap();
    assert!(time::OffsetDateTime::now_utc() - parsed < time::Duration::minutes(10), "{changed}");
    let (_, other) = since().await;
    assert_eq!(other, changed, "nothing has changed since");
}

#[tokio::test]
async fn a_full_disk_is_told_by_readiness_and_restarts_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (store, room) = crate::store::tests::on_small_disk(&dir.path().join("weft.redb"));
    let config = Config { state: dir.path().to_owned(), try_filters: false, ..Config::default() };
    let now = time::OffsetDateTime::now_utc();
    let authority = Arc::new(Authority::open(dir.path(), &config.trust_domain, now).unwrap());
    let hub =
        Hub::start(config, Arc::new(store), authority, Arc::new(Metrics::new()), CancellationToken::new()).unwrap();
    let ready = async || crate::api::readyz(axum::extract::State(hub.clone())).await;
    assert_eq!(ready().await, (http::StatusCode::OK, "ok\n".to_owned()));
    room.store(0, Ordering::SeqCst);
    hub.create_token("me", crate::token::Grant::operator(crate::token::Role::Viewer), None).await.err().unwrap();
    let (status, reason) = ready().await;
    assert_eq!(status, http::StatusCode::SERVICE_UNAVAILABLE);
    assert!(reason.contains("No space left"), "{reason}");
    assert_eq!(crate::api::healthz().await, "ok\n", "it is alive");
    room.store(u64::MAX / 2, Ordering::SeqCst);
    hub.tend_store().await;
    assert_eq!(ready().await.0, http::StatusCode::OK);
}
