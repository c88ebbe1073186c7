//! Memory that goes with what uses it, so that one row's huge pages are there for the next.

use core::mem::ManuallyDrop;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use xdp_core::Umem;

/// Something made of a UMEM, and the UMEM, which goes after it.
#[derive(Debug)]
pub struct Kept<T> {
    made: ManuallyDrop<T>,
    umem: NonNull<Umem>,
}

impl<T> Kept<T> {
    /// What `make` makes of `umem`.
    ///
    /// # Safety
    /// Nothing that borrows the UMEM is moved out of what was made, nor kept elsewhere.
    pub unsafe fn new(umem: Umem, make: impl FnOnce(&'static Umem) -> T) -> Self {
        let umem = NonNull::from(Box::leak(Box::new(umem)));
        // SAFETY: it lives until `drop` is done with what is made here, and the caller keeps nothing of it.
        let made = ManuallyDrop::new(make(unsafe { umem.as_ref() }));
        Self { made, umem }
    }
}

impl<T> Deref for Kept<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.made
    }
}

impl<T> DerefMut for Kept<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.made
    }
}

impl<T> Drop for Kept<T> {
    fn drop(&mut self) {
        // SAFETY: dropped once, here.
        unsafe { ManuallyDrop::drop(&mut self.made) };
        // SAFETY: it came out of a box in `new`, and what borrowed it is gone, as the caller of `new` promised.
        drop(unsafe { Box::from_raw(self.umem.as_ptr()) });
    }
}
