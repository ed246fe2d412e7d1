//! Peers that mean harm, and an honest host among them (R12). Whatever they do ends in an error that names them and what
//! they did, or in nothing; the honest host goes on serving honest peers.
#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "each test takes what it needs")]
mod cluster;
#[path = "hostile/flood.rs"]
mod flood;
#[path = "hostile/insider.rs"]
mod insider;
#[path = "hostile/outsider.rs"]
mod outsider;
#[allow(dead_code, reason = "each test takes what it needs")]
mod traffic;

use cluster::{ANY_PORT, Cluster, host, in_full, patient, soon};
use ft_core::message::{Envelope, Message};
use ft_net::{Endpoint, LinkConfig, NetError};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::mpsc;
use traffic::envelope;

/// A host that serves whoever comes: it answers with what it was told, and notes what others than `friend` say.
struct Honest {
    cluster: Cluster,
    address: SocketAddr,
    noted: mpsc::UnboundedReceiver<Result<Envelope, NetError>>,
}

impl Honest {
    fn start() -> Self {
        Self::start_with(patient())
    }

    fn start_with(config: LinkConfig) -> Self {
        let cluster = Cluster::new();
        let endpoint = cluster.endpoint("host", config);
        let address = endpoint.local_addr().unwrap();
        let (notes, noted) = mpsc::unbounded_channel();
        tokio::spawn(serve(Arc::new(endpoint), notes));
        Self { cluster, address, noted }
    }

    async fn note(&mut self) -> Result<Envelope, NetError> {
        soon("a message or the end of a link", self.noted.recv()).await.unwrap()
    }

    /// The end of the link to the hostile peer, which is to name it and what it did.
    async fn expect_end(&mut self, peer: &str, did: &str) {
        let error = match self.note().await {
            Err(error) => in_full(&error),
            Ok(envelope) => panic!("{} was delivered", envelope.message.name()),
        };
        assert!(error.contains(peer) && error.contains(did), "{error:?} should name {peer} and {did:?}");
    }

    /// Nothing else was noted, and honest peers are served.
    async fn still_serves(mut self) {
        self.serves().await;
        let rest = self.noted.try_recv();
        assert!(rest.is_err(), "{rest:?}");
    }

    /// An honest peer comes, is served and goes.
    async fn serves(&self) {
        let friend = self.cluster.endpoint("friend", patient());
        let link = soon("an honest peer's link", friend.connect(self.address, &host("host"))).await.unwrap();
        let (sender, mut receiver) = link.split();
        let said = envelope(Message::StateAck { next: 77 });
        assert!(sender.send(said.clone()));
        assert_eq!(soon("the answer", receiver.recv()).await.unwrap(), said);
    }
}

async fn serve(endpoint: Arc<Endpoint>, notes: mpsc::UnboundedSender<Result<Envelope, NetError>>) {
    while let Some(incoming) = endpoint.accept().await {
        let (endpoint, notes) = (Arc::clone(&endpoint), notes.clone());
        tokio::spawn(async move {
            let (sender, mut receiver) = match incoming.identify(&endpoint).await {
                Ok(link) => link.split(),
                Err(error) => return notes.send(Err(error)).unwrap_or_default(),
            };
            let is_friend = *receiver.peer() == host("friend");
            loop {
                let received = receiver.recv().await;
                if let Ok(envelope) = &received {
                    sender.send(envelope.clone());
                }
                let is_end = received.is_err();
                if !is_friend {
                    // The test is over when nobody reads the notes.
                    notes.send(received).unwrap_or_default();
                }
                if is_end {
                    return;
                }
            }
        });
    }
}
