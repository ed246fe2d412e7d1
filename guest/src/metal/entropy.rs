//! The entropy device, asked once.

use super::virtio::{Part, Queue, Slot};
use super::{cpu, memory, watchdog};

const SLOT: usize = 3;
const DEVICE_ID: u32 = 4;
/// Its line.
pub(crate) const LINE: u16 = 1 << 9;

/// Eight random bytes, or `None` without a device.
pub(crate) fn random() -> Option<u64> {
    let (slot, _) = Slot::open(SLOT, DEVICE_ID, 0)?;
    let mut queue = Queue::new(slot, 0, 1)?;
    slot.start();
    let buffer = memory::pages(size_of::<u64>());
    queue.describe(0, &[Part { address: buffer as usize, bytes: size_of::<u64>(), device_writes: true }]);
    queue.push(0);
    queue.notify();
    while queue.pop().is_none() {
        cpu::idle();
        cpu::take_lines();
        watchdog::alive();
        slot.acknowledge();
    }
    // SAFETY: the device has filled the buffer and does not have it any more.
    Some(unsafe { buffer.cast::<u64>().read_volatile() })
}
