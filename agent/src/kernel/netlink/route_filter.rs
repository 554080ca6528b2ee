//! Which routes matter, for this process and for the kernel, which then does not even wake it for others: a router
//! changes thousands a second.

use std::{
    collections::BTreeSet,
    io,
    net::Ipv4Addr,
    os::fd::{AsFd, AsRawFd as _},
};

use control::model::ROUTE_PROTOCOL;
use ipnet::Ipv4Net;
use nix::errno::Errno;

/// Networks that the kernel compares a route with at most.
pub(super) const NETWORKS: usize = 64;

/// The routes that matter beside ours and default routes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Interest {
    /// Towards these networks, whole or in part, or beyond them.
    pub(super) near: Vec<Ipv4Net>,
    /// To exactly these destinations.
    pub(super) exact: BTreeSet<Ipv4Net>,
}

impl Interest {
    /// Whether a route matters.
    pub(super) fn has(&self, destination: Ipv4Net, protocol: u8) -> bool {
        protocol == ROUTE_PROTOCOL
            || destination.prefix_len() == 0
            || self.near.iter().any(|&near| overlap(near, destination))
            || self.exact.contains(&destination)
    }

    /// Few networks that hold all of its own.
    pub(super) fn networks(&self) -> BTreeSet<Ipv4Net> {
        let all = || self.near.iter().chain(&self.exact);
        let mut shorter =
            [32, 24, 16, 8, 0].into_iter().map(|length| all().map(|&own| shortened(own, length)).collect());
        shorter.find(|networks: &BTreeSet<_>| networks.len() <= NETWORKS).unwrap_or_default()
    }
}

fn overlap(a: Ipv4Net, b: Ipv4Net) -> bool {
    a.contains(&b) || b.contains(&a)
}

fn shortened(network: Ipv4Net, length: u8) -> Ipv4Net {
    Ipv4Net::new(network.addr(), length.min(network.prefix_len())).map_or(network, |net| net.trunc())
}

/// Messages that are no routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Others {
    /// All are let through.
    All,
    /// Only those after which the kernel drops routes without a word: a device is down or gone, an address is.
    Losses,
}

/// Lets the kernel drop routes that are neither ours nor default routes nor overlap these networks; takes the place of an earlier filter. What is in the socket stays there.
///
/// # Errors
/// The kernel refuses.
pub(super) fn attach(socket: &impl AsFd, networks: &BTreeSet<Ipv4Net>, others: Others) -> io::Result<()> {
    let mut program = program(networks, others);
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    let (fd, length) = (socket.as_fd().as_raw_fd(), size_of_val(&filter) as libc::socklen_t);
    let value = (&raw const filter).cast();
    // SAFETY: pointer and length describe the structure above, which names the program's instructions; the kernel
    // copies both before it returns.
    Errno::result(unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, value, length) })?;
    Ok(())
}

/// `RTM_*` of `linux/rtnetlink.h`.
const NEW_LINK: u16 = 16;
const DEL_LINK: u16 = 17;
const DEL_ADDRESS: u16 = 21;
const NEW_ROUTE: u16 = 24;
const DEL_ROUTE: u16 = 25;
/// Where a message's type stands, what follows its header, and in that a route's and a link's fields.
const KIND: u32 = 4;
const PAYLOAD: u32 = 16;
const ROUTE_LENGTH: u32 = PAYLOAD + 1;
const ROUTE_TABLE: u32 = PAYLOAD + 4;
const ROUTE_MAKER: u32 = PAYLOAD + 5;
const ROUTE_ATTRIBUTES: u32 = PAYLOAD + 12;
const LINK_FLAGS: u32 = PAYLOAD + 8 + if cfg!(target_endian = "big") { 3 } else { 0 };
/// `RT_TABLE_MAIN`: what other tables hold is found by policy rules, which are read whole.
pub(super) const MAIN: u32 = 254;
/// `SKF_AD_OFF + SKF_AD_NLATTR`: where an attribute stands.
const FIND_ATTRIBUTE: u32 = (-0x1000_i32 + 12).cast_unsigned();

/// A classic BPF program; see `Documentation/networking/filter.rst`.
fn program(networks: &BTreeSet<Ipv4Net>, others: Others) -> Vec<libc::sock_filter> {
    let mut code = vec![load_half(KIND)];
    if others == Others::Losses {
        code.extend([
            unless_kind(NEW_LINK, 4),
            load_byte(LINK_FLAGS),
            jump(AND_IS, libc::IFF_UP as u32, 0, 1),
            DROP,
            ACCEPT,
        ]);
        for kind in [DEL_LINK, DEL_ADDRESS] {
            code.extend([unless_kind(kind, 1), ACCEPT]);
        }
    }
    let rest = if others == Others::All { ACCEPT } else { DROP };
    // A type at a time: a route goes on behind the end of all others.
    code.extend([jump(IS, swapped(NEW_ROUTE), 2, 0), jump(IS, swapped(DEL_ROUTE), 1, 0), rest]);
    code.extend([load_byte(ROUTE_LENGTH), jump(IS, 0, 0, 1), ACCEPT]);
    code.extend([load_byte(ROUTE_MAKER), jump(IS, ROUTE_PROTOCOL.into(), 0, 1), ACCEPT]);
    code.extend([load_byte(ROUTE_TABLE), jump(IS, MAIN, 1, 0), DROP]);
    // M[0] = mask of the route's length, M[1] = its destination.
    code.extend([load_byte(ROUTE_LENGTH), does(libc::BPF_MISC | libc::BPF_TAX, 0)]);
    code.extend([
        does(libc::BPF_LD | libc::BPF_IMM, 32),
        does(libc::BPF_ALU | libc::BPF_SUB | libc::BPF_X, 0),
    ]);
    code.extend([does(libc::BPF_MISC | libc::BPF_TAX, 0), does(libc::BPF_LD | libc::BPF_IMM, u32::MAX)]);
    code.extend([does(libc::BPF_ALU | libc::BPF_LSH | libc::BPF_X, 0), does(libc::BPF_ST, 0)]);
    code.extend([
        does(libc::BPF_LDX | libc::BPF_IMM, 1),
        does(libc::BPF_LD | libc::BPF_IMM, ROUTE_ATTRIBUTES),
    ]);
    code.extend([
        does(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, FIND_ATTRIBUTE),
        jump(IS, 0, 0, 1),
        ACCEPT,
    ]);
    code.extend([
        does(libc::BPF_MISC | libc::BPF_TAX, 0),
        does(libc::BPF_LD | libc::BPF_W | libc::BPF_IND, 4),
    ]);
    code.extend([does(libc::BPF_ST, 1), does(libc::BPF_LDX | libc::BPF_MEM, 0)]);
    for network in networks {
        code.extend([
            does(libc::BPF_LD | libc::BPF_MEM, 1),
            does(libc::BPF_ALU | libc::BPF_XOR, network.addr().to_bits()),
        ]);
        code.extend([does(libc::BPF_ALU | libc::BPF_AND, network.netmask().to_bits())]);
        code.extend([does(libc::BPF_ALU | libc::BPF_AND | libc::BPF_X, 0), jump(IS, 0, 0, 1), ACCEPT]);
    }
    code.push(DROP);
    code
}

const IS: u32 = libc::BPF_JEQ;
const AND_IS: u32 = libc::BPF_JSET;
const ACCEPT: libc::sock_filter = libc::sock_filter { code: libc::BPF_RET as u16, jt: 0, jf: 0, k: u32::MAX };
const DROP: libc::sock_filter = libc::sock_filter { k: 0, ..ACCEPT };

const fn does(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

const fn load_half(at: u32) -> libc::sock_filter {
    does(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, at)
}

const fn load_byte(at: u32) -> libc::sock_filter {
    does(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, at)
}

/// Goes on so many instructions further where the loaded value compares so, and where it does not.
const fn jump(how: u32, with: u32, yes: u8, no: u8) -> libc::sock_filter {
    libc::sock_filter { jt: yes, jf: no, ..does(libc::BPF_JMP | how, with) }
}

/// Skips so many instructions for messages of other types.
const fn unless_kind(kind: u16, skipped: u8) -> libc::sock_filter {
    jump(IS, swapped(kind), 0, skipped)
}

/// Programs load in network byte order what netlink has in the host's.
const fn swapped(kind: u16) -> u32 {
    kind.to_be() as u32
}

/// The destination and the maker of a route in the main table, without the rest of it: what follows a message's header.
pub(super) fn peek(payload: &[u8]) -> Option<(Ipv4Net, u8)> {
    const DESTINATION: u16 = 1;
    const ATTRIBUTES: usize = (ROUTE_ATTRIBUTES - PAYLOAD) as usize;
    let &[_, length, _, _, table, maker, ..] = payload else { return None };
    if u32::from(table) != MAIN {
        return None;
    }
    let mut address = Ipv4Addr::UNSPECIFIED;
    let mut rest = payload.get(ATTRIBUTES..)?;
    while let Some(&[a, b, c, d]) = rest.first_chunk() {
        let attribute = usize::from(u16::from_ne_bytes([a, b])).max(4);
        if u16::from_ne_bytes([c, d]) == DESTINATION {
            address = Ipv4Addr::from(*rest.get(4..attribute)?.first_chunk()?);
            break;
        }
        rest = rest.get(attribute.next_multiple_of(4)..).unwrap_or_default();
    }
    Some((Ipv4Net::new(address, length).ok()?.trunc(), maker))
}

#[cfg(test)]
mod tests {
    use std::os::{fd::OwnedFd, unix::net::UnixDatagram};

    use proptest::prelude::*;

    use super::*;
    use crate::kernel::netlink::messages::tests::message;

    /// The payload of a message about a route.
    fn route(destination: Ipv4Net, table: u8, maker: u8) -> Vec<u8> {
        let mut payload = vec![2, destination.prefix_len(), 0, 0, table, maker, 0, 1, 0, 0, 0, 0];
        // An attribute that is not asked for stands first.
        payload.extend([8, 0, 15, 0, table, 0, 0, 0]);
        if destination.prefix_len() > 0 {
            payload.extend([8, 0, 1, 0]);
            payload.extend(destination.addr().octets());
        }
        payload
    }

    /// What a filter lets through, by a socket that has it.
    struct Filtered(UnixDatagram, UnixDatagram);

    impl Filtered {
        fn new(networks: &BTreeSet<Ipv4Net>, others: Others) -> Self {
            let (near, far) = UnixDatagram::pair().unwrap();
            far.set_nonblocking(true).unwrap();
            let far = OwnedFd::from(far);
            attach(&far, networks, others).unwrap();
            Self(near, far.into())
        }

        fn lets(&self, message: &[u8]) -> bool {
            self.0.send(message).unwrap();
            self.1.recv(&mut [0; 512]).is_ok()
        }
    }

    fn networks(texts: &[&str]) -> BTreeSet<Ipv4Net> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_kernel_drops_routes_that_do_not_matter() {
        let filtered = Filtered::new(&networks(&["250.0.0.0/8", "172.30.4.0/22"]), Others::All);
        let lets = |text: &str, table, maker| {
            filtered.lets(&message(NEW_ROUTE, 0, 0, &route(text.parse().unwrap(), table, maker)))
        };
        for text in ["0.0.0.0/0", "250.0.27.0/24", "248.0.0.0/6", "172.30.5.1/32", "172.30.0.0/16"] {
            assert!(lets(text, 254, 186), "{text}");
        }
        for text in ["10.0.0.2/32", "172.30.0.0/24", "172.30.8.0/22", "251.0.0.0/8"] {
            assert!(!lets(text, 254, 186), "{text}");
        }
        assert!(lets("10.96.0.10/32", 254, ROUTE_PROTOCOL));
        assert!(!lets("250.0.27.0/24", 100, 186), "another table");
        assert!(!filtered.lets(&message(DEL_ROUTE, 0, 0, &route("10.0.0.2/32".parse().unwrap(), 254, 186))));
    }

    #[test]
    fn other_messages_pass_or_only_those_that_take_routes_along() {
        let link = |flags: u8| [[0, 0, 1, 0, 4, 0, 0, 0], [flags, 0, 0, 0, 0, 0, 0, 0]].concat();
        let (up, down) = (link(0x43), link(0x42));
        let all = Filtered::new(&networks(&[]), Others::All);
        let losses = Filtered::new(&networks(&[]), Others::Losses);
        for (kind, payload, is_loss) in [
            (NEW_LINK, &up, false),
            (NEW_LINK, &down, true),
            (DEL_LINK, &up, true),
            (20, &up, false),
            (DEL_ADDRESS, &up, true),
            (28, &up, false),
        ] {
            let message = message(kind, 0, 0, payload);
            assert!(all.lets(&message), "{kind}");
            assert_eq!(losses.lets(&message), is_loss, "{kind}");
        }
    }

    #[test]
    fn many_destinations_become_few_networks() {
        let exact = (0..10_000u32).map(|number| Ipv4Net::from(Ipv4Addr::from_bits((10 << 24) + 7 * number)));
        let interest = Interest { near: Vec::new(), exact: exact.collect() };
        assert_eq!(interest.networks(), networks(&["10.0.0.0/16", "10.1.0.0/16"]));
    }

    proptest! {
        #[test]
        fn what_matters_is_let_through_and_read(
            near in proptest::collection::vec((any::<u32>(), 0..=32u8), 0..4),
            exact in proptest::collection::btree_set(any::<u32>(), 0..4),
            bits: u32,
            length in 0..=32u8,
            like in 0..8usize,
            maker: u8,
        ) {
            let net = |bits, length| Ipv4Net::new(Ipv4Addr::from_bits(bits), length).unwrap().trunc();
            let near: Vec<Ipv4Net> = near.into_iter().map(|(bits, length)| net(bits, length)).collect();
            let exact = exact.into_iter().map(|bits| net(bits, 32)).collect();
            // Half of the routes are about what matters.
            let bits = near.get(like).map_or(bits, |near| near.addr().to_bits() ^ (bits >> 20));
            let destination = net(bits, length);
            let interest = Interest { near, exact };
            let payload = route(destination, 254, maker);
            prop_assert_eq!(peek(&payload), Some((destination, maker)));
            let lets = Filtered::new(&interest.networks(), Others::Losses).lets(&message(NEW_ROUTE, 0, 0, &payload));
            prop_assert!(lets || !interest.has(destination, maker));
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes: Vec<u8>) {
            let _read = peek(&bytes);
        }
    }
}
