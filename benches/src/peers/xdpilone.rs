//! xdpilone's queues over an unbound socket of its own.

use crate::kernel::{self, Kernel, LEN};
use crate::rings::{Bare, Owning};
use core::num::NonZeroU32;
use core::ptr::NonNull;
use std::os::fd::BorrowedFd;
use xdp_core::Desc;
use xdpilone::xdp::XdpDesc;
use xdpilone::{DeviceQueue, Errno, IfInfo, RingRx, RingTx, Socket, SocketConfig, Umem, UmemConfig};

/// Its queues. The sums and masks are what a user would write.
pub struct Queues {
    device: DeviceQueue,
    rx: RingRx,
    tx: RingTx,
    _umem: Umem,
}

impl core::fmt::Debug for Queues {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Queues")
    }
}

/// The queues, and a kernel behind them. `first` is where the rx and the tx ring's indices begin; the others begin at 0.
///
/// # Errors
/// As the system calls.
pub fn open(first: u32) -> Result<(Queues, Kernel), Errno> {
    let region = crate::rings::shared_umem().region();
    let area = NonNull::slice_from_raw_parts(region.base(), region.len());
    let config = UmemConfig {
        fill_size: kernel::RING,
        complete_size: kernel::RING,
        frame_size: kernel::CHUNK as u32,
        headroom: 0,
        flags: 0,
    };
    // SAFETY: the memory is never given back.
    let umem = unsafe { Umem::new(config, area) }?;
    let socket = Socket::with_shared(&IfInfo::invalid(), &umem)?;
    let device = umem.fq_cq(&socket)?;
    let size = NonZeroU32::new(kernel::RING);
    let user = umem.rx_tx(&socket, &SocketConfig { rx_size: size, tx_size: size, bind_flags: 0 })?;
    // SAFETY: the device queue keeps it open.
    let fd = unsafe { BorrowedFd::borrow_raw(device.as_raw_fd()) };
    // The rx and the tx ring are mapped by it after this, so that it finds the indices where they are set here.
    let rings = kernel::map(fd, first).map_err(|_| Errno::last_os_error())?;
    let (rx, tx) = (user.map_rx()?, user.map_tx()?);
    Ok((Queues { device, rx, tx, _umem: umem }, Kernel::new(rings)))
}

impl Bare for Queues {
    fn fill(&mut self, addresses: &[u64]) {
        let mut fill = self.device.fill(addresses.len() as u32);
        fill.insert(addresses.iter().copied());
        fill.commit();
    }

    fn rx(&mut self, n: u32, sum: &mut u64) -> u32 {
        let mut reader = self.rx.receive(n);
        let mut taken = 0;
        while let Some(desc) = reader.read() {
            *sum = sum.wrapping_add(desc.addr + u64::from(desc.len));
            taken += 1;
        }
        reader.release();
        taken
    }

    fn tx(&mut self, packets: &[Desc]) -> u32 {
        let mut writer = self.tx.transmit(packets.len() as u32);
        let queued =
            writer.insert(packets.iter().map(|desc| XdpDesc { addr: desc.addr, len: desc.len, options: 0 }));
        writer.commit();
        queued
    }

    fn completion(&mut self, n: u32, sum: &mut u64) -> u32 {
        let mut reader = self.device.complete(n);
        let mut taken = 0;
        while let Some(addr) = reader.read() {
            *sum = sum.wrapping_add(addr);
            taken += 1;
        }
        reader.release();
        taken
    }

    fn recycle(&mut self, n: u32) -> u32 {
        let (mut reader, mut fill) = (self.rx.receive(n), self.device.fill(n));
        let mut taken = 0;
        while let Some(desc) = reader.read() {
            fill.insert_once(desc.addr & !(kernel::CHUNK - 1));
            taken += 1;
        }
        reader.release();
        fill.commit();
        taken
    }

    fn forward(&mut self, n: u32) -> u32 {
        // Its fill and completion queues are one value, borrowed as a whole, so the addresses go through an array.
        let (mut addresses, mut completed) = ([0; 64], 0);
        let mut reader = self.device.complete(n.min(64));
        while let Some(addr) = reader.read() {
            addresses[completed] = addr & !(kernel::CHUNK - 1);
            completed += 1;
        }
        reader.release();
        drop(reader);
        let mut fill = self.device.fill(completed as u32);
        fill.insert(addresses[..completed].iter().copied());
        fill.commit();
        drop(fill);
        let (mut reader, mut writer) = (self.rx.receive(n), self.tx.transmit(n));
        let mut taken = 0;
        while let Some(desc) = reader.read() {
            writer.insert_once(desc);
            taken += 1;
        }
        reader.release();
        writer.commit();
        taken
    }

    fn needs_wakeup(&self) -> Option<bool> {
        Some(self.tx.needs_wakeup())
    }
}

/// The queues and the least a user must add to keep chunks apart: a free list.
#[derive(Debug)]
pub struct WithFreeList {
    queues: Queues,
    free: Vec<u64>,
}

impl WithFreeList {
    /// All chunks free.
    pub fn new(queues: Queues) -> Self {
        Self {
            queues,
            free: (0..u64::from(kernel::CHUNKS)).rev().map(|chunk| chunk * kernel::CHUNK).collect(),
        }
    }
}

impl Owning for WithFreeList {
    fn fill(&mut self, n: u32) {
        let mut fill = self.queues.device.fill(n);
        fill.insert((0..n).map_while(|_| self.free.pop()));
        fill.commit();
    }

    fn rx(&mut self, n: u32) -> u32 {
        let mut reader = self.queues.rx.receive(n);
        let mut taken = 0;
        while let Some(desc) = reader.read() {
            self.free.push(desc.addr & !(kernel::CHUNK - 1));
            taken += 1;
        }
        reader.release();
        taken
    }

    fn tx(&mut self, n: u32) {
        let mut writer = self.queues.tx.transmit(n);
        let free = &mut self.free;
        writer.insert((0..n).map_while(|_| free.pop()).map(|addr| XdpDesc {
            addr: addr + 256,
            len: LEN,
            options: 0,
        }));
        writer.commit();
    }

    fn completion(&mut self, n: u32) -> u32 {
        let mut reader = self.queues.device.complete(n);
        let mut taken = 0;
        while let Some(addr) = reader.read() {
            self.free.push(addr & !(kernel::CHUNK - 1));
            taken += 1;
        }
        reader.release();
        taken
    }

    fn forward(&mut self, n: u32) -> u32 {
        self.completion(n);
        self.fill(n);
        let (mut reader, mut writer) = (self.queues.rx.receive(n), self.queues.tx.transmit(n));
        let mut taken = 0;
        while let Some(desc) = reader.read() {
            writer.insert_once(desc);
            taken += 1;
        }
        reader.release();
        writer.commit();
        taken
    }
}
