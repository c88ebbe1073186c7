//! Where to measure without a second machine.

pub mod hosts;
