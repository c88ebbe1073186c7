//! Other libraries' rings, each behind a feature of its own: `peer-xdpilone`, `peer-xdp`, `peer-s2n`.
//!
//! Not here: xsk-rs and libxdp's own helpers. xsk-rs builds libxdp and libbpf from source with clang, llvm, m4 and libelf, half a
//! minute and four packages on a fresh machine, and its ring operations are then calls of the same C functions that cannot be inlined;
//! beside them over veth, where they are on the machine, is where they are compared.

#[cfg(feature = "peer-s2n")]
pub mod s2n;
#[cfg(feature = "peer-xdp")]
pub mod xdp;
#[cfg(feature = "peer-xdpilone")]
pub mod xdpilone;
