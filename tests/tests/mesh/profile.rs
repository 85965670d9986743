//! A processor profile of a sidecar under load, read as any tool of the field would: unzipped, its fields by number.

use std::io::Read as _;
use std::sync::atomic::{AtomicBool, Ordering};

use weft_tests::{App, Client, Mesh, Workload, eventually};

/// Fields of a protocol buffer message that are texts or messages, by number; the others are passed over.
fn fields(mut bytes: &[u8]) -> Vec<(u64, &[u8])> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = bytes.split_off_first().expect("a whole number");
            value |= u64::from(byte & 0x7f) << shift;
            if *byte < 0x80 {
                return value;
            }
        }
        panic!("a number of more than 64 bits");
    }
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        match tag & 7 {
            0 => _ = varint(&mut bytes),
            2 => {
                let length = usize::try_from(varint(&mut bytes)).unwrap();
                fields.push((tag >> 3, bytes.split_off(..length).expect("a whole field")));
            }
            other => panic!("wire type {other}"),
        }
    }
    fields
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_profile_under_load_names_functions() {
    let mesh = Mesh::start().await;
    let workload = Workload::server("busy", 8080, "http");
    let _app = App::start("busy", workload.ip, 8080).await;
    let server = mesh.sidecar(workload).await;
    let client = mesh.sidecar(Workload::client("caller")).await;
    eventually("busy is reachable", || async {
        (Client::through(client.proxy(), "busy").await.get("/who").await.status == 200).then_some(())
    })
    .await;
    let done = std::sync::Arc::new(AtomicBool::new(false));
    let (loading, proxy) = (done.clone(), client.proxy());
    let load = tokio::spawn(async move {
        let (mut client, mut count) = (Client::through(proxy, "busy").await, 0);
        while !loading.load(Ordering::Relaxed) {
            assert_eq!(client.get("/who").await.status, 200, "a profile costs no request");
            count += 1;
        }
        count
    });
    let admin = server.at(15_000);
    let take = || async { Client::direct(admin).await.get("/debug/pprof/profile?seconds=3").await };
    let (one, other) = tokio::join!(take(), take());
    let (answer, refused) = if one.status == 200 { (one, other) } else { (other, one) };
    assert_eq!(refused.status, 409, "one at a time: {}", refused.text());
    let wrong = Client::direct(admin).await.get("/debug/pprof/profile?seconds=301").await;
    assert_eq!((wrong.status.as_u16(), wrong.text().contains("1 to 300")), (400, true), "{}", wrong.text());

    done.store(true, Ordering::Relaxed);
    assert!(load.await.unwrap() > 0);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let mut profile = Vec::new();
    flate2::read::GzDecoder::new(&answer.body[..]).read_to_end(&mut profile).expect("gzip");
    let fields = fields(&profile);
    let of = |number: u64| fields.iter().filter(move |(known, _)| *known == number).map(|(_, bytes)| *bytes);
    let strings: Vec<_> = of(6).map(|text| std::str::from_utf8(text).expect("UTF-8")).collect();
    assert!(of(2).count() > 0 && of(5).count() > 0, "samples and functions: {strings:?}");
    for expected in ["cpu", "nanoseconds", "thread"] {
        assert!(strings.contains(&expected), "{expected}: {strings:?}");
    }
    for expected in ["worker-", "weft_proxy::", "quinn_proto::"] {
        assert!(strings.iter().any(|name| name.starts_with(expected)), "{expected}: {strings:?}");
    }
}
