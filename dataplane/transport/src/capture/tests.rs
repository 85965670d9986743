//! The rules as text, and sockets on loopback. What needs a network namespace lives in the crate `tests`.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

fn run<F: std::future::Future>(test: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}

#[test]
fn rules_render_as_one_transaction() {
    let rules = Rules {
        name: "reviews-1".to_owned(),
        uid: Some(1337),
        exclude_uids: vec![1337, 101, 1337],
        exclude_ports: vec![15020, 22],
        exclude_cidrs: ["10.1.0.0/16", "10.1.2.3", "fd00::1/8", "169.254.169.254"]
            .map(|text| text.parse().unwrap())
            .to_vec(),
        ..Rules::default()
    };
    let expect = "table inet weft_reviews-1 {}
delete table inet weft_reviews-1
table inet weft_reviews-1 {
  chain outbound {
    type nat hook output priority -100; policy accept;
    meta l4proto != tcp return
    meta mark 0x77656674 meta skuid 1337 return
    fib daddr type local return
    meta skuid { 101, 1337 } return
    tcp dport { 22, 15020 } return
    ip daddr { 10.1.0.0/16, 169.254.0.0/16, 224.0.0.0/4, 255.255.255.255/32 } return
    ip6 daddr { fd00::/8, fe80::/10, ff00::/8 } return
    meta l4proto tcp redirect to :15001
  }
  chain inbound {
    type nat hook prerouting priority -99; policy accept;
    meta l4proto != tcp return
    iifname \"lo\" return
    fib daddr type != local return
    tcp dport { 22, 15000, 15001, 15006, 15020, 15080 } return
    meta l4proto tcp redirect to :15006
  }
  chain guard {
    type filter hook input priority 0; policy accept;
    tcp dport { 15001, 15006 } socket mark != 0x77656674 reject with tcp reset
    iifname \"lo\" return
    tcp dport { 15000, 15001, 15080 } reject with tcp reset
    tcp dport 15006 ct status & dnat == 0 reject with tcp reset
  }
}
";
    assert_eq!(rules.render(), expect);
}

#[test]
fn directions_and_exclusions_are_optional() {
    let rules = Rules { outbound_port: None, inbound_port: Some(1), exclude_ports: Vec::new(), ..Rules::default() };
    let text = rules.render();
    assert!(!text.contains("chain outbound") && !text.contains("{ }") && text.contains("redirect to :1\n"), "{text}");
    assert_eq!(rules.render_removal(), "table inet weft_proxy {}\ndelete table inet weft_proxy\n");
}

#[test]
fn each_proxy_has_a_table_of_its_own() {
    let table = |name: String| {
        let text = Rules { name, ..Rules::default() }.render_removal();
        text.split_whitespace().nth(2).unwrap().to_owned()
    };
    assert_eq!(table("a.b-1".to_owned()), "weft_a.b-1");
    let long = |end: &str| table("a".repeat(250) + end);
    assert_ne!(long("1"), long("2"));
    assert!(long("1").len() <= 255, "{}", long("1"));
    assert!(!table("x { }; flush ruleset".to_owned()).contains(' '));
}

#[test]
fn blocks_of_addresses_are_parsed_once() {
    for (text, shown) in [
        ("10.1.2.3/8", "10.0.0.0/8"),
        ("1.2.3.4", "1.2.3.4/32"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("::/0", "::/0"),
        ("fe80::1/10", "fe80::/10"),
        ("::1", "::1/128"),
    ] {
        assert_eq!(text.parse::<Cidr>().unwrap().to_string(), shown);
    }
    for text in [
        "",
        "10.0.0.0/33",
        "10.0.0.0/-1",
        "10.0.0/8",
        "::/129",
        "a/8",
        "10.0.0.0/8/8",
        "10.0.0.0/ 8",
        "1.1.1.1; flush ruleset",
    ] {
        let error = text.parse::<Cidr>().unwrap_err();
        assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
    }
}

#[test]
fn each_worker_has_its_listener_and_direct_connections_have_no_original_destination() {
    run(async {
        let first = listen_tcp("127.0.0.1:0".parse().unwrap(), true, None).unwrap();
        let address = first.local_addr().unwrap();
        let second = listen_tcp(address, true, None).unwrap();
        assert!(listen_tcp(address, false, None).is_err());
        let mut stream =
            connect_tcp(address, Some("127.0.0.2".parse().unwrap()), None, Duration::from_secs(5)).await.unwrap();
        assert_eq!(stream.local_addr().unwrap().ip().to_string(), "127.0.0.2");
        let (mut accepted, _) =
            tokio::select! { accepted = first.accept() => accepted, accepted = second.accept() => accepted }.unwrap();
        assert!(accepted.nodelay().unwrap() && stream.nodelay().unwrap());
        assert_eq!(original_dst(&accepted), None);
        stream.write_all(b"hello").await.unwrap();
        let mut bytes = [0u8; 5];
        accepted.read_exact(&mut bytes).await.unwrap();
    });
}

#[test]
fn refused_and_mapped_addresses() {
    run(async {
        let listener = listen_tcp("127.0.0.1:0".parse().unwrap(), false, None).unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let error = connect_tcp(address, None, None, Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        assert_eq!(unmapped("[::ffff:10.0.0.1]:80".parse().unwrap()), "10.0.0.1:80".parse().unwrap());
        assert_eq!(unmapped("[::1]:80".parse().unwrap()), "[::1]:80".parse().unwrap());
    });
}

/// In a process of its own, so that no other test dials meanwhile: see `dials_leave_descriptors_to_others`.
#[test]
#[ignore = "started by dials_leave_descriptors_to_others"]
fn bounded_process() {
    run(async {
        let listener = listen_tcp("127.0.0.1:0".parse().unwrap(), false, None).unwrap();
        let address = listener.local_addr().unwrap();
        let connect = || connect_tcp(address, None, None, Duration::from_secs(5));
        stop_dialling_at(64);
        let mut open = Vec::new();
        let refused = loop {
            match connect().await {
                Ok(stream) => open.push(stream),
                Err(error) => break error,
            }
            assert!(open.len() < 64);
        };
        assert!(refused.to_string().contains("no file descriptor is left"), "{refused}");
        assert_eq!(not_dialled(), 1);
        assert!(std::fs::File::open("/dev/null").is_ok(), "others still get one");
        open.pop();
        assert!(connect().await.is_ok(), "one that is closed makes room");
    });
}

#[test]
fn dials_leave_descriptors_to_others() {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "capture::tests::bounded_process", "--ignored"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

/// As root, in a namespace of its own.
mod real {
    use super::*;

    #[test]
    #[ignore = "needs root and nft: cargo xtask test --real"]
    fn a_check_sees_what_an_install_would_and_changes_nothing() {
        let tried = std::thread::spawn(|| {
            #[expect(unsafe_code, reason = "there is no other way into a namespace of its own")]
            // SAFETY: takes no pointers; only this thread, which ends with the test, is moved.
            let moved = unsafe { libc::unshare(libc::CLONE_NEWNET) };
            assert_eq!(moved, 0, "{}", std::io::Error::last_os_error());
            let named = |name: &str| Rules { name: name.to_owned(), ..Rules::default() };
            let (own, other) = (named("own"), named("other"));
            own.check().unwrap();
            assert_eq!(own.listing().unwrap(), None, "nothing was put in place");
            own.install().unwrap();
            let before = own.listing().unwrap();
            own.check().unwrap();
            assert_eq!(own.listing().unwrap(), before);
            let error = other.check().unwrap_err();
            assert!(matches!(&error, CaptureError::Taken(table) if table == "inet weft_own"), "{error}");
            assert_eq!(other.listing().unwrap(), None);
        });
        tried.join().unwrap();
    }
}
