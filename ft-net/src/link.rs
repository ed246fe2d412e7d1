//! A link to one peer: messages on lanes that do not hold each other up.
//!
//! | lane | carried by | before the others |
//! |---|---|---|
//! | control | a stream | first |
//! | log | a stream, in order | second |
//! | datagram | datagrams, lost rather than late | beside the streams |
//! | state | streams of their own | last |
//!
//! Invariant: every queue is bounded in bytes. What does not fit is dropped and counted; the core sends again what matters.
//! It decides nothing: see `ft_core`.

use crate::compress::Compressor;
use crate::endpoint::LinkConfig;
use crate::error::NetError;
use crate::identity::HostName;
use crate::stats::{Counters, LinkStats, add};
use crate::wire::{self, PREFACE_BYTES, WireError};
use bytes::{Bytes, BytesMut};
use ft_core::message::{Envelope, Lane};
use quinn::{Connection, ReadError, ReadExactError, RecvStream, SendStream, VarInt};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::mpsc;

/// Streams that a peer may open: control, log, state.
pub(crate) const STREAMS_MAX: u32 = 3;

/// What a queued message counts beside its bytes.
const MESSAGE_OVERHEAD: usize = 256;

/// Messages written in one go, at most.
const BATCH: usize = 32;

/// Codes with which a connection is closed.
const CLOSED: VarInt = VarInt::from_u32(0);
const PROTOCOL: VarInt = VarInt::from_u32(1);
const REFUSED: VarInt = VarInt::from_u32(2);

/// A link that is up.
pub struct Link {
    sender: LinkSender,
    receiver: LinkReceiver,
}

/// The sending half. Clones share the queues.
#[derive(Clone)]
pub struct LinkSender {
    shared: Arc<Shared>,
    control: Queue,
    log: Queue,
    state: Queue,
}

/// The receiving half.
pub struct LinkReceiver {
    shared: Arc<Shared>,
    inbox: mpsc::Receiver<Result<Envelope, NetError>>,
}

struct Shared {
    connection: Connection,
    peer: HostName,
    counters: Counters,
}

/// A queue bounded in bytes.
#[derive(Clone)]
struct Queue {
    sender: mpsc::UnboundedSender<Envelope>,
    bytes: Arc<AtomicUsize>,
    limit: usize,
}

impl Link {
    /// Makes a link of a connection whose peer has been authenticated. Each side opens its control stream and waits for
    /// the other's, which also tells the caller that it was accepted.
    pub(crate) async fn establish(
        connection: Connection,
        peer: HostName,
        config: &LinkConfig,
    ) -> Result<Self, NetError> {
        let shared = Arc::new(Shared { connection, peer, counters: Counters::default() });
        let (control, mut control_out) = shared.open(Lane::Control, 2, config).await?;
        let mut control_in = shared.accept().await?;
        let (log, log_out) = shared.open(Lane::Log, 1, config).await?;
        let (state, state_out) = shared.open(Lane::State, 0, config).await?;
        let (inbox, receiver) = mpsc::channel(config.inbox_messages);
        control_out.compressor = Compressor::new(false);
        let reader = Reader { shared: Arc::clone(&shared), inbox };
        for writer in [control_out, log_out, state_out] {
            tokio::spawn(writer.run(reader.clone()));
        }
        let lane = reader.preface(&mut control_in).await.map_err(|error| shared.breach(error))?;
        tokio::spawn(reader.clone().read_stream(control_in, lane));
        tokio::spawn(reader.clone().accept_streams());
        tokio::spawn(reader.read_datagrams());
        let sender = LinkSender { shared: Arc::clone(&shared), control, log, state };
        Ok(Self { sender, receiver: LinkReceiver { shared, inbox: receiver } })
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &HostName {
        &self.sender.shared.peer
    }

    /// Ends the link, and tells the peer why.
    pub(crate) fn refuse(self, why: &str) {
        self.sender.shared.connection.close(REFUSED, why.as_bytes());
    }

    /// The two halves.
    pub fn split(self) -> (LinkSender, LinkReceiver) {
        (self.sender, self.receiver)
    }
}

impl LinkSender {
    /// Who is at the other end.
    pub fn peer(&self) -> &HostName {
        &self.shared.peer
    }

    /// Queues a message. `false` when it was dropped: the queue was full or the link is down.
    pub fn send(&self, envelope: Envelope) -> bool {
        let taken = match envelope.message.lane() {
            Lane::Datagram => self.send_datagram(&envelope),
            Lane::Control => self.control.push(envelope),
            Lane::Log => self.log.push(envelope),
            Lane::State => self.state.push(envelope),
        };
        if !taken {
            add(&self.shared.counters.messages_dropped, 1);
        }
        taken
    }

    /// Whether both are halves of one link.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Bytes of log that wait to be sent.
    pub fn log_queued(&self) -> usize {
        self.log.bytes.load(Ordering::Relaxed)
    }

    /// What the link has carried.
    pub fn stats(&self) -> LinkStats {
        self.shared.counters.snapshot(&self.shared.connection.stats())
    }

    /// Ends the link with a farewell.
    pub fn close(&self) {
        self.shared.connection.close(CLOSED, b"closed");
    }

    fn send_datagram(&self, envelope: &Envelope) -> bool {
        let sent = self.shared.connection.send_datagram(envelope.to_bytes()).is_ok();
        if sent {
            self.shared.counters.handle_sent(envelope);
        }
        sent
    }
}

impl LinkReceiver {
    /// Who is at the other end.
    pub fn peer(&self) -> &HostName {
        &self.shared.peer
    }

    /// The next message.
    ///
    /// # Errors
    /// Why the link ended: nothing comes after.
    pub async fn recv(&mut self) -> Result<Envelope, NetError> {
        match self.inbox.recv().await {
            Some(result) => result,
            None => Err(self.shared.lost()),
        }
    }
}

impl Drop for LinkReceiver {
    fn drop(&mut self) {
        self.shared.connection.close(CLOSED, b"closed");
    }
}

impl Queue {
    fn push(&self, envelope: Envelope) -> bool {
        let len = weight(&envelope);
        if self.bytes.fetch_add(len, Ordering::Relaxed) + len > self.limit + MESSAGE_OVERHEAD {
            self.bytes.fetch_sub(len, Ordering::Relaxed);
            return false;
        }
        self.sender.send(envelope).is_ok()
    }
}

/// What a message counts in a queue.
fn weight(envelope: &Envelope) -> usize {
    use ft_core::message::Message;
    MESSAGE_OVERHEAD
        + match &envelope.message {
            Message::Log { frame, .. } => frame.size(),
            Message::State(chunk) => chunk.bytes.len(),
            _ => 0,
        }
}

impl Shared {
    /// Opens a stream of our own, and the queue before it.
    async fn open(
        self: &Arc<Self>,
        lane: Lane,
        priority: i32,
        config: &LinkConfig,
    ) -> Result<(Queue, Writer), NetError> {
        let lost = |_| self.lost();
        let mut stream = self.connection.open_uni().await.map_err(lost)?;
        // Setting a priority fails only on a stream that is closed, and then so does writing.
        let _ = stream.set_priority(priority);
        stream.write_all(&wire::preface(lane)).await.map_err(|_| self.lost())?;
        let (sender, queue) = mpsc::unbounded_channel();
        let bytes = Arc::new(AtomicUsize::new(0));
        let compressor = Compressor::new(config.compress);
        let shared = Arc::clone(self);
        let writer = Writer { shared, stream, queue, queued: Arc::clone(&bytes), compressor };
        Ok((Queue { sender, bytes, limit: config.queue_bytes }, writer))
    }

    async fn accept(&self) -> Result<RecvStream, NetError> {
        self.connection.accept_uni().await.map_err(|_| self.lost())
    }

    /// The peer broke the protocol: the connection ends, and both sides say why.
    fn breach(&self, error: WireError) -> NetError {
        if error == WireError::Cut && self.connection.close_reason().is_some() {
            return self.lost();
        }
        let what = error.to_string();
        self.connection.close(PROTOCOL, what.as_bytes());
        let peer = self.peer.to_string();
        match error {
            WireError::Message(source) => NetError::Message { peer, source },
            _ => NetError::Protocol { peer, what },
        }
    }

    fn lost(&self) -> NetError {
        let peer = self.peer.to_string();
        let reason = match self.connection.close_reason() {
            Some(quinn::ConnectionError::LocallyClosed) => "closed on this side".to_owned(),
            Some(reason) => printable(&reason.to_string()),
            None => "the peer closed a stream".to_owned(),
        };
        NetError::Lost { peer, reason }
    }
}

/// Text in which the peer may have had a say, and which goes to a terminal and to a log.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect()
}

/// Writes a lane's queue to its stream.
struct Writer {
    shared: Arc<Shared>,
    stream: SendStream,
    queue: mpsc::UnboundedReceiver<Envelope>,
    queued: Arc<AtomicUsize>,
    compressor: Compressor,
}

impl Writer {
    /// Ends with the link, and takes the queue along: what is sent from then on is dropped at once.
    async fn run(mut self, reader: Reader) {
        let shared = Arc::clone(&self.shared);
        let is_stopped = tokio::select! {
            is_whole = self.write_all() => !is_whole && shared.connection.close_reason().is_none(),
            _ = shared.connection.closed() => false,
        };
        if is_stopped {
            reader.fail(WireError::Stopped).await;
        }
    }

    /// Until nobody queues any more; `false` when the stream ended first.
    async fn write_all(&mut self) -> bool {
        let mut batch = Vec::with_capacity(BATCH);
        while self.queue.recv_many(&mut batch, BATCH).await > 0 {
            if !self.write(&mut batch).await {
                return false;
            }
        }
        true
    }

    async fn write(&mut self, batch: &mut Vec<Envelope>) -> bool {
        let mut chunks = Vec::with_capacity(batch.len() * 2);
        let mut weights = 0;
        let queued = batch.len() > 1 || !self.queue.is_empty();
        for envelope in batch.drain(..) {
            weights += weight(&envelope);
            self.shared.counters.handle_sent(&envelope);
            self.encode(&envelope, queued, &mut chunks);
        }
        let (started, bytes) = (std::time::Instant::now(), chunks.iter().map(Bytes::len).sum());
        let written = self.stream.write_all_chunks(&mut chunks).await.is_ok();
        self.queued.fetch_sub(weights, Ordering::Relaxed);
        if !self.queue.is_empty() {
            self.compressor.handle_sent(bytes, started.elapsed());
        }
        written
    }

    fn encode(&mut self, envelope: &Envelope, queued: bool, chunks: &mut Vec<Bytes>) {
        let (head, bulk) = envelope.encode();
        let raw_len = head.len() + bulk.iter().map(Bytes::len).sum::<usize>();
        let packed = self.compressor.compress(&head, bulk, queued);
        let packed = packed.map(|zstd| wire::compressed(raw_len, &zstd));
        if envelope.message.lane() == Lane::Log {
            let sent = packed.as_ref().map_or(raw_len + 4, Bytes::len);
            add(&self.shared.counters.log_bytes_raw, raw_len as u64 + 4);
            add(&self.shared.counters.log_bytes_sent, sent as u64);
        }
        match packed {
            Some(packed) => chunks.push(packed),
            None => {
                chunks.push(wire::plain(raw_len, &head));
                chunks.extend(bulk.iter().filter(|piece| !piece.is_empty()).cloned());
            }
        }
    }
}

/// Takes messages off streams and datagrams, and hands them on.
#[derive(Clone)]
struct Reader {
    shared: Arc<Shared>,
    inbox: mpsc::Sender<Result<Envelope, NetError>>,
}

impl Reader {
    async fn accept_streams(self) {
        while let Ok(mut stream) = self.shared.connection.accept_uni().await {
            match self.preface(&mut stream).await {
                Ok(lane) => drop(tokio::spawn(self.clone().read_stream(stream, lane))),
                Err(error) => return self.fail(error).await,
            }
        }
    }

    async fn preface(&self, stream: &mut RecvStream) -> Result<Lane, WireError> {
        let mut preface = [0; PREFACE_BYTES];
        stream.read_exact(&mut preface).await.map_err(|_| WireError::Cut)?;
        wire::parse_preface(preface)
    }

    async fn read_stream(self, mut stream: RecvStream, lane: Lane) {
        loop {
            match read_message(&mut stream).await {
                Ok(Some(envelope)) if envelope.message.lane() != lane => {
                    return self.fail(WireError::Lane).await;
                }
                Ok(Some(envelope)) => {
                    self.shared.counters.handle_received(&envelope);
                    // A full inbox stops reading, and flow control then stops the peer.
                    if self.inbox.send(Ok(envelope)).await.is_err() {
                        return;
                    }
                }
                Ok(None) => return,
                Err(error) => return self.fail(error).await,
            }
        }
    }

    async fn read_datagrams(self) {
        while let Ok(bytes) = self.shared.connection.read_datagram().await {
            match Envelope::decode(bytes) {
                Ok(envelope) if envelope.message.lane() == Lane::Datagram => {
                    self.shared.counters.handle_received(&envelope);
                    if self.inbox.send(Ok(envelope)).await.is_err() {
                        return;
                    }
                }
                Ok(_) => return self.fail(WireError::Lane).await,
                Err(error) => return self.fail(error.into()).await,
            }
        }
    }

    async fn fail(&self, error: WireError) {
        let error = self.shared.breach(error);
        // Nobody listens any more: nobody needs to know.
        let _ = self.inbox.send(Err(error)).await;
    }
}

/// The next message of a stream; `None` at its end.
async fn read_message(stream: &mut RecvStream) -> Result<Option<Envelope>, WireError> {
    let mut length = [0; 4];
    match stream.read_exact(&mut length).await {
        Ok(()) => {}
        Err(ReadExactError::FinishedEarly(0)) => return Ok(None),
        Err(error) => return cut(&error),
    }
    let (len, is_compressed) = wire::parse_length(length)?;
    match read_body(stream, len).await {
        Ok(Some(body)) => wire::decode(body, is_compressed).map(Some),
        Ok(None) => Err(WireError::Cut),
        Err(error) => cut(&ReadExactError::ReadError(error)),
    }
}

/// The next `len` bytes of a stream, copied once at most: a message within one packet is not copied at all. `None` where
/// the stream ends before.
async fn read_body(stream: &mut RecvStream, len: usize) -> Result<Option<Bytes>, ReadError> {
    let mut body = BytesMut::new();
    if len == 0 {
        return Ok(Some(Bytes::new()));
    }
    loop {
        let Some(chunk) = stream.read_chunk(len - body.len(), true).await? else {
            return Ok((body.len() == len).then(|| body.freeze()));
        };
        if chunk.bytes.len() == len {
            return Ok(Some(chunk.bytes));
        }
        body.reserve(len - body.len());
        body.extend_from_slice(&chunk.bytes);
        if body.len() == len {
            return Ok(Some(body.freeze()));
        }
    }
}

/// A stream that ended in the middle of a message: with its connection, or because the peer breaks the protocol.
fn cut(error: &ReadExactError) -> Result<Option<Envelope>, WireError> {
    match error {
        ReadExactError::ReadError(ReadError::ConnectionLost(_)) => Ok(None),
        _ => Err(WireError::Cut),
    }
}
