//! `include/uapi/linux/if_xdp.h` in Rust: names as there, sizes asserted, versions beside what came later.

use core::ffi::c_int;
use xdp_umem::sys::Plain;

/// The address and protocol family of AF_XDP sockets.
pub const AF_XDP: c_int = 44;
/// The level of their socket options.
pub const SOL_XDP: c_int = 283;

/// Bind: borrow the UMEM of the socket in [`SockaddrXdp::shared_umem_fd`].
pub const XDP_SHARED_UMEM: u16 = 1 << 0;
/// Bind: copy mode, even where the driver has zero-copy.
pub const XDP_COPY: u16 = 1 << 1;
/// Bind: zero-copy or EOPNOTSUPP.
pub const XDP_ZEROCOPY: u16 = 1 << 2;
/// Bind: the driver says in the ring's flags when it needs waking. Since Linux 5.4.
pub const XDP_USE_NEED_WAKEUP: u16 = 1 << 3;
/// Bind: packets of several descriptors are accepted. Since Linux 6.6.
pub const XDP_USE_SG: u16 = 1 << 4;

/// Option: where in its mapping each part of a ring is ([`MmapOffsets`]).
pub const XDP_MMAP_OFFSETS: c_int = 1;
/// Option: makes the rx ring, of so many entries.
pub const XDP_RX_RING: c_int = 2;
/// Option: makes the tx ring.
pub const XDP_TX_RING: c_int = 3;
/// Option: registers memory ([`UmemReg`]).
pub const XDP_UMEM_REG: c_int = 4;
/// Option: makes the fill ring.
pub const XDP_UMEM_FILL_RING: c_int = 5;
/// Option: makes the completion ring.
pub const XDP_UMEM_COMPLETION_RING: c_int = 6;
/// Option: reads [`Statistics`].
pub const XDP_STATISTICS: c_int = 7;
/// Option: reads what the bind chose. Since Linux 5.3.
pub const XDP_OPTIONS: c_int = 8;
/// Option: how many packets one send call moves in copy mode. Since Linux 6.17.
pub const XDP_MAX_TX_SKB_BUDGET: c_int = 9;

/// In [`XDP_OPTIONS`]: bound in zero-copy mode.
pub const XDP_OPTIONS_ZEROCOPY: u32 = 1 << 0;

/// In [`UmemReg::flags`]: chunks may start anywhere. Since Linux 5.4.
pub const XDP_UMEM_UNALIGNED_CHUNK_FLAG: u32 = 1 << 0;
/// In [`UmemReg::flags`]: the kernel computes requested checksums itself (copy mode, testing). Since Linux 6.8.
pub const XDP_UMEM_TX_SW_CSUM: u32 = 1 << 1;
/// In [`UmemReg::flags`]: `tx_metadata_len` counts. Since Linux 6.11.
pub const XDP_UMEM_TX_METADATA_LEN: u32 = 1 << 2;

/// In a ring's flags word: wake me.
pub const XDP_RING_NEED_WAKEUP: u32 = 1 << 0;

/// Mapping offset of the rx ring.
pub const XDP_PGOFF_RX_RING: u64 = 0;
/// Mapping offset of the tx ring.
pub const XDP_PGOFF_TX_RING: u64 = 0x8000_0000;
/// Mapping offset of the fill ring.
pub const XDP_UMEM_PGOFF_FILL_RING: u64 = 0x1_0000_0000;
/// Mapping offset of the completion ring.
pub const XDP_UMEM_PGOFF_COMPLETION_RING: u64 = 0x1_8000_0000;

/// In TX metadata: stamp the packet when it is sent. Since Linux 6.8.
pub const XDP_TXMD_FLAGS_TIMESTAMP: u64 = 1 << 0;
/// In TX metadata: compute the checksum. Since Linux 6.8.
pub const XDP_TXMD_FLAGS_CHECKSUM: u64 = 1 << 1;
/// In TX metadata: send at a given time. Since Linux 6.15.
pub const XDP_TXMD_FLAGS_LAUNCH_TIME: u64 = 1 << 2;

/// `struct sockaddr_xdp`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct SockaddrXdp {
    /// [`AF_XDP`].
    pub family: u16,
    /// `XDP_COPY` and the like.
    pub flags: u16,
    /// The interface.
    pub ifindex: u32,
    /// Its queue.
    pub queue_id: u32,
    /// With [`XDP_SHARED_UMEM`]: the socket that has the UMEM.
    pub shared_umem_fd: u32,
}

/// `struct xdp_umem_reg`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct UmemReg {
    /// Of the region, page-aligned.
    pub addr: u64,
    /// Of the region, in bytes.
    pub len: u64,
    /// In bytes.
    pub chunk_size: u32,
    /// Before each packet, beyond the kernel's 256 bytes.
    pub headroom: u32,
    /// Since Linux 5.4.
    pub flags: u32,
    /// Since Linux 6.8; padding before, which must be zero.
    pub tx_metadata_len: u32,
}

/// `struct xdp_ring_offset`: where in its mapping the parts of a ring are, in bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct RingOffset {
    /// Of the producer index.
    pub producer: u64,
    /// Of the consumer index.
    pub consumer: u64,
    /// Of the entries.
    pub desc: u64,
    /// Of the flags word. Since Linux 5.4.
    pub flags: u64,
}

/// `struct xdp_mmap_offsets`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct MmapOffsets {
    /// Of the rx ring.
    pub rx: RingOffset,
    /// Of the tx ring.
    pub tx: RingOffset,
    /// Of the fill ring.
    pub fr: RingOffset,
    /// Of the completion ring.
    pub cr: RingOffset,
}

/// `struct xdp_statistics`. What each field really counts is in ARCHITECTURE.md.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Packets dropped: too long for a chunk, or (copy mode) the fill ring was empty.
    pub rx_dropped: u64,
    /// Always 0: the kernel counts bad fill addresses on a counter it does not export.
    pub rx_invalid_descs: u64,
    /// Descriptors the kernel refused to send.
    pub tx_invalid_descs: u64,
    /// Packets dropped as the rx ring was full. Since Linux 5.9, as all below.
    pub rx_ring_full: u64,
    /// Times the fill ring was empty when a chunk was wanted; shared by the sockets of a queue.
    pub rx_fill_ring_empty_descs: u64,
    /// Times the kernel looked for something to send and found nothing: not an error.
    pub tx_ring_empty_descs: u64,
}

const _: () = {
    assert!(size_of::<SockaddrXdp>() == 16);
    assert!(size_of::<UmemReg>() == 32);
    assert!(size_of::<MmapOffsets>() == 128);
    assert!(size_of::<Statistics>() == 48);
};

// SAFETY: integers without padding, as the assertions show.
unsafe impl Plain for SockaddrXdp {}
// SAFETY: as above.
unsafe impl Plain for UmemReg {}
// SAFETY: as above.
unsafe impl Plain for RingOffset {}
// SAFETY: as above.
unsafe impl Plain for MmapOffsets {}
// SAFETY: as above.
unsafe impl Plain for Statistics {}
