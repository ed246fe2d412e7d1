//! What TCP and TLS over TCP have in common: a byte stream that reads and writes.

use super::contender::{Channel, Echo, Ready};
use super::error::{Doing, Error};
use super::order::{Buffers, Job, Sample};
use super::payload::Payload;
use super::usage::Meter;
use std::io::{ErrorKind, Read, Write};
use std::time::Instant;

/// The receiver's word that the connection stands and the clock may start.
pub(super) const GO: u8 = 1;
/// A message of the latency part.
pub(super) const MESSAGE_BYTES: usize = 64;
/// Round trips before the first one that counts: they fill caches and let timers settle.
pub(super) const WARM_UP: usize = 100;
/// One write or read call.
const PIECE: usize = 256 << 10;

/// Makes byte streams.
pub(super) trait Transport: Sync {
    type Stream: Read + Write;
    /// Takes one connection; the handshake is complete.
    fn accept(&self, job: &Job, ready: Ready<'_>) -> Result<(Self::Stream, Buffers), Error>;
    /// Connects; the handshake is complete as far as the client can tell.
    fn connect(&self, job: &Job) -> Result<(Self::Stream, Buffers), Error>;
}

/// One volume over a byte stream.
pub(super) struct Volume<T>(pub(super) T);

impl<T: Transport> Channel for Volume<T> {
    fn serve(&self, job: &Job, bytes: u64, ready: Ready<'_>) -> Result<Sample, Error> {
        let (mut stream, buffers) = self.0.accept(job, ready)?;
        send(&mut stream, &[GO]).doing("start the clocks")?;
        let meter = Meter::start();
        receive_volume(&mut stream, bytes)?;
        send(&mut stream, &bytes.to_be_bytes()).doing("send the receipt")?;
        Ok(Sample { buffers: Some(buffers), ..meter.stop(bytes) })
    }

    fn drive(&self, job: &Job, payload: &Payload) -> Result<Sample, Error> {
        let (mut stream, buffers) = self.0.connect(job)?;
        stream.read_exact(&mut [0; 1]).doing("wait for the receiver's go")?;
        let meter = Meter::start();
        for piece in payload.pieces(PIECE) {
            stream.write_all(&piece).doing("send the payload")?;
        }
        stream.flush().doing("send the payload")?;
        let mut receipt = [0; 8];
        stream.read_exact(&mut receipt).doing("wait for the receipt")?;
        let sample = meter.stop(payload.len());
        check_receipt(receipt, payload)?;
        Ok(Sample { buffers: Some(buffers), ..sample })
    }
}

/// Small messages over a byte stream.
pub(super) struct Ping<T>(pub(super) T);

impl<T: Transport> Echo for Ping<T> {
    fn serve(&self, job: &Job, ready: Ready<'_>) -> Result<Sample, Error> {
        let (mut stream, _) = self.0.accept(job, ready)?;
        let mut message = [0; MESSAGE_BYTES];
        loop {
            match stream.read_exact(&mut message) {
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(Sample::default()),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(Sample::default()),
                received => received.doing("receive a message")?,
            }
            send(&mut stream, &message).doing("answer a message")?;
        }
    }

    fn drive(&self, job: &Job, count: usize) -> Result<Sample, Error> {
        let (mut stream, _) = self.0.connect(job)?;
        let mut message = [0; MESSAGE_BYTES];
        time_each(count, || {
            send(&mut stream, &message)?;
            stream.read_exact(&mut message)
        })
    }
}

/// Runs `exchange` `count` times, after warming up, and times each one.
pub(super) fn time_each(
    count: usize,
    mut exchange: impl FnMut() -> std::io::Result<()>,
) -> Result<Sample, Error> {
    for _ in 0..WARM_UP {
        exchange().doing("exchange a message")?;
    }
    let meter = Meter::start();
    let mut round_trips_ns = Vec::with_capacity(count);
    for _ in 0..count {
        let asked = Instant::now();
        exchange().doing("exchange a message")?;
        round_trips_ns.push(nanoseconds_since(asked));
    }
    Ok(Sample { round_trips_ns, ..meter.stop((count * MESSAGE_BYTES) as u64) })
}

/// Saturates after 584 years.
pub(super) fn nanoseconds_since(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// The receiver must have counted what the sender sent.
pub(super) fn check_receipt(receipt: [u8; 8], payload: &Payload) -> Result<(), Error> {
    let (sent, counted) = (payload.len(), u64::from_be_bytes(receipt));
    if sent == counted { Ok(()) } else { Err(Error::Miscounted { sent, counted }) }
}

fn send(stream: &mut impl Write, bytes: &[u8]) -> std::io::Result<()> {
    stream.write_all(bytes)?;
    stream.flush()
}

fn receive_volume(stream: &mut impl Read, expected: u64) -> Result<(), Error> {
    let mut buffer = vec![0; PIECE];
    let mut got = 0;
    while got < expected {
        match stream.read(&mut buffer).doing("receive the payload")? {
            0 => return Err(Error::Truncated { got, expected }),
            count => got += count as u64,
        }
    }
    if got == expected { Ok(()) } else { Err(Error::Miscounted { sent: expected, counted: got }) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::bench::channel::payload::Data;

    #[test]
    fn a_stream_that_ends_early_names_both_counts() {
        let error = receive_volume(&mut &[0; 10][..], 11).unwrap_err();
        assert_eq!(error.to_string(), "the stream ended after 10 of 11 bytes");
    }

    #[test]
    fn a_receipt_must_match() {
        let payload = Payload::new(Data::Realistic, 5);
        assert!(check_receipt(5_u64.to_be_bytes(), &payload).is_ok());
        assert!(check_receipt(4_u64.to_be_bytes(), &payload).is_err());
    }

    #[test]
    fn warm_up_does_not_count() {
        let mut exchanges = 0;
        let sample = time_each(7, || {
            exchanges += 1;
            Ok(())
        });
        assert_eq!(sample.unwrap().round_trips_ns.len(), 7);
        assert_eq!(exchanges, 7 + WARM_UP);
    }
}
