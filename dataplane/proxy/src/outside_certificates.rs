//! Certificates that this proxy shows to servers outside the mesh which ask for one. Each has a name, by which the
//! ExternalServices of the namespaces that the proxy's own file lists may ask for it: nobody else names a file of this machine.
//! They are read when the proxy starts.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustls::sign::CertifiedKey;
use tracing::warn;
use weft_transport::tls::outside_certificate;

use crate::config::OutsideCertificate;
use crate::private;

/// By name.
#[derive(Debug, Default)]
pub struct OutsideCertificates(BTreeMap<String, Certificate>);

#[derive(Debug)]
struct Certificate {
    key: Arc<CertifiedKey>,
    /// Whose ExternalServices may ask for it.
    namespaces: Vec<String>,
}

impl OutsideCertificates {
    /// Reads those of a configuration.
    ///
    /// # Errors
    /// Everything that can't be used, each with its key.
    pub fn read(settings: &BTreeMap<String, OutsideCertificate>) -> Result<Self, Vec<String>> {
        let (mut all, mut wrong) = (BTreeMap::new(), Vec::new());
        for (name, setting) in settings {
            match Certificate::read(setting) {
                Ok(certificate) => {
                    all.insert(name.clone(), certificate);
                }
                Err(reason) => wrong.push(format!("outside_certificates.{name}.{reason}")),
            }
        }
        if wrong.is_empty() { Ok(Self(all)) } else { Err(wrong) }
    }

    /// The one for which an ExternalService of a namespace asks.
    ///
    /// # Errors
    /// There is none of that name, or it is not for that namespace. Who asks can't tell which.
    pub fn of(&self, name: &str, namespace: &str) -> Result<Arc<CertifiedKey>, String> {
        let found = self.0.get(name).filter(|found| found.namespaces.iter().any(|it| it == namespace));
        let found = found.map(|found| Arc::clone(&found.key));
        found.ok_or_else(|| format!("this proxy has no certificate {name:?} for namespace {namespace}"))
    }
}

impl Certificate {
    /// # Errors
    /// The key of what is wrong, and why.
    fn read(setting: &OutsideCertificate) -> Result<Self, String> {
        let OutsideCertificate { certificate_file, key_file, namespaces } = setting;
        let text = |key: &str, path| {
            private::text(path).map_err(|error| format!("{key}: cannot read {}: {error}", path.display()))
        };
        let (chain, _) = text("certificate_file", certificate_file.as_path())?;
        let (key, found) = text("key_file", key_file.as_path())?;
        if let Err(exposed) = found {
            warn!(path = %key_file.display(), %exposed, "the key is no secret of this proxy's alone");
        }
        let key = outside_certificate(&chain, &key).map_err(|error| {
            let (certificate_file, key_file) = (certificate_file.display(), key_file.display());
            format!("certificate_file: {certificate_file}, with key_file {key_file}: {}", crate::chain(&error))
        })?;
        Ok(Self { key, namespaces: namespaces.clone() })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn only_who_is_listed_gets_one_and_all_that_is_wrong_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let made = rcgen::generate_simple_self_signed(["us.test".to_owned()]).unwrap();
        let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let setting = |key: &str, text: &str| OutsideCertificate {
            certificate_file: file("chain.pem", &made.cert.pem()),
            key_file: file(key, text),
            namespaces: vec!["shop".to_owned()],
        };
        let good = setting("key.pem", &made.signing_key.serialize_pem());
        let all = OutsideCertificates::read(&[("bank".to_owned(), good.clone())].into()).unwrap();
        assert_eq!(all.of("bank", "shop").unwrap().cert.len(), 1);
        for (name, namespace) in [("bank", "other"), ("none", "shop")] {
            let reason = all.of(name, namespace).unwrap_err();
            assert_eq!(reason, format!("this proxy has no certificate {name:?} for namespace {namespace}"));
        }
        let absent = OutsideCertificate { key_file: dir.path().join("absent"), ..good };
        let settings = [("a".to_owned(), setting("other.pem", &other)), ("b".to_owned(), absent)].into();
        let wrong = OutsideCertificates::read(&settings).unwrap_err();
        let starts = ["outside_certificates.a.certificate_file: ", "outside_certificates.b.key_file: cannot read "];
        assert_eq!(wrong.len(), 2);
        assert!(wrong.iter().zip(starts).all(|(wrong, start)| wrong.starts_with(start)), "{wrong:?}");
        assert!(wrong[0].contains("the private key is unusable or not the certificate's"), "{}", wrong[0]);
    }
}
