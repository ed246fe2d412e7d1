use super::*;

const IER: u8 = 1;
const MCR: u8 = 4;
const LSR: u8 = 5;

fn outputs(outbox: &mut Outbox) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| outbox.take()).map(|effect| effect.payload.to_vec()).collect()
}

fn print(serial: &mut Serial, text: &[u8], now_ns: u64, outbox: &mut Outbox) {
    text.iter().for_each(|byte| serial.write(DATA, *byte, now_ns, outbox));
}

fn read(serial: &mut Serial, count: usize) -> Vec<u8> {
    (0..count).map(|_| serial.read(DATA)).collect()
}

#[test]
fn lines_leave_whole() {
    let (mut serial, mut outbox) = (Serial::default(), Outbox::default());
    print(&mut serial, b"one\ntwo", 10, &mut outbox);
    assert_eq!(outputs(&mut outbox), [b"one\n"]);
    assert_eq!(serial.deadline_ns(), Some(10 + BATCH_NS));
    serial.advance(9 + BATCH_NS, &mut outbox);
    assert!(outbox.is_empty());
    serial.advance(10 + BATCH_NS, &mut outbox);
    assert_eq!(outputs(&mut outbox), [b"two"]);
    assert_eq!(serial.deadline_ns(), None);
}

#[test]
fn output_never_waits_for_more_than_a_batch() {
    let (mut serial, mut outbox) = (Serial::default(), Outbox::default());
    print(&mut serial, &[b'x'; BATCH_BYTES + 1], 0, &mut outbox);
    assert_eq!(outputs(&mut outbox), [[b'x'; BATCH_BYTES]]);
    assert!(serial.deadline_ns().is_some());
}

#[test]
fn the_divisor_is_no_output() {
    let (mut serial, mut outbox) = (Serial::default(), Outbox::default());
    serial.write(LCR, LCR_DIVISOR, 0, &mut outbox);
    serial.write(DATA, b'\n', 0, &mut outbox);
    assert_eq!(serial.deadline_ns(), None);
    assert_eq!(serial.read(DATA), b'\n');
    serial.write(LCR, 3, 0, &mut outbox);
    serial.flush(&mut outbox);
    assert!(outbox.is_empty());
}

#[test]
fn received_data_stays_pending_until_it_is_read() {
    let (mut serial, mut outbox) = (Serial::default(), Outbox::default());
    serial.write(IER, IER_RECEIVED, 0, &mut outbox);
    serial.receive(b"ab");
    for expected in *b"ab" {
        assert!(serial.interrupt());
        assert_eq!(serial.read(IIR), IIR_FIFO | IIR_RECEIVED);
        assert_eq!(serial.read(IIR), IIR_FIFO | IIR_RECEIVED, "reading IIR does not end it");
        assert_eq!(serial.read(DATA), expected);
    }
    assert!(!serial.interrupt());
    assert_eq!(serial.read(LSR) & 1, 0);
}

#[test]
fn an_empty_transmitter_interrupts_once() {
    let (mut serial, mut outbox) = (Serial::default(), Outbox::default());
    serial.write(IER, IER_RECEIVED | IER_EMPTY, 0, &mut outbox);
    serial.receive(b"a");
    assert_eq!(serial.read(IIR), IIR_FIFO | IIR_RECEIVED, "data comes first");
    serial.read(DATA);
    assert_eq!(serial.read(IIR), IIR_FIFO | IIR_EMPTY);
    assert_eq!(serial.read(IIR), IIR_FIFO | IIR_NONE);
    assert!(!serial.interrupt());
    serial.write(DATA, b'x', 0, &mut outbox);
    assert!(serial.interrupt());
    serial.write(IER, 0, 0, &mut outbox);
    assert!(!serial.interrupt(), "disabled");
}

#[test]
fn out2_connects_the_line() {
    let (mut serial, mut outbox) = (Serial::default(), Outbox::default());
    serial.write(IER, IER_EMPTY, 0, &mut outbox);
    assert!(serial.interrupt());
    serial.write(MCR, 3, 0, &mut outbox);
    assert!(!serial.interrupt());
    serial.write(MCR, 3 | MCR_OUT2, 0, &mut outbox);
    assert!(serial.interrupt());
}

#[test]
fn typed_bytes_arrive_in_order_up_to_the_bound() {
    let mut serial = Serial::default();
    let typed: Vec<u8> = (0..2 * BACKLOG_BYTES).map(|n| n as u8 ^ (n >> 8) as u8).collect();
    typed.chunks(100).for_each(|bytes| serial.receive(bytes));
    let mut read = Vec::new();
    while serial.read(LSR) & 1 != 0 {
        read.push(serial.read(DATA));
    }
    assert!((BACKLOG_BYTES..typed.len()).contains(&read.len()), "{} bytes", read.len());
    assert_eq!(read, typed[..read.len()]);
}

/// How a backlog lies in memory depends on its past; what the guest reads, and what a snapshot holds, must not.
#[test]
fn r1_a_restored_backlog_is_the_same() {
    let mut serial = Serial::default();
    serial.receive(&[1; BACKLOG_BYTES]);
    for round in 0..300 {
        read(&mut serial, 7);
        serial.receive(&[round as u8; 7 + 64]);
        let mut restored = Serial::from_state(&serial.state()).unwrap();
        // In a loop the FIFO is not refilled: all of it is afterwards, at once.
        for one in [&mut serial, &mut restored] {
            one.write(MCR, 1 << 4, 0, &mut Outbox::default());
            read(one, 64);
            one.write(MCR, MCR_OUT2, 0, &mut Outbox::default());
        }
        assert_eq!(serial.state(), restored.state());
    }
}

#[test]
fn a_loop_keeps_output_inside() {
    let (mut serial, mut outbox) = (Serial::default(), Outbox::default());
    serial.write(MCR, 1 << 4, 0, &mut outbox);
    serial.write(DATA, b'z', 0, &mut outbox);
    serial.receive(b"typed");
    assert_eq!(serial.read(DATA), b'z');
    assert_eq!(serial.read(LSR) & 1, 0, "what is typed waits");
    serial.write(MCR, MCR_OUT2, 0, &mut outbox);
    assert_eq!(serial.read(DATA), b't');
    serial.flush(&mut outbox);
    assert!(outbox.is_empty());
}

#[test]
fn states_beyond_the_bounds_are_refused() {
    let sound = Serial::default().state();
    assert!(Serial::from_state(&sound).is_ok());
    for damaged in [
        SerialState { fifo: vec![0; 65], ..sound.clone() },
        SerialState { backlog: vec![0; BACKLOG_BYTES + 1], ..sound.clone() },
        SerialState { batch: vec![0; BATCH_BYTES], ..sound.clone() },
    ] {
        assert!(Serial::from_state(&damaged).is_err());
    }
}
