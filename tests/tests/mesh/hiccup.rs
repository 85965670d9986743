//! A hiccup is no death: two hosts as network namespaces; the way between them falls silent, the peer's proxy is stopped, the
//! caller's host changes its address. Streams that are open live on, requests that were sent meanwhile are answered. Needs root.

mod ground;
mod streams;

use std::time::Duration;

use ground::{Ground, NEW};

/// How the peer falls silent.
#[derive(Debug, Clone, Copy)]
enum Silence {
    /// UDP is dropped where it arrives, on both hosts.
    Dropped,
    /// UDP is refused where it is sent, as by a firewall of the sender's own.
    Forbidden,
    /// The caller's interface is down.
    LinkDown,
    /// The peer's proxy is stopped.
    Stopped,
    /// The caller's proxy is stopped.
    CallerStopped,
}

impl Silence {
    fn begin(self, ground: &Ground) {
        match self {
            Self::Dropped => ground.drop_udp("input"),
            Self::Forbidden => ground.drop_udp("output"),
            Self::LinkDown => ground.link("down"),
            Self::Stopped => ground.server.process.signal("STOP"),
            Self::CallerStopped => ground.client.process.signal("STOP"),
        }
    }

    fn end(self, ground: &Ground) {
        match self {
            Self::Dropped | Self::Forbidden => ground.pass_udp(),
            Self::LinkDown => ground.link("up"),
            Self::Stopped => ground.server.process.signal("CONT"),
            Self::CallerStopped => ground.client.process.signal("CONT"),
        }
    }
}

/// How much longer than three silences a request may take that was sent in one. QUIC probes at intervals that double, and counts
/// each from the last packet that it sent (RFC 9002 section 6.2.1): what was on its way waits for the next probe.
const AFTERWARDS: Duration = Duration::from_secs(3);

async fn survives(ground: &Ground, silence: Silence, lasts: Duration) {
    let what = format!("{silence:?} for {lasts:?}");
    let streams = streams::open(ground).await;
    let requests = streams::requests(ground);
    requests.more(20).await;
    silence.begin(ground);
    tokio::time::sleep(lasts).await;
    silence.end(ground);
    streams.all_go_on(&what).await;
    requests.more(40).await;
    let told = requests.end().await;
    let longest = told.longest();
    let failures = told.failures();
    eprintln!("{what}: {} requests, {} failed; {}", told.count(), failures.len(), told.slowest());
    assert!(
        failures.is_empty(),
        "{what}: {:#?}\n{}",
        failures.iter().take(5).collect::<Vec<_>>(),
        ground.client.process.tail()
    );
    assert!(longest < lasts * 3 + AFTERWARDS, "{what}: a request took {longest:?}");
    streams.end(&what).await;
}

/// The caller's host gets another address in the place of its own: nothing that is open dies, and what is new goes on.
async fn survives_a_move(ground: &Ground) {
    let streams = streams::open(ground).await;
    let requests = streams::requests(ground);
    requests.more(20).await;
    ground.change_address(NEW);
    streams.all_go_on("moved").await;
    requests.more(60).await;
    let told = requests.end().await;
    eprintln!("moved: {} requests; {}", told.count(), told.slowest());
    assert!(told.failures().is_empty(), "{:#?}\n{}", told.failures(), ground.client.process.tail());
    streams.end("moved").await;
    // And the way to the control plane is found again: what is applied arrives.
    ground.hears_of_changes().await;
}

mod real {
    use super::{Duration, Ground, Silence, survives, survives_a_move};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "needs root, nft and network namespaces: cargo xtask test --real"]
    async fn two_seconds_of_silence_and_a_move_cost_latency_only() {
        let ground = Ground::new().await;
        for silence in [Silence::Dropped, Silence::Stopped, Silence::CallerStopped] {
            survives(&ground, silence, Duration::from_secs(2)).await;
        }
        survives_a_move(&ground).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "needs root and network namespaces: cargo xtask test --real"]
    async fn a_path_too_narrow_for_quic_is_told_and_used_again_when_it_is_wide() {
        let ground = Ground::new().await;
        ground.mtu(1_200);
        let told = ground.becomes(503).await;
        assert!(told.contains("path MTU 1200 to") && told.contains("below QUIC's minimum"), "{told}");
        ground.mtu(1_280);
        ground.becomes(200).await;
    }
}

mod long {
    use super::{Duration, Ground, Silence, survives};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "takes minutes, needs root, nft and network namespaces: cargo xtask test --long"]
    async fn silence_of_up_to_ten_seconds_costs_latency_only() {
        use Silence::{CallerStopped, Dropped, Forbidden, LinkDown, Stopped};

        for silence in [Dropped, Stopped, CallerStopped, Forbidden, LinkDown] {
            let ground = Ground::new().await;
            for seconds in [1, 2, 5, 10] {
                survives(&ground, silence, Duration::from_secs(seconds)).await;
            }
        }
    }
}
