//! What a link has carried.

use ft_core::message::{Envelope, Message};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counts as they grow. One for each link, shared by its tasks.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) messages_sent: AtomicU64,
    pub(crate) messages_received: AtomicU64,
    pub(crate) messages_dropped: AtomicU64,
    pub(crate) records_sent: AtomicU64,
    pub(crate) records_received: AtomicU64,
    /// Log messages before and after compression.
    pub(crate) log_bytes_raw: AtomicU64,
    pub(crate) log_bytes_sent: AtomicU64,
    /// Last record sent, and last that the peer's machine has applied.
    last_sent: AtomicU64,
    last_applied: AtomicU64,
}

impl Counters {
    pub(crate) fn handle_sent(&self, envelope: &Envelope) {
        add(&self.messages_sent, 1);
        if let Message::Log { frame, .. } = &envelope.message {
            add(&self.records_sent, u64::from(frame.count()));
            self.last_sent.fetch_max(frame.last().0, Ordering::Relaxed);
        }
    }

    pub(crate) fn handle_received(&self, envelope: &Envelope) {
        add(&self.messages_received, 1);
        match &envelope.message {
            Message::Log { frame, .. } => add(&self.records_received, u64::from(frame.count())),
            Message::Ack(ack) => {
                self.last_applied.fetch_max(ack.applied.0, Ordering::Relaxed);
            }
            _ => {}
        }
    }

    pub(crate) fn snapshot(&self, path: &quinn::ConnectionStats) -> LinkStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (raw, sent) = (read(&self.log_bytes_raw), read(&self.log_bytes_sent));
        LinkStats {
            bytes_sent: path.udp_tx.bytes,
            bytes_received: path.udp_rx.bytes,
            messages_sent: read(&self.messages_sent),
            messages_received: read(&self.messages_received),
            messages_dropped: read(&self.messages_dropped),
            records_sent: read(&self.records_sent),
            records_received: read(&self.records_received),
            log_bytes_raw: raw,
            log_bytes_sent: sent,
            packets_lost: path.path.lost_packets,
            round_trip: path.path.rtt,
            lag_records: read(&self.last_sent).saturating_sub(read(&self.last_applied)),
        }
    }
}

pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

/// What a link has carried since it came up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Bytes of UDP payload sent.
    pub bytes_sent: u64,
    /// Bytes of UDP payload received.
    pub bytes_received: u64,
    /// Messages sent.
    pub messages_sent: u64,
    /// Messages received.
    pub messages_received: u64,
    /// Messages dropped because a queue was full. The core sends again what matters.
    pub messages_dropped: u64,
    /// Records in the frames sent.
    pub records_sent: u64,
    /// Records in the frames received.
    pub records_received: u64,
    /// Bytes of log messages before compression.
    pub log_bytes_raw: u64,
    /// Bytes of log messages as they were sent.
    pub log_bytes_sent: u64,
    /// Packets that were lost and sent again.
    pub packets_lost: u64,
    /// Smoothed round trip.
    pub round_trip: Duration,
    /// Records that the peer's machine has not applied yet, as far as its acknowledgements tell.
    pub lag_records: u64,
}

impl LinkStats {
    /// What remains of a byte of log after compression; 1 where nothing was sent.
    pub fn compression(&self) -> f64 {
        if self.log_bytes_raw == 0 { 1.0 } else { self.log_bytes_sent as f64 / self.log_bytes_raw as f64 }
    }

    /// Publishes the figures through the `metrics` facade, labelled with the peer's name.
    pub fn publish(&self, peer: &str) {
        let counters = [
            ("ft_link_sent_bytes_total", self.bytes_sent),
            ("ft_link_received_bytes_total", self.bytes_received),
            ("ft_link_sent_messages_total", self.messages_sent),
            ("ft_link_received_messages_total", self.messages_received),
            ("ft_link_dropped_messages_total", self.messages_dropped),
            ("ft_link_sent_records_total", self.records_sent),
            ("ft_link_received_records_total", self.records_received),
            ("ft_link_log_raw_bytes_total", self.log_bytes_raw),
            ("ft_link_log_sent_bytes_total", self.log_bytes_sent),
            ("ft_link_lost_packets_total", self.packets_lost),
        ];
        for (name, value) in counters {
            metrics::counter!(name, "peer" => peer.to_owned()).absolute(value);
        }
        metrics::gauge!("ft_link_round_trip_seconds", "peer" => peer.to_owned())
            .set(self.round_trip.as_secs_f64());
        metrics::gauge!("ft_link_lag_records", "peer" => peer.to_owned()).set(self.lag_records as f64);
        metrics::gauge!("ft_link_compression_ratio", "peer" => peer.to_owned()).set(self.compression());
    }
}
