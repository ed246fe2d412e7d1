//! What an agent can be watched by: Prometheus metrics at `/metrics`, and `/healthz`.
//!
//! | metric | labels | what |
//! |---|---|---|
//! | `ft_vm_copies` | role, protected | copies that run here |
//! | `ft_vm_protected` | vm | 1 while a VM that is live here is protected |
//! | `ft_vm_lag_seconds` | vm | how far its secondary is behind |
//! | `ft_vm_log_bytes` | vm | log that its links have carried since they were made |
//! | `ft_host_memory_free_mib` | | room for guests |
//! | `ft_peer_up` | peer | 1 while that host's agent answers |
//! | `ft_respawns_total` | result | secondaries made, and tries that failed |
//! | `ft_failovers_total` | | copies that took over here |
//! | `ft_guest_restarts_total` | vm, cause | guests that hung (`watchdog`) or crashed (`crash`) here and began again |
//!
//! They are for this machine's eyes only: nothing protects them.

use super::message::Description;
use crate::vm::control::Role;
use axum::http::StatusCode;
use axum::routing::get;
use ft_vmm::power::Cause;
use metrics::{counter, gauge};
use metrics_exporter_prometheus::PrometheusBuilder;
use metrics_util::MetricKindMask;
use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// An agent that has not been heard of for so long is not well.
const WELL_WITHIN: Duration = Duration::from_secs(5);

/// Figures of VMs and peers that are not there any more are shown for so long.
const FORGET_AFTER: Duration = Duration::from_secs(30);

/// Whether the agent's thread moves.
#[derive(Clone)]
pub(super) struct Health(Arc<Mutex<Instant>>);

impl Default for Health {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }
}

impl Health {
    /// It has moved.
    pub(super) fn beat(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn is_well(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).elapsed() < WELL_WITHIN
    }
}

/// Serves metrics and health. Must be called inside a tokio runtime.
pub(super) fn serve(address: SocketAddr, health: Health) -> io::Result<()> {
    let metrics = PrometheusBuilder::new().idle_timeout(MetricKindMask::GAUGE, Some(FORGET_AFTER));
    let metrics = metrics.install_recorder().map_err(io::Error::other)?;
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let healthz = move || async move {
        match health.is_well() {
            true => (StatusCode::OK, "ok\n"),
            false => (StatusCode::SERVICE_UNAVAILABLE, "the agent's thread does not move\n"),
        }
    };
    let render = move || async move {
        metrics.run_upkeep();
        metrics.render()
    };
    let routes = axum::Router::new().route("/metrics", get(render)).route("/healthz", get(healthz));
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, routes).await {
            tracing::error!(%error, "metrics are not served any more");
        }
    });
    Ok(())
}

/// Publishes how things stand.
pub(super) fn publish<'a>(own: &Description, peers: impl Iterator<Item = (&'a str, bool)>) {
    let all = [Role::Starting, Role::Live, Role::Following, Role::Promoting];
    let mut copies: BTreeMap<(&str, bool), u32> =
        all.iter().flat_map(|role| [((text(*role), false), 0), ((text(*role), true), 0)]).collect();
    for vm in own.vms.iter().filter(|vm| vm.running) {
        *copies.entry((text(vm.copy.role), vm.copy.protected)).or_default() += 1;
        if vm.is_live() {
            gauge!("ft_vm_protected", "vm" => vm.name.clone()).set(f64::from(u8::from(vm.copy.protected)));
            gauge!("ft_vm_lag_seconds", "vm" => vm.name.clone()).set(vm.copy.lag_us as f64 / 1e6);
            gauge!("ft_vm_log_bytes", "vm" => vm.name.clone()).set(vm.copy.log_bytes as f64);
        }
    }
    for ((role, protected), count) in copies {
        let protected = if protected { "yes" } else { "no" };
        gauge!("ft_vm_copies", "role" => role, "protected" => protected).set(count);
    }
    gauge!("ft_host_memory_free_mib").set(own.free.memory_mib as f64);
    for (peer, is_up) in peers {
        gauge!("ft_peer_up", "peer" => peer.to_owned()).set(f64::from(u8::from(is_up)));
    }
}

fn text(role: Role) -> &'static str {
    match role {
        Role::Starting => "starting",
        Role::Live => "live",
        Role::Following => "following",
        Role::Promoting => "promoting",
        Role::Yielded => "yielded",
        Role::Over => "over",
    }
}

/// A secondary was made, or a try at it failed.
pub(super) fn count_respawn(made: bool) {
    counter!("ft_respawns_total", "result" => if made { "made" } else { "failed" }).increment(1);
}

/// A guest began again.
pub(super) fn count_guest_restart(vm: &str, cause: Cause) {
    let cause = if cause == Cause::Watchdog { "watchdog" } else { "crash" };
    counter!("ft_guest_restarts_total", "vm" => vm.to_owned(), "cause" => cause).increment(1);
}

/// A copy took over here.
pub(super) fn count_failover() {
    counter!("ft_failovers_total").increment(1);
}
