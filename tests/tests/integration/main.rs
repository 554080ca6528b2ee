//! Integration tests: real programs between real namespaces. One binary, one module per area.

mod datapath;
mod harness;
mod replay;
mod verifier;
