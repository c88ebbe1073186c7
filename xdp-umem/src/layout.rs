//! Layout: how a UMEM is cut into chunks. Checked once, then trusted.

use core::fmt;

/// Bytes the kernel keeps before each received packet: `XDP_PACKET_HEADROOM` in `include/uapi/linux/bpf.h`.
pub const PACKET_HEADROOM: u32 = 256;
/// The smallest chunk the kernel takes, in bytes: `XDP_UMEM_MIN_CHUNK_SIZE` in `net/xdp/xdp_umem.c`.
pub(crate) const CHUNK_SIZE_MIN: u32 = 2048;
/// The largest chunk, in bytes: a base page, also on huge pages (`xdp_umem_reg`, `net/xdp/xdp_umem.c`).
pub(crate) const CHUNK_SIZE_MAX: u32 = 4096;
/// Bytes at a chunk's end that a fragmented packet's record may take (6.18.y counts them against headroom).
const TAIL_RESERVE: u32 = 320 + 128;

/// How a UMEM is cut: size and number of its chunks, and what is kept free before a packet.
///
/// ```
/// use xdp_umem::Layout;
/// const LAYOUT: Layout = match Layout::new(2048, 4096) { Ok(layout) => layout, Err(_) => panic!() };
/// assert_eq!(LAYOUT.len(), 8 << 20);
/// assert_eq!(LAYOUT.packet_max(), 2048 - 256);
/// assert!(Layout::new(3000, 16).is_err(), "a power of two, unless the chunks are unaligned");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    pub(crate) chunk_size: u32,
    pub(crate) chunks: u32,
    headroom: u32,
    tx_metadata_len: u32,
    unaligned: bool,
}

impl Layout {
    /// `chunks` chunks of `chunk_size` bytes: a power of two from 2048 to 4096.
    ///
    /// # Errors
    /// A size the kernel would refuse with EINVAL, or more than 4 GiB in all.
    pub const fn new(chunk_size: u32, chunks: u32) -> Result<Self, LayoutError> {
        if chunk_size < CHUNK_SIZE_MIN || chunk_size > CHUNK_SIZE_MAX || !chunk_size.is_power_of_two() {
            return Err(LayoutError::ChunkSize(chunk_size));
        }
        Self { chunk_size, chunks, headroom: 0, tx_metadata_len: 0, unaligned: false }.checked()
    }

    /// `chunks` chunks of `chunk_size` bytes, any size from 2048 to 4096, in unaligned mode: a fill address
    /// may be any offset, and descriptors carry the packet's offset in their top 16 bits. Since Linux 5.4.
    ///
    /// # Errors
    /// As [`new`](Self::new), but for the power of two.
    pub const fn unaligned(chunk_size: u32, chunks: u32) -> Result<Self, LayoutError> {
        if chunk_size < CHUNK_SIZE_MIN || chunk_size > CHUNK_SIZE_MAX {
            return Err(LayoutError::ChunkSize(chunk_size));
        }
        Self { chunk_size, chunks, headroom: 0, tx_metadata_len: 0, unaligned: true }.checked()
    }

    /// Keeps `headroom` bytes free before a received packet, beyond the kernel's own 256.
    ///
    /// # Errors
    /// Too much for the chunk: 3392 bytes at most in a chunk of 4096, 1344 in one of 2048.
    pub const fn with_headroom(mut self, headroom: u32) -> Result<Self, LayoutError> {
        self.headroom = headroom;
        self.checked()
    }

    /// Keeps `len` bytes before each sent packet for `struct xsk_tx_metadata`. Since Linux 6.8.
    ///
    /// # Errors
    /// Not a multiple of 8, or 256 and more.
    pub const fn with_tx_metadata(mut self, len: u32) -> Result<Self, LayoutError> {
        self.tx_metadata_len = len;
        self.checked()
    }

    const fn checked(self) -> Result<Self, LayoutError> {
        if self.chunks == 0 || (self.chunk_size as u64) * (self.chunks as u64) > 1 << 32 {
            return Err(LayoutError::Chunks(self.chunks));
        }
        let room = self.chunk_size.saturating_sub(PACKET_HEADROOM + TAIL_RESERVE);
        if self.headroom > room {
            return Err(LayoutError::Headroom { headroom: self.headroom, max: room });
        }
        if self.tx_metadata_len % 8 != 0 || self.tx_metadata_len >= 256 {
            return Err(LayoutError::TxMetadata(self.tx_metadata_len));
        }
        Ok(self)
    }

    /// Of a chunk, in bytes.
    #[inline]
    pub const fn chunk_size(&self) -> u32 {
        self.chunk_size
    }

    /// How many chunks there are.
    #[inline]
    pub const fn chunks(&self) -> u32 {
        self.chunks
    }

    /// Of all chunks, in bytes.
    #[inline]
    #[allow(clippy::len_without_is_empty, reason = "there is always a chunk")]
    pub const fn len(&self) -> usize {
        self.chunk_size as usize * self.chunks as usize
    }

    /// Bytes kept free before a received packet beyond the kernel's 256.
    #[inline]
    pub const fn headroom(&self) -> u32 {
        self.headroom
    }

    /// Bytes kept before a sent packet for its metadata; 0 without.
    #[inline]
    pub const fn tx_metadata_len(&self) -> u32 {
        self.tx_metadata_len
    }

    /// Whether chunks may start anywhere.
    #[inline]
    pub const fn is_unaligned(&self) -> bool {
        self.unaligned
    }

    /// Where a packet begins in its chunk, in bytes: 256 + headroom, on receive and in a frame fresh from a pool.
    #[inline]
    pub const fn packet_start(&self) -> u32 {
        PACKET_HEADROOM + self.headroom
    }

    /// The longest packet one chunk receives, in bytes.
    #[inline]
    pub const fn packet_max(&self) -> u32 {
        self.chunk_size - self.packet_start()
    }
}

/// What is wrong with a [`Layout`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LayoutError {
    /// Not a chunk size the kernel takes.
    ChunkSize(u32),
    /// No chunks, or more than 4 GiB of them.
    Chunks(u32),
    /// More headroom than the chunk has.
    Headroom {
        /// What was asked for, in bytes.
        headroom: u32,
        /// What the chunk has, in bytes.
        max: u32,
    },
    /// Not a metadata length the kernel takes.
    TxMetadata(u32),
}

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ChunkSize(size) => {
                write!(f, "chunk size {size}: take 2048 or 4096 (unaligned: any size between)")
            }
            Self::Chunks(0) => write!(f, "no chunks: take at least one"),
            Self::Chunks(chunks) => write!(f, "{chunks} chunks are more than 4 GiB: take fewer"),
            Self::Headroom { headroom, max } => {
                write!(
                    f,
                    "headroom {headroom}: a chunk of this size has {max} bytes to give; take less, or larger chunks"
                )
            }
            Self::TxMetadata(len) => write!(f, "TX metadata length {len}: take a multiple of 8 below 256"),
        }
    }
}

impl core::error::Error for LayoutError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_refuses_cannot_be_written_down() {
        assert_eq!(Layout::new(1024, 1), Err(LayoutError::ChunkSize(1024)));
        assert_eq!(Layout::new(8192, 1), Err(LayoutError::ChunkSize(8192)));
        assert_eq!(Layout::new(4096, 0), Err(LayoutError::Chunks(0)));
        assert!(Layout::new(4096, 1 << 20).is_ok());
        assert!(Layout::new(4096, (1 << 20) + 1).is_err());
        assert!(Layout::unaligned(4001, 10).is_ok());
        assert!(Layout::new(2048, 1).unwrap().with_headroom(1344).is_ok());
        assert!(Layout::new(2048, 1).unwrap().with_headroom(1345).is_err());
        assert!(Layout::new(4096, 1).unwrap().with_headroom(3392).is_ok());
        assert!(Layout::new(4096, 1).unwrap().with_headroom(3393).is_err());
        assert!(Layout::new(4096, 1).unwrap().with_tx_metadata(24).is_ok());
        assert!(Layout::new(4096, 1).unwrap().with_tx_metadata(20).is_err());
    }
}
