//! Region: the bytes of a UMEM, mapped for the kernel or on the heap for simulation.

use crate::{Errno, Fd, sys};
use alloc::alloc::{alloc_zeroed, dealloc, handle_alloc_error};
use core::ptr::NonNull;

/// 2 MiB, the huge page asked for.
const HUGE: usize = 2 << 20;
/// `MFD_HUGE_2MB` and `MAP_HUGE_2MB`: the page size's logarithm, shifted.
const HUGE_SHIFTED: u32 = 21 << 26;

/// Whether a region should lie on 2 MiB pages. They are worth 3 to 5 times in loops that touch packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HugePages {
    /// Base pages only.
    Off,
    /// Reserved huge pages where enough are free, else transparent ones where the kernel has any, else base pages.
    #[default]
    Prefer,
    /// Reserved huge pages or nothing.
    Require,
}

/// What a region lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// Reserved 2 MiB pages (hugetlb).
    Huge,
    /// Base pages that the kernel was asked to back by 2 MiB ones (`MADV_HUGEPAGE`); it may or may not have.
    Transparent,
    /// Base pages.
    Base,
    /// The process's heap: for simulation, never given to the kernel.
    Heap,
}

/// How to map a region.
#[derive(Clone, Copy, Debug, Default)]
pub struct RegionOptions {
    /// On huge pages or not.
    pub huge_pages: HugePages,
    /// The NUMA node to take the pages from; where the first touch falls, if none is named.
    pub node: Option<u32>,
    /// As a memfd, so that another process can map it too.
    pub shared: bool,
}

/// Zeroed memory that stays where it is, all of it touched, until dropped.
#[derive(Debug)]
pub struct Region {
    base: NonNull<u8>,
    len: usize,
    pages: Pages,
    memfd: Option<Fd>,
}

// SAFETY: a region only owns its bytes; who may touch which is decided above it (`Frame`).
unsafe impl Send for Region {}
// SAFETY: as above: no method touches the bytes.
unsafe impl Sync for Region {}

impl Region {
    /// Maps at least `len` bytes for the kernel's use, faulted in, left out of a fork's child.
    ///
    /// # Errors
    /// ENOMEM: no memory, or, with [`HugePages::Require`], not enough free huge pages (see
    /// `/proc/sys/vm/nr_hugepages`). EINVAL: no such NUMA node.
    ///
    /// # Cost
    /// Up to six system calls and a fault for each page: control plane only.
    pub fn map(len: usize, options: &RegionOptions) -> Result<Self, Errno> {
        let mut region = match options.huge_pages {
            HugePages::Off => Self::map_base(len, options.shared)?,
            HugePages::Require => Self::map_huge(len, options.shared)?,
            HugePages::Prefer => match Self::map_huge(len, options.shared) {
                Ok(region) => region,
                Err(_) => {
                    let mut region = Self::map_base(len.next_multiple_of(HUGE), options.shared)?;
                    region.ask_for_transparent_pages();
                    region
                }
            },
        };
        if let Some(node) = options.node {
            // SAFETY: our own mapping, not yet touched.
            unsafe { sys::mbind(region.base, region.len, node)? };
        }
        region.touch();
        // SAFETY: our own mapping; this advice keeps its contents. Refused only for memory a fork must keep.
        let _ = unsafe { sys::madvise(region.base, region.len, libc::MADV_DONTFORK) };
        Ok(region)
    }

    /// At least `len` bytes on the heap, for simulation. Panics when there is no memory, as `Box` does.
    pub fn heap(len: usize) -> Self {
        let len = len.max(1).next_multiple_of(HEAP_ALIGN);
        let layout = heap_layout(len);
        // SAFETY: the layout's size is not zero.
        let Some(base) = NonNull::new(unsafe { alloc_zeroed(layout) }) else { handle_alloc_error(layout) };
        Self { base, len, pages: Pages::Heap, memfd: None }
    }

    fn map_huge(len: usize, shared: bool) -> Result<Self, Errno> {
        let len = len.next_multiple_of(HUGE);
        let (base, memfd) = if shared {
            let memfd = sys::memfd_create(c"xdp-umem", libc::MFD_HUGETLB | HUGE_SHIFTED)?;
            sys::ftruncate(&memfd, len as u64)?;
            (sys::mmap_shared(&memfd, len, 0, 0)?, Some(memfd))
        } else {
            let flags = libc::MAP_PRIVATE | libc::MAP_HUGETLB | HUGE_SHIFTED as i32;
            (sys::mmap_anonymous(len, flags)?, None)
        };
        Ok(Self { base, len, pages: Pages::Huge, memfd })
    }

    fn map_base(len: usize, shared: bool) -> Result<Self, Errno> {
        let len = len.next_multiple_of(sys::page_size());
        let (base, memfd) = if shared {
            let memfd = sys::memfd_create(c"xdp-umem", 0)?;
            sys::ftruncate(&memfd, len as u64)?;
            (sys::mmap_shared(&memfd, len, 0, 0)?, Some(memfd))
        } else {
            (sys::mmap_anonymous(len, libc::MAP_PRIVATE)?, None)
        };
        Ok(Self { base, len, pages: Pages::Base, memfd })
    }

    fn ask_for_transparent_pages(&mut self) {
        // SAFETY: our own mapping; this advice keeps its contents.
        if unsafe { sys::madvise(self.base, self.len, libc::MADV_HUGEPAGE) }.is_ok() {
            self.pages = Pages::Transparent;
        }
    }

    /// Faults every page in, so that the first packet does not.
    fn touch(&mut self) {
        // SAFETY: our own mapping; populating keeps its contents. Since Linux 5.14; older ones fault by hand.
        if unsafe { sys::madvise(self.base, self.len, libc::MADV_POPULATE_WRITE) }.is_err() {
            for offset in (0..self.len).step_by(sys::page_size()) {
                // SAFETY: inside the mapping, which nobody else has yet.
                unsafe { self.base.add(offset).write_volatile(0) };
            }
        }
    }

    /// The first byte.
    #[inline]
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// In bytes; at least what was asked for.
    #[inline]
    #[allow(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// What it lies on.
    pub fn pages(&self) -> Pages {
        self.pages
    }

    /// The file behind it, if it was mapped to be shared.
    pub fn memfd(&self) -> Option<&Fd> {
        self.memfd.as_ref()
    }
}

const HEAP_ALIGN: usize = 4096;

fn heap_layout(len: usize) -> core::alloc::Layout {
    core::alloc::Layout::from_size_align(len, HEAP_ALIGN).expect("a length that fits the address space")
}

impl Drop for Region {
    fn drop(&mut self) {
        match self.pages {
            // SAFETY: allocated with this layout, and dropped once.
            Pages::Heap => unsafe { dealloc(self.base.as_ptr(), heap_layout(self.len)) },
            // SAFETY: our own mapping, and whoever used it borrowed the UMEM, which is gone. A forgotten socket
            // keeps the kernel's pins on the pages, not this mapping.
            _ => unsafe { sys::munmap(self.base, self.len) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_says_what_it_lies_on() {
        let base = RegionOptions { huge_pages: HugePages::Off, ..Default::default() };
        let region = Region::map(10_000, &base).unwrap();
        assert_eq!((region.pages(), region.len()), (Pages::Base, 12_288));
        let any = Region::map(10_000, &RegionOptions::default()).unwrap();
        assert!(any.pages() != Pages::Heap && any.len() == HUGE);
        assert_eq!(Region::heap(1).pages(), Pages::Heap);
    }

    #[test]
    fn a_shared_region_is_seen_through_its_file() {
        let options = RegionOptions { shared: true, huge_pages: HugePages::Off, node: None };
        let region = Region::map(4096, &options).unwrap();
        let again = sys::mmap_shared(region.memfd().unwrap(), 4096, 0, 0).unwrap();
        // SAFETY: two mappings of the same page, both alive, used by this thread alone.
        unsafe {
            region.base().write_volatile(7);
            assert_eq!(again.read_volatile(), 7);
            sys::munmap(again, 4096);
        }
    }

    #[test]
    fn a_node_that_is_not_there_is_refused() {
        let options = RegionOptions { node: Some(63), huge_pages: HugePages::Off, shared: false };
        assert_eq!(Region::map(4096, &options).unwrap_err(), Errno::EINVAL);
    }
}
