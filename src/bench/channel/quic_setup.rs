//! A quinn endpoint at its fastest: the bar that our own channel, which is built on quinn, is held to.
//!
//! Windows and buffers are what decides. With quinn's defaults the sender waits for flow control every 1.2 MB, and
//! with the kernel's default buffers a burst loses packets that are then sent twice.

use super::error::{Doing, Error};
use super::identity;
use super::order::{Buffers, Job};
use super::plan::Tuning;
use super::quic_socket::CappedSocket;
use super::socket;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, Endpoint, EndpointConfig, MtuDiscoveryConfig, ServerConfig, TransportConfig, VarInt,
};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::runtime::Runtime;

/// IPv6 and UDP headers: QUIC's packets fit the MTU on either IP version.
const IP_UDP_BYTES: u16 = 48;

/// One thread for each side. A connection is driven by one task anyway; with a second thread its wake-ups cross cores:
/// on two cores the sender then took 1.9 s of CPU time for a gigabyte instead of 1.2.
pub(super) fn runtime() -> Result<Runtime, Error> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().doing("start an async runtime")
}

/// A listening endpoint.
pub(super) fn server(job: &Job) -> Result<(Endpoint, Buffers), Error> {
    let crypto =
        QuicServerConfig::try_from(identity::server_config(&job.identity)?).doing("set up QUIC's TLS")?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(transport(&job.tuning));
    endpoint(job.address, &job.tuning, Some(config))
}

/// A connecting endpoint.
pub(super) fn client(job: &Job) -> Result<(Endpoint, Buffers), Error> {
    let crypto =
        QuicClientConfig::try_from(identity::client_config(&job.identity)?).doing("set up QUIC's TLS")?;
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
    let opening = || format!("open a QUIC endpoint on {address}");
    let (socket, buffers) = socket::udp(address, tuning.socket_buffer)?;
    let packet_bytes = packet_bytes(tuning.mtu);
    let socket = CappedSocket::new(socket, packet_bytes).doing(opening())?;
    let mut config = EndpointConfig::default();
    config.max_udp_payload_size(packet_bytes).doing("set the largest packet")?;
    let runtime = Arc::new(quinn::TokioRuntime);
    let endpoint = Endpoint::new_with_abstract_socket(config, server, socket, runtime).doing(opening())?;
    Ok((endpoint, buffers))
}

fn transport(tuning: &Tuning) -> Arc<TransportConfig> {
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(packet_bytes(tuning.mtu));
    let mut transport = TransportConfig::default();
    transport
        .stream_receive_window(VarInt::from_u32(tuning.window))
        .receive_window(VarInt::from_u32(tuning.window))
        .send_window(u64::from(tuning.window))
        .enable_segmentation_offload(tuning.gso)
        .mtu_discovery_config(Some(discovery));
    Arc::new(transport)
}

/// The largest QUIC packet on a link of this MTU.
fn packet_bytes(mtu: u16) -> u16 {
    mtu.saturating_sub(IP_UDP_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_mtu_gives_the_usual_packet() {
        assert_eq!(packet_bytes(1500), 1452);
    }
}
