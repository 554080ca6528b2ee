//! Integration tests: real programs between real namespaces. One binary, one module per area.
//!
//! Modules named `fan_*` run in the guests of the VM matrix too.

mod datapath;
mod engines;
mod explain;
mod fan_agent;
mod fan_ecn;
mod fan_endpoint;
mod fan_endpoint_ways;
mod fan_large;
mod fan_mtu;
mod fan_ports;
mod fan_reach;
mod fan_repair;
mod fan_restart;
mod fan_ttl;
mod fan_updown;
mod fan_verify;
mod fan_vlan;
mod fan_wire;
mod flow_list;
mod flow_room;
mod foreign_routes;
mod harness;
mod locks;
mod monitor;
mod neighbours;
mod packaging;
mod replay;
mod service_cli;
mod services;
mod services_agent;
mod services_room;
mod shadowed;
mod sysctls;
mod upgrade;
mod verifier;
mod vip;
mod vip_beyond;
mod vip_gone;
mod vip_load;
mod vip_path;
mod vip_servers;
mod vip_tcp;
mod words;
