//! What `tests/codegen.rs` compiles and reads: a turn of a worker over each kind of port, one function each.

use std::sync::Arc;
use xdp_core::ring::{HeapRing, KernelRing};
use xdp_core::sim::Bell;
use xdp_core::{Frame, RingReceiver, RingTransmitter, Stage, Then, Verdict, Worker, XskFar};

/// Counts packets and bytes.
#[derive(Default)]
pub struct Count {
    pub packets: u64,
    pub bytes: u64,
}

impl Stage for Count {
    #[inline]
    fn process(&mut self, frame: &mut Frame<'_>) -> Verdict {
        self.packets += 1;
        self.bytes += frame.len() as u64;
        Verdict::Next
    }
}

/// Swaps the Ethernet addresses and sends back.
pub struct Reflector;

impl Stage for Reflector {
    #[inline]
    fn process(&mut self, frame: &mut Frame<'_>) -> Verdict {
        let Some((destination, rest)) = frame.split_first_chunk_mut::<6>() else { return Verdict::Drop };
        let Some(source) = rest.first_chunk_mut::<6>() else { return Verdict::Drop };
        std::mem::swap(destination, source);
        Verdict::Tx
    }
}

type Over<'u, M, F> = Worker<'u, RingReceiver<'u, M>, RingTransmitter<'u, M>, F, Then<Count, Reflector>, 1>;

#[inline(never)]
pub fn turn_over_simulation(worker: &mut Over<'_, Arc<HeapRing>, Bell>) -> u32 {
    worker.turn()
}

#[inline(never)]
pub fn turn_over_socket(worker: &mut Over<'_, KernelRing, XskFar>) -> u32 {
    worker.turn()
}
