//! The `xdp` crate over an unbound socket of its own. Its rings move packets only, from and to its UMEM's free list, so it has no
//! bare rows.

use crate::kernel::{self, Kernel, LEN};
use crate::rings::Owning;
use std::os::fd::BorrowedFd;
use std::path::Path;
use xdp::slab::{HeapSlab, Slab};
use xdp::socket::XdpSocketBuilder;
use xdp::umem::{FrameSize, UmemCfgBuilder};
use xdp::{CompletionRing, FillRing, RxRing, TxRing, Umem};
use xdp::{RingConfigBuilder, Rings};

/// Its rings, UMEM, and the slab that packets are in between receiving and sending.
pub struct Port {
    umem: Umem,
    fill: FillRing,
    rx: RxRing,
    tx: TxRing,
    completion: CompletionRing,
    slab: HeapSlab,
    _socket: XdpSocketBuilder,
}

/// The port, and a kernel behind it.
///
/// # Errors
/// As the system calls.
pub fn open(burst: usize) -> Result<(Port, Kernel), Box<dyn core::error::Error>> {
    let config =
        UmemCfgBuilder { frame_size: FrameSize::TwoK, frame_count: kernel::CHUNKS, ..Default::default() };
    let umem = Umem::map(config.build()?)?;
    let before = sockets();
    let mut socket = XdpSocketBuilder::new()?;
    let fd = *sockets().iter().find(|fd| !before.contains(fd)).ok_or("no socket was opened")?;
    let (Rings { fill_ring, rx_ring, completion_ring, tx_ring }, _) = socket.build_rings(
        &umem,
        RingConfigBuilder {
            rx_count: kernel::RING,
            tx_count: kernel::RING,
            fill_count: kernel::RING,
            completion_count: kernel::RING,
        }
        .build()?,
    )?;
    // SAFETY: the builder keeps it open.
    let rings = kernel::map(unsafe { BorrowedFd::borrow_raw(fd) }, 0)?;
    let port = Port {
        umem,
        fill: fill_ring,
        rx: rx_ring.ok_or("no rx ring")?,
        tx: tx_ring.ok_or("no tx ring")?,
        completion: completion_ring,
        slab: HeapSlab::with_capacity(burst),
        _socket: socket,
    };
    Ok((port, Kernel::new(rings)))
}

/// The open sockets of this process: the builder does not tell its own.
fn sockets() -> Vec<i32> {
    let entries = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let is_socket =
        |path: &Path| std::fs::read_link(path).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"));
    entries
        .filter(|entry| is_socket(&entry.path()))
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

impl Owning for Port {
    fn fill(&mut self, n: u32) {
        // SAFETY: the UMEM lives as long as the socket.
        unsafe { self.fill.enqueue(&mut self.umem, n as usize) };
    }

    fn rx(&mut self, _: u32) -> u32 {
        // SAFETY: the packets go back below.
        let taken = unsafe { self.rx.recv(&self.umem, &mut self.slab) };
        while let Some(packet) = self.slab.pop_back() {
            self.umem.free_packet(packet);
        }
        taken as u32
    }

    fn tx(&mut self, n: u32) {
        for _ in 0..n {
            // SAFETY: the UMEM outlives the packet, which is sent below.
            let Some(mut packet) = (unsafe { self.umem.alloc() }) else { break };
            let _ = packet.adjust_tail(LEN as i32);
            self.slab.push_front(packet);
        }
        // SAFETY: the UMEM lives as long as the socket.
        unsafe { self.tx.send(&mut self.slab) };
    }

    fn completion(&mut self, n: u32) -> u32 {
        self.completion.dequeue(&mut self.umem, n as usize) as u32
    }

    fn forward(&mut self, n: u32) -> u32 {
        self.completion(n);
        self.fill(n);
        // SAFETY: the packets are sent below.
        let taken = unsafe { self.rx.recv(&self.umem, &mut self.slab) };
        // SAFETY: the UMEM lives as long as the socket.
        unsafe { self.tx.send(&mut self.slab) };
        taken as u32
    }
}
