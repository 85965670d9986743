//! Statements good and bad; the binary is any bytes.

use std::time::Duration;

use ed25519_dalek::pkcs8::EncodePublicKey as _;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::{Signer as _, SigningKey};
use weft_policy::bundle::{Direction, FilterMode, OnFailure, OverBody};

use super::*;

const WASM: &[u8] = b"any bytes";

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn statement() -> Statement {
    Statement {
        name: "mine".to_owned(),
        version: "1.0.0".to_owned(),
        abi: "weft:filter@0.2.0".to_owned(),
        digest: Digest::of(WASM).to_string(),
        schema: None,
        publisher: KeyId::of(key(1).verifying_key().as_bytes()),
    }
}

/// A spec with this statement, signed by the key of a seed.
fn spec(statement: &Statement, seed: u8) -> FilterSpec {
    let text = statement.to_string();
    let signature = STANDARD.encode(key(seed).sign(&signed_bytes(&text)).to_bytes());
    FilterSpec {
        name: "shop/f".to_owned(),
        filter: "mine".to_owned(),
        version: "1.0.0".to_owned(),
        digest: Digest::of(WASM),
        signature: key(1).sign(Digest::of(WASM).as_bytes()).to_bytes().to_vec(),
        public_key_pem: key(1).verifying_key().to_public_key_pem(LineEnding::LF).expect("a key"),
        statement: Some(SignedStatement { text, signature }),
        direction: Direction::Inbound,
        config_json: String::new(),
        on_failure: OnFailure::Deny,
        mode: FilterMode::Enforce,
        authorization: false,
        capabilities: Vec::new(),
        grants: Vec::new(),
        scope: String::new(),
        shipped: false,
        memory_bytes: 0,
        call_timeout: Duration::ZERO,
        body_bytes: 0,
        over_body: OverBody::Refuse,
    }
}

#[test]
fn a_statement_is_believed_about_what_it_says_alone() {
    let sound = spec(&statement(), 1);
    assert_eq!(verify(&sound, WASM), Ok(()));
    assert_eq!(verify(&spec(&statement(), 2), WASM), Err(VerifyError::Signature), "of another key");
    let about = |field: &str, spec: FilterSpec| match verify(&spec, WASM) {
        Err(VerifyError::Statement(StatementError::Other { field: found, .. })) => assert_eq!(found, field),
        other => panic!("{field}: {other:?}"),
    };
    about("name", FilterSpec { filter: "stamp".to_owned(), ..sound.clone() });
    about("version", FilterSpec { version: "3.0.0".to_owned(), ..sound.clone() });
    about("digest", spec(&Statement { digest: Digest::of(b"other").to_string(), ..statement() }, 1));
    about("publisher", spec(&Statement { publisher: KeyId::of(&[7; 32]), ..statement() }, 1));
    // The signature over the digest alone does not stand in for a statement that fails.
    let mut broken = sound.clone();
    broken.statement.as_mut().expect("there").text.push('x');
    assert_eq!(verify(&broken, WASM), Err(VerifyError::Signature));
    assert_eq!(verify(&FilterSpec { statement: None, ..sound }, WASM), Ok(()), "published before there were any");
}
