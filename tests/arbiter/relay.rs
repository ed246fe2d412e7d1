//! Stands between a claimer and an arbiter, and loses requests or answers.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What becomes of the next connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// They work.
    Pass,
    /// They break when the request has come this far; the server never sees it.
    LoseRequest,
    /// They break when the server has answered; the claimer never hears it.
    LoseAnswer,
    /// Nothing moves, nothing breaks.
    Hold,
}

pub(crate) struct Relay {
    address: SocketAddr,
    fate: Arc<Mutex<Fate>>,
}

impl Relay {
    pub(crate) fn to(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let fate = Arc::new(Mutex::new(Fate::Pass));
        let at = Arc::clone(&fate);
        // Ends with the test's process.
        std::thread::spawn(move || {
            for caller in listener.incoming().map_while(Result::ok) {
                let at = Arc::clone(&at);
                std::thread::spawn(move || relay(caller, port, &at));
            }
        });
        Self { address, fate }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn set(&self, fate: Fate) {
        *self.fate.lock().unwrap() = fate;
    }
}

/// Requests and answers alternate, so one thread is enough for both directions.
fn relay(mut caller: TcpStream, port: u16, fate: &Mutex<Fate>) {
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)) else { return };
    let mut bytes = vec![0; 64 << 10];
    loop {
        // A request is small and has come whole once its body has.
        let mut request = Vec::new();
        while !is_whole(&request) {
            match caller.read(&mut bytes) {
                Ok(len) if len > 0 => request.extend_from_slice(&bytes[..len]),
                _ => return,
            }
        }
        let now = *fate.lock().unwrap();
        match now {
            Fate::LoseRequest => return drop(caller.shutdown(Shutdown::Both)),
            Fate::Hold => {
                // Until the caller gives up.
                while caller.read(&mut bytes).is_ok_and(|len| len > 0) {}
                return;
            }
            Fate::Pass | Fate::LoseAnswer => server.write_all(&request).unwrap(),
        }
        let mut answer = Vec::new();
        while !is_whole(&answer) {
            match server.read(&mut bytes) {
                Ok(len) if len > 0 => answer.extend_from_slice(&bytes[..len]),
                _ => return,
            }
        }
        if now == Fate::LoseAnswer {
            return drop(caller.shutdown(Shutdown::Both));
        }
        if caller.write_all(&answer).is_err() {
            return;
        }
    }
}

/// Whether a message of HTTP/1.1 has come whole, as far as etcd and its client use it: with a length.
fn is_whole(message: &[u8]) -> bool {
    let text = String::from_utf8_lossy(message).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    length.is_some_and(|length| body.len() >= length.trim().parse().unwrap())
}
