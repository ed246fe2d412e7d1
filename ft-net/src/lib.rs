//! The channel between the hosts of a protected machine: QUIC with mutual TLS.
#![forbid(unsafe_code)]
