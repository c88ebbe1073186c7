//! A socket whose descriptors are written by hand: what no port would send, to see what becomes of it.

use crate::xsk::{Ends, Place, Xsk, XskConfig};
use crate::{Desc, Error, Layout, Region, RegionOptions, Umem};
use alloc::vec;
use alloc::vec::Vec;
use core::ptr;
use xdp_umem::{Errno, Fd};

/// An AF_XDP socket over memory of its own, of which nobody ever takes a frame. The first half of its chunks is for
/// receiving, the second for sending.
pub(super) struct RawPort {
    // dropped first: the rings, and with the last of them the socket
    pub(super) ends: Ends,
    umem: Umem,
}

impl RawPort {
    /// How many chunks each direction has.
    pub(super) const CHUNKS: u32 = 128;

    /// Binds one, with all its receiving chunks in the fill ring.
    pub(super) fn open(place: Place<'_>, config: &XskConfig, chunk_size: u32) -> Result<Self, Error> {
        let no_memory = |errno| Error::new("map memory to probe", place.name, errno, "free some memory");
        let layout = Layout::new(chunk_size, 2 * Self::CHUNKS).map_err(|_| no_memory(Errno::EINVAL))?;
        let umem = Umem::new(layout, &RegionOptions::default()).map_err(no_memory)?;
        // SAFETY: the memory is ours, `take_frames` is not called on it, and it is not handed out.
        let ends = unsafe { Xsk::open_ends(&umem, place, config) }?;
        let mut port = Self { ends, umem };
        for chunk in 0..Self::CHUNKS {
            let addr = u64::from(chunk) * u64::from(chunk_size);
            port.ends.fill.push(addr).expect("the fill ring has room for all");
        }
        port.ends.fill.commit();
        Ok(port)
    }

    pub(super) fn fd(&self) -> &Fd {
        self.ends.xsk.fd()
    }

    pub(super) fn region(&self) -> &Region {
        self.umem.region()
    }

    /// Copies a packet into a sending chunk.
    pub(super) fn write(&mut self, chunk: u32, packet: &[u8]) -> Desc {
        let size = self.umem.layout().chunk_size();
        assert!(chunk < Self::CHUNKS && packet.len() <= size as usize, "a packet fits a chunk");
        let addr = u64::from(Self::CHUNKS + chunk) * u64::from(size);
        let desc = Desc { addr, len: packet.len() as u32, options: 0 };
        let to = self.umem.locate(desc).expect("inside the memory");
        // SAFETY: `locate` says that so many bytes there are ours, and no reference to them exists; the kernel may at most
        // read them, should the chunk still be on its way.
        unsafe { ptr::copy_nonoverlapping(packet.as_ptr(), to.as_ptr(), packet.len()) };
        desc
    }

    /// What a received descriptor holds; `None` if it lies outside the memory.
    pub(super) fn read(&self, desc: Desc) -> Option<Vec<u8>> {
        let from = self.umem.locate(Desc { options: 0, ..desc })?;
        let mut packet = vec![0; desc.len as usize];
        // SAFETY: `locate` says that so many bytes there are ours, and no reference to them exists; the kernel has handed
        // the chunk over, and what it might still write is only a wrong byte in a copy.
        unsafe { ptr::copy_nonoverlapping(from.as_ptr(), packet.as_mut_ptr(), packet.len()) };
        Some(packet)
    }

    /// Puts the chunk of a received descriptor into the fill ring again.
    pub(super) fn recycle(&mut self, desc: Desc) {
        let size = u64::from(self.umem.layout().chunk_size());
        let _ = self.ends.fill.push(desc.addr / size * size);
    }
}
