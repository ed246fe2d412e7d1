//! The loop: block after block, to the tick, with a look outside whenever something asks for attention.
//!
//! Invariant: what happens does not depend on where runs begin and end. A run ends between two instructions, before an interrupt is
//! taken there; a trap that an instruction causes belongs to it.

use super::blocks::Blocks;
use super::cpu::{Cpu, Exception, attention, vector};
use super::deliver::{self, Cause};
use super::flags::{IF, TF};
use super::op::{Env, Flow, Op, SS};
use crate::vcpu::VcpuStop;

/// Exceptions in a row without a retired instruction, after which the guest will never retire one.
const DELIVERIES_MAX: u32 = 64;
/// BS of DR6: a single step.
const DR6_STEP: u64 = 1 << 14;

/// What to do next.
enum Next {
    /// Execute; only one instruction if so.
    Execute { single: bool },
    /// Look again.
    Again,
    /// Return.
    Stop(VcpuStop),
}

/// Runs to `cpu.until` or to a stop.
pub(crate) fn run(cpu: &mut Cpu, blocks: &mut Blocks, env: &mut Env<'_>) -> VcpuStop {
    loop {
        if cpu.attention & (attention::PLATFORM | attention::CODE) != 0
            && let Some(stop) = look_outside(cpu, blocks, env)
        {
            return stop;
        }
        if cpu.tick >= cpu.until {
            return VcpuStop::Reached;
        }
        let mut single = false;
        if cpu.attention != 0 {
            match prepare(cpu, env) {
                Next::Execute { single: alone } => single = alone,
                Next::Again => continue,
                Next::Stop(stop) => return stop,
            }
        }
        let Ok(id) = blocks.find(cpu, env) else {
            except(cpu, env, None);
            continue;
        };
        if single {
            execute_single(cpu, env, blocks.ops(id));
        } else {
            let fuel = usize::try_from(cpu.until - cpu.tick).unwrap_or(usize::MAX);
            execute(cpu, env, blocks.ops(id), fuel);
        }
    }
}

/// After the platform was reached, or memory changed under decoded instructions.
#[cold]
fn look_outside(cpu: &mut Cpu, blocks: &mut Blocks, env: &mut Env<'_>) -> Option<VcpuStop> {
    if cpu.attention & attention::CODE != 0 {
        cpu.attention &= !attention::CODE;
        blocks.refresh(cpu, env.ram);
    }
    if cpu.attention & attention::PLATFORM != 0 {
        cpu.attention = cpu.attention & !attention::PLATFORM | attention::INTERRUPT;
        if env.platform.wants_stop() {
            return Some(VcpuStop::Platform);
        }
    }
    None
}

/// Interrupts, HLT, and what makes the next instruction run alone.
#[cold]
fn prepare(cpu: &mut Cpu, env: &mut Env<'_>) -> Next {
    if cpu.s.shutdown {
        return Next::Stop(VcpuStop::TripleFault);
    }
    let accepts = cpu.flags.rest() & IF != 0 && !cpu.shadow;
    let due = accepts && env.platform.interrupt();
    if due {
        cpu.s.halted = false;
        let vector = env.platform.acknowledge();
        cpu.reached_platform(env);
        let event = Exception { vector, ..Exception::default() };
        deliver::deliver(cpu, env, event, Cause::External);
        return Next::Again;
    }
    if cpu.s.halted {
        return Next::Stop(VcpuStop::Halted);
    }
    let single = cpu.shadow || cpu.flags.rest() & TF != 0;
    cpu.attention = if cpu.shadow { attention::INTERRUPT } else { 0 };
    if single {
        cpu.attention |= attention::TRAP;
    }
    Next::Execute { single }
}

/// Executes operations from the first on while the limit lasts.
#[inline(always)]
fn execute(cpu: &mut Cpu, env: &mut Env<'_>, ops: &[Op], fuel: usize) {
    cpu.limit = fuel.min(ops.len());
    let mut index = 0;
    while let Some(op) = ops.get(index) {
        cpu.retired = index;
        match (op.run)(cpu, env, op) {
            Ok(Flow::Next) => {
                index += 1;
                if index >= cpu.limit {
                    cpu.rip = op.next;
                    break;
                }
            }
            Ok(Flow::Jump) => {
                index += 1;
                break;
            }
            Err(_) => {
                retire(cpu, index);
                cpu.rip = op.ip();
                except(cpu, env, Some(op));
                return;
            }
        }
    }
    retire(cpu, index);
}

#[inline(always)]
fn retire(cpu: &mut Cpu, count: usize) {
    cpu.tick += count as u64;
    cpu.retired = 0;
    if count > 0 {
        cpu.deliveries = 0;
    }
}

/// Executes one operation in the shadow of the one before it, or with TF set.
#[cold]
fn execute_single(cpu: &mut Cpu, env: &mut Env<'_>, ops: &[Op]) {
    let before = cpu.tick;
    let traps = cpu.flags.rest() & TF != 0;
    cpu.shadow = false;
    cpu.entered = false;
    execute(cpu, env, ops, 1);
    if traps && cpu.tick != before && !cpu.entered && !cpu.shadow {
        cpu.s.debug[4] |= DR6_STEP;
        let event = Exception { vector: vector::DB, ..Exception::default() };
        deliver::deliver(cpu, env, event, Cause::Trap);
    }
    if cpu.shadow || cpu.flags.rest() & TF != 0 {
        cpu.attention |= attention::TRAP;
    }
}

/// Delivers the exception that was raised.
#[cold]
#[inline(never)]
fn except(cpu: &mut Cpu, env: &mut Env<'_>, op: Option<&Op>) {
    let mut event = cpu.raised;
    if event.canonical && op.is_some_and(|op| op.seg == SS) {
        event.vector = vector::SS;
    }
    if cpu.deliveries > DELIVERIES_MAX {
        tracing::warn!(rip = cpu.rip, "the guest faults without end; shutting its processor down");
        deliver::shut_down(cpu);
        return;
    }
    deliver::deliver(cpu, env, event, Cause::Exception);
}
