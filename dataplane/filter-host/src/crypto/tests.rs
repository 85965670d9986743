//! The examples of RFC 7515 and RFC 8037, and what does not hold.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::*;

const PAYLOAD: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";

struct Example {
    algorithm: Algorithm,
    key: Vec<u8>,
    message: String,
    signature: Vec<u8>,
}

fn octets(text: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text.split_whitespace().collect::<String>()).expect("base64")
}

/// A SubjectPublicKeyInfo of what is before the numbers of a key, the numbers, and what is behind them.
fn spki_of(before: &[u8], numbers: &[&str], behind: &[u8]) -> Vec<u8> {
    let numbers = numbers.iter().flat_map(|number| octets(number));
    before.iter().copied().chain(numbers).chain(behind.iter().copied()).collect()
}

//= rfc7515#appendix-A.1
fn hs256() -> Example {
    Example {
        algorithm: Algorithm::Hs256,
        key: octets("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"),
        message: format!("eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{PAYLOAD}"),
        signature: octets("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"),
    }
}

//= rfc7515#appendix-A.2
fn rs256() -> Example {
    let modulus = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZ
        S-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg6
        65xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXp
        oQ";
    let signature = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdb
        F9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--x
        i12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQ
        Ge77Rw";
    let before = [
        0x30, 0x82, 0x01, 0x22, 0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05,
        0x00, 0x03, 0x82, 0x01, 0x0f, 0x00, 0x30, 0x82, 0x01, 0x0a, 0x02, 0x82, 0x01, 0x01, 0x00,
    ];
    Example {
        algorithm: Algorithm::Rs256,
        key: spki_of(&before, &[modulus], &[0x02, 0x03, 0x01, 0x00, 0x01]),
        message: format!("eyJhbGciOiJSUzI1NiJ9.{PAYLOAD}"),
        signature: octets(signature),
    }
}

//= rfc7515#appendix-A.3
fn es256() -> Example {
    let before = [
        0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
        0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
    ];
    let numbers = ["f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"];
    Example {
        algorithm: Algorithm::Es256,
        key: spki_of(&before, &numbers, &[]),
        message: format!("eyJhbGciOiJFUzI1NiJ9.{PAYLOAD}"),
        signature: octets("DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"),
    }
}

//= rfc8037#appendix-A.4
fn ed25519() -> Example {
    let before = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    Example {
        algorithm: Algorithm::Ed25519,
        key: spki_of(&before, &["11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"], &[]),
        message: "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc".to_owned(),
        signature: octets("hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"),
    }
}

#[test]
fn the_examples_of_the_standards_hold_and_nothing_near_them() {
    for Example { algorithm, key, message, signature } in [hs256(), rs256(), es256(), ed25519()] {
        let check = |key: &[u8], message: &[u8], signature: &[u8]| verify(algorithm, key, message, signature);
        let message = message.as_bytes();
        assert_eq!(check(&key, message, &signature), Ok(true), "{algorithm:?}");
        assert_eq!(check(&key, &message[1..], &signature), Ok(false), "{algorithm:?}");
        let mut other = signature.clone();
        other[7] ^= 1;
        assert_eq!(check(&key, message, &other), Ok(false), "{algorithm:?}");
        for signature in [&signature[1..], &[], &[0; 64]] {
            assert_eq!(check(&key, message, signature), Ok(false), "{algorithm:?}");
        }
        assert!(check(&key, message, &[0; MAX_SIGNATURE + 1]).is_err(), "{algorithm:?}");
        assert!(check(&key, &vec![0; MAX_MESSAGE + 1], &signature).is_err(), "{algorithm:?}");
        assert!(check(&[], message, &signature).is_err(), "{algorithm:?}");
        assert!(check(&vec![0x30; MAX_KEY + 1], message, &signature).is_err(), "{algorithm:?}");
    }
}

/// No key is taken for one of another algorithm: whoever knows a public key could sign with it otherwise.
#[test]
fn a_key_is_of_its_own_algorithm() {
    let public = [rs256(), es256(), ed25519()];
    for own in &public {
        for other in public.iter().filter(|other| other.algorithm != own.algorithm) {
            let verified = verify(own.algorithm, &other.key, own.message.as_bytes(), &own.signature);
            assert!(verified.is_err(), "{:?} with a key of {:?}", own.algorithm, other.algorithm);
        }
        let raw = &own.key[own.key.len() - 32..];
        assert!(verify(own.algorithm, raw, own.message.as_bytes(), &own.signature).is_err(), "{:?}", own.algorithm);
    }
}

#[test]
fn digests_are_those_of_the_standards() {
    let Example { key, message, signature, .. } = hs256();
    assert_eq!(sign(&key, message.as_bytes()), Ok(signature));
    // FIPS 180-4, "abc".
    let hex: String = sha256(b"abc").expect("short").iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert!(sha256(&vec![0; MAX_MESSAGE + 1]).is_err());
    assert!(sign(&[], b"a").is_err());
}

#[test]
fn randomness_is_bounded_and_never_the_same() {
    assert!(random(0).is_err());
    assert!(random(1_025).is_err());
    let (first, second) = (random(1_024).expect("in bounds"), random(1_024).expect("in bounds"));
    assert_eq!((first.len(), second.len()), (1_024, 1_024));
    assert_ne!(first, second);
}
