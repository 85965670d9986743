//! Proxies of an earlier release and the filters that ship with this one.

use weft_policy::bundle::FILTER_CONTRACT_0_2;

use super::*;
use crate::artifact::tests::{component, component_of_0_2};

const AUTHZ: &str = "weft-system/authz";

fn policy(name: &str, path: &str) -> String {
    format!(
        "apiVersion: weft.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{action: Deny, rules: [{{to: [{{paths: [{path}]}}]}}]}}\n"
    )
}

/// An access policy is enforced, and changes, whichever contract a proxy runs.
#[tokio::test]
async fn a_proxy_of_an_earlier_release_runs_the_authz_that_it_can() {
    let (dir, shipped) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let write =
        |name: &str, bytes: Vec<u8>| std::fs::write(shipped.path().join(format!("{name}.wasm")), bytes).unwrap();
    let exports = ["configure", "on-connection", "on-request-head", "on-response-head", "on-done"];
    for name in ["body-guard", "expr", "extauth", "fault", "header-edit", "jwt", "ratelimit"] {
        write(name, component(&[], &exports));
    }
    write("authz", component_of_0_2());
    let configure = |config: &mut crate::config::Config| config.builtin_filters = Some(shipped.path().to_owned());
    let control = Control::start_with(dir.path(), configure).await;
    control.apply(&format!("{WEB}---\n{}", policy("first", "/a"))).await;
    let svid = control.join("shop/web").await;
    let connect = async |name: &str, contracts: &[&str]| {
        let capabilities: Vec<_> = ["quic", ENVELOPES].iter().chain(contracts).copied().collect();
        let workloads = vec![workload(name, "shop", "127.0.0.22", Some("web"))];
        let hello = v1::Hello { workloads, ..of_another_release(name, &capabilities) };
        let mut proxy = Box::pin(Proxy::connect_with(&control, &svid, hello, Bundle::default())).await;
        proxy.take_until(|bundle| bundle.filters.contains_key(AUTHZ)).await;
        proxy
    };
    let mut older = connect("web-2", &[FILTER_CONTRACT]).await;
    let told = older.bundle.filters[AUTHZ].clone();
    assert_eq!((told.contract.as_str(), told.version.as_str()), (FILTER_CONTRACT, "0.1.0-contract.0.1"));
    let identity = "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap();
    assert!(control.app.hub.may_fetch(&identity, &told.digest));
    assert!(control.app.hub.artifact(told.digest.clone()).await.unwrap().is_some());
    control.apply(&policy("second", "/b")).await;
    older.take_until(|bundle| bundle.filters[AUTHZ].config.0.contains("/b")).await;
    assert_eq!(older.bundle.filters[AUTHZ].digest, told.digest);
    // It knows no hosts: what is denied by one is denied for every host.
    control.apply(&policy("third", "/c").replace("[/c]", "[/c], hosts: [c.example]")).await;
    older.take_until(|bundle| bundle.filters[AUTHZ].config.0.contains("/c")).await;
    assert!(!older.bundle.filters[AUTHZ].config.0.contains("hosts"), "{:?}", older.bundle.filters[AUTHZ].config);
    drop(older);

    let updated = connect("web-2", &[FILTER_CONTRACT, FILTER_CONTRACT_0_2]).await;
    assert_eq!(updated.bundle.filters[AUTHZ].contract, FILTER_CONTRACT_0_2);
    // It stands for nothing by itself, and there is one however often the control plane starts.
    let versions = async || control.app.hub.filter_versions().await.unwrap();
    let of_authz: Vec<_> = versions().await.into_iter().filter(|it| it.name == "authz").collect();
    assert_eq!(of_authz.len(), 2);
    assert_eq!(of_authz[0].channels.as_ref().map(BTreeMap::len), Some(0), "{of_authz:?}");
    crate::builtin::publish(&control.app.hub).await.unwrap();
    assert_eq!(versions().await.len(), 9);
}
