//! Bare quinn: one unidirectional stream for volume, a bidirectional stream or datagrams for messages.

use super::contender::{Channel, Echo, Ready};
use super::error::{Doing, Error};
use super::identity::SERVER_NAME;
use super::order::{Buffers, Job, Sample};
use super::payload::Payload;
use super::quic_setup::{client, runtime, server};
use super::stream::{GO, MESSAGE_BYTES, WARM_UP, check_receipt, nanoseconds_since};
use super::usage::Meter;
use bytes::Bytes;
use quinn::{Connection, ConnectionError, Endpoint, RecvStream, VarInt};
use std::time::{Duration, Instant};

/// One `Bytes` handed to quinn.
const PIECE: usize = 64 << 10;
/// Pieces handed over, or taken, in one call.
const BATCH: usize = 32;
/// A datagram not answered by then is lost.
const LOST_AFTER: Duration = Duration::from_secs(2);

/// The whole volume on one unidirectional stream; go and receipt come back on another.
pub(super) struct Volume;

impl Channel for Volume {
    fn serve(&self, job: &Job, bytes: u64, ready: Ready<'_>) -> Result<Sample, Error> {
        runtime()?.block_on(async {
            let (_endpoint, connection, buffers) = accept(job, ready).await?;
            let mut back = connection.open_uni().await.doing("open the stream back")?;
            back.write_all(&[GO]).await.doing("start the clocks")?;
            let meter = Meter::start();
            let mut stream = connection.accept_uni().await.doing("accept the payload's stream")?;
            receive_volume(&mut stream, bytes).await?;
            back.write_all(&bytes.to_be_bytes()).await.doing("send the receipt")?;
            let sample = meter.stop(bytes);
            connection.closed().await;
            Ok(Sample { buffers: Some(buffers), ..sample })
        })
    }

    fn drive(&self, job: &Job, payload: &Payload) -> Result<Sample, Error> {
        runtime()?.block_on(async {
            let (endpoint, connection, buffers) = connect(job).await?;
            let mut back = connection.accept_uni().await.doing("wait for the receiver's go")?;
            back.read_exact(&mut [0; 1]).await.doing("wait for the receiver's go")?;
            let meter = Meter::start();
            send_volume(&connection, payload).await?;
            let mut receipt = [0; 8];
            back.read_exact(&mut receipt).await.doing("wait for the receipt")?;
            let sample = meter.stop(payload.len());
            check_receipt(receipt, payload)?;
            close(&endpoint, &connection).await;
            Ok(Sample { buffers: Some(buffers), ..sample })
        })
    }
}

async fn send_volume(connection: &Connection, payload: &Payload) -> Result<(), Error> {
    let mut stream = connection.open_uni().await.doing("open the payload's stream")?;
    let mut pieces = payload.pieces(PIECE);
    loop {
        let mut batch: Vec<Bytes> = pieces.by_ref().take(BATCH).collect();
        if batch.is_empty() {
            break;
        }
        stream.write_all_chunks(&mut batch).await.doing("send the payload")?;
    }
    stream.finish().doing("end the payload's stream")
}

async fn receive_volume(stream: &mut RecvStream, expected: u64) -> Result<(), Error> {
    let mut batch: [Bytes; BATCH] = Default::default();
    let mut got = 0;
    while let Some(count) = stream.read_chunks(&mut batch).await.doing("receive the payload")? {
        got += batch[..count].iter().map(|piece| piece.len() as u64).sum::<u64>();
    }
    if got == expected { Ok(()) } else { Err(Error::Truncated { got, expected }) }
}

/// Messages on one bidirectional stream.
pub(super) struct StreamPing;

impl Echo for StreamPing {
    fn serve(&self, job: &Job, ready: Ready<'_>) -> Result<Sample, Error> {
        runtime()?.block_on(async {
            let (_endpoint, connection, _) = accept(job, ready).await?;
            let (mut send, mut receive) = connection.accept_bi().await.doing("accept a stream")?;
            let mut message = [0; MESSAGE_BYTES];
            while receive.read_exact(&mut message).await.is_ok() {
                send.write_all(&message).await.doing("answer a message")?;
            }
            Ok(Sample::default())
        })
    }

    fn drive(&self, job: &Job, count: usize) -> Result<Sample, Error> {
        runtime()?.block_on(async {
            let (endpoint, connection, _) = connect(job).await?;
            let (mut send, mut receive) = connection.open_bi().await.doing("open a stream")?;
            let mut message = [0; MESSAGE_BYTES];
            let sample = time_each(count, async || {
                send.write_all(&message).await.doing("send a message")?;
                receive.read_exact(&mut message).await.doing("receive the answer")
            });
            let sample = sample.await?;
            close(&endpoint, &connection).await;
            Ok(sample)
        })
    }
}

/// Messages as unreliable datagrams.
pub(super) struct DatagramPing;

impl Echo for DatagramPing {
    fn serve(&self, job: &Job, ready: Ready<'_>) -> Result<Sample, Error> {
        runtime()?.block_on(async {
            let (_endpoint, connection, _) = accept(job, ready).await?;
            loop {
                let message = match connection.read_datagram().await {
                    Err(ConnectionError::ApplicationClosed(_)) => return Ok(Sample::default()),
                    message => message.doing("receive a datagram")?,
                };
                connection.send_datagram(message).doing("answer a datagram")?;
            }
        })
    }

    fn drive(&self, job: &Job, count: usize) -> Result<Sample, Error> {
        runtime()?.block_on(async {
            let (endpoint, connection, _) = connect(job).await?;
            let message = Bytes::from_static(&[0; MESSAGE_BYTES]);
            let sample = time_each(count, async || {
                connection.send_datagram(message.clone()).doing("send a datagram")?;
                let answer = tokio::time::timeout(LOST_AFTER, connection.read_datagram()).await;
                answer.doing("get a datagram answered")?.doing("receive a datagram").map(drop)
            });
            let sample = sample.await?;
            close(&endpoint, &connection).await;
            Ok(sample)
        })
    }
}

/// The twin of [`super::stream::time_each`] for exchanges that are futures.
async fn time_each(
    count: usize,
    mut exchange: impl AsyncFnMut() -> Result<(), Error>,
) -> Result<Sample, Error> {
    for _ in 0..WARM_UP {
        exchange().await?;
    }
    let meter = Meter::start();
    let mut round_trips_ns = Vec::with_capacity(count);
    for _ in 0..count {
        let asked = Instant::now();
        exchange().await?;
        round_trips_ns.push(nanoseconds_since(asked));
    }
    Ok(Sample { round_trips_ns, ..meter.stop((count * MESSAGE_BYTES) as u64) })
}

async fn accept(job: &Job, ready: Ready<'_>) -> Result<(Endpoint, Connection, Buffers), Error> {
    let (endpoint, buffers) = server(job)?;
    ready(endpoint.local_addr().doing("read the QUIC address")?)?;
    let incoming = endpoint.accept().await.ok_or("the endpoint is closed").doing("accept a connection")?;
    let connection = incoming.await.doing("shake hands over QUIC")?;
    Ok((endpoint, connection, buffers))
}

async fn connect(job: &Job) -> Result<(Endpoint, Connection, Buffers), Error> {
    let (endpoint, buffers) = client(job)?;
    let connecting =
        endpoint.connect(job.address, SERVER_NAME).doing(format!("connect to {}", job.address))?;
    let connection = connecting.await.doing("shake hands over QUIC")?;
    Ok((endpoint, connection, buffers))
}

/// Tells the other side that this was the end, and waits until it has been told.
async fn close(endpoint: &Endpoint, connection: &Connection) {
    connection.close(VarInt::from_u32(0), b"done");
    endpoint.wait_idle().await;
}
