//! Accesses that no TLB answers: misses, pages that are watched, accesses across pages, devices.

use super::cpu::{Cpu, attention, canonical, vector};
use super::op::{Env, Run};
use super::tlb::{Access, PAGE};
use crate::ram::PAGE_BYTES;
use ft_core::units::Tick;

impl Cpu {
    /// Reads `bytes` (at most 8) bytes at a linear address.
    #[cold]
    #[inline(never)]
    pub(crate) fn read_slow(&mut self, env: &mut Env<'_>, address: u64, bytes: usize) -> Run<u64> {
        let mut data = [0; 8];
        self.read_bytes(env, address, &mut data[..bytes])?;
        Ok(u64::from_le_bytes(data))
    }

    /// Writes the low `bytes` (at most 8) bytes of `value` at a linear address.
    #[cold]
    #[inline(never)]
    pub(crate) fn write_slow(
        &mut self,
        env: &mut Env<'_>,
        address: u64,
        bytes: usize,
        value: u64,
    ) -> Run<()> {
        self.write_bytes(env, address, &value.to_le_bytes()[..bytes])
    }

    /// Reads at a linear address.
    pub(crate) fn read_bytes(&mut self, env: &mut Env<'_>, address: u64, data: &mut [u8]) -> Run<()> {
        let (first, second) = self.split(env, address, data.len() as u64, Access::Read)?;
        let (head, tail) = data.split_at_mut(first.1 as usize);
        self.read_physical(env, first.0, head);
        if let Some(gpa) = second {
            self.read_physical(env, gpa, tail);
        }
        Ok(())
    }

    /// Writes at a linear address. Nothing is written if any of it cannot be.
    pub(crate) fn write_bytes(&mut self, env: &mut Env<'_>, address: u64, data: &[u8]) -> Run<()> {
        let (first, second) = self.split(env, address, data.len() as u64, Access::Write)?;
        let (head, tail) = data.split_at(first.1 as usize);
        self.write_physical(env, first.0, head);
        if let Some(gpa) = second {
            self.write_physical(env, gpa, tail);
        }
        Ok(())
    }

    /// Raises what a write of `bytes` bytes at `address` would raise.
    pub(crate) fn probe_write(&mut self, env: &mut Env<'_>, address: u64, bytes: u64) -> Run<()> {
        self.split(env, address, bytes, Access::Write).map(|_| ())
    }

    /// The physical address and length of the part of an access (of at most a page) that is in its first page, and the address of
    /// the part in its second.
    fn split(
        &mut self,
        env: &mut Env<'_>,
        address: u64,
        bytes: u64,
        access: Access,
    ) -> Run<((u64, u64), Option<u64>)> {
        let room = PAGE_BYTES as u64 - address % PAGE_BYTES as u64;
        let first = self.translate(env, address, access)?;
        if bytes <= room {
            return Ok(((first, bytes), None));
        }
        let next = self.wrap((address & PAGE).wrapping_add(PAGE_BYTES as u64));
        let second = self.translate(env, next, access)?;
        Ok(((first, room), Some(second)))
    }

    /// Linear addresses outside 64-bit mode have 32 bits.
    pub(crate) fn wrap(&self, address: u64) -> u64 {
        if self.flat || self.long_mode() { address } else { address & 0xffff_ffff }
    }

    /// The physical address of a linear address, which may be accessed as `access` says.
    pub(crate) fn translate(&mut self, env: &mut Env<'_>, address: u64, access: Access) -> Run<u64> {
        if let Some(gpa) = self.tlb.find(address, access) {
            return Ok(gpa);
        }
        if self.long_mode() && !canonical(address) {
            let raised = self.raise_code(vector::GP, 0);
            self.raised.canonical = true;
            return Err(raised);
        }
        let gpa = self.walk(env, address, access)?;
        self.tlb.fill(env.ram, address, gpa, access);
        Ok(gpa)
    }

    /// Does `work` with the rights of the supervisor, whatever the privilege level: descriptor tables are read so.
    pub(crate) fn as_supervisor<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        let user = self.tlb.user();
        self.tlb.put_user(false);
        let done = work(self);
        self.tlb.put_user(user);
        done
    }

    /// Reads at a physical address.
    pub(crate) fn read_physical(&mut self, env: &mut Env<'_>, gpa: u64, data: &mut [u8]) {
        if gpa < env.ram.bytes() {
            env.ram_read(gpa, data);
            return;
        }
        let at = Tick(self.now());
        let mut done = 0;
        while done < data.len() {
            let bytes = piece(data.len() - done);
            env.platform.mmio_read(at, gpa + done as u64, &mut data[done..done + bytes]);
            done += bytes;
        }
        self.reached_platform(env);
    }

    /// Writes at a physical address without RAM.
    pub(crate) fn write_device(&mut self, env: &mut Env<'_>, gpa: u64, data: &[u8]) {
        let at = Tick(self.now());
        let mut done = 0;
        while done < data.len() {
            let bytes = piece(data.len() - done);
            env.platform.mmio_write(at, gpa + done as u64, &data[done..done + bytes]);
            done += bytes;
        }
        self.reached_platform(env);
    }

    /// To be called after every access to the platform.
    pub(crate) fn reached_platform(&mut self, env: &mut Env<'_>) {
        self.attend(attention::PLATFORM);
        if env.ram.code_was_written() {
            self.tlb.distrust();
            self.attend(attention::CODE);
        }
    }
}

/// The bytes of the next access to a device, when `left` are left.
fn piece(left: usize) -> usize {
    match left {
        8.. => 8,
        4..8 => 4,
        2..4 => 2,
        _ => 1,
    }
}
