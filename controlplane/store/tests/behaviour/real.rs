//! The suite on a real etcd, and how the store goes on when members are killed, stopped or full.

#[allow(unreachable_pub, dead_code, reason = "several crates' tests use it, none of them all of it")]
#[path = "../../../../tests/src/etcd.rs"]
mod cluster;
mod relay;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use weft_store::{Error, Etcd, EtcdOptions, EtcdTls, Event, Location, Store as _, Write};

use self::cluster::Cluster;
use self::relay::Relay;
use crate::suite::{self, Opened, TABLE, get, next, put, version, write};

fn options(cluster: &Cluster, prefix: &str) -> EtcdOptions {
    let location: Location = cluster.location(prefix).parse().unwrap();
    EtcdOptions { members: location.members, prefix: location.prefix, tls: None, user: None }
}

async fn open(cluster: &Cluster, prefix: &str) -> Opened {
    Arc::new(Etcd::open(&options(cluster, prefix)).await.unwrap())
}

/// All of the suite, each part below a prefix of its own.
async fn holds(members: usize) {
    let cluster = Cluster::start(members);
    suite::commits_land_whole_or_not_at_all(&async || open(&cluster, "a").await).await;
    suite::ranges_are_of_one_moment_and_in_order(&async || open(&cluster, "b").await).await;
    suite::large_commits_and_blobs(&async || open(&cluster, "c").await).await;
    suite::a_watch_tells_every_commit_once_and_in_order(&async || open(&cluster, "d").await).await;
    suite::what_is_held_goes_with_its_session(&async || open(&cluster, "e").await).await;
    suite::of_many_at_once_none_is_lost_or_applied_twice(&async || open(&cluster, "f").await).await;
    suite::what_is_tidied_is_named_by_nothing(&async || open(&cluster, "g").await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "real"]
async fn one_member_keeps_every_promise() {
    holds(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "real"]
async fn three_members_keep_every_promise() {
    holds(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "real"]
async fn a_silent_member_costs_two_seconds_at_the_most() {
    let cluster = Cluster::start(1);
    // It takes connections and says nothing; the next one refuses them.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let refusing = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut options = options(&cluster, "x");
    options.members = vec![silent.local_addr().unwrap().to_string(), refusing.to_string(), options.members.remove(0)];
    let began = Instant::now();
    let store = Etcd::open(&options).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let began = Instant::now();
    put(&store, "a", "1").await;
    assert!(began.elapsed() < Duration::from_secs(1), "who answers is asked: {:?}", began.elapsed());
}

/// The answer of a commit is lost and it is sent again: it is applied once, and its version is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "real"]
async fn a_commit_whose_answer_is_lost_is_applied_once() {
    let cluster = Cluster::start(1);
    let relay = Relay::to(cluster.members().remove(0)).await;
    let direct = open(&cluster, "x").await;
    let mut options = options(&cluster, "x");
    options.members = vec![relay.address.clone()];
    let store = Etcd::open(&options).await.unwrap();
    let mut known = put(&store, "a", "0").await;
    let mut events = direct.watch(known);
    for number in 1..=5 {
        relay.lose_the_next_answer();
        let landed = store.commit(known, vec![write("a", &number.to_string())]).await.unwrap();
        let Event::Commit { version: told, .. } = next(&mut events).await else { panic!("no commit") };
        assert_eq!((told, version(&*direct).await), (landed, landed));
        assert_eq!(relay.lost(), number, "an answer was lost");
        known = landed;
    }
}

/// A process that ends in the middle of a large commit: whoever reads next finds all of it or nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "real"]
async fn a_large_commit_that_is_cut_off_lands_whole_or_not_at_all() {
    const ROWS: usize = 500;
    let cluster = Cluster::start(1);
    let (mut landed, mut lost) = (0, 0);
    for round in 0..60_u32 {
        let (store, other) = (open(&cluster, "x").await, open(&cluster, "x").await);
        let value = format!("round {round}");
        let writes = (0..ROWS).map(|row| write(&format!("row/{row:03}"), &value)).collect();
        let known = version(&*store).await;
        let cut = tokio::time::timeout(Duration::from_micros(500) * round, store.commit(known, writes)).await;
        let rows = other.read(vec![weft_store::Range::all(TABLE)], usize::MAX).await.unwrap().rows.remove(0);
        let new = rows.iter().filter(|row| row.value == value.as_bytes()).count();
        assert!(new == 0 || new == ROWS && rows.len() == ROWS, "round {round}: {new} of {}", rows.len());
        match (new, cut) {
            (0, Err(_)) => lost += 1,
            (_, Err(_)) => landed += 1,
            (0, Ok(answer)) => panic!("round {round}: {answer:?} and nothing is there"),
            (_, Ok(answer)) => drop(answer.unwrap()),
        }
    }
    assert!(lost > 0, "cut off: {landed} landed, {lost} did not");
    // What was staged in vain is cleaned up, and nothing else.
    let store = open(&cluster, "x").await;
    for _ in 0..3 {
        store.tidy(Duration::from_secs(60), &[]).await.unwrap();
    }
    assert_eq!(store.read(vec![weft_store::Range::all(TABLE)], usize::MAX).await.unwrap().rows[0].len(), ROWS);
}

/// What etcd's own tools do, by the gateway that every member has.
async fn ask(cluster: &Cluster, path: &str, body: &str) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let member = cluster.members().remove(0);
    let mut stream = tokio::net::TcpStream::connect(&member).await.unwrap();
    let head = format!("POST /v3/{path} HTTP/1.1\r\nHost: {member}\r\nConnection: close\r\n");
    let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "real"]
async fn a_user_signs_in_and_does_so_again_when_its_token_is_over() {
    let cluster = Cluster::start_with(1, &["--auth-token-ttl", "1", "--logger", "zap", "--log-level", "debug"]);
    ask(&cluster, "auth/user/add", r#"{"name": "root", "password": "right"}"#).await;
    ask(&cluster, "auth/role/add", r#"{"name": "root"}"#).await;
    ask(&cluster, "auth/user/grant", r#"{"user": "root", "role": "root"}"#).await;
    ask(&cluster, "auth/enable", "{}").await;
    let as_user = |user: Option<(&str, &str)>| {
        let user = user.map(|(name, password)| (name.to_owned(), password.to_owned()));
        EtcdOptions { user, ..options(&cluster, "x") }
    };
    let refused = Etcd::open(&as_user(None)).await.err().unwrap();
    assert!(refused.to_string().contains("user name is empty"), "{refused}");
    let refused = Etcd::open(&as_user(Some(("root", "wrong")))).await.err().unwrap();
    assert!(refused.to_string().contains("authentication failed"), "{refused}");
    let store = Etcd::open(&as_user(Some(("root", "right")))).await.unwrap();
    let ended = || cluster.log(0).matches("deleted a simple token").count();
    let mut events = store.watch(put(&store, "a", "0").await);
    for number in 1..4 {
        // A token that is not used lasts a second; the store has the only one.
        let known = ended();
        let is_over = async {
            while ended() == known {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(suite::SOON, is_over).await.expect("a token ends");
        let landed = put(&store, "a", &number.to_string()).await;
        let Event::Commit { version: told, .. } = next(&mut events).await else { panic!("no commit") };
        assert_eq!(told, landed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "real"]
async fn members_die_and_are_silent_in_turn() {
    let mut cluster = Cluster::start(3);
    let store = open(&cluster, "x").await;
    put(&*store, "a", "0").await;
    let mut events = store.watch(version(&*store).await);
    // Each in turn, so that the leader is among them, and the one that is asked.
    for number in 0..3 {
        for is_killed in [true, false] {
            match is_killed {
                true => cluster.kill(number),
                false => cluster.signal(number, "STOP"),
            }
            // Reads and writes go on as soon as there is a leader, which takes its own time after the election's timeout.
            let began = Instant::now();
            let value = format!("{number} {is_killed}");
            let landed = loop {
                let tried = match store.read(Vec::new(), 0).await {
                    Ok(newest) => store.commit(newest.version, vec![write("a", &value)]).await,
                    Err(error) => Err(error),
                };
                match tried {
                    Ok(landed) => break landed,
                    Err(Error::Conflict | Error::Unreachable(_)) => {}
                    Err(error) => panic!("{error}"),
                }
                assert!(began.elapsed() < suite::SOON, "no member answers");
            };
            let took = began.elapsed();
            let Event::Commit { version: told, .. } = next(&mut events).await else { panic!("no commit") };
            assert_eq!(told, landed, "member {number}, killed: {is_killed}");
            // An election takes up to three of its timeouts, of a second each, and as many again where two split the votes.
            assert!(took < Duration::from_secs(15), "member {number}, killed: {is_killed}: {took:?}");
            match is_killed {
                true => cluster.start_again(number),
                false => cluster.signal(number, "CONT"),
            }
        }
    }
}

/// A session lasts as long as its process, however short its life is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "real"]
async fn a_session_that_lives_is_kept() {
    const LIFE: Duration = Duration::from_secs(2);
    let cluster = Cluster::start(1);
    let (store, other) = (open(&cluster, "x").await, open(&cluster, "x").await);
    let session = store.session(LIFE).await.unwrap();
    let row = weft_store::Row { key: "p".into(), value: "1".into() };
    let held = vec![row];
    session.hold(held.clone()).await.unwrap();
    let began = Instant::now();
    while began.elapsed() < 3 * LIFE {
        assert_eq!(other.held().await.unwrap(), held, "after {:?}", began.elapsed());
        assert!(!session.has_ended());
        put(&*other, "a", "1").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "real"]
async fn without_etcd_it_says_so_and_is_back_by_itself() {
    let mut cluster = Cluster::start(1);
    let store = open(&cluster, "x").await;
    let before = put(&*store, "a", "1").await;
    let mut events = store.watch(before);
    let session = store.session(Duration::from_secs(3)).await.unwrap();
    cluster.kill(0);
    let refused = store.commit(before, vec![write("a", "2")]).await.unwrap_err();
    assert!(matches!(&refused, Error::Unreachable(reason) if reason.contains("127.0.0.1")), "{refused}");
    assert!(store.fault().is_some());
    // While it is known to fail nobody waits long.
    let began = Instant::now();
    store.commit(before, vec![write("a", "2")]).await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    let ended = async {
        while !session.has_ended() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(suite::SOON, ended).await.expect("a session ends that can't be kept");
    cluster.start_again(0);
    let mut landed = None;
    while landed.is_none() {
        let Ok(found) = store.read(Vec::new(), 0).await else { continue };
        landed = store.commit(found.version, vec![write("a", "3")]).await.ok();
    }
    let Event::Commit { version: told, .. } = next(&mut events).await else { panic!("no commit") };
    assert_eq!(Some(told), landed);
    // The watch may have told of the fault at the last moment: what is written says that it is over.
    put(&*store, "b", "1").await;
    assert_eq!(store.fault(), None);
    assert_eq!(get(&*store, "a").await.as_deref(), Some("3"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "real"]
async fn a_full_etcd_is_read_and_says_why_it_takes_nothing() {
    let cluster = Cluster::start_with(1, &["--quota-backend-bytes", "4194304"]);
    let store = open(&cluster, "x").await;
    put(&*store, "a", "1").await;
    let refused = loop {
        let blob = Bytes::from(rand::random::<[u8; 32]>().repeat(20_000));
        let write = Write::PutBlob { table: "artifacts", key: "d".into(), value: blob };
        if let Err(error) = store.commit(version(&*store).await, vec![write]).await {
            break error;
        }
    };
    assert!(refused.to_string().contains("database space exceeded"), "{refused}");
    assert!(store.fault().is_some_and(|fault| fault.reason.contains("database space exceeded")));
    assert_eq!(get(&*store, "a").await.as_deref(), Some("1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "real"]
async fn history_is_forgotten_and_who_needs_it_is_told() {
    let cluster = Cluster::start(1);
    let store = open(&cluster, "x").await;
    let first = put(&*store, "a", "1").await;
    put(&*store, "a", "2").await;
    for _ in 0..2 {
        store.tidy(Duration::ZERO, &[]).await.unwrap();
    }
    put(&*store, "a", "3").await;
    store.tidy(Duration::ZERO, &[]).await.unwrap();
    let mut events = store.watch(first);
    assert_eq!(next(&mut events).await, Event::Compacted);
    assert_eq!(get(&*store, "a").await.as_deref(), Some("3"));
    let refused = store.commit(first, vec![write("b", &"x".repeat(600_000))]).await.unwrap_err();
    assert_eq!(refused.to_string(), "objects/b has 600000 bytes; the store takes at most 524288");
    assert_eq!(TABLE, "objects");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "real"]
async fn tls_is_spoken_and_strangers_are_refused() {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};

    let dir = tempfile::tempdir().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let ca = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let signed = || {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::IpAddress("127.0.0.1".parse().unwrap())];
        (params.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
    };
    let (server, client) = (signed(), signed());
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (ca_file, cert, key) = (file("ca.pem", &ca), file("cert.pem", &server.0), file("key.pem", &server.1));
    let arguments = [
        format!("--cert-file={cert}"),
        format!("--key-file={key}"),
        format!("--trusted-ca-file={ca_file}"),
        "--client-cert-auth".to_owned(),
    ];
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let cluster = Cluster::start_with(1, &arguments);
    let with = |tls| EtcdOptions { tls, ..options(&cluster, "x") };
    let store = Etcd::open(&with(Some(EtcdTls { ca: ca.clone(), identity: Some(client) }))).await.unwrap();
    put(&store, "a", "1").await;
    assert_eq!(get(&store, "a").await.as_deref(), Some("1"));
    let refused = Etcd::open(&with(Some(EtcdTls { ca, identity: None }))).await.err().unwrap();
    assert!(matches!(refused, Error::Unreachable(_)), "{refused}");
    let refused = Etcd::open(&with(None)).await.err().unwrap();
    assert!(matches!(refused, Error::Unreachable(_)), "{refused}");
}
