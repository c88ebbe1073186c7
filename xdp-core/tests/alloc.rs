//! A turn allocates nothing: counted, over the simulated kernel in every model, and over real sockets where they may be
//! made. Nor does it free, which would be somebody's allocation.

mod common;

use common::*;
use core::alloc::{GlobalAlloc, Layout as Memory};
use core::cell::Cell;
use std::alloc::System;
use xdp_core::sim::{self, Config, Model, Temper};
use xdp_core::{Frame, Layout, Outbox, Overload, Registration, Stage, Transmit, Umem, Verdict, Worker};

/// The system's allocator, which counts what this thread asks of it.
struct Counting;

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    CALLS.with(|calls| calls.set(calls.get() + 1));
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, memory: Memory) -> *mut u8 {
        count();
        // SAFETY: our caller's promise.
        unsafe { System.alloc(memory) }
    }

    unsafe fn dealloc(&self, at: *mut u8, memory: Memory) {
        count();
        // SAFETY: our caller's promise.
        unsafe { System.dealloc(at, memory) }
    }

    unsafe fn realloc(&self, at: *mut u8, memory: Memory, size: usize) -> *mut u8 {
        count();
        // SAFETY: our caller's promise.
        unsafe { System.realloc(at, memory, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// What the allocator was called for while `job` ran.
fn calls(job: impl FnOnce()) -> u64 {
    let before = CALLS.get();
    job();
    CALLS.get() - before
}

#[test]
fn the_count_sees_an_allocation_and_its_end() {
    assert_eq!(calls(|| drop(core::hint::black_box(vec![1u8]))), 2);
    assert_eq!(calls(|| ()), 0);
}

/// Counts, and does a bit of everything a stage can do.
#[derive(Default)]
struct Busy {
    seen: u64,
    finished: u64,
}

impl Stage for Busy {
    fn process(&mut self, frame: &mut Frame<'_>) -> Verdict {
        self.seen += 1;
        frame.for_each_fragment(|bytes| bytes.reverse());
        match self.seen % 8 {
            0 => Verdict::Drop,
            1 => Verdict::Redirect(9),
            2 => Verdict::Next,
            _ => Verdict::Tx,
        }
    }

    fn tick<'u, T: Transmit<'u>>(&mut self, out: &mut Outbox<'_, 'u, T>) {
        if self.seen % 16 == 0 {
            out.copy(0, &[7; 64]);
        }
    }

    fn finished(&mut self, _: &Frame<'_>) {
        self.finished += 1;
    }
}

#[test]
fn a_thousand_turns_over_the_simulated_kernel_allocate_nothing() {
    for model in Model::ALL {
        for overload in [Overload::Drop, Overload::Limit] {
            let umem = Umem::heap(Layout::new(2048, 512).unwrap());
            let config = Config { model, temper: Temper { lossy: 0, ..Temper::BAD }, ..Config::default() };
            let (port, mut wire) = sim::link_with(&umem, &config);
            let count = |_: &mut Frame<'_>| Verdict::Next;
            let mut worker = Worker::new([port], count.then(Busy::default()), umem.take_frames().unwrap())
                .overload(overload);
            let mut allocated = 0;
            for n in 0..1000 {
                // Some of several frames, some of one; the wire allocates, and is not counted.
                wire.queue(&vec![n as u8; if n % 10 == 0 { 5000 } else { 100 }]);
                wire.step();
                allocated += calls(|| _ = worker.turn());
            }
            let busy = &worker.stage().1;
            assert!(
                busy.seen > 300 && busy.finished > 100,
                "{model:?}: {} seen, {}",
                busy.seen,
                busy.finished
            );
            assert_eq!(allocated, 0, "{model:?}");
        }
    }
}

/// Sends one packet a turn.
#[derive(Default)]
struct Echo {
    back: u64,
}

impl Stage for Echo {
    fn process(&mut self, frame: &mut Frame<'_>) -> Verdict {
        self.back += u64::from(is_ours(frame));
        Verdict::Drop
    }

    fn tick<'u, T: Transmit<'u>>(&mut self, out: &mut Outbox<'_, 'u, T>) {
        const PACKET: [u8; 64] = {
            let mut packet = [0; 64];
            (packet[12], packet[13]) = (OURS[0], OURS[1]);
            packet
        };
        out.copy(0, &PACKET);
    }
}

#[test]
fn a_thousand_turns_over_real_sockets_allocate_nothing() {
    let Some(bed) = Bed::new() else { return };
    let (near, far) = (umem(), umem());
    let a = bed.a.bind(&mut Registration::new(&near), 0, &config()).unwrap();
    let b = bed.b.bind(&mut Registration::new(&far), 0, &config()).unwrap();
    let mut a = Worker::new([a], Echo::default(), near.take_frames().unwrap());
    let mut b = Worker::new([b], reflect, far.take_frames().unwrap());
    b.turn();
    let allocated = calls(|| {
        for _ in 0..1000 {
            a.turn();
            b.turn();
        }
    });
    assert!(a.stage().back > 900, "{} of a thousand came back", a.stage().back);
    assert_eq!(allocated, 0);
}
