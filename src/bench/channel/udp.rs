//! A bare UDP datagram there and back: the link's own round trip, with nothing on top.

use super::contender::{Echo, Ready};
use super::error::{Doing, Error};
use super::order::{Job, Sample};
use super::socket;
use super::stream::{MESSAGE_BYTES, time_each};
use std::time::Duration;

/// A datagram not answered by then is lost, which on an idle link of this benchmark means that the link is broken.
const LOST_AFTER: Duration = Duration::from_secs(2);
/// A message of this size ends the serving side; UDP has no end of its own.
const FAREWELL_BYTES: usize = 1;

/// One datagram at a time.
pub(super) struct Udp;

impl Echo for Udp {
    fn serve(&self, job: &Job, ready: Ready<'_>) -> Result<Sample, Error> {
        let (socket, _) = socket::udp(job.address, job.tuning.socket_buffer)?;
        ready(socket.local_addr().doing("read the UDP address")?)?;
        let mut message = [0; MESSAGE_BYTES];
        loop {
            let (size, from) = socket.recv_from(&mut message).doing("receive a datagram")?;
            if size == FAREWELL_BYTES {
                return Ok(Sample::default());
            }
            socket.send_to(&message[..size], from).doing("answer a datagram")?;
        }
    }

    fn drive(&self, job: &Job, count: usize) -> Result<Sample, Error> {
        let (socket, _) = socket::udp(([0, 0, 0, 0], 0).into(), job.tuning.socket_buffer)?;
        socket.connect(job.address).doing(format!("address UDP to {}", job.address))?;
        socket.set_read_timeout(Some(LOST_AFTER)).doing("set a receive timeout")?;
        let mut message = [0; MESSAGE_BYTES];
        let sample = time_each(count, || {
            socket.send(&message)?;
            socket.recv(&mut message).map(drop)
        })?;
        socket.send(&[0; FAREWELL_BYTES]).doing("end the exchange")?;
        Ok(sample)
    }
}
