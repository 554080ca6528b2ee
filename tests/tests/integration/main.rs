//! Integration tests: real programs between real namespaces. One binary, one module per area.

mod harness;
mod verifier;
