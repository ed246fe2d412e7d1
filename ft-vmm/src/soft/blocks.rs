//! The cache of decoded blocks: runs of instructions that are executed without a look outside.
//!
//! A block starts where execution came to, and ends before its page does, after an instruction that always leads elsewhere, or at its
//! maximum length; a conditional branch that is not taken stays in it. An instruction that lies in two pages is a block of its
//! own.
//!
//! Invariant: a block equals what decoding its bytes now would give. [`Tlb`](super::tlb::Tlb) reports overwritten bytes.
//!
//! Invariant: an entry of the lookup table of the present epoch names a block that a translation of RIP now would find.

use super::cpu::{Cpu, Mode};
use super::fetch;
use super::op::{CS, Env, Op, Run};
use super::tlb::{Access, PAGE};
use crate::ram::{PAGE_BYTES, Ram};
use std::collections::BTreeMap;

/// Blocks kept at most.
const BLOCKS_MAX: usize = 1 << 16;
/// Entries of the lookup table.
const LOOKUP_ENTRIES: usize = 1 << 12;
/// The last epoch: then the table is cleared.
const EPOCH_MAX: u32 = u32::MAX >> 3;

/// A decoded block.
pub(crate) struct Block {
    pub(crate) ops: Box<[Op]>,
    /// Its bytes in its first page.
    pub(crate) bytes: u64,
    /// For an instruction that lies in two pages: the physical address of its second.
    pub(crate) second: Option<u64>,
}

/// What identifies a block: its operations contain absolute addresses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    gpa: u64,
    rip: u64,
    mode: u8,
}

#[derive(Clone, Copy)]
struct Lookup {
    rip: u64,
    /// Epoch, mode and privilege.
    tag: u32,
    block: u32,
}

/// See the module.
pub(crate) struct Blocks {
    arena: Vec<Option<Block>>,
    free: Vec<u32>,
    by_key: BTreeMap<Key, u32>,
    /// Blocks by the page of their second part.
    by_second: BTreeMap<u64, Vec<Key>>,
    lookup: Vec<Lookup>,
    epoch: u32,
    /// [`Tlb::flushes`](super::tlb::Tlb::flushes) that the lookup table knows of.
    flushes: u64,
}

impl Blocks {
    pub(crate) fn new() -> Self {
        Self {
            arena: Vec::new(),
            free: Vec::new(),
            by_key: BTreeMap::new(),
            by_second: BTreeMap::new(),
            lookup: vec![Lookup { rip: 0, tag: 0, block: 0 }; LOOKUP_ENTRIES],
            epoch: 1,
            flushes: 0,
        }
    }

    /// The block `id`, as [`Blocks::find`] gave it.
    #[inline(always)]
    pub(crate) fn ops(&self, id: u32) -> &[Op] {
        match self.arena.get(id as usize) {
            Some(Some(block)) => &block.ops,
            _ => &[],
        }
    }

    /// The block at RIP, decoded if need be. Raises what fetching its first instruction raises.
    #[inline(always)]
    pub(crate) fn find(&mut self, cpu: &mut Cpu, env: &mut Env<'_>) -> Run<u32> {
        let tag = self.tag(cpu);
        let entry = self.lookup[slot(cpu.rip)];
        if entry.rip == cpu.rip && entry.tag == tag {
            return Ok(entry.block);
        }
        self.find_slow(cpu, env, tag)
    }

    #[inline(always)]
    fn tag(&self, cpu: &Cpu) -> u32 {
        self.epoch << 3 | (cpu.mode as u32) << 1 | u32::from(cpu.cpl == 3)
    }

    #[cold]
    #[inline(never)]
    fn find_slow(&mut self, cpu: &mut Cpu, env: &mut Env<'_>, tag: u32) -> Run<u32> {
        let linear = fetch::linear(cpu, cpu.rip)?;
        let gpa = cpu.translate(env, linear, Access::Fetch)?;
        let key = Key { gpa, rip: cpu.rip, mode: cpu.mode as u8 };
        let id = match self.known(cpu, env, key, linear)? {
            Some(id) => id,
            None => self.decode(cpu, env, key)?,
        };
        // What a legacy segment's limit allows is not part of a key: such blocks are found anew when it may have changed.
        self.lookup[slot(cpu.rip)] = Lookup { rip: cpu.rip, tag, block: id };
        Ok(id)
    }

    /// A block that is there already, if it is still what RIP leads to.
    fn known(&mut self, cpu: &mut Cpu, env: &mut Env<'_>, key: Key, linear: u64) -> Run<Option<u32>> {
        let Some(&id) = self.by_key.get(&key) else { return Ok(None) };
        let Some(block) = &self.arena[id as usize] else { return Ok(None) };
        if let Some(second) = block.second {
            let next = cpu.wrap((linear & PAGE).wrapping_add(PAGE_BYTES as u64));
            if cpu.translate(env, next, Access::Fetch)? != second {
                self.remove(key);
                return Ok(None);
            }
        }
        let last = key.rip.wrapping_add(block.bytes.max(1) - 1);
        if cpu.mode != Mode::Bits64 && last > u64::from(cpu.segment(CS).limit) {
            self.remove(key);
            return Ok(None);
        }
        Ok(Some(id))
    }

    fn decode(&mut self, cpu: &mut Cpu, env: &mut Env<'_>, key: Key) -> Run<u32> {
        if self.by_key.len() >= BLOCKS_MAX {
            self.clear(cpu, env.ram);
        }
        let block = fetch::block(cpu, env, key.gpa)?;
        if key.gpa < env.ram.bytes() {
            cpu.tlb.watch_code(env.ram, key.gpa, block.bytes);
        }
        if let Some(second) = block.second {
            self.by_second.entry(second & PAGE).or_default().push(key);
            if second < env.ram.bytes() {
                cpu.tlb.watch_code(env.ram, second, 16);
            }
        }
        let id = self.free.pop().unwrap_or(self.arena.len() as u32);
        if id as usize == self.arena.len() {
            self.arena.push(None);
        }
        self.arena[id as usize] = Some(block);
        self.by_key.insert(key, id);
        Ok(id)
    }

    /// Takes note of what was written and of translations that changed. To be called between blocks.
    pub(crate) fn refresh(&mut self, cpu: &mut Cpu, ram: &Ram) {
        if cpu.tlb.all_stale() {
            self.clear(cpu, ram);
        }
        for (gpa, len) in cpu.tlb.take_stale() {
            self.overwritten(cpu, ram, gpa, len);
        }
        if self.flushes != cpu.tlb.flushes() {
            self.flushes = cpu.tlb.flushes();
            self.next_epoch();
        }
    }

    /// Forgets every block.
    pub(crate) fn clear(&mut self, cpu: &mut Cpu, ram: &Ram) {
        self.forget();
        cpu.tlb.forget_all(ram);
    }

    /// Forgets every block, whatever memory they came from.
    pub(crate) fn forget(&mut self) {
        self.arena.clear();
        self.free.clear();
        self.by_key.clear();
        self.by_second.clear();
        self.next_epoch();
    }

    fn next_epoch(&mut self) {
        self.epoch += 1;
        if self.epoch >= EPOCH_MAX {
            self.epoch = 1;
            self.lookup.fill(Lookup { rip: 0, tag: 0, block: 0 });
        }
    }

    /// Removes the blocks with bytes in the `len` bytes from `gpa` on.
    fn overwritten(&mut self, cpu: &mut Cpu, ram: &Ram, gpa: u64, len: u64) {
        let page = gpa & PAGE;
        let from = Key { gpa: page, rip: 0, mode: 0 };
        let to = Key { gpa: page + PAGE_BYTES as u64, rip: 0, mode: 0 };
        let mut left = Vec::new();
        let mut gone = Vec::new();
        for (key, id) in self.by_key.range(from..to) {
            let bytes = self.arena[*id as usize].as_ref().map_or(0, |block| block.bytes);
            if key.gpa < gpa + len && gpa < key.gpa + bytes {
                gone.push(*key);
            } else {
                left.push((key.gpa, bytes));
            }
        }
        let seconds = self.by_second.get(&page).cloned().unwrap_or_default();
        gone.extend(seconds);
        for key in gone {
            self.remove(key);
        }
        // What is left is watched, and no more: data beside code must not be taken for code for ever.
        cpu.tlb.forget_code(ram, (page / PAGE_BYTES as u64) as usize);
        for (gpa, bytes) in left {
            cpu.tlb.watch_code(ram, gpa, bytes);
        }
    }

    fn remove(&mut self, key: Key) {
        let Some(id) = self.by_key.remove(&key) else { return };
        if let Some(second) = self.arena[id as usize].take().and_then(|block| block.second) {
            let page = second & PAGE;
            if let Some(keys) = self.by_second.get_mut(&page) {
                keys.retain(|other| *other != key);
                if keys.is_empty() {
                    self.by_second.remove(&page);
                }
            }
        }
        self.free.push(id);
        self.next_epoch();
    }
}

#[inline(always)]
fn slot(rip: u64) -> usize {
    (rip ^ rip >> 12) as usize % LOOKUP_ENTRIES
}
