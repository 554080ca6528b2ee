//! What iptables adds to the language of nf_tables (`linux/netfilter/x_tables.h`): its matches and targets.

use control::filter::{Action, Field, Test, Verdict, state};

use super::{FIRST, THIRD, attribute, name};

/// What a target does; `None`: nothing that matters here.
pub fn action(target: &str) -> Option<Action> {
    match target {
        "DNAT" | "REDIRECT" | "NETMAP" => Some(Action::Translate),
        "ACCEPT" => Some(Action::Verdict(Verdict::Accept)),
        "DROP" | "REJECT" => Some(Action::Verdict(Verdict::Drop)),
        _ => None,
    }
}

/// What a match asks for.
pub(super) fn extension(data: &[u8]) -> Option<Test> {
    /// Where `struct xt_tcp` and `struct xt_udp` have their inverting flags, and source ports, destination ports.
    const TCP_FLAGS: usize = 11;
    const UDP_FLAGS: usize = 8;
    let info = attribute(data, THIRD).unwrap_or_default();
    match &*name(data, FIRST)? {
        "comment" => None,
        // Option, mask and bits of flags.
        "tcp" if info.get(8..TCP_FLAGS) == Some(&[0; 3]) => Some(ports(info, TCP_FLAGS)),
        "udp" => Some(ports(info, UDP_FLAGS)),
        "conntrack" => Some(connection(info).unwrap_or(Test::Unknown)),
        "mark" => Some(mark(info).unwrap_or(Test::Unknown)),
        _ => Some(Test::Unknown),
    }
}

fn ports(info: &[u8], flags: usize) -> Test {
    const DESTINATION: u8 = 2;
    let ends = (|| Some([half(info, 0)?, half(info, 2)?, half(info, 4)?, half(info, 6)?]))();
    match (ends, info.get(flags)) {
        (Some([0, 0xffff, first, last]), Some(&flags)) if flags & !DESTINATION == 0 => {
            Test::range(Field::Port, (first.into(), last.into()), flags & DESTINATION != 0)
        }
        _ => Test::Unknown,
    }
}

/// `struct xt_conntrack_mtinfo2` and `..3`, where they ask for states alone.
fn connection(info: &[u8]) -> Option<Test> {
    const MATCH_FLAGS: usize = 146;
    const INVERT_FLAGS: usize = 148;
    const STATES: usize = 150;
    const STATE: u16 = 1;
    let (asks, not) = (half(info, MATCH_FLAGS)?, half(info, INVERT_FLAGS)?);
    (asks == STATE).then_some(())?;
    Some(states(half(info, STATES)?.into(), not & STATE != 0))
}

/// The states of a mask as iptables has it, which differs from nf_tables' in what is not tracked.
pub fn states(mask: u32, not: bool) -> Test {
    const UNTRACKED: u32 = 1 << 8;
    const SAME: u32 = 0xf;
    let untracked = if mask & UNTRACKED == 0 { 0 } else { state::UNTRACKED };
    // Some bit has to be set.
    Test::In { field: Field::State, mask: mask & SAME | untracked, ranges: vec![(0, 0)], not: !not }
}

/// `struct xt_mark_mtinfo1`.
fn mark(info: &[u8]) -> Option<Test> {
    let word = |at: usize| Some(u32::from_ne_bytes(info.get(at..at + 4)?.try_into().ok()?));
    let (mark, mask, not) = (word(0)?, word(4)?, *info.get(8)? != 0);
    Some(Test::In { field: Field::Mark, mask, ranges: vec![(mark, mark)], not })
}

fn half(info: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(info.get(at..at + 2)?.try_into().ok()?))
}
