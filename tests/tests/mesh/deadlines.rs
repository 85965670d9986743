//! What a caller says of how long it waits holds along the whole path, and what a TrafficPolicy limits beside requests is
//! limited, through real sidecars.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::Value;
use weft_tests::app::TcpApp;
use weft_tests::client::{empty, try_tunnel};
use weft_tests::{Answer, App, Client, Mesh, Sidecar, Workload, eventually};

/// The fields that an app was sent under a name.
fn seen(text: &str, name: &str) -> Vec<String> {
    let seen: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let fields = seen["headers"].as_array().unwrap().iter();
    fields.filter(|field| field[0] == name).map(|field| field[1].as_str().unwrap().to_owned()).collect()
}

struct Shop {
    mesh: Mesh,
    caller: Sidecar,
    cart: (App, Sidecar),
    stock: (App, Sidecar),
}

impl Shop {
    async fn start() -> Self {
        let mesh = Mesh::start().await;
        let server = async |name: &str| {
            let workload = Workload::server(name, 8080, "http");
            (App::start(name, workload.ip, 8080).await, mesh.sidecar(workload).await)
        };
        let (cart, stock) = (server("cart").await, server("stock").await);
        let caller = mesh.sidecar(Workload::client("shopper")).await;
        for (from, to) in [(&caller, "cart"), (&cart.1, "stock")] {
            eventually("it is reached", || async {
                (Client::through(from.proxy(), to).await.get("/who").await.status == 200).then_some(())
            })
            .await;
        }
        Self { mesh, caller, cart, stock }
    }

    /// What `stock` is sent in this field where `cart` passes on what it was sent.
    async fn passed_on(&self, said: &str) -> (u64, u64) {
        let name = "weft-timeout-ms";
        let number = |text: String| {
            let told = seen(&text, name);
            assert_eq!(told.len(), 1, "{text}");
            told[0].parse::<u64>().unwrap()
        };
        let answer = Client::through(self.caller.proxy(), "cart").await.get_with("/seen", &[(name, said)]).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let at_cart = number(answer.text());
        let on = [(name, at_cart.to_string())];
        let on = on.each_ref().map(|(name, value)| (*name, value.as_str()));
        let answer = Client::through(self.cart.1.proxy(), "stock").await.get_with("/seen", &on).await;
        (at_cart, number(answer.text()))
    }

    /// Sets what holds for a service, and waits until every proxy has it.
    fn set(&self, service: &str, spec: &str) {
        let text = format!(
            "{{apiVersion: weft.dev/v1alpha1, kind: TrafficPolicy, metadata: {{name: {service}, namespace: default}}, \
             spec: {{targetRefs: [{{kind: Service, name: {service}}}], {spec}}}}}\n"
        );
        let applied = self.mesh.weft_reading(&text, &["apply", "-f", "-", "--wait", "30s"]);
        assert_eq!(applied.code, 0, "{}{}", applied.out, applied.err);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_holds_along_the_path() {
    let shop = Shop::start().await;
    let ask = async |path: &str, fields: &[(&str, &str)]| {
        Client::through(shop.caller.proxy(), "cart").await.get_with(path, fields).await
    };
    // What is left shrinks from app to app.
    let (at_cart, at_stock) = shop.passed_on("30000").await;
    assert!(at_cart < 30_000 && at_stock < at_cart && at_stock > 0, "{at_cart} {at_stock}");
    // Nobody sets what nobody said, and what means nothing is nobody's.
    for fields in [&[] as &[(&str, &str)], &[("weft-timeout-ms", "soon")]] {
        assert_eq!(seen(&ask("/seen", fields).await.text(), "weft-timeout-ms"), [""; 0]);
    }
    let none = ask("/who", &[("weft-timeout-ms", "0")]).await;
    assert_eq!(none.status, 504);
    assert!(none.text().contains("nothing is left of the time that its caller waits"), "{}", none.text());

    // A slow app is let go.
    let begun = Instant::now();
    let late = ask("/slow/25000", &[("weft-timeout-ms", "400")]).await;
    assert_eq!(late.status, 504);
    assert!(late.text().contains("no answer within the 400 ms that its caller waits"), "{}", late.text());
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    eventually("its work is cancelled", || async { (shop.cart.0.busy() == 0).then_some(()) }).await;

    // In a gRPC call the same by its own field.
    let call = async |path: &str, timeout: &str| {
        let mut client = Client::h2_through(shop.caller.proxy(), "cart").await;
        let fields = [("content-type", "application/grpc"), ("te", "trailers"), ("grpc-timeout", timeout)];
        client.call(Method::POST, path, &fields, empty()).await.expect("an answer")
    };
    let answer = call("/test.Seen/It", "30S").await;
    let told = seen(std::str::from_utf8(&answer.body[5..]).unwrap(), "grpc-timeout");
    let left = told.first().and_then(|told| told.strip_suffix('u')?.parse::<u64>().ok());
    assert!(told.len() == 1 && left.is_some_and(|left| left > 0 && left < 30_000_000), "{told:?}");
    let late = call("/slow/25000", "400m").await;
    assert_eq!((late.status.as_u16(), late.header("grpc-status")), (200, "4"), "{late:?}");

    Box::pin(streams_have_times_of_their_own(&shop)).await;

    // The Mesh's own is told, too, and nobody makes it longer.
    shop.set("cart", "timeouts: {request: 20s}");
    assert!(shop.passed_on("86400000").await.0 < 20_000);

    // The proxy of the app holds it where that of the caller does not.
    let late = || async {
        let labels = [("side", "inbound"), ("reason", "caller_deadline")];
        shop.cart.1.metrics().await.sum("weft_local_replies_total", &labels)
    };
    let before = late().await;
    let proxy = shop.caller.proxy();
    let asked = tokio::spawn(async move {
        let mut client = Client::through(proxy, "cart").await;
        client.call(Method::GET, "/slow/25000", &[("weft-timeout-ms", "5000")], empty()).await.map(|it| it.status)
    });
    eventually("it is at the app", || async { (shop.cart.0.busy() == 1).then_some(()) }).await;
    shop.caller.process.signal("STOP");
    eventually("its work is cancelled", || async { (shop.cart.0.busy() == 0).then_some(()) }).await;
    assert_eq!(late().await, before + 1.0);
    shop.caller.process.signal("CONT");
    assert_eq!(asked.await.unwrap().unwrap(), 504);
    assert_eq!(shop.stock.0.busy(), 0);
}

/// The status of a call, in the trailers of its answer or in the head.
fn grpc_status(answer: &Answer) -> &str {
    let status = answer.trailers.iter().chain([&answer.headers]).find_map(|fields| fields.get("grpc-status"));
    status.and_then(|status| status.to_str().ok()).unwrap_or_default()
}

/// What only the operator set for requests cuts no stream, through two proxies: its own time does, and the caller's word.
async fn streams_have_times_of_their_own(shop: &Shop) {
    let proxy = shop.caller.proxy();
    let call = async |path: &str, timeout: Option<&str>| {
        if !path.starts_with("/test.") {
            return Client::through(proxy, "cart").await.call(Method::GET, path, &[], empty()).await;
        }
        let mut fields = vec![("content-type", "application/grpc"), ("te", "trailers")];
        fields.extend(timeout.map(|timeout| ("grpc-timeout", timeout)));
        Client::h2_through(proxy, "cart").await.call(Method::POST, path, &fields, empty()).await
    };
    let counted =
        async |flags: &str| shop.caller.metrics().await.sum("istio_requests_total", &[("response_flags", flags)]);
    let counts = async |before: [f64; 2], whole: f64, late: f64| {
        eventually("all are counted", || async {
            let now = [counted("-").await, counted("UT").await];
            (now == [before[0] + whole, before[1] + late]).then_some(())
        })
        .await;
    };

    shop.set("cart", "timeouts: {request: 600ms}");
    let before = [counted("-").await, counted("UT").await];
    let (events, messages, plain, hangs, late) = tokio::join!(
        call("/events/1500", None),
        call("/test.Stream/1500", None),
        call("/pause/1500", None),
        call("/test.Hang/1500", None),
        call("/test.Stream/1500", Some("900m")),
    );
    assert_eq!(events.unwrap().text(), "data: one\n\ndata: two\n\n");
    let messages = messages.unwrap();
    assert_eq!((grpc_status(&messages), messages.body.len()), ("0", 16), "{messages:?}");
    assert!(plain.is_err(), "it is no stream: {plain:?}");
    assert_eq!(grpc_status(&hangs.unwrap()), "4", "its message did not come");
    let late = late.unwrap();
    assert_eq!((grpc_status(&late), late.body.len()), ("4", 8), "{late:?}");
    counts(before, 2.0, 3.0).await;

    shop.set("cart", "timeouts: {stream: 600ms}");
    let before = [counted("-").await, counted("UT").await];
    let (events, messages, plain) =
        tokio::join!(call("/events/1500", None), call("/test.Stream/1500", None), call("/pause/800", None));
    assert!(events.is_err(), "{events:?}");
    let messages = messages.unwrap();
    assert_eq!((grpc_status(&messages), messages.body.len()), ("4", 8), "{messages:?}");
    assert_eq!(plain.unwrap().text(), "onetwo");
    counts(before, 1.0, 2.0).await;
    let told = shop.mesh.weft(&["describe", "service", "cart"]);
    assert!(told.out.contains("timeouts.stream: 600ms (TrafficPolicy default/cart)"), "{}", told.out);
    let explained = shop.mesh.weft(&["explain", "--from", "default/shopper", "--to", "cart"]);
    let told = "600ms where the answer is a stream, as TrafficPolicy default/cart says";
    assert!(explained.out.contains(told), "{}", explained.out);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_is_under_way_than_may_be() {
    let shop = Shop::start().await;
    let workload = Workload::server("ledger", 7000, "tcp");
    let _app = TcpApp::start(workload.ip, 7000, "hello").await;
    let _ledger = shop.mesh.sidecar(workload).await;
    shop.set("ledger", "limits: {maxConnections: 1}");
    let proxy = shop.caller.proxy();
    let open = || async move {
        let (stream, head) = try_tunnel(proxy, "ledger:7000").await;
        head.starts_with("HTTP/1.1 200").then_some(stream)
    };
    let first = eventually("a connection is opened", open).await;
    let refused = || async {
        let labels = [("side", "outbound"), ("reason", "active_connections")];
        shop.caller.metrics().await.sum("weft_local_replies_total", &labels)
    };
    let before = refused().await;
    let (_stream, head) = try_tunnel(proxy, "ledger:7000").await;
    assert!(head.starts_with("HTTP/1.1 503"), "{head}");
    assert_eq!(refused().await, before + 1.0);
    drop(first);
    let _again = eventually("there is room again", open).await;
    let told = shop.mesh.weft(&["describe", "service", "ledger"]);
    assert!(
        told.out.contains("limits: 1 TCP connections of each proxy (TrafficPolicy default/ledger)"),
        "{}",
        told.out
    );

    // Latency lets one request be under way at the most.
    shop.set("cart", "limits: {adaptive: {minLimit: 1, maxLimit: 1}}");
    let slow = tokio::spawn(async move { Client::through(proxy, "cart").await.get("/slow/5000").await.status });
    eventually("it is at the app", || async { (shop.cart.0.busy() == 1).then_some(()) }).await;
    let full = Client::through(proxy, "cart").await.get("/who").await;
    assert_eq!(full.status, 503);
    assert!(full.text().contains("1 are under way, as many as its latency allows now"), "{}", full.text());
    assert_eq!(slow.await.unwrap(), 200);
    let metrics = shop.caller.metrics().await;
    assert_eq!(metrics.sum("weft_adaptive_limit", &[("destination_service_name", "cart")]), 1.0);
    let explained = shop.mesh.weft(&["explain", "--from", "default/shopper", "--to", "cart"]);
    let told = "1 to 1 requests by their latency in each 250ms of each proxy, as TrafficPolicy default/cart says";
    assert!(explained.out.contains(told), "{}", explained.out);

    // Nothing is sent again where none may be.
    shop.set("cart", "retry: {codes: [503]}, limits: {maxRetries: 0}");
    shop.cart.0.fail(503);
    let served = shop.cart.0.served();
    assert_eq!(Client::through(proxy, "cart").await.get("/who").await.status, 503);
    assert_eq!(shop.cart.0.served(), served + 1);
    assert_eq!(shop.caller.metrics().await.sum("weft_retries_over_limit_total", &[]), 1.0);
}
