//! Tokens and keys made by another implementation (OpenSSL, by Python's cryptography): which count, under which keys.

use std::time::Duration;

use weft_filters_sdk::crypto::{self, Algorithm};
use weft_filters_sdk::testing::{self, Grants, Harness, TestRequest, advance, labelled_metric};
use weft_filters_sdk::{Edit, Outcome, Verdict};

use super::Jwt;
use super::key::Jwk;

const N: &str = "tlZdTv_yIka1ETA6VgiBc_TNP6AR-B3_skN56ybbdqL064-8AgMdzzdyy_kcpVDHYkTx2kl0zXdGW4NTC1cPPckSEWw0AVIDli6CZZYK7\
     dBPeU2EFOgvs_uvj2hUFnsY9KerPCLPGhIEgLokfSbUml9BzHLR8PaIIz04kCS5I92ExAN6Jb5YuFWqIGV5ABfThREGGjTwyDBEyLUhdZ\
     qrrbTOU_wn2DX0LUNsYV5hluNeXIC7ROYU7Li7D4vUuIjBg68vD4_lOMfxxgbxWevXxQ58GDcdTRZEq64_qgcAZRiwVgWwaLVcs6aMjV7\
     Te8lOZX4it6GyK3hPLgF1czyNZQ";
const RSA_DER: &str = "30820122300d06092a864886f70d01010105000382010f003082010a0282010100b6565d4efff22246b511303a56088173f4cd3fa\
     011f81dffb24379eb26db76a2f4eb8fbc02031dcf3772cbf91ca550c76244f1da4974cd77465b83530b570f3dc912116c34015203\
     962e8265960aedd04f794d8414e82fb3fbaf8f6854167b18f4a7ab3c22cf1a120480ba247d26d49a5f41cc72d1f0f688233d38902\
     4b923dd84c4037a25be58b855aa2065790017d38511061a34f0c83044c8b521759aabadb4ce53fc27d835f42d436c615e6196e35e\
     5c80bb44e614ecb8bb0f8bd4b888c183af2f0f8fe538c7f1c606f159ebd7c50e7c18371d4d1644abae3faa07006518b05605b068b\
     55cb3a68c8d5ed37bc94e657e22b7a1b22b784f2e0175733c8d650203010001";
const RSA_TOKEN: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6InJzYSIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJodHRwczovL2lzc3Vlci50ZXN0IiwiYXVkIjpbInNo\
     b3AiLCJ3ZWIiXSwic3ViIjoiYWRhIiwiZXhwIjo0MTAyNDQ0ODAwLCJzY29wZSI6InJlYWQgd3JpdGUiLCJyb2xlcyI6WyJhZG1pbiIsI\
     mRldiJdfQ.AiP87edYoqHH_sngQnpVIYpKTqfMpfcOXtNflbxz0wSr-_ggjxGcslHKyxwSe4R5HbZY4dviHdunX7-Nr01CjQaey8yvcGi\
     hHyxCn9EJxrKTiIKjjy4faqXHVuhRUVKqPnn2Jb1wR7PkkCRvMsy2httOjeQfSBOPoq1c18NqvqtpzaCPxXp4GN5iLbpR2x5qDVAUaRMn\
     QWl4y1jG-udtjClCvRysIpryFGzuHWTvBCBy5Sw3MKjX5sNUUwMtUaim98rBqKDHakfKPpVdhVmtJ5bEwc7VerqIrB30zkMgbDPUG8hY-\
     Wxkm8zzKEK91DyGTc_EQGyd2tQrOJ9voZYQfg";
const EC_DER: &str = "3059301306072a8648ce3d020106082a8648ce3d03010703420004a99dc54562c10793b3f845d1939349e728707263258135c37b6\
     365a64a514e28c8f59db7fd1f3920638b77d82055ee241083fc0bb76c8ee3648ba7d9d7a96509";
const EC_TOKEN: &str = "eyJhbGciOiJFUzI1NiIsImtpZCI6ImVjIiwidHlwIjoiSldUIn0.eyJpc3MiOiJodHRwczovL2lzc3Vlci50ZXN0IiwiYXVkIjpbInNob\
     3AiLCJ3ZWIiXSwic3ViIjoiYWRhIiwiZXhwIjo0MTAyNDQ0ODAwLCJzY29wZSI6InJlYWQgd3JpdGUiLCJyb2xlcyI6WyJhZG1pbiIsIm\
     RldiJdfQ.l_Ev3R6YxHGK06SkVy5k6vEB-I-zelJfqMf7p5ZAUKmbPslb-M6u5kPs0uU-njieajKzc23kAq2JMDcAsAYE3A";
const ED_DER: &str = "302a300506032b65700321003295d14b805c49ca5c297b375c3a9365f4044e1cf1eb89d81f83c08bc8fdfd67";
const ED_TOKEN: &str = "eyJhbGciOiJFZERTQSIsImtpZCI6ImVkIiwidHlwIjoiSldUIn0.eyJpc3MiOiJodHRwczovL2lzc3Vlci50ZXN0IiwiYXVkIjpbInNob\
     3AiLCJ3ZWIiXSwic3ViIjoiYWRhIiwiZXhwIjo0MTAyNDQ0ODAwLCJzY29wZSI6InJlYWQgd3JpdGUiLCJyb2xlcyI6WyJhZG1pbiIsIm\
     RldiJdfQ.7gikbqTcCqlYzMfCK9UvNpUo08Nq5xlRQH7mXT_tt4mjCZmrdViY_xQ8yZ3aOAzBl_QLt5d0ABmRc-PAGGd9DQ";
const HS_TOKEN: &str = "eyJhbGciOiJIUzI1NiIsImtpZCI6ImhzIiwidHlwIjoiSldUIn0.eyJpc3MiOiJodHRwczovL2lzc3Vlci50ZXN0IiwiYXVkIjpbInNob\
     3AiLCJ3ZWIiXSwic3ViIjoiYWRhIiwiZXhwIjo0MTAyNDQ0ODAwLCJzY29wZSI6InJlYWQgd3JpdGUiLCJyb2xlcyI6WyJhZG1pbiIsIm\
     RldiJdfQ.uCFruScWZAfUP76B4dzXW7gWaib68WQJfVJufBYxVSE";
const HS_KEY: &[u8] = b"a secret of the tests, 32 bytes..";

/// The keys of the tokens above, and rules that they hold by.
fn config() -> String {
    format!(
        r#"{{"keys": [
            {{"kty": "RSA", "kid": "rsa", "alg": "RS256", "use": "sig", "n": "{N}", "e": "AQAB", "x5t": "let pass"}},
            {{"kty": "EC", "kid": "ec", "crv": "P-256", "x": "qZ3FRWLBB5Oz-EXRk5NJ5yhwcmMlgTXDe2NlpkpRTig",
              "y": "yPWdt_0fOSBji3fYIFXuJBCD_Au3bI7jZIun2depZQk"}},
            {{"kty": "OKP", "kid": "ed", "crv": "Ed25519", "x": "MpXRS4BcScpcKXs3XDqTZfQEThzx64nYH4PAi8j9_Wc"}},
            {{"kty": "oct", "kid": "hs", "k": "YSBzZWNyZXQgb2YgdGhlIHRlc3RzLCAzMiBieXRlcy4u"}}],
          "issuers": ["https://issuer.test"], "audiences": ["shop"],
          "claims": [{{"claim": "sub", "header": "x-user"}}, {{"claim": "roles"}}, {{"claim": "none", "header": "x-none"}}]}}"#
    )
}

fn harness(config: &str) -> Harness<Jwt> {
    let harness = Harness::granted(config, Grants::default().crypto()).expect("a sound configuration");
    for (algorithm, der, token) in [
        (Algorithm::Rs256, RSA_DER, RSA_TOKEN),
        (Algorithm::Es256, EC_DER, EC_TOKEN),
        (Algorithm::Ed25519, ED_DER, ED_TOKEN),
    ] {
        let (message, signature) = token.rsplit_once('.').expect("three parts");
        let signature = super::base64url::decode(signature).expect("sound");
        testing::signature_holds(algorithm, &hex(der), message.as_bytes(), &signature);
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
        Verdict::ContinueAfter(_) | Verdict::Wait(_) | Verdict::Reset(_) | Verdict::Close(_) | Verdict::Other(_) => {
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

const CLAIMS: &str = "filter.jwt.sub=ada x-user=ada filter.jwt.roles=admin,dev -x-none";

#[test]
fn tokens_of_every_algorithm_count_under_their_keys() {
    let mut jwt = harness(&config());
    for token in [RSA_TOKEN, EC_TOKEN, ED_TOKEN, HS_TOKEN] {
        assert_eq!(told(&jwt.request(1, &bearing(token))), CLAIMS, "{token}");
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
    let key = |json: &str| serde_json::from_str::<Jwk>(json).expect("a key").key().expect("a sound key").bytes;
    assert_eq!(key(&format!(r#"{{"kty": "RSA", "n": "{N}", "e": "AQAB"}}"#)), hex(RSA_DER));
    assert_eq!(key(&format!(r#"{{"kty": "RSA", "n": "AAAA{N}", "e": "AAEAAQ"}}"#)), hex(RSA_DER), "zeros in front");
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
        (r#"{"iss": "https://issuer.test", "aud": "shop", "exp": 2000, "sub": "a\nb"}"#, "-x-user -x-none"),
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
        (get().header("authorization", "bearer  nonsense"), "401 jwt_malformed"),
        (get().header("authorization", "Bearer a.b.c"), "401 jwt_malformed"),
        (bearing(HS_TOKEN).header("authorization", "Basic YTpi"), "401 jwt_malformed"),
        (bearing(&"a".repeat((16 << 10) + 1)), "401 jwt_malformed"),
    ] {
        assert_eq!(told(&jwt.request(1, &request)), expect, "{:?}", request.headers);
    }
    let mut optional =
        harness(&config().replacen('{', r#"{"optional": true, "header": "x-token", "remove": true, "#, 1));
    assert_eq!(told(&optional.request(1, &get().header("x-user", "forged"))), "-x-token -x-user -x-none");
    assert_eq!(told(&optional.request(1, &get().header("x-token", HS_TOKEN))), format!("-x-token {CLAIMS}"));
    assert_eq!(told(&optional.request(1, &get().header("x-token", "bad"))), "401 jwt_malformed");
}

#[test]
fn without_the_capability_nothing_passes() {
    let mut jwt = Harness::<Jwt>::new(&config()).expect("a sound configuration");
    assert_eq!(told(&jwt.request(1, &bearing(RSA_TOKEN))), "503 jwt_unverifiable");
}

#[test]
fn a_bad_configuration_says_where() {
    let with = |key: &str| format!(r#"{{"issuers": ["a"], "keys": [{key}]}}"#);
    let sound = r#"{"kty": "OKP", "crv": "Ed25519", "x": "MpXRS4BcScpcKXs3XDqTZfQEThzx64nYH4PAi8j9_Wc"}"#;
    for (config, word) in [
        (with(""), "keys: 0"),
        (format!(r#"{{"issuers": [], "keys": [{sound}]}}"#), "issuers"),
        (format!(r#"{{"issuers": ["a"], "leeway_seconds": 3601, "keys": [{sound}]}}"#), "leeway_seconds"),
        (format!(r#"{{"issuers": ["a"], "header": "host", "keys": [{sound}]}}"#), "header:"),
        (format!(r#"{{"issuers": ["a"], "claims": [{{"claim": "a b"}}], "keys": [{sound}]}}"#), "claims[0].claim"),
        (with(r#"{"kty": "oct", "k": "YWJj"}"#), "keys[0].k: 3 bytes"),
        (with(r#"{"kty": "oct", "k": "a+b"}"#), "keys[0].k: it is not base64url"),
        (with(r#"{"kty": "RSA", "n": "AQAB", "e": "AQAB"}"#), "keys[0].n: 17 bits"),
        (with(r#"{"kty": "RSA", "e": "AQAB"}"#), "keys[0].n: it is missing"),
        (with(r#"{"kty": "EC", "crv": "P-384"}"#), "keys[0].crv"),
        (with(r#"{"kty": "EC", "crv": "P-256", "x": "AQAB", "y": "AQAB"}"#), "keys[0].x: 3 bytes"),
        (with(&sound.replacen('{', r#"{"alg": "ES256", "#, 1)), "keys[0].alg"),
        (with(&sound.replacen('{', r#"{"use": "enc", "#, 1)), "keys[0].use"),
        (with(&sound.replacen('{', r#"{"d": "x", "#, 1)), "keys[0].d"),
    ] {
        let error = Harness::<Jwt>::new(&config).expect_err("not a configuration");
        assert!(error.contains(word), "{config}: {error}");
    }
}
