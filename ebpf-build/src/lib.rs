//! Builds the kernel programs.
