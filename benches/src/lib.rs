//! Benchmarks of the workspace: `cargo bench`.
