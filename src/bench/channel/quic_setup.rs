//! A quinn endpoint at its fastest: the bar that our own channel, which is built on quinn, is held to.
//!
//! Windows and buffers are what decides. With quinn's defaults the sender waits for flow control every 1.2 MB, and
//! with the kernel's default buffers a burst loses packets that are then sent twice.

use super::error::{Doing, Error};
use super::order::{Buffers, Job};
use super::plan::Tuning;
use super::socket;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, Endpoint, EndpointConfig, MtuDiscoveryConfig, ServerConfig, TransportConfig, VarInt,
};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::runtime::Runtime;

/// IPv6 and UDP headers: QUIC's datagrams fit the MTU on either IP version.
const IP_UDP_BYTES: u16 = 48;

/// One thread: sender and receiver have a core each, and a second thread only adds wake-ups between cores.
pub(super) fn runtime() -> Result<Runtime, Error> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().doing("start an async runtime")
}

/// A listening endpoint.
pub(super) fn server(job: &Job) -> Result<(Endpoint, Buffers), Error> {
    let crypto = QuicServerConfig::try_from(job.credentials.server_config()?).doing("set up QUIC's TLS")?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(transport(&job.tuning));
    endpoint(job.address, &job.tuning, Some(config))
}

/// A connecting endpoint.
pub(super) fn client(job: &Job) -> Result<(Endpoint, Buffers), Error> {
    let crypto = QuicClientConfig::try_from(job.credentials.client_config()?).doing("set up QUIC's TLS")?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(transport(&job.tuning));
    let (mut endpoint, buffers) = endpoint(([0, 0, 0, 0], 0).into(), &job.tuning, None)?;
    endpoint.set_default_client_config(config);
    Ok((endpoint, buffers))
}

fn endpoint(
    address: SocketAddr,
    tuning: &Tuning,
    server: Option<ServerConfig>,
) -> Result<(Endpoint, Buffers), Error> {
    let (socket, buffers) = socket::udp(address, tuning.socket_buffer)?;
    let mut config = EndpointConfig::default();
    config.max_udp_payload_size(datagram_bytes(tuning.mtu)).doing("set the largest datagram")?;
    let endpoint = Endpoint::new(config, server, socket, Arc::new(quinn::TokioRuntime));
    Ok((endpoint.doing(format!("open a QUIC endpoint on {address}"))?, buffers))
}

fn transport(tuning: &Tuning) -> Arc<TransportConfig> {
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(datagram_bytes(tuning.mtu));
    let mut transport = TransportConfig::default();
    transport
        .stream_receive_window(VarInt::from_u32(tuning.window))
        .receive_window(VarInt::from_u32(tuning.window))
        .send_window(u64::from(tuning.window))
        .enable_segmentation_offload(tuning.gso)
        .mtu_discovery_config(Some(discovery));
    Arc::new(transport)
}

/// The largest UDP payload on a link of this MTU.
fn datagram_bytes(mtu: u16) -> u16 {
    mtu.saturating_sub(IP_UDP_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_mtu_gives_the_usual_datagram() {
        assert_eq!(datagram_bytes(1500), 1452);
    }
}
