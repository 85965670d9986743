//! Values of Secrets as the store keeps them where `ca_secret_file` is configured: AES-256-GCM under a key that is made
//! of that file (PBKDF2-HMAC-SHA256), each bound to its Secret and its name. Who reads the store alone reads none of
//! them, and who writes to it can't put one in another's place.

use std::num::NonZeroU32;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::pbkdf2;
use serde_json::Value;
use weft_policy::resource::secret::sealed;
use weft_policy::resource::{Object, SecretSpec, SecretValue};
use weft_policy::secret::SecretBytes;

/// As OWASP recommends for PBKDF2-HMAC-SHA256: what the file holds may be a passphrase. The authority's keys are made so, too.
pub(crate) const ROUNDS: NonZeroU32 = NonZeroU32::new(600_000).expect("not 0");

/// The store's record of the salt that its key is made with.
pub(crate) const SALT: &str = "secrets_salt";

/// A key for all values of one store.
pub(crate) struct Seal(LessSafeKey);

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal")
    }
}

/// What a value is bound to.
fn place(namespace: &str, name: &str, key: &str) -> String {
    format!("weft secret {namespace}/{name}/{key}")
}

impl Seal {
    /// `salt`: the store's own.
    pub(crate) fn new(secret: &[u8], salt: &str) -> Self {
        let mut key = [0; 32];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ROUNDS, salt.as_bytes(), secret, &mut key);
        Self(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).expect("it has the key's length")))
    }

    fn encrypted(&self, place: &str, value: &SecretBytes) -> String {
        let nonce: [u8; NONCE_LEN] = rand::random();
        let mut bytes = value.reveal().to_vec();
        let at = Aad::from(place.as_bytes());
        let done = self.0.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), at, &mut bytes);
        done.expect("a value is far shorter than what the cipher takes");
        sealed(&SecretBytes::new(&[&nonce[..], &bytes[..]].concat()).to_base64())
    }

    /// `None`: it was made with another key or for another place, or it is damaged.
    fn decrypted(&self, place: &str, text: &str) -> Option<SecretBytes> {
        let bytes = SecretBytes::of_base64(text)?;
        let (nonce, rest) = bytes.reveal().split_first_chunk::<NONCE_LEN>()?;
        let mut rest = rest.to_vec();
        let at = Aad::from(place.as_bytes());
        let opened = self.0.open_in_place(Nonce::assume_unique_for_key(*nonce), at, &mut rest).ok()?;
        Some(SecretBytes::new(opened))
    }

    /// Encrypts the values in the record of a Secret that are not yet. A record that is of another shape stays as it is.
    pub(crate) fn close(&self, json: &str) -> Result<String, serde_json::Error> {
        let mut record: Value = serde_json::from_str(json)?;
        let Some(resource) = record.pointer_mut("/entry/resource") else { return Ok(json.to_owned()) };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (namespace, name) = (text(&resource["metadata"]["namespace"]), text(&resource["metadata"]["name"]));
        let values = resource.pointer_mut("/spec/data").and_then(Value::as_object_mut);
        for (key, value) in values.into_iter().flatten() {
            if let Some(plain) = value.as_str().and_then(SecretBytes::of_base64) {
                *value = self.encrypted(&place(&namespace, &name, key), &plain).into();
            }
        }
        serde_json::to_string(&record)
    }

    /// Decrypts the values of a Secret. What can't be is handed to nobody.
    pub(crate) fn open(&self, secret: &mut Object<SecretSpec>) {
        let (namespace, name) = (&secret.metadata.namespace, &secret.metadata.name);
        for (key, value) in &mut secret.spec.data {
            let opened = value.sealed().and_then(|text| self.decrypted(&place(namespace, name, key), text));
            if let Some(opened) = opened {
                *value = SecretValue::Known(opened);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use weft_policy::resource::Resource;

    use super::*;

    const PLAIN: &str = "Y29ycmVjdCBob3JzZSBiYXR0ZXJ5";

    fn record(name: &str) -> Value {
        serde_json::json!({"entry": {"resource": {
            "apiVersion": "weft.dev/v1alpha1", "kind": "Secret", "metadata": {"name": name, "namespace": "shop"},
            "spec": {"data": {"a": PLAIN, "b": PLAIN}},
        }}})
    }

    fn opened(seal: &Seal, record: &Value) -> Vec<Option<String>> {
        let resource: Resource = serde_json::from_value(record["entry"]["resource"].clone()).expect("a Secret");
        let Resource::Secret(mut secret) = resource else { panic!("a Secret") };
        seal.open(&mut secret);
        secret.spec.data.values().map(|value| value.known().map(SecretBytes::to_base64)).collect()
    }

    #[test]
    fn what_is_sealed_opens_at_its_place_with_its_key_only() {
        let seal = Seal::new(b"correct horse", "salt");
        let closed = seal.close(&record("s").to_string()).expect("JSON");
        assert!(!closed.contains(PLAIN), "{closed}");
        assert_eq!(seal.close(&closed).expect("JSON"), closed, "what is closed stays so");
        let closed: Value = serde_json::from_str(&closed).expect("JSON");
        let all = vec![Some(PLAIN.to_owned()); 2];
        assert_eq!(opened(&seal, &closed), all);
        assert_eq!(opened(&seal, &record("s")), all, "what an earlier start left in plain text is read");
        for other in [Seal::new(b"correct horse", "other"), Seal::new(b"another horse", "salt")] {
            assert_eq!(opened(&other, &closed), [None, None]);
        }
        let mut moved = closed.clone();
        moved["entry"]["resource"]["metadata"]["name"] = "t".into();
        assert_eq!(opened(&seal, &moved), [None, None]);
        let mut swapped = closed.clone();
        swapped["entry"]["resource"]["spec"]["data"]["a"] = closed["entry"]["resource"]["spec"]["data"]["b"].clone();
        assert_eq!(opened(&seal, &swapped)[0], None);
    }

    #[test]
    fn a_damaged_record_stays_as_it_is() {
        let seal = Seal::new(b"correct horse", "salt");
        for damaged in [
            "[]",
            "5",
            "{}",
            r#"{"entry":5}"#,
            r#"{"entry":{"resource":"x"}}"#,
            r#"{"entry":{"resource":{"spec":[]}}}"#,
        ] {
            assert_eq!(seal.close(damaged).expect("JSON"), damaged);
        }
    }
}
