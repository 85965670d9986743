//! The operator API as the CLI speaks it: HTTPS to 15013, JSON, bearer token. Tells an answer of no (the server's words)
//! from a server that can't be reached.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use reqwest::{Method, StatusCode};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use weft_api::{ErrorBody, ErrorInner, Proxies, Version};

use crate::access::Access;
use crate::answer::Failure;

/// Answers larger than this are refused: no list of a mesh comes near.
const MAX_ANSWER_BYTES: usize = 256 << 20;
/// The same for a snapshot.
const MAX_DOWNLOAD_BYTES: usize = 4 << 30;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// For a filter's binary or a snapshot to arrive.
const LONG_TIMEOUT: Duration = Duration::from_secs(600);

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot reach the control plane at {server}: {reason}")]
    Unreachable {
        server: String,
        reason: String,
        /// It is there, and its certificate is not of the CA that is trusted here.
        is_untrusted: bool,
    },
    #[error("{}", .0.describe())]
    Refused(Refusal),
    #[error("the control plane at {server} answered {what}")]
    Nonsense { server: String, what: String },
}

/// The server's error answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) told: ErrorInner,
}

/// An answer, and the JSON that it came as: programs are given that, also the fields that this release doesn't know.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Told<T> {
    value: T,
    json: Value,
}

impl<T> Told<T> {
    /// The items of a list that is under `key`, each as it came.
    pub(crate) fn each<U>(self, key: &str, items: impl FnOnce(T) -> Vec<U>) -> Vec<Told<U>> {
        let Self { value, mut json } = self;
        let Value::Array(told) = json[key].take() else { return Vec::new() };
        items(value).into_iter().zip(told).map(|(value, json)| Told { value, json }).collect()
    }
}

impl<T> std::ops::Deref for Told<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> Serialize for Told<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.json.serialize(serializer)
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Told<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Value::deserialize(deserializer)?;
        let value = T::deserialize(&json).map_err(serde::de::Error::custom)?;
        Ok(Self { value, json })
    }
}

impl Refusal {
    fn describe(&self) -> String {
        let ErrorInner { message, details, .. } = &self.told;
        let mut text = if message.is_empty() { format!("HTTP status {}", self.status) } else { message.clone() };
        if self.status == 401 {
            text.push_str(" (see --token-file; `weft token create --role ...` makes tokens)");
        }
        for detail in details {
            text.push_str(&format!("\n  {detail}"));
        }
        text
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Refused(ref refusal) => Self::Told { text: error.to_string(), told: Box::new(refusal.told.clone()) },
            Error::Unreachable { .. } | Error::Nonsense { .. } => Self::Unable(error.into()),
        }
    }
}

/// A connection pool to one control plane.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    server: String,
    token: String,
}

impl Client {
    pub(crate) fn new(access: &Access) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls_config(access)?)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .build()
            .context("cannot set up the HTTPS client")?;
        Ok(Self { http, server: access.server.clone(), token: access.token()? })
    }

    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    pub(crate) async fn fetch<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.send(self.request(Method::GET, path), ANSWER_TIMEOUT).await
    }

    pub(crate) async fn ask<T: DeserializeOwned>(&self, path: &str, query: &impl Serialize) -> Result<T, Error> {
        self.send(self.request(Method::GET, path).query(query), ANSWER_TIMEOUT).await
    }

    /// A long poll: the server may take `wait` before it answers.
    pub(crate) async fn poll<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &impl Serialize,
        wait: Duration,
    ) -> Result<T, Error> {
        self.send(self.request(Method::GET, path).query(query), wait + ANSWER_TIMEOUT).await
    }

    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Error> {
        self.send(self.request(Method::POST, path).json(body), ANSWER_TIMEOUT).await
    }

    /// A call whose path says everything.
    pub(crate) async fn command<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.send(self.request(Method::POST, path), ANSWER_TIMEOUT).await
    }

    /// The same with a query.
    pub(crate) async fn command_with<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &impl Serialize,
    ) -> Result<T, Error> {
        self.send(self.request(Method::POST, path).query(query), LONG_TIMEOUT).await
    }

    pub(crate) async fn delete<T: DeserializeOwned>(&self, path: &str, query: &impl Serialize) -> Result<T, Error> {
        self.send(self.request(Method::DELETE, path).query(query), ANSWER_TIMEOUT).await
    }

    /// Bytes with headers of their own: a filter's binary, a snapshot.
    pub(crate) async fn upload<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &impl Serialize,
        headers: &[(&str, String)],
        body: Vec<u8>,
    ) -> Result<T, Error> {
        let mut request = self.request(Method::POST, path).query(query);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        self.send(request.body(body), LONG_TIMEOUT).await
    }

    /// An answer that is no JSON.
    pub(crate) async fn download(&self, path: &str) -> Result<Vec<u8>, Error> {
        self.receive(self.request(Method::GET, path), LONG_TIMEOUT, MAX_DOWNLOAD_BYTES).await
    }

    /// The server's version, by a call that needs the token as well.
    pub(crate) async fn authenticated_version(&self) -> Result<String, Error> {
        let version: Version = self.fetch("/version").await?;
        self.fetch::<Proxies>("/proxies").await?;
        Ok(version.version)
    }

    /// The `Date` of an answer, as it came.
    pub(crate) async fn server_time(&self) -> Option<String> {
        let request = self.http.get(format!("{}/healthz", self.server)).timeout(ANSWER_TIMEOUT);
        let answer = request.send().await.ok()?;
        Some(answer.headers().get("date")?.to_str().ok()?.to_owned())
    }

    /// Asks `/readyz`; the error says why the control plane is not ready.
    pub(crate) async fn health(&self) -> Result<(), String> {
        let ask = async |path: &str| {
            let request = self.http.get(format!("{}{path}", self.server)).timeout(ANSWER_TIMEOUT);
            request.send().await.map_err(|error| innermost(&error))
        };
        let mut answer = ask("/readyz").await?;
        if answer.status() == StatusCode::NOT_FOUND {
            // An older one says it there.
            answer = ask("/healthz").await?;
        }
        if answer.status().is_success() {
            return Ok(());
        }
        let text = answer.text().await.map_err(|error| innermost(&error))?;
        Err(text.trim().chars().take(500).collect())
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}/api/v1{path}", self.server)).bearer_auth(&self.token)
    }

    async fn send<T: DeserializeOwned>(&self, request: reqwest::RequestBuilder, timeout: Duration) -> Result<T, Error> {
        let body = self.receive(request, timeout, MAX_ANSWER_BYTES).await?;
        serde_json::from_slice(&body).map_err(|error| match error.is_data() {
            true => self.nonsense(format!("what this release of weft does not understand: {error}")),
            false => self.nonsense(format!("what is not JSON: {error}")),
        })
    }

    async fn receive(
        &self,
        request: reqwest::RequestBuilder,
        timeout: Duration,
        most: usize,
    ) -> Result<Vec<u8>, Error> {
        let mut response = request.timeout(timeout).send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unreachable(&error))? {
            if body.len() + chunk.len() > most {
                return Err(self.nonsense(format!("more than {most} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        if !status.is_success() {
            return Err(Error::Refused(refusal(status, &body)));
        }
        Ok(body)
    }

    fn unreachable(&self, error: &reqwest::Error) -> Error {
        let is_untrusted = is_of_another_ca(error);
        Error::Unreachable { server: self.server.clone(), reason: innermost(error), is_untrusted }
    }

    fn nonsense(&self, what: String) -> Error {
        Error::Nonsense { server: self.server.clone(), what }
    }
}

fn tls_config(access: &Access) -> anyhow::Result<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&access.ca_pem()?) {
        let certificate = certificate.map_err(|error| bad_ca(access, &error.to_string()))?;
        roots.add(certificate).map_err(|error| bad_ca(access, &error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(bad_ca(access, "no PEM certificate in it"));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .context("TLS 1.3 is not available")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

fn bad_ca(access: &Access, reason: &str) -> anyhow::Error {
    anyhow::anyhow!("the CA file {} is not usable: {reason}", access.ca_file.display())
}

/// The server's own words where they have the agreed shape, else the start of whatever came.
fn refusal(status: StatusCode, body: &[u8]) -> Refusal {
    let told = serde_json::from_slice::<ErrorBody>(body).map(|body| body.error).unwrap_or_else(|_| {
        let start: String = String::from_utf8_lossy(body).chars().take(200).collect();
        let message = format!("HTTP status {}: {}", status.as_u16(), start.trim());
        ErrorInner { message, ..ErrorInner::default() }
    });
    Refusal { status: status.as_u16(), told }
}

/// The cause at the bottom of the chain says what happened; the layers above only that something did.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut here = error;
    while let Some(source) = here.source() {
        here = source;
    }
    here.to_string()
}

/// One element of a path, percent-encoded.
fn is_of_another_ca(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if matches!(error.downcast_ref::<rustls::Error>(), Some(rustls::Error::InvalidCertificate(_))) {
            return true;
        }
        // What TLS says is wrapped into an error of reading and writing.
        let inside = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = inside.map(|inside| inside as &(dyn std::error::Error + 'static)).or_else(|| error.source());
    }
    false
}

pub(crate) fn segment(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_file_line_and_key() {
        let body = br#"{"error":{"code":"invalid","message":"1 document is invalid","details":[{"file":"a.yaml","line":3,"key":"spec.port","message":"unknown field"}]}}"#;
        let text = Error::Refused(refusal(StatusCode::BAD_REQUEST, body)).to_string();
        assert_eq!(text, "1 document is invalid\n  a.yaml:3: spec.port: unknown field");
    }

    #[test]
    fn an_answer_is_kept_as_it_came() {
        let answer: Told<Proxies> = serde_json::from_str(r#"{"proxies":[],"later":1}"#).unwrap();
        assert!(answer.proxies.is_empty());
        assert_eq!(serde_json::to_string(&answer).unwrap(), r#"{"later":1,"proxies":[]}"#);
        let list = r#"{"bans":[{"identity":"i","reason":"r","since_unix":0,"by":"b","later":2}]}"#;
        let answer: Told<weft_api::Bans> = serde_json::from_str(list).unwrap();
        let bans = answer.each("bans", |it| it.bans);
        assert_eq!(
            (bans[0].identity.as_str(), serde_json::to_value(&bans[0]).unwrap()["later"].as_u64()),
            ("i", Some(2))
        );
    }

    #[test]
    fn a_refusal_without_shape_shows_what_came() {
        let text = Error::Refused(refusal(StatusCode::BAD_GATEWAY, b"<html>oops")).to_string();
        assert_eq!(text, "HTTP status 502: <html>oops");
    }

    #[test]
    fn path_segments_are_encoded() {
        assert_eq!(segment("a/b c%"), "a%2Fb%20c%25");
        assert_eq!(segment("reviews-v1.x_~"), "reviews-v1.x_~");
    }
}
