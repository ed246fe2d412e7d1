//! Stands between two hosts, on UDP and on TCP, and can be cut: packets are lost, and TCP streams stand still without being closed, as when
//! a cable is pulled.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How often threads look whether they are to end.
const LOOK_EVERY: Duration = Duration::from_millis(5);

#[derive(Default)]
struct Shared {
    is_cut: AtomicBool,
    is_over: AtomicBool,
}

pub(crate) struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Relay {
    /// A relay to `target`.
    pub(crate) fn to(target: SocketAddr) -> Self {
        let (tcp, udp) = loop {
            let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()) {
                break (tcp, udp);
            }
        };
        let address = tcp.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        relay_udp(udp, target, &shared);
        let at = Arc::clone(&shared);
        tcp.set_nonblocking(true).unwrap();
        std::thread::spawn(move || {
            while !at.is_over.load(Ordering::Relaxed) {
                match tcp.accept() {
                    Ok((caller, _)) => relay_tcp(caller, target, &at),
                    Err(_) => std::thread::sleep(LOOK_EVERY), // polling, so that the relay can end
                }
            }
        });
        Self { address, shared }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn cut(&self) {
        self.shared.is_cut.store(true, Ordering::Relaxed);
    }

    pub(crate) fn mend(&self) {
        self.shared.is_cut.store(false, Ordering::Relaxed);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
    }
}

/// One caller at a time: the last one that spoke is answered.
fn relay_udp(outer: UdpSocket, target: SocketAddr, shared: &Arc<Shared>) {
    let inner = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    inner.connect(target).unwrap();
    let caller = Arc::new(Mutex::new(None::<SocketAddr>));
    let (outer, inner) = (Arc::new(outer), Arc::new(inner));
    for socket in [&outer, &inner] {
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    }
    let (from, to, last, at) =
        (Arc::clone(&outer), Arc::clone(&inner), Arc::clone(&caller), Arc::clone(shared));
    std::thread::spawn(move || {
        let mut packet = [0; 65536];
        while !at.is_over.load(Ordering::Relaxed) {
            let Ok((len, source)) = from.recv_from(&mut packet) else { continue };
            *last.lock().unwrap() = Some(source);
            if !at.is_cut.load(Ordering::Relaxed) {
                let _ = to.send(&packet[..len]);
            }
        }
    });
    let at = Arc::clone(shared);
    std::thread::spawn(move || {
        let mut packet = [0; 65536];
        while !at.is_over.load(Ordering::Relaxed) {
            let Ok(len) = inner.recv(&mut packet) else { continue };
            let caller = *caller.lock().unwrap();
            if let Some(caller) = caller.filter(|_| !at.is_cut.load(Ordering::Relaxed)) {
                let _ = outer.send_to(&packet[..len], caller);
            }
        }
    });
}

fn relay_tcp(caller: TcpStream, target: SocketAddr, shared: &Arc<Shared>) {
    let Ok(callee) = TcpStream::connect(target) else { return };
    for (from, to) in [(&caller, &callee), (&callee, &caller)] {
        let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
        from.set_nonblocking(false).unwrap();
        let at = Arc::clone(shared);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            loop {
                let read = from.read(&mut bytes);
                while at.is_cut.load(Ordering::Relaxed) && !at.is_over.load(Ordering::Relaxed) {
                    std::thread::sleep(LOOK_EVERY); // a cut is what is being made here
                }
                match read {
                    Ok(len) if len > 0 => {
                        if to.write_all(&bytes[..len]).is_err() {
                            return;
                        }
                    }
                    _ => {
                        let _ = to.shutdown(std::net::Shutdown::Write);
                        return;
                    }
                }
            }
        });
    }
}
