//! Stages and programs.
