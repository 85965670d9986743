//! Several control planes of this process on one store: what one knows of its proxies the others tell as well, and what an
//! operator does to a proxy at one is done wherever it is.

use std::sync::Mutex;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use tonic::Code;
use weft_store::{Embedded, Error, Range, Reading, Row, Session, Table, Version};

use super::real::{share, until};
use super::*;
use crate::peers::pb::{self, replicas_client::ReplicasClient};

/// One embedded store that several control planes of this process use, and that can be away for all of them.
#[derive(Clone)]
pub(super) struct OneStore(Arc<Embedded>, Arc<Mutex<Option<weft_store::Fault>>>);

impl OneStore {
    pub(super) fn open(folder: &Path) -> Self {
        Self(Arc::new(Embedded::open(&folder.join("rows.redb")).unwrap()), Arc::default())
    }

    /// From here on nobody answers.
    pub(super) fn go_away(&self) {
        let fault = weft_store::Fault { since: OffsetDateTime::now_utc(), reason: "nobody answers".to_owned() };
        *self.1.lock().unwrap() = Some(fault);
    }

    fn there(&self) -> Result<&Embedded, Error> {
        match &*self.1.lock().unwrap() {
            Some(fault) => Err(Error::Unreachable(fault.reason.clone())),
            None => Ok(&self.0),
        }
    }
}

impl weft_store::Store for OneStore {
    fn read(&self, ranges: Vec<Range>, most: usize) -> BoxFuture<'_, Result<Reading, Error>> {
        Box::pin(async move { self.there()?.read(ranges, most).await })
    }

    fn blob(&self, table: Table, key: &str) -> BoxFuture<'_, Result<Option<Bytes>, Error>> {
        let key = key.to_owned();
        Box::pin(async move { self.there()?.blob(table, &key).await })
    }

    fn commit(&self, expected: Version, writes: Vec<weft_store::Write>) -> BoxFuture<'_, Result<Version, Error>> {
        Box::pin(async move { self.there()?.commit(expected, writes).await })
    }

    fn watch(&self, from: Version) -> BoxStream<'static, weft_store::Event> {
        self.0.watch(from)
    }

    fn session(&self, life: Duration) -> BoxFuture<'_, Result<Box<dyn Session>, Error>> {
        self.0.session(life)
    }

    fn held(&self) -> BoxFuture<'_, Result<Vec<Row>, Error>> {
        self.0.held()
    }

    fn tidy(&self, keep: Duration, blobs: &'static [Table]) -> BoxFuture<'_, Result<(), Error>> {
        self.0.tidy(keep, blobs)
    }

    fn fault(&self) -> Option<weft_store::Fault> {
        self.1.lock().unwrap().clone().or_else(|| self.0.fault())
    }

    fn generation(&self) -> u64 {
        self.0.generation()
    }

    fn is_shared(&self) -> bool {
        true
    }
}

/// Two control planes that know of each other.
struct Both {
    store: OneStore,
    first: Control,
    second: Control,
    _folders: [tempfile::TempDir; 2],
}

const SHOP: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: shop}
spec: {parentRefs: [{kind: Service, group: '', name: web, port: 80}], rules: [{backendRefs: [{name: web, port: 80}]}]}
";

impl Both {
    async fn start() -> Self {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let store = OneStore::open(folders[0].path());
        let start = async |state: &Path| {
            let config = Config { replica_timeout_ms: 1_000, disconnect_grace_ms: 2_000, ..Control::config(state) };
            let app = App::start_over(config, Store::over(store.clone(), 1_000).unwrap()).await.unwrap();
            Control::of(app, state)
        };
        let first = start(folders[0].path()).await;
        share(folders[0].path(), folders[1].path());
        let second = start(folders[1].path()).await;
        let both = Self { store, first, second, _folders: folders };
        for control in [&both.first, &both.second] {
            until("each knows of the other", async || control.metrics().await.contains("weft_control_replicas 1\n"))
                .await;
        }
        both
    }

    /// A proxy at each, which has everything.
    async fn proxies(&self) -> [(Svid, Proxy); 2] {
        self.first.apply(SHOP).await;
        let mut all = Vec::new();
        for (control, account) in [(&self.first, "one"), (&self.second, "two")] {
            let svid = control.join(&format!("shop/{account}")).await;
            let proxy = Proxy::connect(control, &svid, account, None, Bundle::default()).await;
            all.push((svid, proxy));
        }
        for (_, proxy) in &mut all {
            proxy.take_until(|bundle| !bundle.routes.is_empty()).await;
        }
        for control in [&self.first, &self.second] {
            until("both are in step", async || states(&listed(control).await) == ["synced", "synced"]).await;
        }
        all.try_into().ok().unwrap()
    }

    /// A control plane that is reached at this address, or does not tell where, and holds a proxy.
    async fn third(&self, address: Option<&str>, proxy: &str) -> Box<dyn Session> {
        use weft_store::Store as _;
        let session = self.store.session(Duration::from_secs(10)).await.unwrap();
        let id = session.id().to_owned();
        let row = |key: String, value: String| Row { key, value: value.into() };
        let reached = |address| row(format!("replica/{id}"), json!({ "address": address }).to_string());
        let held = row(format!("proxy/spiffe://cluster.local/ns/shop/sa/three/{proxy}"), id.clone());
        session.hold(address.map(reached).into_iter().chain([held]).collect()).await.unwrap();
        session
    }
}

async fn listed(control: &Control) -> Value {
    let (status, body) = control.call("get", "/api/v1/proxies", Value::Null).await;
    assert_eq!(status, 200, "{body}");
    body
}

fn states(told: &Value) -> Vec<&str> {
    told["proxies"].as_array().unwrap().iter().map(|proxy| proxy["state"].as_str().unwrap()).collect()
}

async fn status(control: &Control, revision: u64, wait_ms: u64) -> Value {
    let path = format!("/api/v1/revisions/{revision}/status?wait_ms={wait_ms}");
    until("the revision is known", async || control.app.hub.published().revision.0 >= revision).await;
    let (status, body) = control.call("get", &path, Value::Null).await;
    assert_eq!(status, 200, "{body}");
    body
}

/// The condition of the route that says whether proxies have it.
async fn programmed(control: &Control) -> (String, String) {
    let (status, body) = control.call("get", "/api/v1/resources/httproutes/shop/r", Value::Null).await;
    assert_eq!(status, 200, "{body}");
    let conditions = body["status"]["parents"][0]["conditions"].as_array().unwrap();
    let found = conditions.iter().find(|condition| condition["type"] == "Programmed").unwrap();
    (found["reason"].as_str().unwrap().to_owned(), found["message"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_tells_of_the_proxies_of_all() {
    let both = Both::start().await;
    let [(_, mut one), (_, mut two)] = both.proxies().await;
    for control in [&both.first, &both.second] {
        let told = listed(control).await;
        for proxy in told["proxies"].as_array().unwrap() {
            assert_eq!(proxy["version"], "test", "{told}");
            assert!(proxy["connected_since"].is_string() && proxy["revision"] == proxy["current_revision"], "{told}");
        }
        assert!(told.get("silent").is_none(), "{told}");
        assert_eq!(programmed(control).await.0, "Programmed");
    }
    // What a proxy of the second has not acknowledged is not everywhere, whoever is asked.
    let changed = SHOP.replace("rules: [{", "rules: [{matches: [{path: {value: /new}}], ");
    let revision = both.first.apply(&changed).await;
    one.take().await;
    let delta = two.delta().await;
    for control in [&both.first, &both.second] {
        // The ACK of the first is on its way, that of the second is not sent.
        until("the first is in step", async || {
            let told = status(control, revision, 0).await;
            assert_eq!(told["complete"], json!(false), "{told}");
            states(&told) == ["synced", "behind"]
        })
        .await;
        let (reason, message) = programmed(control).await;
        assert_eq!(
            (reason.as_str(), message.as_str()),
            ("Pending", "1 of 2 connected proxies have not acknowledged it: two",)
        );
    }
    // Who waits hears as soon as it has.
    let (told, ()) = tokio::join!(status(&both.first, revision, 60_000), async {
        let mut asked = both.second.app.hub.registry().watch();
        asked.borrow_and_update();
        two.accept(&delta).await;
    });
    assert_eq!((&told["complete"], states(&told)), (&json!(true), vec!["synced", "synced"]), "{told}");
    for control in [&both.first, &both.second] {
        assert_eq!(programmed(control).await.1, "acknowledged by all 2 connected proxies");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_said_goodbye_is_waited_for_nowhere() {
    let both = Both::start().await;
    let [(_, mut one), (_, mut two)] = both.proxies().await;
    two.say(v1::proxy_message::Message::Draining(v1::Draining {})).await;
    for control in [&both.first, &both.second] {
        until("it is forgotten", async || states(&listed(control).await) == ["synced"]).await;
    }
    let revision = both.first.apply(&SHOP.replace("port: 80, targetPort", "name: http, port: 80, targetPort")).await;
    one.take().await;
    for control in [&both.first, &both.second] {
        let told = status(control, revision, 5_000).await;
        assert_eq!((&told["complete"], states(&told)), (&json!(true), vec!["synced"]), "{told}");
    }
    // One that went without a word is expected back by all.
    drop(one);
    for control in [&both.first, &both.second] {
        until("it is away", async || states(&listed(control).await) == ["disconnected"]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_does_not_answer_is_named_with_its_proxies() {
    let both = Both::start().await;
    let _proxies = both.proxies().await;
    // One port where nobody is, and one where somebody takes connections and says nothing.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let hangs = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mute = hangs.local_addr().unwrap().to_string();
    let sessions = [both.third(Some(&nobody), "a").await, both.third(Some(&mute), "b").await];
    until("they are known", async || both.first.metrics().await.contains("weft_control_replicas 3\n")).await;
    let asked = Instant::now();
    let told = listed(&both.first).await;
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(2), "each has a second, at the same time: {took:?}");
    assert_eq!(states(&told), ["elsewhere", "elsewhere", "synced", "synced"], "{told}");
    for (address, name, reason) in [(&nobody, "a", "refused"), (&mute, "b", "it did not answer within 1000 ms")] {
        let silent = told["silent"].as_array().unwrap();
        let silent = silent.iter().find(|silent| silent["replica"] == **address).unwrap();
        assert_eq!(silent["proxies"], 1, "{told}");
        assert!(silent["reason"].as_str().unwrap().contains(reason), "{told}");
        let proxy = told["proxies"].as_array().unwrap().iter().find(|proxy| proxy["name"] == name).unwrap();
        let why = proxy["reason"].as_str().unwrap();
        assert!(
            why.starts_with(&format!("connected to control plane {address}, which does not tell of it: ")),
            "{why}"
        );
    }
    // They are not in step, nor away: nobody says that a change is everywhere.
    let revision = both.first.app.hub.published().revision.0;
    let told = status(&both.first, revision, 100).await;
    assert_eq!((&told["complete"], told["silent"].as_array().unwrap().len()), (&json!(false), 2), "{told}");
    let (reason, message) = programmed(&both.first).await;
    assert_eq!(reason, "NotTold", "{message}");
    let refused = both.first.call("post", "/api/v1/proxies/b/evict", Value::Null).await;
    assert!(refused.0 == 503 && refused.1.to_string().contains("or ban its identity"), "{refused:?}");
    let failed = both.first.metrics().await;
    assert!(!failed.contains("weft_control_replicas_silent_total 0\n"), "{failed}");
    drop(sessions);
    until("they are gone", async || listed(&both.first).await.get("silent").is_none()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_eviction_or_a_ban_at_one_ends_what_stands_at_the_other() {
    let both = Both::start().await;
    let [(_, mut one), (svid, mut two)] = both.proxies().await;
    let (code, told) = both.first.call("post", "/api/v1/proxies/two/evict", Value::Null).await;
    assert_eq!(code, 200, "{told}");
    assert_eq!(told["evicted"], json!([format!("two ({})", svid.identity)]), "{told}");
    let notice = two.notice().await;
    assert!(notice.reconnect && notice.reason == "evicted by an operator", "{notice:?}");
    // The proxies of both end the connections that stand with its certificate.
    one.until_evicted(&svid).await;
    let mut again = Proxy::connect(&both.second, &svid, "two", None, Bundle::default()).await;
    again.until_evicted(&svid).await;
    until("it is there again", async || states(&listed(&both.first).await) == ["synced", "behind"]).await;

    let banned = json!({ "proxy": svid.identity });
    let began = Instant::now();
    let (code, told) = both.first.call("post", "/api/v1/bans", banned).await;
    assert_eq!((code, &told["proxies"]), (200, &json!(["two"])), "{told}");
    let notice = again.notice().await;
    assert!(notice.reason.contains("is banned since"), "{notice:?}");
    one.until_denied(&[&svid.identity]).await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let mut refused = both.second.grpc(Some(&svid)).await;
    let (_sender, receiver) = tokio::sync::mpsc::channel(1);
    let refused = refused.connect(ReceiverStream::new(receiver)).await.err().unwrap();
    assert!(refused.code() == Code::PermissionDenied && refused.message().contains("is banned"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_be_told_of_an_eviction_is_named() {
    let both = Both::start().await;
    let _proxies = both.proxies().await;
    let third = both.third(None, "c").await;
    until("it is known", async || listed(&both.first).await["proxies"].as_array().unwrap().len() == 3).await;
    let (code, told) = both.first.call("post", "/api/v1/proxies/two/evict", Value::Null).await;
    let expected = json!([{
        "replica": third.id(), "reason": "it does not tell where it is reached", "proxies": 1,
    }]);
    assert_eq!((code, &told["silent"]), (200, &expected), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_eviction_of_many_certificates_is_told_as_one_of_few() {
    use weft_store::Store as _;
    let both = Both::start().await;
    let [_one, (svid, _two)] = both.proxies().await;
    // Its certificate is the last of a long line.
    let shown = both.second.app.hub.registry().shown_certificates().remove(0).1;
    let last: String = shown.chars().filter(char::is_ascii_hexdigit).collect();
    let until = OffsetDateTime::now_utc().unix_timestamp() + 3_600;
    let row = |number: usize| {
        let next = if number == 0 { last.clone() } else { format!("{:040x}", number - 1) };
        let record = json!({ "identity": svid.identity, "not_after_unix": until, "replaced_by": next });
        weft_store::Write::Put { table: "issued", key: format!("{number:040x}"), value: record.to_string().into() }
    };
    let newest = both.store.read(Vec::new(), 0).await.unwrap().version;
    both.store.commit(newest, (0..2_000).map(row).collect()).await.unwrap();
    let (code, told) = both.first.call("post", "/api/v1/proxies/two/evict", Value::Null).await;
    assert!(code == 200 && told.get("silent").is_none(), "{told}");
    let message = both.second.app.hub.watch_kept_out().message().message.unwrap();
    let v1::control_message::Message::Denials(denials) = message else { panic!("no list of the evicted") };
    assert_eq!(denials.evicted.len(), 1_000);
    assert!(denials.evicted.iter().any(|evicted| evicted.serial == last), "the one that ends last is among them");
}

/// What a proxy says of itself is told on in a message that others take, whatever it says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_proxy_makes_its_control_plane_silent_for_others() {
    let both = Both::start().await;
    let svid = both.second.join("shop/three").await;
    let mut lineage = v1::Lineage::from(&both.second.app.hub.lead().lineage);
    lineage.supersedes.push("x".repeat(5 << 20));
    let hello = v1::Hello { proxy_name: "three".to_owned(), lineage: Some(lineage), ..greeting() };
    let mut proxy = Box::pin(Proxy::connect_with(&both.second, &svid, hello, Bundle::default())).await;
    // Each of these characters is shown as eight.
    let text = || "\u{202e}".repeat(600);
    let filter = |_| v1::FilterState { name: text(), version: text(), digest: text(), state: text() };
    let filters = (0..256).map(filter).collect();
    let report = v1::Report { transport: text(), filters, ..v1::Report::default() };
    proxy.say(v1::proxy_message::Message::Report(report)).await;
    let said = |told: &Value| told["proxies"].as_array().unwrap().iter().any(|proxy| proxy["transport"] != "");
    until("it is heard", async || said(&listed(&both.second).await)).await;
    let told = listed(&both.first).await;
    assert!(told.get("silent").is_none() && said(&told), "{}", told["silent"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_of_another_that_says_nothing_was_heard_the_longer_ago() {
    let both = Both::start().await;
    let _proxies = both.proxies().await;
    let heard = async || {
        let all = both.first.app.hub.look_everywhere().await;
        all.into_iter().find(|proxy| proxy.key.name == "two").unwrap().heard_ago
    };
    let first = heard().await;
    until("its silence grows", async || heard().await > first + Duration::from_millis(200)).await;
}

/// Somebody with this certificate who asks as control planes do.
async fn asker(control: &Control, identity: Option<Identity>) -> ReplicasClient<Channel> {
    let ca = Certificate::from_pem(control.app.hub.authority().trust_bundle_pem());
    let mut tls = ClientTlsConfig::new().ca_certificate(ca).domain_name("weft-control");
    tls = identity.into_iter().fold(tls, ClientTlsConfig::identity);
    let endpoint = Endpoint::from_shared(format!("https://{}", control.app.grpc_address)).unwrap();
    ReplicasClient::new(endpoint.tls_config(tls).unwrap().connect().await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_but_a_control_plane_asks_and_it_is_nothing_else() {
    let both = Both::start().await;
    let [(svid, _one), _two] = both.proxies().await;
    let workload = Identity::from_pem(&svid.chain_pem, &svid.key_pem);
    let hub = &both.first.app.hub;
    let replica = |at| hub.authority().issue_replica(at).unwrap().pem();
    let now = OffsetDateTime::now_utc();
    let (chain, key) = replica(now);
    let own = || Identity::from_pem(&chain, &key);
    let (old_chain, old_key) = replica(now - time::Duration::days(1));
    let old = Identity::from_pem(old_chain, old_key);
    // What the first tells of itself as others see it.
    let session = both.second.app.hub.heard_of_others().remove(0).0;
    let request = |session: &str| pb::ProxiesRequest { session: session.to_owned(), ..Default::default() };
    for (identity, session, expected, why) in [
        (None, session.as_str(), Code::Unauthenticated, "a client certificate is needed"),
        (Some(workload), &session, Code::PermissionDenied, "only a control plane"),
        (Some(old), &session, Code::Unauthenticated, "is not valid now"),
        (Some(own()), "another", Code::FailedPrecondition, "another control plane answers"),
        (Some(own()), "", Code::FailedPrecondition, "another control plane answers"),
    ] {
        let mut client = asker(&both.first, identity).await;
        let refused = client.proxies(request(session)).await.err().unwrap();
        assert!(refused.code() == expected && refused.message().contains(why), "{refused}");
        let evict = pb::EvictRequest { session: session.to_owned(), ..Default::default() };
        assert_eq!(client.evict(evict).await.unwrap_err().code(), expected);
    }
    let mut client = asker(&both.first, Some(own())).await;
    let mut known = None;
    until("what did not change meanwhile is not told again", async || {
        let asked = pb::ProxiesRequest { known, ..request(&session) };
        let part = client.proxies(asked).await.unwrap().into_inner().message().await.unwrap().unwrap();
        known = Some(part.number);
        let names: Vec<_> = part.proxies.iter().map(|proxy| proxy.name.as_str()).collect();
        assert_eq!(names, if part.unchanged { vec![] } else { vec!["one"] });
        part.unchanged
    })
    .await;
    // Its certificate opens nothing that is for workloads.
    let as_proxy = Svid { chain_pem: chain.clone(), key_pem: key.clone(), identity: String::new() };
    let mut client = both.first.grpc(Some(&as_proxy)).await;
    let csr_der = csr(&KeyPair::generate().unwrap());
    let refused = client.renew(v1::RenewRequest { csr_der }).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_too_many_sends_some_away_and_none_twice() {
    let both = Both::start().await;
    let svid = both.first.join("shop/web").await;
    let mut all = Vec::new();
    for number in 0..8 {
        let mut proxy = Proxy::connect(&both.first, &svid, &format!("web-{number}"), None, Bundle::default()).await;
        proxy.take().await;
        all.push(proxy);
    }
    let held = || both.first.app.hub.registry().connected().len();
    // Four would be its share, and six are no reason yet.
    until("it has its share and what is no reason", async || held() <= 6).await;
    let gone = |control: &Control| {
        let connected = control.app.hub.registry().connected();
        (0..8).filter(|n| connected.keys().all(|key| key.name != format!("web-{n}"))).collect::<Vec<_>>()
    };
    let gone = gone(&both.first);
    let mut again = Vec::new();
    for number in &gone {
        let notice = all[*number].notice().await;
        assert!(notice.reconnect && notice.reason.contains("has more room"), "{notice:?}");
        // One that knows of no other comes back.
        let mut proxy = Proxy::connect(&both.first, &svid, &format!("web-{number}"), None, Bundle::default()).await;
        proxy.take().await;
        again.push(proxy);
    }
    let first = both.first.app.hub.registry();
    let stays = |number: &usize| first.connected().keys().any(|key| key.name == format!("web-{number}"));
    until("others go instead", async || held() <= 6).await;
    assert!(gone.iter().all(stays), "each goes once");
    assert!(!both.second.metrics().await.contains("weft_control_proxies_sent_away_total 1"), "who has none sends none");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_replaces_its_own_intermediate_and_all_believe_it() {
    let both = Both::start().await;
    let [(_, mut one), (_, mut two)] = both.proxies().await;
    for (control, other) in [(&both.first, &both.second), (&both.second, &both.first)] {
        let theirs = other.app.hub.authority().intermediate_not_after();
        control.app.hub.rotate_intermediate("me").await.unwrap();
        assert_eq!(other.app.hub.authority().intermediate_not_after(), theirs, "it is one's own");
        // What it signs from now on is believed by the other, and the other's by it.
        let svid = control.join("shop/new").await;
        let mut proxy = Proxy::connect(other, &svid, "new", None, Bundle::default()).await;
        proxy.take_until(|bundle| !bundle.routes.is_empty()).await;
        drop(proxy);
    }
    // Whose certificate is older, and the control planes themselves, go on.
    let revision = both.first.apply(&SHOP.replace("port: 80, targetPort", "name: http, port: 80, targetPort")).await;
    one.take().await;
    two.take().await;
    let told = status(&both.first, revision, 10_000).await;
    let step = |name: &str| {
        let proxies = told["proxies"].as_array().unwrap();
        proxies.iter().find(|proxy| proxy["name"] == name).unwrap()["state"].clone()
    };
    assert_eq!((step("one"), step("two")), (json!("synced"), json!("synced")), "{told}");
    assert!(told.get("silent").is_none(), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_endpoint_leaves_by_the_word_while_proxies_of_another_may_reach_it() {
    let both = Both::start().await;
    both.first.apply(SHOP).await;
    let [web, one, two] =
        [both.first.join("shop/web").await, both.first.join("shop/one").await, both.second.join("shop/two").await];
    let hello = |name: &str| v1::Hello { proxy_name: name.to_owned(), ..greeting() };
    let mut here = Proxy::connect_with(&both.first, &one, hello("one"), Bundle::default()).await;
    let mut there = Proxy::connect_with(&both.second, &two, hello("two"), Bundle::default()).await;
    let mut endpoints = Vec::new();
    for (name, address) in [("web-1", "127.0.0.11"), ("web-2", "127.0.0.12")] {
        let own = Some(workload(name, "shop", address, Some("web")));
        let mut proxy = Proxy::connect(&both.first, &web, name, own, Bundle::default()).await;
        proxy.take().await;
        endpoints.push(proxy);
    }
    let is_there = || {
        let name = weft_policy::bundle::ObjectName::new("shop", "web-2");
        both.first.app.hub.published().world.registered_by(&name).is_some()
    };
    let say = |reached| {
        let workload = v1::ObjectName { namespace: "shop".to_owned(), name: "web-2".to_owned() };
        let peers = vec![v1::PeerWord { workload: Some(workload), reached }];
        v1::proxy_message::Message::Report(v1::Report { peers, ..Default::default() })
    };
    // For more than its lease, and several looks.
    let stays = async || {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(4) {
            assert!(is_there(), "after {:?}", began.elapsed());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    here.say(say(false)).await;
    there.say(say(true)).await;
    drop(endpoints.pop());
    stays().await;
    // Of one that holds a proxy and does not answer nobody knows.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let silent = both.third(Some(&nobody), "a").await;
    until("it is known", async || both.first.metrics().await.contains("weft_control_replicas 2\n")).await;
    there.say(say(false)).await;
    stays().await;
    drop(silent);
    until("nobody reaches it", async || !is_there()).await;
}
