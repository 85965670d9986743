//! Equal endpoints get equal shares of a caller's requests, whatever it knew of them at its start.

use weft_tests::{App, Client, Mesh, Workload, eventually};

use super::load::load;

/// 300 requests at 50 a second to so many endpoints, and to the same after the caller has started anew.
async fn shares_are_equal(endpoints: usize) {
    let mesh = Mesh::start().await;
    let (mut apps, mut sidecars) = (Vec::new(), Vec::new());
    for index in 0..endpoints {
        let workload = Workload::server(&format!("reviews-{index}"), 8080, "http").of("reviews");
        apps.push(App::start(&workload.name, workload.ip, 8080).await);
        sidecars.push(mesh.sidecar(workload).await);
    }
    let mut client = mesh.sidecar(Workload::client("shopper")).await;
    for start in 1..=2 {
        eventually("the service answers", || async {
            (Client::through(client.proxy(), "reviews").await.get("/who").await.status == 200).then_some(())
        })
        .await;
        let before: Vec<_> = apps.iter().map(App::served).collect();
        let (load, tasks) = load(client.proxy(), "reviews", 50, 2);
        load.more(300).await;
        load.stop.store(true, std::sync::atomic::Ordering::SeqCst);
        tasks.join_all().await;
        let served: Vec<_> = apps.iter().zip(before).map(|(app, before)| app.served() - before).collect();
        eprintln!("{endpoints} endpoints, start {start}: {served:?}");
        let whole: u64 = served.iter().sum();
        // 40:60 of two; the same distance from an equal share of more.
        let (least, most) = (whole * 4 / 5 / endpoints as u64, whole * 6 / 5 / endpoints as u64);
        assert!(served.iter().all(|one| (least..=most).contains(one)), "{served:?}");
        client.restart();
        client.ready();
    }
}

mod long {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "takes a minute and the whole machine: cargo xtask test --long"]
    async fn equal_endpoints_get_equal_shares() {
        for endpoints in 2..=5 {
            super::shares_are_equal(endpoints).await;
        }
    }
}
