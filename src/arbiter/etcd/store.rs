//! Keys, values and leases of etcd: the few requests that are needed, in the JSON that its interface maps its messages to.
//!
//! Keys and values travel as base64, 64-bit integers as text, and fields that hold their type's zero not at all.

use super::client::Client;
use crate::arbiter::{ArbiterError, EtcdConfig};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::json;
use std::time::Duration;

/// An etcd cluster.
#[derive(Debug)]
pub(super) struct Store {
    client: Client,
}

/// A key and its value.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) key: String,
    pub(super) value: Vec<u8>,
}

/// What became of a key that was to be created.
#[derive(Debug)]
pub(super) enum Created {
    /// It was.
    New,
    /// There is one already, with this value.
    Exists(Vec<u8>),
}

/// A lease: keys that were put with it go when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Lease(#[serde(serialize_with = "as_text")] i64);

impl Store {
    pub(super) fn new(config: &EtcdConfig) -> Result<Self, ArbiterError> {
        Ok(Self { client: Client::new(config)? })
    }

    /// Puts a key that was never put before, or reads what it holds: one transaction.
    pub(super) fn create(&mut self, key: &str, value: &[u8]) -> Result<Created, ArbiterError> {
        #[derive(Deserialize)]
        struct Done {
            #[serde(default)]
            succeeded: bool,
            #[serde(default)]
            responses: Vec<Response>,
        }
        #[derive(Deserialize)]
        struct Response {
            response_range: Option<Range>,
        }
        let name = Base64(key.into());
        let request = json!({
            "compare": [{ "key": name, "target": "CREATE", "result": "EQUAL", "create_revision": "0" }],
            "success": [{ "request_put": { "key": name, "value": Base64(value.into()) } }],
            "failure": [{ "request_range": { "key": name } }],
        });
        let done: Done = self.client.call("/v3/kv/txn", &request)?;
        if done.succeeded {
            return Ok(Created::New);
        }
        let found = done.responses.into_iter().find_map(|response| response.response_range);
        let found = found.and_then(|range| range.kvs.into_iter().next());
        let found = found.ok_or_else(|| self.client.nonsense("neither put the key nor found it"))?;
        Ok(Created::Exists(found.value.0))
    }

    pub(super) fn put(&mut self, key: &str, value: &[u8], lease: Lease) -> Result<(), ArbiterError> {
        let request = json!({ "key": Base64(key.into()), "value": Base64(value.into()), "lease": lease });
        self.ask("/v3/kv/put", &request)
    }

    /// All keys that begin with `prefix`, in their order.
    pub(super) fn list(&mut self, prefix: &str) -> Result<Vec<Pair>, ArbiterError> {
        self.range(prefix, &json!({}))
    }

    /// The last of the keys that begin with `prefix`.
    pub(super) fn last(&mut self, prefix: &str) -> Result<Option<Pair>, ArbiterError> {
        let last = json!({ "sort_order": "DESCEND", "sort_target": "KEY", "limit": "1" });
        Ok(self.range(prefix, &last)?.pop())
    }

    fn range(&mut self, prefix: &str, how: &serde_json::Value) -> Result<Vec<Pair>, ArbiterError> {
        let mut request = how.clone();
        request["key"] = json!(Base64(prefix.into()));
        request["range_end"] = json!(Base64(after(prefix)));
        let range: Range = self.client.call("/v3/kv/range", &request)?;
        let pairs = range.kvs.into_iter().map(|Kv { key, value }| match String::from_utf8(key.0) {
            Ok(key) => Ok(Pair { key, value: value.0 }),
            Err(_) => Err(ArbiterError::Foreign { place: format!("a key that begins with {prefix}") }),
        });
        pairs.collect()
    }

    /// A lease that ends when it is not renewed for `ttl`, in whole seconds. The cluster may make it longer.
    pub(super) fn grant(&mut self, ttl: Duration) -> Result<Lease, ArbiterError> {
        #[derive(Deserialize)]
        struct Granted {
            #[serde(rename = "ID", deserialize_with = "from_text")]
            id: i64,
        }
        let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        let granted: Granted = self.client.call("/v3/lease/grant", &json!({ "TTL": seconds.to_string() }))?;
        Ok(Lease(granted.id))
    }

    /// Renews a lease; false when it has ended.
    pub(super) fn renew(&mut self, lease: Lease) -> Result<bool, ArbiterError> {
        #[derive(Deserialize)]
        struct Renewed {
            result: Result,
        }
        #[derive(Deserialize)]
        struct Result {
            #[serde(default, rename = "TTL", deserialize_with = "from_text")]
            ttl: i64,
        }
        let renewed: Renewed = self.client.call("/v3/lease/keepalive", &json!({ "ID": lease }))?;
        Ok(renewed.result.ttl > 0)
    }

    /// Ends a lease, and with it the keys that were put with it.
    pub(super) fn revoke(&mut self, lease: Lease) -> Result<(), ArbiterError> {
        self.ask("/v3/lease/revoke", &json!({ "ID": lease }))
    }

    /// A request whose answer holds nothing of interest.
    fn ask(&mut self, path: &str, request: &serde_json::Value) -> Result<(), ArbiterError> {
        self.client.call(path, request).map(|serde::de::IgnoredAny| ())
    }
}

/// The end of the range of all keys that begin with `prefix`: the first key behind them. Our prefixes are ASCII.
fn after(prefix: &str) -> Vec<u8> {
    let mut end = Vec::from(prefix);
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

#[derive(Deserialize)]
struct Range {
    #[serde(default)]
    kvs: Vec<Kv>,
}

#[derive(Deserialize)]
struct Kv {
    key: Base64,
    #[serde(default)]
    value: Base64,
}

/// Bytes as JSON holds them.
#[derive(Default)]
struct Base64(Vec<u8>);

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64_STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        BASE64_STANDARD.decode(text).map(Self).map_err(D::Error::custom)
    }
}

fn as_text<S: Serializer>(number: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(number)
}

fn from_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}
