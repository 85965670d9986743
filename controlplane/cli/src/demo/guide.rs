//! Text of the running demo: where to look, what to try. Every line can be pasted.

use super::members::{FRONTEND, PARTNER, REVIEWS, SHOPPER};
use super::stage::Stage;
use crate::output::{Paint, Table};

pub(super) fn text(stage: &Stage) -> String {
    let paint = Paint::stdout();
    let access = stage.access();
    let ip = |name: &str| stage.ip(name).map_or_else(|_| "?".to_owned(), |ip| ip.to_string());
    let mut members = Table::new(["SERVICE", "ADDRESS", "METRICS", "ADMIN", "EXPLICIT PROXY"]);
    for (member, ip) in stage.members() {
        let at = |port: u16, path: &str| format!("http://{ip}:{port}{path}");
        members.row([member.name.to_owned(), ip.to_string(), at(15020, "/metrics"), at(15000, "/"), at(15080, "")]);
    }
    let partner = format!("curl -x http://{}:15080", ip(PARTNER));
    let probe = format!("http://{}:15080", ip(PARTNER));
    let exports = format!(
        "export PATH=$PATH:{} WEFT_SERVER={} WEFT_TOKEN_FILE={} WEFT_CA_FILE={}",
        programs(),
        access.server,
        access.token_file.display(),
        access.ca_file.display()
    );
    let tries = [
        ("the shop, as its partner", format!("{partner} http://frontend/product/tea")),
        ("a denied path", format!("{partner} -i http://reviews/admin/settings")),
        (
            "an injected delay",
            format!("{partner} -H 'x-demo: slow' -w '%{{time_total}}\\n' http://reviews/reviews/tea"),
        ),
        (
            "a limited caller",
            format!(
                "for i in $(seq 100); do {partner} -s -o /dev/null -w '%{{http_code}} ' http://frontend/healthz & done; wait"
            ),
        ),
        ("a broken body", format!("{partner} -i --data '{{' http://reviews/reviews/tea")),
        (
            "a page that the guard keeps, and a badge",
            format!(
                "{partner} -i http://frontend/product/cake; {partner} -H 'x-badge: gold' http://frontend/product/cake"
            ),
        ),
        ("a rule of an expression", format!("{partner} -i -H 'x-demo: word-0' http://reviews/reviews/tea")),
        ("gRPC, all four kinds", format!("grpc_proxy={probe} weft-shop probe-prices prices:80")),
        ("TCP, the server speaks first", format!("ALL_PROXY={probe} weft-shop probe-stock stock:7000")),
        ("what the mesh counted", format!("curl -s http://{}:15020/metrics | grep istio_requests_total", ip(FRONTEND))),
        ("what the load sees", format!("curl -s http://{}:8089/stats", ip(SHOPPER))),
        ("the proxies", "weft proxies".to_owned()),
        ("why it is denied", "weft explain --from shop/partner --to reviews.shop --path /admin/settings".to_owned()),
        (
            "move the canary",
            format!(
                "weft get httproute reviews -n shop -o yaml | sed 's/weight: 90/weight: 50/; s/weight: 10$/weight: 50/' | weft apply -f - --wait 10s   # then see {}",
                REVIEWS[1]
            ),
        ),
        (
            "kill the control plane; it comes back after 10 s",
            format!("kill -9 {}", stage.control_pid().unwrap_or_default()),
        ),
    ];
    let mut text = format!(
        "\n{}\n{}\n{}\n{exports}\n\n",
        paint.bold("The shop is open."),
        members.render(),
        paint.bold("What to try:")
    );
    for (what, line) in tries {
        text.push_str(&format!("  # {what}\n  {line}\n"));
    }
    text.push_str(&format!("\nLogs: {}/logs. Ctrl-C ends everything.\n", stage.folder().display()));
    text
}

/// The folder that this executable and the shop's lie in.
fn programs() -> String {
    let own = std::env::current_exe().ok();
    own.as_deref().and_then(std::path::Path::parent).map_or_else(String::new, |folder| folder.display().to_string())
}
