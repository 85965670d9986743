//! The shop: who is in it, who may do what, which release gets the load. The manifests are files that can be applied by
//! hand as well.

/// One service of the shop and how it is started.
#[derive(Debug, Clone, Copy)]
pub(super) struct Member {
    pub(super) name: &'static str,
    pub(super) service_account: &'static str,
    /// Port and protocol; `None` for a pure client.
    pub(super) serves: Option<(u16, &'static str)>,
    pub(super) labels: &'static [&'static str],
    /// Arguments of weft-shop.
    pub(super) command: &'static [&'static str],
}

pub(super) const NAMESPACE: &str = "shop";
pub(super) const LOAD_PORT: u16 = 8089;
pub(super) const FRONTEND: &str = "frontend";
pub(super) const REVIEWS: [&str; 2] = ["reviews-v1", "reviews-v2"];
pub(super) const PRICES: &str = "prices";
pub(super) const STOCK: &str = "stock";
/// What the frontend's sidecar asks.
pub(super) const GUARD: &str = "guard";
/// Sends the load and nothing else, so that its numbers can be compared exactly.
pub(super) const SHOPPER: &str = "shopper";
/// Through whose sidecar the story's own calls go.
pub(super) const PARTNER: &str = "partner";

/// Requests to reviews for each one to the frontend.
pub(super) const LOAD_TARGETS: [(&str, usize); 2] =
    [("http://reviews/reviews/tea", 11), ("http://frontend/product/tea", 1)];

pub(super) const SERVERS: [Member; 6] = [
    Member {
        name: FRONTEND,
        service_account: "frontend",
        serves: Some((8080, "http")),
        labels: &[],
        command: &["frontend", "--port", "8080"],
    },
    Member {
        name: REVIEWS[0],
        service_account: "reviews",
        serves: Some((9080, "http")),
        labels: &["app=reviews", "version=v1"],
        command: &["reviews", "--port", "9080", "--release", "v1"],
    },
    Member {
        name: REVIEWS[1],
        service_account: "reviews",
        serves: Some((9080, "http")),
        labels: &["app=reviews", "version=v2"],
        command: &["reviews", "--port", "9080", "--release", "v2"],
    },
    Member {
        name: PRICES,
        service_account: "prices",
        serves: Some((50051, "grpc")),
        labels: &[],
        command: &["prices", "--port", "50051"],
    },
    Member {
        name: STOCK,
        service_account: "stock",
        serves: Some((7000, "tcp")),
        labels: &[],
        command: &["stock", "--port", "7000"],
    },
    Member {
        name: GUARD,
        service_account: "guard",
        serves: Some((7070, "http")),
        labels: &[],
        command: &["guard", "--port", "7070"],
    },
];

pub(super) const CLIENTS: [Member; 2] = [
    Member {
        name: SHOPPER,
        service_account: "shopper",
        serves: None,
        labels: &[],
        command: &["load", "--port", "8089"],
    },
    Member { name: PARTNER, service_account: "partner", serves: None, labels: &[], command: &["idle"] },
];

/// Namespace and the service that both releases of reviews stand behind.
pub(super) const BASE: &str = include_str!("../../demo/base.yaml");
pub(super) const DENY: &str = include_str!("../../demo/deny-admin.yaml");
pub(super) const DELAY: &str = include_str!("../../demo/delay.yaml");
pub(super) const LIMIT: &str = include_str!("../../demo/limit.yaml");
pub(super) const BODY: &str = include_str!("../../demo/body.yaml");
pub(super) const ASK: &str = include_str!("../../demo/ask.yaml");
pub(super) const STAMP: &str = include_str!("../../demo/stamp.yaml");
/// Further names of reviews, for what goes wrong.
pub(super) const TRAFFIC: &str = include_str!("../../demo/traffic.yaml");
/// The policies that the running demo has.
pub(super) const POLICIES: &str = concat!(
    include_str!("../../demo/deny-admin.yaml"),
    "---\n",
    include_str!("../../demo/delay.yaml"),
    "---\n",
    include_str!("../../demo/limit.yaml"),
    "---\n",
    include_str!("../../demo/body.yaml"),
    "---\n",
    include_str!("../../demo/ask.yaml"),
    "---\n",
    include_str!("../../demo/rule.yaml")
);

/// Requests that `demo/limit.yaml` grants each caller: as many at once, and as many a second.
pub(super) const LIMIT_BURST: u32 = 25;
/// Status with which `demo/rule.yaml` refuses.
pub(super) const RULE_STATUS: u16 = 451;
/// Delay that `demo/delay.yaml` adds.
pub(super) const DELAY_MS: u64 = 400;

/// The route of reviews with these weights.
pub(super) fn canary(v1: u32, v2: u32) -> String {
    // Marks first: one weight may be what the other was.
    let marked = include_str!("../../demo/canary.yaml")
        .replace("weight: 100", "weight: {v1}")
        .replace("weight: 0", "weight: {v2}");
    marked.replace("{v1}", &v1.to_string()).replace("{v2}", &v2.to_string())
}

/// The policy that refuses requests with `x-demo: word-NUMBER`.
pub(super) fn rule(number: u32) -> String {
    include_str!("../../demo/rule.yaml").replace("word-0", &word(number))
}

pub(super) fn word(number: u32) -> String {
    format!("word-{number}")
}

pub(super) fn identity(account: &str) -> String {
    format!("spiffe://cluster.local/ns/{NAMESPACE}/sa/{account}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_manifest_of_the_demo_is_valid() {
        let fixed = [("base", BASE), ("policies", POLICIES), ("traffic", TRAFFIC), ("stamp", STAMP)];
        let fixed = fixed.map(|(name, text)| (name, text.to_owned()));
        for (name, text) in fixed.into_iter().chain([("canary", canary(90, 10)), ("rule", rule(3))]) {
            let documents = weft_policy::manifest::parse(name, &text);
            assert!(documents.is_ok_and(|documents| !documents.is_empty()), "{name}");
        }
    }

    #[test]
    fn the_canary_carries_its_weights() {
        for (v1, v2) in [(7, 93), (0, 100), (100, 0)] {
            let text = canary(v1, v2);
            let weights: Vec<&str> = text.lines().filter_map(|line| line.trim().strip_prefix("weight: ")).collect();
            assert_eq!(weights, [v1.to_string(), v2.to_string()]);
        }
    }

    #[test]
    fn what_the_story_expects_is_what_the_manifests_say() {
        assert!(LIMIT.contains(&format!("burst: {LIMIT_BURST}")) && DELAY.contains(&DELAY_MS.to_string()));
        let rule = rule(7);
        assert!(rule.contains(&format!("status: {RULE_STATUS}")) && rule.contains("== 'word-7'\""), "{rule}");
    }
}
