//! Translation lookaside buffers, and the guest memory behind them. The only `unsafe` code of the software vCPU is here.
//!
//! Invariant: an entry maps a page that lies in RAM, whole, of the [`Ram`](crate::ram::Ram) that [`Tlb::attach`] was last called for.
//!
//! Invariant: nobody can tell that there are TLBs. Real ones go on using entries after the guest has changed its tables; here a copy
//! of the machine that starts from a snapshot, with empty TLBs, would then diverge. So the pages of the guest's tables are watched: a
//! write to one of them empties the TLBs.
//!
//! Invariant: a page has a write entry only while it is marked as written in RAM and holds neither watched tables nor decoded
//! instructions.

use super::cpu::{Cpu, attention};
use super::op::{Env, Run};
use super::word::Word;
use crate::ram::{PAGE_BYTES, Ram};

/// Entries of the TLBs for data.
const DATA_ENTRIES: usize = 1024;
/// Entries of the TLB for instructions.
const FETCH_ENTRIES: usize = 256;
/// The bits of an address that name its page.
pub(crate) const PAGE: u64 = !(PAGE_BYTES as u64 - 1);
/// A tag that no address has.
const EMPTY: Entry = Entry { tag: 2, delta: 0 };
/// Bytes that one bit of [`Tlb::code_lines`] stands for.
const LINE_BYTES: u64 = 64;

/// What is done at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
    Fetch,
}

#[derive(Clone, Copy)]
struct Entry {
    /// Linear address of the page; bit 0 set for ring 3.
    tag: u64,
    /// Offset in RAM less linear address.
    delta: u64,
}

/// See the module.
pub(crate) struct Tlb {
    read: [Entry; DATA_ENTRIES],
    write: [Entry; DATA_ENTRIES],
    fetch: [Entry; FETCH_ENTRIES],
    /// 1 in ring 3: part of every tag.
    user: u64,
    /// Slots in use, so that emptying costs what filling did.
    filled: [Vec<u16>; 3],
    /// How often it was emptied: who keeps something that depends on translations compares it.
    flushes: u64,
    /// Pages that hold watched tables.
    tables: Vec<bool>,
    /// For each page, which of its lines hold decoded instructions.
    code_lines: Vec<u64>,
    /// Writes to lines with decoded instructions that the block cache has yet to see: address, length.
    stale: Vec<(u64, u64)>,
    /// Any decoded instruction may be stale.
    all_stale: bool,
    /// Where the RAM is that all this is about.
    host: usize,
    bytes: u64,
}

impl Tlb {
    pub(crate) fn new() -> Self {
        Self {
            read: [EMPTY; DATA_ENTRIES],
            write: [EMPTY; DATA_ENTRIES],
            fetch: [EMPTY; FETCH_ENTRIES],
            user: 0,
            filled: Default::default(),
            flushes: 1,
            tables: Vec::new(),
            code_lines: Vec::new(),
            stale: Vec::new(),
            all_stale: false,
            host: 0,
            bytes: 0,
        }
    }

    /// Binds it to `ram`. Returns whether that is another one than before: then everything was forgotten.
    pub(crate) fn attach(&mut self, ram: &Ram) -> bool {
        if self.host == ram.host() as usize && self.bytes == ram.bytes() {
            return false;
        }
        self.host = ram.host() as usize;
        self.bytes = ram.bytes();
        self.flush();
        self.tables = vec![false; ram.page_count()];
        self.code_lines = vec![0; ram.page_count()];
        self.stale.clear();
        true
    }

    /// Forgets all translations.
    pub(crate) fn flush(&mut self) {
        self.flushes += 1;
        for slot in self.filled[0].drain(..) {
            self.read[usize::from(slot)] = EMPTY;
        }
        self.flush_writes();
        for slot in self.filled[2].drain(..) {
            self.fetch[usize::from(slot)] = EMPTY;
        }
    }

    /// Forgets which pages may be written without a word to [`Ram`].
    pub(crate) fn flush_writes(&mut self) {
        for slot in self.filled[1].drain(..) {
            self.write[usize::from(slot)] = EMPTY;
        }
    }

    /// Changes whether accesses are those of ring 3.
    pub(crate) fn put_user(&mut self, user: bool) {
        self.user = u64::from(user);
    }

    pub(crate) fn user(&self) -> bool {
        self.user != 0
    }

    /// Grows whenever translations were forgotten.
    pub(crate) fn flushes(&self) -> u64 {
        self.flushes
    }

    /// The physical address of `address` if an entry for `access` has it.
    pub(crate) fn find(&self, address: u64, access: Access) -> Option<u64> {
        let page = address >> 12;
        let entry = match access {
            Access::Read => &self.read[page as usize % DATA_ENTRIES],
            Access::Write => &self.write[page as usize % DATA_ENTRIES],
            Access::Fetch => &self.fetch[page as usize % FETCH_ENTRIES],
        };
        (entry.tag == (address & PAGE | self.user)).then(|| address.wrapping_add(entry.delta))
    }

    /// Enters a translation, if `gpa` is in RAM.
    pub(crate) fn fill(&mut self, ram: &Ram, address: u64, gpa: u64, access: Access) {
        if gpa >= self.bytes {
            return;
        }
        if access == Access::Write {
            if ram.is_code(gpa as usize / PAGE_BYTES) {
                return;
            }
            ram.mark_written(gpa);
        }
        let page = address & PAGE;
        let entry = Entry { tag: page | self.user, delta: (gpa & PAGE).wrapping_sub(page) };
        let number = (address >> 12) as usize;
        let (table, slot, which): (&mut [Entry], _, _) = match access {
            Access::Read => (&mut self.read, number % DATA_ENTRIES, 0),
            Access::Write => (&mut self.write, number % DATA_ENTRIES, 1),
            Access::Fetch => (&mut self.fetch, number % FETCH_ENTRIES, 2),
        };
        if table[slot].tag == EMPTY.tag {
            self.filled[which].push(slot as u16);
        }
        table[slot] = entry;
    }

    /// Forgets the write entries of the physical page `page`.
    fn drop_writes_to(&mut self, page: usize) {
        for slot in &self.filled[1] {
            let entry = &mut self.write[usize::from(*slot)];
            if entry.tag != EMPTY.tag && (entry.tag & PAGE).wrapping_add(entry.delta) >> 12 == page as u64 {
                // Not EMPTY: the slot stays in the list of those that are filled.
                *entry = Entry { tag: EMPTY.tag | 4, delta: 0 };
            }
        }
    }

    /// Watches the page of a table that translations come from.
    pub(crate) fn watch_table(&mut self, ram: &Ram, gpa: u64) {
        let page = gpa as usize / PAGE_BYTES;
        if gpa < self.bytes && !self.tables[page] {
            self.tables[page] = true;
            ram.mark_code(page);
            self.drop_writes_to(page);
        }
    }

    /// Watches `len` bytes of decoded instructions, which do not leave their page.
    pub(crate) fn watch_code(&mut self, ram: &Ram, gpa: u64, len: u64) {
        let page = gpa as usize / PAGE_BYTES;
        if self.code_lines[page] == 0 {
            ram.mark_code(page);
            self.drop_writes_to(page);
        }
        self.code_lines[page] |= lines(gpa, len);
    }

    /// No decoded instruction is left in `page`.
    pub(crate) fn forget_code(&mut self, ram: &Ram, page: usize) {
        self.code_lines[page] = 0;
        if !self.tables[page] {
            ram.forget_code(page);
        }
    }

    /// Watches nothing any more: no decoded instruction is left anywhere, and no translation.
    pub(crate) fn forget_all(&mut self, ram: &Ram) {
        self.flush();
        for page in 0..self.code_lines.len() {
            if self.code_lines[page] != 0 || self.tables[page] {
                self.tables[page] = false;
                self.forget_code(ram, page);
            }
        }
        self.stale.clear();
        self.all_stale = false;
    }

    /// Something else than the processor wrote to a watched page: nothing that was derived from memory holds any more.
    pub(crate) fn distrust(&mut self) {
        self.all_stale = true;
        self.flush();
    }

    /// Whether every decoded instruction may be stale.
    pub(crate) fn all_stale(&self) -> bool {
        self.all_stale
    }

    /// Writes to decoded instructions since this was last called.
    pub(crate) fn take_stale(&mut self) -> Vec<(u64, u64)> {
        std::mem::take(&mut self.stale)
    }
}

/// The lines of a page that `len` bytes at `gpa` touch.
fn lines(gpa: u64, len: u64) -> u64 {
    let first = gpa % PAGE_BYTES as u64 / LINE_BYTES;
    let last = ((gpa % PAGE_BYTES as u64 + len.max(1) - 1) / LINE_BYTES).min(63);
    (u64::MAX << first) & (u64::MAX >> (63 - last))
}

impl Cpu {
    /// Reads at a linear address.
    #[inline(always)]
    pub(crate) fn read<W: Word>(&mut self, env: &mut Env<'_>, address: u64) -> Run<u64> {
        let entry = self.tlb.read[(address >> 12) as usize % DATA_ENTRIES];
        let last = address.wrapping_add(W::BYTES as u64 - 1) & PAGE | self.tlb.user;
        if entry.tag != last {
            return self.read_slow(env, address, W::BYTES);
        }
        let at = address.wrapping_add(entry.delta) as usize;
        // SAFETY: the entry has the page of the access's last byte, in the slot of its first byte's page: both are one page. By the
        // invariant of the module that page lies in the RAM of `env`, so `at` and the `BYTES - 1` bytes after it do.
        let value = unsafe { env.host.add(at).cast::<W>().read_unaligned() };
        Ok(value.wide())
    }

    /// Writes at a linear address.
    #[inline(always)]
    pub(crate) fn write<W: Word>(&mut self, env: &mut Env<'_>, address: u64, value: u64) -> Run<()> {
        let entry = self.tlb.write[(address >> 12) as usize % DATA_ENTRIES];
        let last = address.wrapping_add(W::BYTES as u64 - 1) & PAGE | self.tlb.user;
        if entry.tag != last {
            return self.write_slow(env, address, W::BYTES, value);
        }
        let at = address.wrapping_add(entry.delta) as usize;
        // SAFETY: as in `read`; nobody holds a reference into guest memory, and the vCPU runs on the thread that owns the machine.
        unsafe { env.host.add(at).cast::<W>().write_unaligned(W::of(value)) };
        Ok(())
    }

    /// Reads at a linear address that will be written: raises what the write would raise, so that the write cannot.
    #[inline(always)]
    pub(crate) fn read_to_write<W: Word>(&mut self, env: &mut Env<'_>, address: u64) -> Run<u64> {
        let entry = self.tlb.write[(address >> 12) as usize % DATA_ENTRIES];
        let last = address.wrapping_add(W::BYTES as u64 - 1) & PAGE | self.tlb.user;
        if entry.tag != last {
            self.probe_write(env, address, W::BYTES as u64)?;
            return self.read_slow(env, address, W::BYTES);
        }
        let at = address.wrapping_add(entry.delta) as usize;
        // SAFETY: as in `read`.
        let value = unsafe { env.host.add(at).cast::<W>().read_unaligned() };
        Ok(value.wide())
    }

    /// Where in RAM `address` is, and how many of the `bytes` bytes from there on its page holds. Nothing unless a TLB has the page.
    pub(crate) fn span(&self, address: u64, bytes: u64, access: Access) -> Option<(usize, u64)> {
        let at = self.tlb.find(address, access)?;
        Some((at as usize, bytes.min(PAGE_BYTES as u64 - at % PAGE_BYTES as u64)))
    }
}

impl Env<'_> {
    fn holds(&self, gpa: u64, len: usize) -> bool {
        gpa.checked_add(len as u64).is_some_and(|end| end <= self.ram.bytes())
    }

    /// Copies from RAM. Returns whether all of it is there.
    pub(crate) fn ram_read(&self, gpa: u64, data: &mut [u8]) -> bool {
        let holds = self.holds(gpa, data.len());
        if holds {
            // SAFETY: the bytes lie in RAM, and `data` is no part of it.
            unsafe {
                std::ptr::copy_nonoverlapping(self.host.add(gpa as usize), data.as_mut_ptr(), data.len());
            }
        }
        holds
    }

    /// Copies to RAM, without a word to [`Ram`]. Returns whether all of it is there.
    pub(crate) fn ram_write(&mut self, gpa: u64, data: &[u8]) -> bool {
        let holds = self.holds(gpa, data.len());
        if holds {
            // SAFETY: the bytes lie in RAM, and `data` is no part of it.
            unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), self.host.add(gpa as usize), data.len()) };
        }
        holds
    }

    /// Fills `count` elements of RAM from `gpa` on.
    pub(crate) fn ram_fill<W: Word>(&mut self, gpa: usize, count: usize, value: u64) {
        assert!(self.holds(gpa as u64, count * W::BYTES));
        for index in 0..count {
            // SAFETY: the bytes lie in RAM.
            unsafe { self.host.add(gpa + index * W::BYTES).cast::<W>().write_unaligned(W::of(value)) };
        }
    }

    /// Copies `count` elements upwards, one after the other: overlapping ranges repeat, as REP MOVS does.
    pub(crate) fn ram_copy<W: Word>(&mut self, from: usize, to: usize, count: usize) {
        let bytes = count * W::BYTES;
        assert!(self.holds(from as u64, bytes) && self.holds(to as u64, bytes));
        if to <= from || to >= from + bytes {
            // SAFETY: both ranges lie in RAM; `copy` allows them to overlap, and what is read is not yet overwritten.
            unsafe { std::ptr::copy(self.host.add(from), self.host.add(to), bytes) };
            return;
        }
        for index in 0..count {
            let offset = index * W::BYTES;
            // SAFETY: the bytes lie in RAM.
            unsafe {
                let value = self.host.add(from + offset).cast::<W>().read_unaligned();
                self.host.add(to + offset).cast::<W>().write_unaligned(value);
            }
        }
    }
}

impl Cpu {
    /// Writes to a physical address in RAM or outside it. Sees to what was derived from the bytes that it replaces.
    pub(crate) fn write_physical(&mut self, env: &mut Env<'_>, gpa: u64, data: &[u8]) {
        if gpa >= env.ram.bytes() {
            return self.write_device(env, gpa, data);
        }
        if env.ram.mark_written(gpa) {
            // The flag that was raised by this write says nothing new.
            env.ram.code_was_written();
            self.watched_write(env.ram, gpa, data.len() as u64);
        }
        env.ram_write(gpa, data);
    }

    fn watched_write(&mut self, ram: &Ram, gpa: u64, len: u64) {
        let page = gpa as usize / PAGE_BYTES;
        if self.tlb.tables[page] {
            self.tlb.tables[page] = false;
            if self.tlb.code_lines[page] == 0 {
                ram.forget_code(page);
            }
            self.tlb.flush();
            self.attend(attention::CODE);
        }
        self.overwrite_code(gpa, len);
    }

    /// Notes that decoded instructions may be overwritten.
    fn overwrite_code(&mut self, gpa: u64, len: u64) {
        if self.tlb.code_lines[gpa as usize / PAGE_BYTES] & lines(gpa, len) != 0 {
            self.tlb.stale.push((gpa, len));
            self.attend(attention::CODE);
        }
    }

    /// Writes to an entry of a table: the processor's own marks in it, which no translation depends on.
    pub(crate) fn write_table(&mut self, env: &mut Env<'_>, gpa: u64, data: &[u8]) {
        if gpa < env.ram.bytes() && env.ram.mark_written(gpa) {
            env.ram.code_was_written();
            self.overwrite_code(gpa, data.len() as u64);
        }
        env.ram_write(gpa, data);
    }
}
