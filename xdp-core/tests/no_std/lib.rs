//! What `tests/no_std.rs` builds: everything these crates have without the standard library, in a program that brings a
//! panic handler and an allocator of its own. Were `std` linked by any of them, there would be two panic handlers, which
//! the compiler refuses (E0152).
#![no_std]

extern crate alloc;
#[cfg(feature = "planted")]
extern crate std;

use core::alloc::{GlobalAlloc, Layout as Memory};
use xdp_core::{Frame, Layout, Umem, Verdict, Worker, XskConfig, sim};

struct Nothing;

// SAFETY: null says that there is no memory.
unsafe impl GlobalAlloc for Nothing {
    unsafe fn alloc(&self, _: Memory) -> *mut u8 {
        core::ptr::null_mut()
    }
    unsafe fn dealloc(&self, _: *mut u8, _: Memory) {}
}

#[global_allocator]
static NOTHING: Nothing = Nothing;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The whole path, so that nothing of it is left out.
#[unsafe(no_mangle)]
pub extern "C" fn run() -> u32 {
    let Ok(layout) = Layout::new(2048, 512) else { return 0 };
    let umem = Umem::heap(layout);
    let mut registration = xdp_core::Registration::new(&umem);
    if let Ok(port) = registration.bind("none", 0, &XskConfig::default()) {
        drop(port);
    }
    let (port, mut wire) = sim::link(&umem);
    let Some(frames) = umem.take_frames() else { return 0 };
    let mut worker = Worker::new([port], |_: &mut Frame<'_>| Verdict::Tx, frames);
    wire.inject(&[0; 64]);
    worker.turn()
}
