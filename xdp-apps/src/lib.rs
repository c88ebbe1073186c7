//! Stages and programs.
extern crate alloc;

#[cfg(feature = "cli")]
pub mod testbed;
