//! Handshakes with servers outside: of which version, and who says who he is. Bytes below TLS end as they were ended.

use rustls::server::WebPkiClientVerifier;
use rustls::{ProtocolVersion, ServerConfig};
use rustls_pki_types::PrivatePkcs8KeyDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::{TlsAcceptor, server};

use super::*;
use crate::h1;
use crate::http::Frame;

static TLS12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];

struct Party {
    chain: CertificateDer<'static>,
    pem: String,
    key: rcgen::KeyPair,
}

fn party(name: &str) -> Party {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    Party { chain: made.cert.der().clone(), pem: made.cert.pem(), key: made.signing_key }
}

/// `asks`: for a certificate of this party.
fn server(own: &Party, versions: &[&'static SupportedProtocolVersion], asks: Option<&Party>) -> ServerConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions).unwrap();
    let builder = match asks {
        None => builder.with_no_client_auth(),
        Some(party) => {
            let mut roots = RootCertStore::empty();
            roots.add(party.chain.clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        }
    };
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(own.key.serialize_der()));
    builder.with_single_cert(vec![own.chain.clone()], key).unwrap()
}

type Accepted = io::Result<server::TlsStream<TcpStream>>;

async fn handshake(server: ServerConfig, terms: OutsideTerms<'_>) -> (io::Result<OutsideStream>, Accepted) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepting = async {
        let (stream, _) = listener.accept().await.unwrap();
        TlsAcceptor::from(Arc::new(server)).accept(stream).await
    };
    let config = Arc::new(outside_client_config(terms).unwrap());
    let connecting = async {
        let stream = TcpStream::connect(address).await.unwrap();
        begin(config, ServerName::try_from("x.test").unwrap(), stream).await
    };
    tokio::join!(connecting, accepting)
}

#[tokio::test]
async fn an_older_version_is_spoken_where_it_is_asked_for_and_needed() {
    let own = party("x.test");
    for (versions, takes_tls12, expect) in [
        (TLS13_OR_TLS12, false, Some(ProtocolVersion::TLSv1_3)),
        (TLS13_OR_TLS12, true, Some(ProtocolVersion::TLSv1_3)),
        (TLS12, true, Some(ProtocolVersion::TLSv1_2)),
        (TLS12, false, None),
    ] {
        let terms = OutsideTerms { roots_pem: Some(&own.pem), takes_tls12, ..OutsideTerms::default() };
        let (begun, _) = handshake(server(&own, versions, None), terms).await;
        let version = begun.ok().and_then(|stream| match stream {
            OutsideStream::Tls(stream) => stream.get_ref().1.protocol_version(),
            OutsideStream::Plain(_) => None,
        });
        assert_eq!(version, expect, "{versions:?} {takes_tls12}");
    }
}

#[tokio::test]
async fn who_asks_for_a_certificate_gets_the_one_that_is_named() {
    let (own, us, stranger) = (party("x.test"), party("us.test"), party("them.test"));
    let named = |party: &Party| outside_certificate(&party.pem, &party.key.serialize_pem()).unwrap();
    for versions in [TLS13, TLS12] {
        for (certificate, is_taken) in [(Some(named(&us)), true), (Some(named(&stranger)), false), (None, false)] {
            let roots_pem = Some(own.pem.as_str());
            let terms = OutsideTerms { roots_pem, takes_tls12: true, certificate, ..OutsideTerms::default() };
            let (_begun, accepted) = handshake(server(&own, versions, Some(&us)), terms).await;
            assert_eq!(accepted.is_ok(), is_taken, "{versions:?}");
        }
    }
    assert!(matches!(outside_certificate("", &us.key.serialize_pem()), Err(IdentityError::NoCertificate)));
    let foreign = outside_certificate(&us.pem, &stranger.key.serialize_pem());
    assert!(matches!(foreign, Err(IdentityError::Key(_))), "{foreign:?}");
}

/// Both directions end by themselves, and what breaks off is no end.
#[tokio::test]
async fn bytes_flow_below_tls_and_end_as_they_were_ended() {
    let own = party("x.test");
    for is_clean in [true, false] {
        let terms = OutsideTerms { roots_pem: Some(&own.pem), ..OutsideTerms::default() };
        let (begun, accepted) = handshake(server(&own, TLS13, None), terms).await;
        let (begun, mut far) = (begun.unwrap(), accepted.unwrap());
        let mut conn = h1::ClientConn::of_bytes(begun, h1::Limits::default());
        let (mut read, mut write) = conn.halves();
        // The server speaks first.
        far.write_all(b"hello").await.unwrap();
        far.flush().await.unwrap();
        assert!(matches!(read.frame().await, Ok(Some(Frame::Data(data))) if data == "hello"));
        write.data("bye".into()).await.unwrap();
        write.finish(None).await.unwrap();
        let mut got = Vec::new();
        far.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"bye", "and the other direction is open");
        far.write_all(b"more").await.unwrap();
        far.flush().await.unwrap();
        assert!(matches!(read.frame().await, Ok(Some(Frame::Data(data))) if data == "more"));
        if is_clean {
            far.shutdown().await.unwrap();
            assert!(matches!(read.frame().await, Ok(None)));
        } else {
            drop(far);
            assert!(read.frame().await.is_err(), "nobody ended it");
        }
    }
}
