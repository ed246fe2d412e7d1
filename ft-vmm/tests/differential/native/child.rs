//! The process that executes cases. Each one ends in a signal, whose handler keeps the outcome, puts memory back, and returns into the
//! next case by loading its registers into the frame that the kernel restores.
//!
//! Invariant: the handler touches the board, the image and the signal frame, and nothing else. It runs on its own stack, at an address that
//! no case guesses.

use super::Board;
use crate::case::{Case, Fx, INT3, Outcome, ending};
use crate::layout::{CODE, CODE_PAGES, FS_BASE, GS_BASE, IMAGE, IMAGE_PAGES, PAGE, WRITABLE};
use nix::libc;
use std::arch::{asm, naked_asm};
use std::ptr::{self, null_mut};
use std::sync::atomic::{AtomicPtr, Ordering};

/// A case that is still running when two alarms have come is given up.
const ALARM_US: libc::suseconds_t = 200_000;

const STACK_BYTES: usize = 256 * 1024;

/// AC, ID and NT: a case may leave them set, and the handler must not run with them.
const FLAGS_STRAY: i32 = 1 << 18 | 1 << 21 | 1 << 14;

const ARCH_SET_GS: usize = 0x1001;
const ARCH_SET_FS: usize = 0x1002;

/// Bit of AT_HWCAP2: ring 3 may write the FS and GS bases.
const HWCAP2_FSGSBASE: u64 = 1 << 1;

/// User code and data selectors of 64-bit Linux.
const SELECTORS: i64 = 0x33 | 0x2b << 48;

static BOARD: AtomicPtr<Board> = AtomicPtr::new(null_mut());

/// Turns the process that has just been forked into the one that runs cases.
///
/// # Safety
/// `board` points to a shared board; nobody else uses this process.
pub(super) unsafe fn live(board: *mut Board, parents: [libc::c_int; 2]) -> ! {
    // SAFETY: as the caller promises.
    unsafe {
        for fd in parents {
            libc::close(fd);
        }
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        (*board).fsgsbase = libc::getauxval(libc::AT_HWCAP2) & HWCAP2_FSGSBASE != 0;
        if map_pages(&mut *board).is_none() || handle_signals().is_none() {
            libc::_exit(1);
        }
        BOARD.store(board, Ordering::Relaxed);
        set_bases(&*board, true);
        asm!("ud2", options(noreturn));
    }
}

/// The pages at their fixed addresses, all present from the start: a first touch must not look like a page that is missing.
unsafe fn map_pages(board: &mut Board) -> Option<()> {
    const SHARED: libc::c_int = libc::MAP_SHARED | libc::MAP_POPULATE;
    const FIXED: libc::c_int = SHARED | libc::MAP_FIXED_NOREPLACE;
    const READ_WRITE: libc::c_int = libc::PROT_READ | libc::PROT_WRITE;
    let code_bytes = CODE_PAGES * PAGE;
    // SAFETY: new mappings, nothing is replaced.
    unsafe {
        let file = libc::memfd_create(c"cases".as_ptr(), 0);
        if file < 0 || libc::ftruncate(file, (code_bytes + PAGE) as i64) != 0 {
            return None;
        }
        let alias = libc::mmap(null_mut(), code_bytes + PAGE, READ_WRITE, SHARED, file, 0);
        if alias == libc::MAP_FAILED {
            return None;
        }
        board.code_alias = alias.cast();
        board.read_only_alias = board.code_alias.add(code_bytes);
        ptr::write_bytes(board.code_alias, INT3, code_bytes);
        let fixed = |at: u64, bytes: usize, access, flags, file, offset: usize| {
            let at = at as *mut libc::c_void;
            (libc::mmap(at, bytes, access, flags, file, offset as i64) == at).then_some(())
        };
        fixed(CODE, code_bytes, libc::PROT_READ | libc::PROT_EXEC, FIXED, file, 0)?;
        fixed(IMAGE, PAGE, libc::PROT_READ, FIXED, file, code_bytes)?;
        fixed(WRITABLE, (IMAGE_PAGES - 1) * PAGE, READ_WRITE, FIXED | libc::MAP_ANONYMOUS, -1, 0)?;
        // Where memory cannot be locked, the kernel still leaves pages alone that have just been used.
        libc::mlock(CODE as *const _, code_bytes);
        libc::mlock(IMAGE as *const _, IMAGE_PAGES * PAGE);
    }
    Some(())
}

unsafe fn handle_signals() -> Option<()> {
    // SAFETY: plain data of the C library, and a handler that is made for these signals.
    unsafe {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let memory = libc::mmap(null_mut(), STACK_BYTES, access, flags, -1, 0);
        let stack = libc::stack_t { ss_sp: memory, ss_flags: 0, ss_size: STACK_BYTES };
        if memory == libc::MAP_FAILED || libc::sigaltstack(&stack, null_mut()) != 0 {
            return None;
        }
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = entry as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigfillset(&mut action.sa_mask);
        for signal in [
            libc::SIGSEGV,
            libc::SIGBUS,
            libc::SIGILL,
            libc::SIGTRAP,
            libc::SIGFPE,
            libc::SIGALRM,
            libc::SIGSYS,
        ] {
            if libc::sigaction(signal, &action, null_mut()) != 0 {
                return None;
            }
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, null_mut());
        let every = libc::timeval { tv_sec: 0, tv_usec: ALARM_US };
        let alarm = libc::itimerval { it_interval: every, it_value: every };
        libc::setitimer(libc::ITIMER_REAL, &alarm, null_mut());
    }
    Some(())
}

/// Where the kernel enters: with flags that the case chose.
#[unsafe(naked)]
unsafe extern "C" fn entry() {
    naked_asm!(
        "pushfq",
        "and qword ptr [rsp], {keep}",
        "popfq",
        "cld",
        "jmp {handler}",
        keep = const !FLAGS_STRAY,
        handler = sym on_signal,
    )
}

unsafe extern "C" fn on_signal(
    signal: libc::c_int,
    _info: *const libc::siginfo_t,
    context: *mut libc::ucontext_t,
) {
    // SAFETY: the board was set before the first signal, the parent leaves it alone while cases run, and the kernel passes a frame.
    let (board, context) = unsafe { (&mut *BOARD.load(Ordering::Relaxed), &mut *context) };
    let alarm = signal == libc::SIGALRM;
    if alarm && !board.is_stuck() {
        return;
    }
    // SAFETY: the frame is the kernel's and complete; the image is mapped.
    unsafe {
        if board.running {
            board.keep(context, alarm);
        }
        // Before the first case there is none to keep, whatever the parent has put on the board by now.
        if !board.running || board.current == board.count {
            board.exchange();
        }
        board.load(context);
    }
}

impl Board {
    /// Whether the last alarm met the same case.
    fn is_stuck(&mut self) -> bool {
        let stuck = self.running && self.alarmed == self.current;
        self.alarmed = self.current;
        stuck
    }

    /// Says that all cases have run, and waits for the next ones.
    unsafe fn exchange(&mut self) {
        let mut byte = 0u8;
        // SAFETY: system calls with valid arguments; memory that `map_pages` mapped.
        unsafe {
            if self.running {
                system_call(libc::SYS_write, self.done_fd as usize, (&raw const byte) as usize, 1);
            }
            if system_call(libc::SYS_read, self.start_fd as usize, (&raw mut byte) as usize, 1) != 1 {
                system_call(libc::SYS_exit_group, 0, 0, 0);
            }
            ptr::copy_nonoverlapping(self.image.0[0].as_ptr(), self.read_only_alias, PAGE);
            let writable = WRITABLE as *mut u8;
            ptr::copy_nonoverlapping(self.image.0[1].as_ptr(), writable, (IMAGE_PAGES - 1) * PAGE);
        }
        self.running = true;
        self.current = 0;
        self.alarmed = u32::MAX;
    }

    /// Loads the current case into the frame.
    unsafe fn load(&mut self, context: &mut libc::ucontext_t) {
        let case = &self.cases[self.current as usize];
        let frame = &mut context.uc_mcontext;
        for (register, value) in ORDER.iter().zip(case.registers.gpr) {
            frame.gregs[*register as usize] = value as i64;
        }
        frame.gregs[libc::REG_RIP as usize] = case.registers.rip as i64;
        frame.gregs[libc::REG_EFL as usize] = case.registers.rflags as i64;
        frame.gregs[libc::REG_CSGSFS as usize] = SELECTORS;
        // SAFETY: a frame has room for an XSAVE area: 512 bytes and a header, whose first word says what of it is meant. The code fits.
        unsafe {
            let fx = frame.fpregs.cast::<u8>();
            ptr::copy_nonoverlapping(case.fx.0.as_ptr(), fx, Fx::KERNEL);
            fx.add(512).cast::<u64>().write(3);
            ptr::copy_nonoverlapping(case.code.as_ptr(), self.code_at(case), case.code_len as usize);
            set_bases(self, false);
        }
    }

    /// Where the code of a case can be written.
    unsafe fn code_at(&self, case: &Case) -> *mut u8 {
        // SAFETY: RIP is in the code pages.
        unsafe { self.code_alias.add((case.registers.rip - CODE) as usize) }
    }

    /// Keeps the outcome of the current case, puts back what it changed, and goes on to the next.
    unsafe fn keep(&mut self, context: &libc::ucontext_t, alarm: bool) {
        let case = &self.cases[self.current as usize];
        let outcome = &raw mut self.outcomes[self.current as usize];
        let frame = &context.uc_mcontext;
        // SAFETY: as in `load`.
        unsafe {
            ptr::write_bytes(self.code_at(case), INT3, case.code_len as usize);
            let outcome = &mut *outcome;
            for (register, value) in ORDER.iter().zip(&mut outcome.registers.gpr) {
                *value = frame.gregs[*register as usize] as u64;
            }
            ptr::copy_nonoverlapping(frame.fpregs.cast::<u8>(), outcome.fx.0.as_mut_ptr(), Fx::KERNEL);
            self.keep_memory(outcome);
            outcome.registers.rip = frame.gregs[libc::REG_RIP as usize] as u64;
            outcome.registers.rflags = frame.gregs[libc::REG_EFL as usize] as u64;
            outcome.vector =
                if alarm { ending::TOO_LONG } else { frame.gregs[libc::REG_TRAPNO as usize] as u32 };
            outcome.error = frame.gregs[libc::REG_ERR as usize] as u64;
            outcome.cr2 = frame.gregs[libc::REG_CR2 as usize] as u64;
        }
        self.current += 1;
    }

    unsafe fn keep_memory(&self, outcome: &mut Outcome) {
        outcome.pages_changed = 0;
        for page in 1..IMAGE_PAGES {
            let image = self.image.0[page].as_ptr();
            let memory = (IMAGE as usize + page * PAGE) as *mut u8;
            // SAFETY: writable pages of this process.
            unsafe {
                if libc::memcmp(image.cast(), memory.cast(), PAGE) != 0 {
                    outcome.pages_changed |= 1 << page;
                    ptr::copy_nonoverlapping(memory, outcome.pages[page].as_mut_ptr(), PAGE);
                    ptr::copy_nonoverlapping(image, memory, PAGE);
                }
            }
        }
    }
}

/// Where the frame keeps each register, in the order of their encoding.
const ORDER: [libc::c_int; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

/// Gives the cases their FS and GS, which one of them may have changed by loading a selector.
unsafe fn set_bases(board: &Board, first: bool) {
    // SAFETY: nothing in this process uses FS any more.
    unsafe {
        asm!("mov ds, {0:e}", "mov es, {0:e}", in(reg) 0);
        if !first && board.fsgsbase {
            asm!("mov fs, {0:e}", "mov gs, {0:e}", in(reg) 0);
            asm!(".byte 0xf3, 0x48, 0x0f, 0xae, 0xd0", in("rax") FS_BASE);
            asm!(".byte 0xf3, 0x48, 0x0f, 0xae, 0xd8", in("rax") GS_BASE);
        } else {
            asm!("mov fs, {0:e}", "mov gs, {0:e}", in(reg) 0);
            system_call(libc::SYS_arch_prctl, ARCH_SET_FS, FS_BASE as usize, 0);
            system_call(libc::SYS_arch_prctl, ARCH_SET_GS, GS_BASE as usize, 0);
        }
    }
}

/// A system call without the C library, which would set `errno` through FS.
unsafe fn system_call(number: libc::c_long, a: usize, b: usize, c: usize) -> isize {
    let result;
    // SAFETY: the caller knows what it asks for; the kernel changes RCX and R11.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") a,
            in("rsi") b,
            in("rdx") c,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    result
}
