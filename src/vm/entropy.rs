//! Random bytes for guests, from the host, on a thread of its own: the machine's thread must not wait for room in its own inbox.

use crossbeam::channel::{Sender, unbounded};
use ft_core::Event;
use std::io;

/// Most random bytes that a guest is given at once.
const BYTES_MAX: usize = 4096;

/// Gives random bytes until it is dropped.
pub struct Entropy {
    requests: Sender<usize>,
}

impl Entropy {
    /// Begins to serve.
    ///
    /// # Errors
    /// When there is no thread.
    pub fn start(events: Sender<Event>) -> io::Result<Self> {
        // The guest has one request under way at most.
        let (requests, asked) = unbounded::<usize>();
        let serve = move || {
            for len in asked {
                let mut bytes = vec![0; len.min(BYTES_MAX)];
                if let Err(error) = getrandom::fill(&mut bytes) {
                    tracing::error!(%error, "no random bytes from this host; the guest waits");
                } else if events.send(Event::Entropy(bytes.into())).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("ft-entropy".into()).spawn(serve)?;
        Ok(Self { requests })
    }

    /// Asks for `len` bytes; they come as an event.
    pub fn ask(&self, len: usize) {
        // Fails only where the thread is gone because nobody takes its events any more.
        let _ = self.requests.send(len);
    }
}
