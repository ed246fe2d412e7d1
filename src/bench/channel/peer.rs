//! A peer process: `ft bench channel-peer`, started by the coordinator and by nobody else.
//!
//! Invariant: a peer never outlives its coordinator. Its standard input ends when the coordinator does, whatever way
//! that happens, and a thread of its own waits for that.

use super::error::{Doing, Error};
use super::order::{Job, Line, Order, Sample, Side, Work};
use super::payload::Payload;
use ft::error::in_one_line;
use std::io::{BufRead, Read, Write};
use std::net::SocketAddr;
use std::process::ExitCode;

/// Reads one order, carries it out and prints the result.
pub(crate) fn run() -> ExitCode {
    let outcome = take_order().and_then(|order| carry_out(&order));
    let (line, code) = match outcome {
        Ok(sample) => (Line::Done(sample), ExitCode::SUCCESS),
        Err(error) => (Line::Failed { error: in_one_line(&error) }, ExitCode::FAILURE),
    };
    match say(&line) {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE, // nobody is listening any more
    }
}

fn take_order() -> Result<Order, Error> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).doing("read the order on standard input")?;
    let order = serde_json::from_str(&line)
        .doing("understand the order (`ft bench channel` starts this process itself; there is no need to)")?;
    std::thread::spawn(end_with_the_coordinator);
    Ok(order)
}

fn end_with_the_coordinator() {
    let _ = std::io::stdin().lock().read_to_end(&mut Vec::new());
    std::process::exit(1);
}

fn carry_out(order: &Order) -> Result<Sample, Error> {
    let ready: &mut dyn FnMut(SocketAddr) -> Result<(), Error> = &mut |address| say(&Line::Ready { address });
    let job: &Job = &order.job;
    let not_built = || Error::NotBuilt(order.work.title().to_owned());
    match order.work {
        Work::Volume { contender, bytes, data } => {
            let channel = contender.channel().ok_or_else(not_built)?;
            match order.side {
                Side::Serve => channel.serve(job, bytes, ready),
                Side::Drive => channel.drive(job, &Payload::new(data, bytes)),
            }
        }
        Work::RoundTrips { method, count } => {
            let echo = method.echo().ok_or_else(not_built)?;
            match order.side {
                Side::Serve => echo.serve(job, ready),
                Side::Drive => echo.drive(job, count),
            }
        }
    }
}

fn say(line: &Line) -> Result<(), Error> {
    let json = serde_json::to_string(line).doing("write a result")?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{json}").and_then(|()| out.flush()).doing("report to the coordinator")
}
