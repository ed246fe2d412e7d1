//! The arbiters: one suite that each kind must pass, and for each kind what can happen to it alone.
//!
//! Needs etcd (`apt-get install etcd-server`); FT_TEST_ETCD names another one than /usr/bin/etcd.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "arbiter/child.rs"]
mod child;
#[path = "arbiter/dir.rs"]
mod dir;
#[path = "arbiter/etcd.rs"]
mod etcd;
#[path = "arbiter/hosts.rs"]
mod hosts;
#[path = "arbiter/relay.rs"]
mod relay;
#[path = "arbiter/server.rs"]
mod server;
#[path = "arbiter/small_disk.rs"]
mod small_disk;
#[path = "arbiter/suite.rs"]
mod suite;

/// A process that claims: started by the tests.
#[test]
#[ignore = "this is the child process of the other tests"]
fn claiming_process() {
    child::run();
}

/// The suite's tests, on the arbiter that `$config` makes: it and what must live as long.
macro_rules! conforms {
    ($kind:ident, $config:expr) => {
        mod $kind {
            use super::*;

            #[test]
            fn r4_of_concurrent_claims_from_threads_and_processes_one_wins_each_term() {
                let (config, _bed) = $config;
                suite::one_winner_each_term(&config);
            }

            #[test]
            fn r4_claimers_killed_at_any_moment_neither_lose_what_they_won_nor_block_others() {
                let (config, _bed) = $config;
                suite::killed_claimers(&config);
            }

            #[test]
            fn r4_an_owner_wins_again_and_the_past_can_be_read() {
                let (config, _bed) = $config;
                suite::owners(&config);
            }
        }
    };
}

conforms!(a_directory, dir::bed());
conforms!(an_etcd_cluster, etcd::bed());
