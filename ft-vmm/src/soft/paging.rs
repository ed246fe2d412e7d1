//! From linear to physical addresses: the walk through the guest's tables.
//!
//! 4-level, PAE and 32-bit paging; accessed and dirty bits are set when a translation succeeds, and only then. The four top entries
//! of PAE paging are read at every walk, as on AMD processors, not kept from the load of CR3.

use super::cpu::{CR0_PG, CR0_WP, CR4_PAE, CR4_PSE, Cpu, EFER_LMA, EFER_NXE, Exception, vector};
use super::op::{Env, Raised, Run};
use super::tlb::Access;

/// Bits of a physical address.
pub(crate) const PHYSICAL_BITS: u32 = 40;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
/// Address bits of an entry of 64 bits.
const FRAME: u64 = 0x000f_ffff_ffff_f000;
/// Bits above the processor's physical addresses.
const BEYOND: u64 = FRAME & !((1 << PHYSICAL_BITS) - 1);

const FAULT_PROTECTION: u32 = 1;
const FAULT_WRITE: u32 = 1 << 1;
const FAULT_USER: u32 = 1 << 2;
const FAULT_RESERVED: u32 = 1 << 3;
const FAULT_FETCH: u32 = 1 << 4;

/// A table entry that a walk went through.
#[derive(Clone, Copy, Default)]
struct Visited {
    gpa: u64,
    entry: u64,
    bytes: usize,
}

/// A walk under way.
#[derive(Default)]
struct Walk {
    visited: [Visited; 4],
    depth: usize,
    /// What all entries allow.
    rights: u64,
    /// Any entry forbids execution.
    no_execute: bool,
}

/// How a walk ends before its end: with these bits of the error code.
type Step<T> = Result<T, u32>;

impl Walk {
    fn new() -> Self {
        Self { rights: WRITABLE | USER, ..Self::default() }
    }

    /// Reads an entry and takes part of its rights.
    fn enter(&mut self, cpu: &mut Cpu, env: &mut Env<'_>, gpa: u64, bytes: usize) -> Step<u64> {
        let mut data = [0xff; 8];
        if bytes == 4 {
            data[4..].fill(0);
        }
        env.ram_read(gpa, &mut data[..bytes]);
        cpu.tlb.watch_table(env.ram, gpa);
        let entry = u64::from_le_bytes(data);
        if entry & PRESENT == 0 {
            return Err(0);
        }
        self.visited[self.depth] = Visited { gpa, entry, bytes };
        self.depth += 1;
        self.rights &= entry;
        Ok(entry)
    }

    /// Reads an entry of 64 bits with its reserved bits checked.
    fn enter_wide(&mut self, cpu: &mut Cpu, env: &mut Env<'_>, gpa: u64, reserved: u64) -> Step<u64> {
        let entry = self.enter(cpu, env, gpa, 8)?;
        let no_execute = cpu.s.efer & EFER_NXE != 0;
        let reserved = reserved | BEYOND | if no_execute { 0 } else { NO_EXECUTE };
        if entry & reserved != 0 {
            return Err(FAULT_PROTECTION | FAULT_RESERVED);
        }
        self.no_execute |= entry & NO_EXECUTE != 0;
        Ok(entry)
    }

    /// Whether the rights allow the access.
    fn allows(&self, cpu: &Cpu, access: Access) -> bool {
        let user = cpu.tlb.user();
        let readable = !user || self.rights & USER != 0;
        readable
            && match access {
                Access::Read => true,
                Access::Write => self.rights & WRITABLE != 0 || (!user && cpu.s.cr0 & CR0_WP == 0),
                Access::Fetch => !self.no_execute,
            }
    }

    /// Sets the accessed bits, and the dirty bit of the last entry.
    fn mark(&self, cpu: &mut Cpu, env: &mut Env<'_>, access: Access) {
        for (index, visited) in self.visited[..self.depth].iter().enumerate() {
            let dirty = if access == Access::Write && index + 1 == self.depth { DIRTY } else { 0 };
            let entry = visited.entry | ACCESSED | dirty;
            if entry != visited.entry {
                cpu.write_table(env, visited.gpa, &entry.to_le_bytes()[..visited.bytes]);
            }
        }
    }
}

impl Cpu {
    /// Translates through the guest's tables.
    pub(crate) fn walk(&mut self, env: &mut Env<'_>, address: u64, access: Access) -> Run<u64> {
        if self.s.cr0 & CR0_PG == 0 {
            return Ok(address & ((1 << PHYSICAL_BITS) - 1));
        }
        let mut walk = Walk::new();
        let found = if self.s.efer & EFER_LMA != 0 {
            self.walk_long(env, &mut walk, address)
        } else if self.s.cr4 & CR4_PAE != 0 {
            self.walk_pae(env, &mut walk, address)
        } else {
            self.walk_short(env, &mut walk, address)
        };
        let gpa = match found {
            Ok(gpa) if walk.allows(self, access) => gpa,
            Ok(_) => return Err(self.page_fault(address, access, FAULT_PROTECTION)),
            Err(bits) => return Err(self.page_fault(address, access, bits)),
        };
        walk.mark(self, env, access);
        Ok(gpa)
    }

    fn walk_long(&mut self, env: &mut Env<'_>, walk: &mut Walk, address: u64) -> Step<u64> {
        let mut table = self.s.cr3 & FRAME;
        for shift in [39, 30, 21, 12] {
            let gpa = table + (address >> shift & 0x1ff) * 8;
            let top = if shift == 39 { LARGE } else { 0 };
            let entry = walk.enter_wide(self, env, gpa, top)?;
            if shift == 12 || entry & LARGE != 0 {
                return large(entry, address, shift);
            }
            table = entry & FRAME;
        }
        unreachable!("the last level returns")
    }

    fn walk_pae(&mut self, env: &mut Env<'_>, walk: &mut Walk, address: u64) -> Step<u64> {
        let gpa = (self.s.cr3 & 0xffff_ffe0) + (address >> 30 & 3) * 8;
        let mut data = [0xff; 8];
        env.ram_read(gpa, &mut data);
        self.tlb.watch_table(env.ram, gpa);
        let top = u64::from_le_bytes(data);
        if top & PRESENT == 0 {
            return Err(0);
        }
        if top & (BEYOND | NO_EXECUTE | 0x1e6) != 0 {
            return Err(FAULT_PROTECTION | FAULT_RESERVED);
        }
        let gpa = (top & FRAME) + (address >> 21 & 0x1ff) * 8;
        let entry = walk.enter_wide(self, env, gpa, 0x7ff0_0000_0000_0000)?;
        if entry & LARGE != 0 {
            return large(entry, address, 21);
        }
        let gpa = (entry & FRAME) + (address >> 12 & 0x1ff) * 8;
        let entry = walk.enter_wide(self, env, gpa, 0x7ff0_0000_0000_0000)?;
        large(entry, address, 12)
    }

    fn walk_short(&mut self, env: &mut Env<'_>, walk: &mut Walk, address: u64) -> Step<u64> {
        let gpa = (self.s.cr3 & 0xffff_f000) + (address >> 22 & 0x3ff) * 4;
        let entry = walk.enter(self, env, gpa, 4)?;
        if entry & LARGE != 0 && self.s.cr4 & CR4_PSE != 0 {
            if entry & 1 << 21 != 0 {
                return Err(FAULT_PROTECTION | FAULT_RESERVED);
            }
            let high = (entry >> 13 & 0xff) << 32;
            return Ok(high | (entry & 0xffc0_0000) | (address & 0x003f_ffff));
        }
        let gpa = (entry & 0xffff_f000) + (address >> 12 & 0x3ff) * 4;
        let entry = walk.enter(self, env, gpa, 4)?;
        Ok((entry & 0xffff_f000) | (address & 0xfff))
    }

    #[cold]
    fn page_fault(&mut self, address: u64, access: Access, bits: u32) -> Raised {
        let write = if access == Access::Write { FAULT_WRITE } else { 0 };
        let user = if self.tlb.user() { FAULT_USER } else { 0 };
        let told = self.s.efer & EFER_NXE != 0 && self.s.cr4 & CR4_PAE != 0;
        let fetch = if access == Access::Fetch && told { FAULT_FETCH } else { 0 };
        let error = Some(bits | write | user | fetch);
        self.raised = Exception { vector: vector::PF, error, address, canonical: false };
        Raised
    }
}

/// The address in a page whose last entry maps `1 << shift` bytes.
fn large(entry: u64, address: u64, shift: u32) -> Step<u64> {
    let offset = (1 << shift) - 1;
    // Between the PAT bit and the frame of a large page.
    if shift > 12 && entry & offset & !0x1fff != 0 {
        return Err(FAULT_PROTECTION | FAULT_RESERVED);
    }
    Ok((entry & FRAME & !offset) | (address & offset))
}
