//! Requests to an etcd cluster over HTTP: endpoints in turn, a limit on the time that all of them take together, TLS, and a user's token.
//!
//! Invariant: a call returns within the configured time. A request may have been carried out although it got no answer, once or, with
//! several endpoints, more than once: only requests that bear this are made.

use crate::arbiter::{ArbiterError, EtcdConfig};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use ureq::Agent;
use ureq::http::{StatusCode, header};
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

/// The largest answer that is read.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// Which of etcd's users we are.
struct Login {
    name: String,
    password: String,
    /// What etcd gave for them; it ends by time, and with the member that gave it.
    token: Option<String>,
}

/// A cluster, as a client sees it.
pub(super) struct Client {
    agent: Agent,
    endpoints: Vec<String>,
    /// The endpoint that answered last: a dead one costs time only once.
    first: usize,
    timeout: Duration,
    login: Option<Login>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}

/// Why an endpoint gave no answer.
enum Failure {
    /// It knows no such token: an old one, or none was sent.
    Token(String),
    /// Anything else.
    Other(String),
}

impl Client {
    pub(super) fn new(config: &EtcdConfig) -> Result<Self, ArbiterError> {
        config.check().map_err(ArbiterError::Config)?;
        let agent = Agent::config_builder()
            .tls_config(tls(config)?)
            .http_status_as_error(false)
            // What the environment says of proxies is meant for the web.
            .proxy(None)
            .max_redirects(0)
            .build()
            .new_agent();
        let login = config.user.as_ref().zip(config.password_file.as_ref()).map(|(name, path)| {
            let password = text(path, "read etcd's password from")?.trim_end_matches(['\r', '\n']).to_owned();
            Ok(Login { name: name.clone(), password, token: None })
        });
        let endpoints = config.endpoints.iter().map(|url| url.trim_end_matches('/').to_owned()).collect();
        Ok(Self { agent, endpoints, first: 0, timeout: config.timeout(), login: login.transpose()? })
    }

    /// Sends a request to one endpoint after the other until one answers.
    pub(super) fn call<A: DeserializeOwned>(
        &mut self,
        path: &str,
        request: &impl Serialize,
    ) -> Result<A, ArbiterError> {
        let deadline = Instant::now() + self.timeout;
        let body = serde_json::to_vec(request).map_err(|error| self.nonsense(&error.to_string()))?;
        let mut failures = Vec::new();
        let count = self.endpoints.len();
        for turn in 0..count {
            let endpoint = (self.first + turn) % count;
            let left = deadline.saturating_duration_since(Instant::now());
            // What one does not use of its share is left to those after it.
            let until = Instant::now() + left / (count - turn) as u32;
            match self.ask(endpoint, path, &body, until) {
                Ok(answer) => {
                    self.first = endpoint;
                    return Ok(answer);
                }
                Err(Failure::Token(why) | Failure::Other(why)) => {
                    failures.push(format!("{}: {why}", self.endpoints[endpoint]));
                }
            }
        }
        Err(ArbiterError::Etcd(failures))
    }

    /// For an answer, or a request, that makes no sense.
    pub(super) fn nonsense(&self, what: &str) -> ArbiterError {
        ArbiterError::Etcd(vec![format!("{}: {what}", self.endpoints[self.first])])
    }

    /// Asks one endpoint, with a token where one is needed, and with a new one when the old one is refused.
    fn ask<A: DeserializeOwned>(
        &mut self,
        endpoint: usize,
        path: &str,
        body: &[u8],
        until: Instant,
    ) -> Result<A, Failure> {
        let Some(token) = self.login.as_ref().map(|login| login.token.clone()) else {
            return self.post(endpoint, path, body, None, until);
        };
        if let Some(token) = token {
            match self.post(endpoint, path, body, Some(&token), until) {
                Err(Failure::Token(_)) => {}
                answered => return answered,
            }
        }
        let token = self.log_in(endpoint, until)?;
        self.post(endpoint, path, body, Some(&token), until)
    }

    fn log_in(&mut self, endpoint: usize, until: Instant) -> Result<String, Failure> {
        #[derive(Deserialize)]
        struct Granted {
            token: String,
        }
        let Some(Login { name, password, .. }) = &self.login else {
            return Err(Failure::Other("asks for a user: set user and password_file".into()));
        };
        let body = json!({ "name": name, "password": password }).to_string();
        let Granted { token } = self.post(endpoint, "/v3/auth/authenticate", body.as_bytes(), None, until)?;
        if let Some(login) = &mut self.login {
            login.token = Some(token.clone());
        }
        Ok(token)
    }

    fn post<A: DeserializeOwned>(
        &self,
        endpoint: usize,
        path: &str,
        body: &[u8],
        token: Option<&str>,
        until: Instant,
    ) -> Result<A, Failure> {
        let other = |error: ureq::Error| Failure::Other(error.to_string());
        let left = until.saturating_duration_since(Instant::now());
        let mut request = self.agent.post(format!("{}{path}", self.endpoints[endpoint]));
        request = request.header(header::CONTENT_TYPE, "application/json");
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, token);
        }
        let request = request.config().timeout_global(Some(left)).build();
        let mut response = request.send(body).map_err(other)?;
        let answer =
            response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec().map_err(other)?;
        match response.status() {
            StatusCode::OK => {
                parse(&answer).map_err(|error| Failure::Other(format!("unknown answer: {error}")))
            }
            StatusCode::UNAUTHORIZED => Err(Failure::Token(said(&answer))),
            status => Err(Failure::Other(format!("{status}: {}", said(&answer)))),
        }
    }
}

/// The first JSON value of an answer: some requests are answered by a stream.
fn parse<A: DeserializeOwned>(answer: &[u8]) -> serde_json::Result<A> {
    A::deserialize(&mut serde_json::Deserializer::from_slice(answer))
}

/// What etcd says of a request that it refuses.
fn said(answer: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Refusal {
        message: String,
    }
    parse(answer)
        .map_or_else(|_| String::from_utf8_lossy(answer).trim().to_owned(), |Refusal { message }| message)
}

fn tls(config: &EtcdConfig) -> Result<TlsConfig, ArbiterError> {
    let Some(ca) = &config.ca else { return Ok(TlsConfig::default()) };
    let roots = certificates(ca)?;
    let own = match (&config.cert, &config.key) {
        (Some(cert), Some(key)) => {
            let pem = text(key, "read the key for etcd from")?;
            let key = PrivateKey::from_pem(pem.as_bytes()).map_err(|_| no_pem(key, "private key"))?;
            Some(ClientCert::new_with_certs(&certificates(cert)?, key))
        }
        _ => None,
    };
    Ok(TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&roots))
        .client_cert(own)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .build())
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, ArbiterError> {
    let pem = text(path, "read certificates for etcd from")?;
    let found = parse_pem(pem.as_bytes()).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    });
    let found: Vec<_> = found.collect();
    if found.is_empty() { Err(no_pem(path, "certificate")) } else { Ok(found) }
}

fn text(path: &Path, doing: &'static str) -> Result<String, ArbiterError> {
    fs::read_to_string(path).map_err(|source| ArbiterError::File { doing, path: path.into(), source })
}

fn no_pem(path: &Path, what: &str) -> ArbiterError {
    ArbiterError::Config(format!(
        "{} holds no {what} in PEM: point ca, cert and key at files that do",
        path.display()
    ))
}
