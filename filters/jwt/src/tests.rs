//! Tokens and keys made by another implementation (OpenSSL; vectors.json): which count, under which keys.

mod fetched;

use std::time::Duration;

use serde_json::Value as Json;
use weft_filters_sdk::crypto::{self, Algorithm};
use weft_filters_sdk::testing::{self, Grants, Harness, TestRequest, advance, labelled_metric};
use weft_filters_sdk::{Edit, Outcome, Verdict};

use super::Jwt;
use super::key::Jwk;

const HS_KEY: &[u8] = b"a secret of the tests, 32 bytes..";

/// Keys, tokens that hold by them until the year 2100, and the keys' DER.
fn vector(pointer: &str) -> Json {
    let vectors: Json = serde_json::from_str(include_str!("../vectors.json")).expect("JSON");
    vectors.pointer(pointer).expect(pointer).clone()
}

fn config() -> String {
    vector("/config").to_string()
}

fn token(algorithm: &str) -> String {
    vector(&format!("/tokens/{algorithm}")).as_str().expect("text").to_owned()
}

fn der(algorithm: &str) -> Vec<u8> {
    hex(vector(&format!("/der/{algorithm}")).as_str().expect("text"))
}

fn harness(config: &str) -> Harness<Jwt> {
    granted(config, Grants::default().crypto())
}

fn granted(config: &str, grants: Grants) -> Harness<Jwt> {
    let harness = Harness::granted(config, grants).expect("a sound configuration");
    let public = [("RS256", Algorithm::Rs256), ("ES256", Algorithm::Es256), ("EdDSA", Algorithm::Ed25519)];
    for (name, algorithm) in public {
        let token = token(name);
        let (message, signature) = token.rsplit_once('.').expect("three parts");
        let signature = super::base64url::decode(signature).expect("sound");
        testing::signature_holds(algorithm, &der(name), message.as_bytes(), &signature);
    }
    harness
}

fn hex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("ASCII"));
    pairs.map(|pair| u8::from_str_radix(pair, 16).expect("hex")).collect()
}

fn bearing(token: &str) -> TestRequest {
    TestRequest::default().header("authorization", &format!("Bearer {token}"))
}

/// The edits, or status and reason.
fn told(outcome: &Outcome) -> String {
    let line = |edit: &Edit| match edit {
        Edit::Set(field) | Edit::Attribute(field) => {
            format!("{}={}", field.name, String::from_utf8_lossy(&field.value))
        }
        Edit::Remove(name) => format!("-{name}"),
        Edit::Add(_) | Edit::Path(_) | Edit::Authority(_) | Edit::Status(_) | Edit::Body(_) | Edit::Other(_) => {
            "another".to_owned()
        }
    };
    match &outcome.verdict {
        Verdict::Continue => outcome.edits.iter().map(line).collect::<Vec<_>>().join(" "),
        Verdict::Respond(reply) => format!("{} {}", reply.status, reply.reason),
        Verdict::Wait(ms) => format!("wait {ms}"),
        Verdict::ContinueAfter(_) | Verdict::Reset(_) | Verdict::Close(_) | Verdict::Other(_) => {
            "something else".to_owned()
        }
    }
}

/// A token signed with the secret of the tests.
fn signed(head: &str, claims: &str) -> String {
    let message = format!("{}.{}", base64(head.as_bytes()), base64(claims.as_bytes()));
    let signature = crypto::sign(HS_KEY, message.as_bytes()).expect("granted");
    format!("{message}.{}", base64(&signature))
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for block in bytes.chunks(3) {
        let bits = block.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - block.len()));
        for digit in 0..=block.len() {
            text.push(char::from(DIGITS[(bits >> (18 - 6 * digit) & 63) as usize]));
        }
    }
    text
}

const CLAIMS: &str = r#"filter.jwt.sub=ada filter.jwt-list.sub=["ada"] x-user=ada filter.jwt.roles=admin,dev filter.jwt-list.roles=["admin","dev"] -x-none"#;

#[test]
fn tokens_of_every_algorithm_count_under_their_keys() {
    let mut jwt = harness(&config());
    for token in ["RS256", "ES256", "EdDSA", "HS256"].map(token) {
        assert_eq!(told(&jwt.request(1, &bearing(&token))), CLAIMS, "{token}");
        // The signature's first digit differs, then one of the claims'.
        let (message, signature) = token.rsplit_once('.').expect("three parts");
        let other = if signature.starts_with('A') { "B" } else { "A" };
        let forged = format!("{message}.{other}{}", &signature[1..]);
        assert_eq!(told(&jwt.request(1, &bearing(&forged))), "401 jwt_bad_signature");
        let forged = token.replacen("eyJpc3Mi", "eyJpc3Nn", 1);
        assert_eq!(told(&jwt.request(1, &bearing(&forged))), "401 jwt_bad_signature");
    }
    assert_eq!(labelled_metric("tokens_refused_total", &["jwt_bad_signature"]), Some(8.0));
}

#[test]
fn keys_are_the_der_that_openssl_makes() {
    let key = |json: Json| serde_json::from_value::<Jwk>(json).expect("a key").key().expect("a sound key").bytes;
    for (index, name) in ["RS256", "ES256", "EdDSA"].into_iter().enumerate() {
        assert_eq!(key(vector(&format!("/config/keys/{index}"))), der(name), "{name}");
    }
    let mut padded = vector("/config/keys/0");
    padded["n"] = format!("AAAA{}", padded["n"].as_str().expect("text")).into();
    padded["e"] = "AAEAAQ".into();
    assert_eq!(key(padded), der("RS256"), "zeros in front");
}

#[test]
fn a_token_names_no_other_algorithm_than_its_key_s() {
    let mut jwt = harness(&config());
    let claims = r#"{"iss": "https://issuer.test", "aud": "shop", "exp": 4102444800}"#;
    for (head, expect) in [
        (r#"{"alg": "HS256"}"#, "-x-user -x-none"),
        (r#"{"alg": "HS256", "kid": "hs"}"#, "-x-user -x-none"),
        (r#"{"alg": "HS256", "kid": "rsa"}"#, "401 jwt_unknown_key"),
        (r#"{"alg": "none"}"#, "401 jwt_unknown_key"),
        (r#"{"alg": "RS256", "kid": "hs"}"#, "401 jwt_unknown_key"),
        (r#"{"alg": "ES256", "kid": "ec"}"#, "401 jwt_bad_signature"),
        (r#"{"alg": "HS256", "crit": ["exp"]}"#, "401 jwt_malformed"),
        (r#"{"kid": "hs"}"#, "401 jwt_malformed"),
    ] {
        assert_eq!(told(&jwt.request(1, &bearing(&signed(head, claims)))), expect, "{head}");
    }
}

#[test]
fn no_issuer_s_key_makes_tokens_of_another() {
    let of = |index: usize| vector(&format!("/config/keys/{index}"));
    let config = serde_json::json!({"providers": [
        {"issuer": "https://a.test", "keys": [of(3)]},
        {"issuer": "https://b.test", "audiences": ["shop"], "keys": [of(2)]},
    ]});
    let mut jwt = harness(&config.to_string());
    let claims = |issuer: &str| format!(r#"{{"iss": "{issuer}", "aud": "other", "exp": 4102444800}}"#);
    for (issuer, expect) in
        [("https://a.test", ""), ("https://b.test", "401 jwt_unknown_key"), ("https://c.test", "401 jwt_wrong_issuer")]
    {
        let token = signed(r#"{"alg": "HS256"}"#, &claims(issuer));
        assert_eq!(told(&jwt.request(1, &bearing(&token))), expect, "{issuer}");
    }
}

#[test]
fn every_member_of_a_claim_is_told() {
    let check = |claim: &str, expect: Option<&str>| {
        let claim: Json = serde_json::from_str(claim).unwrap();
        assert_eq!(super::members(&claim).as_deref(), expect, "{claim}");
    };
    check(r#""a,b""#, Some(r#"["a,b"]"#));
    check(r#"["a", null, {"b": 1}, ["c"], 7, true]"#, Some(r#"["a","","","","7","true"]"#));
    check(r#"["a\nb", "c"]"#, Some(r#"["a\nb","c"]"#));
    check("[]", Some("[]"));
    check(r#"{"a": 1}"#, Some(r#"[""]"#));
    check("null", None);
}

#[test]
fn claims_hold_now_and_here() {
    let mut jwt = harness(&config());
    advance(Duration::from_secs(1_000));
    for (claims, expect) in [
        (r#"{"iss": "https://issuer.test", "aud": ["x", "shop"], "exp": 941}"#, "-x-user -x-none"),
        (r#"{"iss": "https://issuer.test", "aud": "shop", "exp": 940}"#, "401 jwt_expired"),
        (r#"{"iss": "https://issuer.test", "aud": "shop", "exp": 940.5, "nbf": 1060}"#, "-x-user -x-none"),
        (r#"{"iss": "https://issuer.test", "aud": "shop", "exp": 2000, "nbf": 1061}"#, "401 jwt_not_yet_valid"),
        (r#"{"iss": "https://issuer.test", "aud": "shop"}"#, "401 jwt_malformed"),
        (r#"{"iss": "https://issuer.test", "aud": "shop", "exp": "2000"}"#, "401 jwt_malformed"),
        (r#"{"iss": "https://issuer.test", "exp": 2000}"#, "401 jwt_wrong_audience"),
        (r#"{"iss": "https://issuer.test", "aud": ["x"], "exp": 2000}"#, "401 jwt_wrong_audience"),
        (r#"{"iss": "https://issuer.test/", "aud": "shop", "exp": 2000}"#, "401 jwt_wrong_issuer"),
        (r#"{"aud": "shop", "exp": 2000}"#, "401 jwt_wrong_issuer"),
        (
            r#"{"iss": "https://issuer.test", "aud": "shop", "exp": 2000, "sub": "a\nb"}"#,
            r#"filter.jwt-list.sub=["a\nb"] -x-user -x-none"#,
        ),
        ("[]", "401 jwt_malformed"),
    ] {
        assert_eq!(told(&jwt.request(1, &bearing(&signed(r#"{"alg": "HS256"}"#, claims)))), expect, "{claims}");
    }
}

#[test]
fn requests_without_one_token_and_those_that_may_be() {
    let mut jwt = harness(&config());
    let get = TestRequest::default;
    for (request, expect) in [
        (get(), "401 jwt_missing"),
        (get().header("authorization", "Basic YTpi"), "401 jwt_missing"),
        (get().header("authorization", "Bearers a.b.c"), "401 jwt_missing"),
        (get().header("authorization", "bearer  nonsense"), "401 jwt_malformed"),
        (get().header("authorization", "Bearer a.b.c"), "401 jwt_malformed"),
        (bearing(&token("HS256")).header("authorization", "Basic YTpi"), "401 jwt_malformed"),
        (bearing(&"a".repeat((16 << 10) + 1)), "401 jwt_malformed"),
    ] {
        assert_eq!(told(&jwt.request(1, &request)), expect, "{:?}", request.headers);
    }
    let mut optional =
        harness(&config().replacen('{', r#"{"optional": true, "header": "x-token", "remove": true, "#, 1));
    assert_eq!(told(&optional.request(1, &get().header("x-user", "forged"))), "-x-token -x-user -x-none");
    assert_eq!(told(&optional.request(1, &get().header("x-token", &token("HS256")))), format!("-x-token {CLAIMS}"));
    assert_eq!(told(&optional.request(1, &get().header("x-token", "bad"))), "401 jwt_malformed");
    // What an app may read as a token does not pass as other credentials.
    let mut optional = harness(&config().replacen('{', r#"{"optional": true, "#, 1));
    for credentials in ["", "Basic YTpi", "Negotiate", "Bearerish a.b.c"] {
        let outcome = optional.request(1, &get().header("authorization", credentials));
        assert_eq!(told(&outcome), "-x-user -x-none", "{credentials:?}");
    }
    for credentials in [
        "Bearer",
        "bearer\ta.b.c",
        "Bearer\u{a0}a.b.c",
        "Bearer,a.b.c",
        "Bearer:a.b.c",
        "\"Bearer a.b.c",
        ", Bearer a.b.c",
    ] {
        let outcome = optional.request(1, &get().header("authorization", credentials));
        assert_eq!(told(&outcome), "401 jwt_malformed", "{credentials:?}");
    }
}

#[test]
fn without_the_capability_nothing_passes() {
    let mut jwt = Harness::<Jwt>::new(&config()).expect("a sound configuration");
    assert_eq!(told(&jwt.request(1, &bearing(&token("RS256")))), "503 jwt_unverifiable");
}

#[test]
fn a_bad_configuration_says_where() {
    let with = |key: &str| format!(r#"{{"issuers": ["a"], "keys": [{key}]}}"#);
    let fetched = |jwks: &str| format!(r#"{{"providers": [{{"issuer": "a", "jwks": {{{jwks}}}}}]}}"#);
    let sound = r#"{"kty": "OKP", "crv": "Ed25519", "x": "MpXRS4BcScpcKXs3XDqTZfQEThzx64nYH4PAi8j9_Wc"}"#;
    for (config, word) in [
        (with(""), "keys: 0"),
        (format!(r#"{{"issuers": [], "keys": [{sound}]}}"#), "issuers"),
        (format!(r#"{{"issuers": ["a"], "leeway_seconds": 3601, "keys": [{sound}]}}"#), "leeway_seconds"),
        (format!(r#"{{"issuers": ["a"], "header": "host", "keys": [{sound}]}}"#), "header:"),
        (format!(r#"{{"issuers": ["a"], "claims": [{{"claim": "a b"}}], "keys": [{sound}]}}"#), "claims[0].claim"),
        (
            format!(r#"{{"issuers": ["a"], "claims": [{{"claim": "Sub"}}, {{"claim": "sub"}}], "keys": [{sound}]}}"#),
            "claims[1].claim: filter.jwt.sub is told of claims[0] already",
        ),
        (with(r#"{"kty": "oct", "k": "YWJj"}"#), "keys[0].k: 3 bytes"),
        (with(r#"{"kty": "oct", "k": "a+b"}"#), "keys[0].k: it is not base64url"),
        (with(r#"{"kty": "RSA", "n": "AQAB", "e": "AQAB"}"#), "keys[0].n: 17 bits"),
        (with(r#"{"kty": "RSA", "e": "AQAB"}"#), "keys[0].n: it is missing"),
        (with(r#"{"kty": "EC", "crv": "P-384"}"#), "keys[0].crv"),
        (with(r#"{"kty": "EC", "crv": "P-256", "x": "AQAB", "y": "AQAB"}"#), "keys[0].x: 3 bytes"),
        (with(&sound.replacen('{', r#"{"alg": "ES256", "#, 1)), "keys[0].alg"),
        (with(&sound.replacen('{', r#"{"use": "enc", "#, 1)), "keys[0].use"),
        (with(&sound.replacen('{', r#"{"d": "x", "#, 1)), "keys[0].d"),
        (r#"{"providers": []}"#.to_owned(), "providers: 0 of them"),
        (format!(r#"{{"providers": [{{"issuer": "a", "keys": [{sound}]}}], "issuers": ["a"]}}"#), "providers: each"),
        (r#"{"providers": [{"issuer": "a", "keys": []}]}"#.to_owned(), "providers[0].keys: 0"),
        (
            format!(
                r#"{{"providers": [{{"issuer": "a", "keys": [{sound}], "jwks": {{"callout": "i", "path": "/"}}}}]}}"#
            ),
            "providers[0].jwks: keys are given",
        ),
        (fetched(r#""callout": "", "path": "/jwks""#), "providers[0].jwks.callout"),
        (fetched(r#""callout": "idp", "path": "jwks""#), "providers[0].jwks.path"),
        (fetched(r#""callout": "idp", "path": "/jwks", "cache_seconds": 9"#), "providers[0].jwks.cache_seconds: 9"),
        (fetched(r#""callout": "idp", "path": "/", "stale_seconds": 604801"#), "providers[0].jwks.stale_seconds"),
        (fetched(r#""callout": "idp", "path": "/", "timeout_ms": 0"#), "providers[0].jwks.timeout_ms"),
    ] {
        let error = Harness::<Jwt>::new(&config).expect_err("not a configuration");
        assert!(error.contains(word), "{config}: {error}");
    }
}
