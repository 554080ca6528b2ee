//! Integration tests: real programs between real namespaces. One binary, one module per area.

mod datapath;
mod fan_agent;
mod fan_endpoint_ways;
mod harness;
mod replay;
mod verifier;
