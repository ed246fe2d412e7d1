//! The functions on memory that compiled code calls and no C library is here to provide, and the allocator.
//!
//! The loops are in assembly: written in Rust, the compiler would recognize them and call the very function it is compiling.

use core::arch::naked_asm;
use talc::source::Manual;
use talc::TalcLock;

/// Takes nothing and gives nothing: there is one thread, and interrupts allocate nothing.
struct OneThread;

// SAFETY: exclusion needs no work where only one thread exists. The stubs of interrupts do not allocate.
unsafe impl talc::lock_api::RawMutex for OneThread {
    #[allow(clippy::declare_interior_mutable_const, reason = "the trait asks for it")]
    const INIT: Self = Self;
    type GuardMarker = talc::lock_api::GuardNoSend;

    fn lock(&self) {}

    fn try_lock(&self) -> bool {
        true
    }

    unsafe fn unlock(&self) {}
}

#[global_allocator]
static HEAP: TalcLock<OneThread, Manual> = TalcLock::new(Manual);

/// Gives `from..to` to the allocator.
///
/// # Safety
/// Nobody else uses this memory, from now on.
pub(crate) unsafe fn give(from: usize, to: usize) {
    // SAFETY: as the caller promises.
    let claimed = unsafe { HEAP.lock().claim(from as *mut u8, to - from) };
    assert!(claimed.is_some(), "too little memory");
}

/// `bytes` bytes of zeros at a page boundary, for a device, for ever.
pub(crate) fn pages(bytes: usize) -> *mut u8 {
    let layout = core::alloc::Layout::from_size_align(bytes.next_multiple_of(4096), 4096);
    let layout = layout.expect("a size far below the machine's memory");
    // SAFETY: the layout is not empty: callers ask for queues and buffers.
    let memory = unsafe { alloc::alloc::alloc_zeroed(layout) };
    assert!(!memory.is_null(), "no memory for a device's {bytes} bytes");
    memory
}

#[unsafe(no_mangle)]
#[unsafe(naked)]
extern "C" fn memcpy(to: *mut u8, from: *const u8, bytes: usize) -> *mut u8 {
    naked_asm!(
        "mov rax, rdi",
        "cmp rdx, 16",
        "jb 5f",
        "cmp rdx, 32",
        "ja 2f",
        // 16 to 32: two halves that may overlap.
        "movdqu xmm0, [rsi]",
        "movdqu xmm1, [rsi + rdx - 16]",
        "movdqu [rdi], xmm0",
        "movdqu [rdi + rdx - 16], xmm1",
        "ret",
        // The last 32 bytes are read before anything is written, and written at the end: they mend what the loops write beyond
        // their part. That makes this right for areas that overlap, too, if `to` is the lower one.
        "2: movdqu xmm4, [rsi + rdx - 32]",
        "movdqu xmm5, [rsi + rdx - 16]",
        "lea r8, [rdi + rdx]",
        "sub rdx, 32",
        "cmp rdx, 64",
        "jb 4f",
        "3: movdqu xmm0, [rsi]",
        "movdqu xmm1, [rsi + 16]",
        "movdqu xmm2, [rsi + 32]",
        "movdqu xmm3, [rsi + 48]",
        "movdqu [rdi], xmm0",
        "movdqu [rdi + 16], xmm1",
        "movdqu [rdi + 32], xmm2",
        "movdqu [rdi + 48], xmm3",
        "add rsi, 64",
        "add rdi, 64",
        "sub rdx, 64",
        "cmp rdx, 64",
        "jae 3b",
        "test rdx, rdx",
        "jz 45f",
        "4: movdqu xmm0, [rsi]",
        "movdqu [rdi], xmm0",
        "add rsi, 16",
        "add rdi, 16",
        "sub rdx, 16",
        "ja 4b",
        "45: movdqu [r8 - 32], xmm4",
        "movdqu [r8 - 16], xmm5",
        "ret",
        // Below 16: the same with smaller halves.
        "5: cmp edx, 8",
        "jb 6f",
        "mov rcx, [rsi]",
        "mov r8, [rsi + rdx - 8]",
        "mov [rdi], rcx",
        "mov [rdi + rdx - 8], r8",
        "ret",
        "6: cmp edx, 4",
        "jb 7f",
        "mov ecx, [rsi]",
        "mov r8d, [rsi + rdx - 4]",
        "mov [rdi], ecx",
        "mov [rdi + rdx - 4], r8d",
        "ret",
        // First, middle and last of at most three.
        "7: test edx, edx",
        "jz 8f",
        "movzx ecx, byte ptr [rsi]",
        "movzx r8d, byte ptr [rsi + rdx - 1]",
        "mov r9, rdx",
        "shr r9, 1",
        "movzx r10d, byte ptr [rsi + r9]",
        "mov [rdi], cl",
        "mov [rdi + r9], r10b",
        "mov [rdi + rdx - 1], r8b",
        "8: ret",
    )
}

#[unsafe(no_mangle)]
#[unsafe(naked)]
extern "C" fn memmove(to: *mut u8, from: *const u8, bytes: usize) -> *mut u8 {
    naked_asm!(
        "mov rax, rdi",
        "sub rax, rsi",
        "cmp rax, rdx",
        "jae {memcpy}",
        // Up to 32 bytes, memcpy reads all before it writes.
        "cmp rdx, 32",
        "jbe {memcpy}",
        // `to` lies inside the source: backward, and the first 16 bytes last.
        "mov rax, rdi",
        "movdqu xmm4, [rsi]",
        "2: movdqu xmm0, [rsi + rdx - 16]",
        "movdqu [rdi + rdx - 16], xmm0",
        "sub rdx, 16",
        "cmp rdx, 16",
        "ja 2b",
        "movdqu [rdi], xmm4",
        "ret",
        memcpy = sym memcpy,
    )
}

#[unsafe(no_mangle)]
#[unsafe(naked)]
extern "C" fn memset(to: *mut u8, value: i32, bytes: usize) -> *mut u8 {
    naked_asm!(
        "mov rax, rdi",
        "movzx ecx, sil",
        "mov r8, 0x0101010101010101",
        "imul r8, rcx",
        "cmp rdx, 16",
        "jb 5f",
        "movq xmm0, r8",
        "punpcklqdq xmm0, xmm0",
        "lea r9, [rdi + rdx - 16]",
        "2: cmp rdx, 64",
        "jb 4f",
        "3: movdqu [rdi], xmm0",
        "movdqu [rdi + 16], xmm0",
        "movdqu [rdi + 32], xmm0",
        "movdqu [rdi + 48], xmm0",
        "add rdi, 64",
        "sub rdx, 64",
        "cmp rdx, 64",
        "jae 3b",
        "4: cmp rdx, 16",
        "jb 45f",
        "movdqu [rdi], xmm0",
        "add rdi, 16",
        "sub rdx, 16",
        "jmp 4b",
        "45: movdqu [r9], xmm0",
        "ret",
        "5: cmp edx, 8",
        "jb 6f",
        "mov [rdi], r8",
        "mov [rdi + rdx - 8], r8",
        "ret",
        "6: cmp edx, 4",
        "jb 7f",
        "mov [rdi], r8d",
        "mov [rdi + rdx - 4], r8d",
        "ret",
        "7: test edx, edx",
        "jz 8f",
        "mov [rdi], r8b",
        "mov [rdi + rdx - 1], r8b",
        "shr edx, 1",
        "mov [rdi + rdx], r8b",
        "8: ret",
    )
}

#[unsafe(no_mangle)]
#[unsafe(naked)]
extern "C" fn memcmp(left: *const u8, right: *const u8, bytes: usize) -> i32 {
    naked_asm!(
        "2: cmp rdx, 8",
        "jb 4f",
        "mov rax, [rdi]",
        "mov rcx, [rsi]",
        "cmp rax, rcx",
        "jne 3f",
        "add rdi, 8",
        "add rsi, 8",
        "sub rdx, 8",
        "jmp 2b",
        // Eight bytes that differ somewhere, the first one foremost.
        "3: bswap rax",
        "bswap rcx",
        "cmp rax, rcx",
        "sbb eax, eax",
        "or eax, 1",
        "ret",
        "4: test rdx, rdx",
        "jz 5f",
        "movzx eax, byte ptr [rdi]",
        "movzx ecx, byte ptr [rsi]",
        "sub eax, ecx",
        "jne 6f",
        "inc rdi",
        "inc rsi",
        "dec rdx",
        "jmp 4b",
        "5: xor eax, eax",
        "6: ret",
    )
}

#[unsafe(no_mangle)]
#[unsafe(naked)]
extern "C" fn bcmp(left: *const u8, right: *const u8, bytes: usize) -> i32 {
    naked_asm!("jmp {memcmp}", memcmp = sym memcmp)
}
