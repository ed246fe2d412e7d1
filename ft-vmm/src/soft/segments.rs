//! Segments: what an access through one is checked for, descriptors, and loading segment registers.

use super::cpu::{Cpu, vector};
use super::op::{CS, DS, Env, FS, GS, Run, SS};
use crate::vcpu::Segment;

/// Bits of [`Segment::attributes`].
pub(crate) const TYPE_ACCESSED: u16 = 1;
pub(crate) const TYPE_WRITABLE: u16 = 1 << 1;
/// Of code: readable.
pub(crate) const TYPE_READABLE: u16 = 1 << 1;
pub(crate) const TYPE_CONFORMING: u16 = 1 << 2;
pub(crate) const TYPE_DOWN: u16 = 1 << 2;
pub(crate) const TYPE_CODE: u16 = 1 << 3;
pub(crate) const ORDINARY: u16 = 1 << 4;
pub(crate) const PRESENT: u16 = 1 << 7;
pub(crate) const LONG: u16 = 1 << 13;
pub(crate) const BIG: u16 = 1 << 14;
/// A segment of real mode: present, writable, accessed.
pub(crate) const REAL: u16 = 0x93;

/// A descriptor as it stands in its table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Descriptor {
    /// The selector that names it.
    pub(crate) selector: u16,
    /// Its eight bytes.
    pub(crate) raw: u64,
    /// Where they are.
    pub(crate) address: u64,
}

impl Descriptor {
    pub(crate) fn attributes(&self) -> u16 {
        (self.raw >> 40) as u16 & 0xf0ff
    }

    pub(crate) fn has(&self, bits: u16) -> bool {
        self.attributes() & bits == bits
    }

    pub(crate) fn dpl(&self) -> u8 {
        (self.attributes() >> 5 & 3) as u8
    }

    pub(crate) fn rpl(&self) -> u8 {
        (self.selector & 3) as u8
    }

    pub(crate) fn is_code(&self) -> bool {
        self.has(ORDINARY | TYPE_CODE)
    }

    /// Type of a system descriptor; nothing for code and data.
    pub(crate) fn system(&self) -> Option<u8> {
        (!self.has(ORDINARY)).then(|| self.attributes() as u8 & 0xf)
    }

    pub(crate) fn base(&self) -> u64 {
        (self.raw >> 16 & 0xff_ffff) | (self.raw >> 56) << 24
    }

    pub(crate) fn limit(&self) -> u32 {
        let limit = (self.raw & 0xffff | self.raw >> 32 & 0xf_0000) as u32;
        if self.raw >> 55 & 1 != 0 { limit << 12 | 0xfff } else { limit }
    }

    /// The segment that it describes.
    pub(crate) fn segment(&self) -> Segment {
        Segment {
            selector: self.selector,
            base: self.base(),
            limit: self.limit(),
            attributes: self.attributes(),
        }
    }
}

/// Error code that names a selector.
pub(crate) fn code(selector: u16) -> u32 {
    u32::from(selector & !3)
}

/// A null segment, of privilege `dpl`.
pub(crate) fn null(selector: u16, dpl: u8) -> Segment {
    Segment { selector, base: 0, limit: 0, attributes: Segment::UNUSABLE | u16::from(dpl) << 5 }
}

impl Cpu {
    /// The linear address of `bytes` bytes at `offset` in a segment.
    pub(crate) fn linear(&mut self, seg: u8, offset: u64, bytes: u64, write: bool) -> Run<u64> {
        let segment = *self.segment(seg);
        if self.flat {
            let base = if matches!(seg, FS | GS) { segment.base } else { 0 };
            return Ok(base.wrapping_add(offset));
        }
        let usable = !self.protected() || accessible(&segment, write);
        if !usable || !within(&segment, offset, bytes) {
            let vector = if seg == SS { vector::SS } else { vector::GP };
            return Err(self.raise_code(vector, 0));
        }
        Ok(segment.base.wrapping_add(offset) & 0xffff_ffff)
    }

    /// Reads a descriptor. Raises #GP or, with `vector`, another exception, that names the selector when it is not in its table.
    pub(crate) fn descriptor(&mut self, env: &mut Env<'_>, selector: u16, vector: u8) -> Run<Descriptor> {
        let (base, limit) = if selector & 4 != 0 {
            let ldt = self.s.ldt;
            let unusable = ldt.attributes & Segment::UNUSABLE != 0 || ldt.attributes & PRESENT == 0;
            if unusable { (0, None) } else { (ldt.base, Some(ldt.limit)) }
        } else {
            (self.s.gdt.base, Some(u32::from(self.s.gdt.limit)))
        };
        let offset = u32::from(selector & !7);
        if limit.is_none_or(|limit| offset + 7 > limit) {
            return Err(self.raise_code(vector, code(selector)));
        }
        let address = self.wrap(base.wrapping_add(u64::from(offset)));
        let raw = self.as_supervisor(|cpu| cpu.read::<u64>(env, address))?;
        Ok(Descriptor { selector, raw, address })
    }

    /// Sets the accessed bit of a descriptor of code or data.
    pub(crate) fn mark_accessed(&mut self, env: &mut Env<'_>, descriptor: &mut Descriptor) -> Run<()> {
        if !descriptor.has(TYPE_ACCESSED) {
            descriptor.raw |= u64::from(TYPE_ACCESSED) << 40;
            let byte = descriptor.raw >> 40;
            let address = descriptor.address.wrapping_add(5);
            self.as_supervisor(|cpu| cpu.write::<u8>(env, address, byte))?;
        }
        Ok(())
    }

    /// Loads ES, SS, DS, FS or GS.
    pub(crate) fn load_segment(&mut self, env: &mut Env<'_>, number: u8, selector: u16) -> Run<()> {
        let segment = if !self.protected() {
            real(self.segment(number), selector)
        } else if number == SS {
            self.stack_segment(env, selector, self.cpl)?
        } else {
            self.data_segment(env, selector)?
        };
        self.s.segments[usize::from(number)] = segment;
        Ok(())
    }

    fn data_segment(&mut self, env: &mut Env<'_>, selector: u16) -> Run<Segment> {
        if selector & !3 == 0 {
            return Ok(null(selector, 0));
        }
        let mut descriptor = self.descriptor(env, selector, vector::GP)?;
        let readable = !descriptor.has(TYPE_CODE) || descriptor.has(TYPE_READABLE);
        let conforming = descriptor.has(TYPE_CODE | TYPE_CONFORMING);
        let allowed = conforming || descriptor.dpl() >= self.cpl.max(descriptor.rpl());
        if !descriptor.has(ORDINARY) || !readable || !allowed {
            return Err(self.raise_code(vector::GP, code(selector)));
        }
        if !descriptor.has(PRESENT) {
            return Err(self.raise_code(vector::NP, code(selector)));
        }
        self.mark_accessed(env, &mut descriptor)?;
        Ok(descriptor.segment())
    }

    /// What SS becomes at privilege level `cpl`.
    pub(crate) fn stack_segment(&mut self, env: &mut Env<'_>, selector: u16, cpl: u8) -> Run<Segment> {
        if selector & !3 == 0 {
            let allowed = self.flat && cpl != 3 && (selector & 3) as u8 == cpl;
            return if allowed { Ok(null(selector, cpl)) } else { Err(self.raise_gp()) };
        }
        let mut descriptor = self.descriptor(env, selector, vector::GP)?;
        self.check_stack(&descriptor, cpl, vector::GP)?;
        self.mark_accessed(env, &mut descriptor)?;
        Ok(descriptor.segment())
    }

    /// Raises `vector` unless the descriptor is of a stack of privilege level `cpl`; #SS when it is not present.
    pub(crate) fn check_stack(&mut self, descriptor: &Descriptor, cpl: u8, vector: u8) -> Run<()> {
        let writable = descriptor.has(ORDINARY | TYPE_WRITABLE) && !descriptor.has(TYPE_CODE);
        if !writable || descriptor.rpl() != cpl || descriptor.dpl() != cpl {
            return Err(self.raise_code(vector, code(descriptor.selector)));
        }
        if !descriptor.has(PRESENT) {
            return Err(self.raise_code(vector::SS, code(descriptor.selector)));
        }
        Ok(())
    }

    /// Loads CS and with it the privilege level. The caller has checked the descriptor.
    pub(crate) fn put_code_segment(&mut self, descriptor: &Descriptor, cpl: u8) {
        let selector = descriptor.selector & !3 | u16::from(cpl);
        self.put_code(Segment { selector, ..descriptor.segment() }, cpl);
    }

    /// Loads CS as given.
    pub(crate) fn put_code(&mut self, segment: Segment, cpl: u8) {
        let old = self.s.segments[usize::from(CS)];
        self.s.segments[usize::from(CS)] = segment;
        self.put_cpl(cpl);
        self.update_mode();
        let same = old.base == segment.base && old.limit == segment.limit;
        if !same && !self.flat {
            // Blocks are found by RIP: with another base it means another place.
            self.flush_translations();
        }
    }

    /// Forgets all translations, and by which of them blocks were found.
    pub(crate) fn flush_translations(&mut self) {
        self.tlb.flush();
        self.attend(super::cpu::attention::CODE);
    }
}

/// A segment register after a load in real mode: its limit stays.
pub(crate) fn real(old: &Segment, selector: u16) -> Segment {
    let unusable = old.attributes & Segment::UNUSABLE != 0;
    let limit = if unusable { 0xffff } else { old.limit };
    Segment { selector, base: u64::from(selector) << 4, limit, attributes: REAL }
}

fn accessible(segment: &Segment, write: bool) -> bool {
    let attributes = segment.attributes;
    let code = attributes & TYPE_CODE != 0;
    attributes & Segment::UNUSABLE == 0
        && match (write, code) {
            (true, _) => !code && attributes & TYPE_WRITABLE != 0,
            (false, true) => attributes & TYPE_READABLE != 0,
            (false, false) => true,
        }
}

fn within(segment: &Segment, offset: u64, bytes: u64) -> bool {
    let (limit, last) = (u64::from(segment.limit), offset + bytes - 1);
    let down = segment.attributes & (ORDINARY | TYPE_CODE | TYPE_DOWN) == ORDINARY | TYPE_DOWN;
    if down {
        let top = if segment.attributes & BIG != 0 { 0xffff_ffff } else { 0xffff };
        offset > limit && last <= top
    } else {
        last <= limit
    }
}

/// Segment registers that lose their content on the way to an outer ring, if that may not use it.
pub(crate) const DATA_SEGMENTS: [u8; 4] = [super::op::ES, DS, FS, GS];
