//! Benchmarks of the workspace: what they share. `cargo bench -p benches` runs them all, `--features peers` other libraries beside
//! ours; the binary `instructions` counts instructions and compares them with the recorded ones.

extern crate alloc;

pub mod kept;
pub mod kernel;
pub mod loops;
pub mod measure;
pub mod null;
pub mod peers;
pub mod rings;
