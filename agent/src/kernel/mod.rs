//! The only code that talks to the kernel. Everything here acts in the calling thread's network and mount
//! namespace, and nothing here decides what ought to be.

pub mod addresses;
pub mod arp;
pub mod bpf;
pub mod capabilities;
pub mod child;
pub(crate) mod descriptors;
pub mod destinations;
pub mod dhcp;
pub mod icmp;
pub mod ip_vs;
pub mod iptables;
pub mod iptables_save;
pub mod lock;
pub mod netlink;
pub mod netns;
pub mod nft;
pub mod nft_expressions;
pub mod nft_rules;
pub mod nft_watch;
pub mod own_address;
pub mod replace;
pub mod reserved_ports;
pub mod reset;
mod sockets;
pub mod sole;
pub mod sysctl;
pub mod tasks;
pub mod tcp;
