//! Rules as `iptables-save` writes them.

use std::{
    collections::{HashMap, HashSet},
    io,
    iter::Peekable,
    net::Ipv4Addr,
    rc::Rc,
    vec::IntoIter,
};

use control::{
    filter::{Action, Field, Rule, Set, Side, Table, Test, Verdict},
    service::Protocol,
};

use super::nft_expressions::xtables;

/// A table with all its chains.
#[derive(Debug, Default)]
pub struct Saved {
    chains: HashMap<String, Rc<[Rule]>>,
    /// Those of hooks that drop what no rule takes.
    dropping: HashSet<String>,
}

impl Saved {
    /// Reads what was written of one table.
    pub fn read(text: &str) -> Self {
        let names = text.lines().filter_map(|line| line.strip_prefix(':')?.split(' ').next());
        let mut chains: HashMap<String, Vec<Rule>> =
            names.map(|name| (name.to_owned(), Vec::new())).collect();
        for line in text.lines().filter(|line| line.starts_with("-A ")) {
            let mut words = words(line).into_iter().skip(1).collect::<Vec<_>>().into_iter().peekable();
            let Some(chain) = words.next() else { continue };
            if let Some(rule) = rule(words, |name| chains.contains_key(name)) {
                chains.entry(chain).or_default().push(rule);
            }
        }
        let dropping = text.lines().filter_map(|line| {
            let (name, policy) = line.strip_prefix(':')?.split_once(' ')?;
            policy.starts_with("DROP").then(|| name.to_owned())
        });
        let dropping = dropping.collect();
        Self { dropping, chains: chains.into_iter().map(|(name, rules)| (name, rules.into())).collect() }
    }
}

impl Saved {
    /// Whether a hook's chain drops what no rule takes.
    pub fn drops(&self, chain: &str) -> bool {
        self.dropping.contains(chain)
    }
}

impl Table for Saved {
    fn chain(&mut self, name: &str) -> io::Result<Rc<[Rule]>> {
        Ok(self.chains.get(name).cloned().unwrap_or_default())
    }

    fn set(&mut self, _name: &str) -> io::Result<Rc<Set>> {
        Ok(Rc::default())
    }
}

/// A line's words; those in quotes are one.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut is_quoted) = (Vec::new(), String::new(), false);
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => is_quoted = !is_quoted,
            '\\' if is_quoted => word.extend(letters.next()),
            ' ' if !is_quoted => words.push(std::mem::take(&mut word)),
            other => word.push(other),
        }
    }
    words.push(word);
    words
}

/// `None`: it does nothing that matters here.
fn rule(mut words: Peekable<IntoIter<String>>, is_chain: impl Fn(&str) -> bool) -> Option<Rule> {
    let mut tests = Vec::new();
    while let Some(word) = words.next() {
        let not = word == "!";
        let option = if not { words.next()? } else { word };
        let mut argument = || words.next().unwrap_or_default();
        match option.as_str() {
            "-j" => {
                let action = action(&argument(), is_chain)?;
                return Some(Rule { tests, action });
            }
            "-g" => return Some(Rule { tests, action: Action::Verdict(Verdict::Goto(argument().into())) }),
            "-s" => tests.push(address(Field::Source, &argument(), not)),
            "-d" => tests.push(address(Field::Address, &argument(), not)),
            "-i" => tests.push(device(Side::In, &argument(), not)),
            "-o" => tests.push(device(Side::Out, &argument(), not)),
            "--ctstate" => tests.push(states(&argument(), not)),
            "-p" => tests.push(protocol(&argument(), not)),
            "--dport" | "--dports" => tests.push(ports(&argument(), not)),
            "--comment" => drop(argument()),
            "-m" => {
                let known = ["comment", "tcp", "udp", "multiport", "conntrack"];
                if !known.contains(&argument().as_str()) {
                    tests.push(Test::Unknown);
                }
            }
            _ => tests.push(Test::Unknown),
        }
    }
    None
}

fn action(target: &str, is_chain: impl Fn(&str) -> bool) -> Option<Action> {
    match target {
        "RETURN" => Some(Action::Verdict(Verdict::Return)),
        chain if is_chain(chain) => Some(Action::Verdict(Verdict::Jump(chain.into()))),
        target => xtables::action(target),
    }
}

/// A name that ends in `+` is the beginning of one.
fn device(side: Side, text: &str, not: bool) -> Test {
    let name = match text.strip_suffix('+') {
        Some(beginning) => beginning.as_bytes().to_vec(),
        None => [text.as_bytes(), &[0]].concat(),
    };
    Test::By { side, name, not }
}

fn states(text: &str, not: bool) -> Test {
    let bit = |name: &str| match name {
        "INVALID" => Some(1),
        "ESTABLISHED" => Some(1 << 1),
        "RELATED" => Some(1 << 2),
        "NEW" => Some(1 << 3),
        "SNAT" | "DNAT" => Some(0),
        "UNTRACKED" => Some(1 << 8),
        _ => None,
    };
    let mask: Option<u32> = text.split(',').map(bit).try_fold(0, |mask, bit| Some(mask | bit?));
    mask.map_or(Test::Unknown, |mask| xtables::states(mask, not))
}

fn address(field: Field, text: &str, not: bool) -> Test {
    let (address, mask) = text.split_once('/').unwrap_or((text, "32"));
    let length = |text: &str| text.parse::<u32>().ok().filter(|length| *length <= u32::BITS);
    let mask = match (mask.parse::<Ipv4Addr>(), length(mask)) {
        (Ok(mask), _) => mask.to_bits(),
        (_, Some(length)) => u32::MAX.checked_shl(u32::BITS - length).unwrap_or_default(),
        _ => return Test::Unknown,
    };
    let Ok(address) = address.parse::<Ipv4Addr>() else { return Test::Unknown };
    let value = address.to_bits() & mask;
    Test::In { field, mask, ranges: vec![(value, value)], not }
}

fn protocol(text: &str, not: bool) -> Test {
    let known = [Protocol::Tcp, Protocol::Udp].into_iter().find(|protocol| protocol.name() == text);
    match (known, text.parse::<u8>()) {
        (Some(protocol), _) => {
            Test::range(Field::Protocol, (protocol.number().into(), protocol.number().into()), not)
        }
        (_, Ok(number)) => Test::range(Field::Protocol, (number.into(), number.into()), not),
        _ => Test::Unknown,
    }
}

fn ports(text: &str, not: bool) -> Test {
    let range = |text: &str| {
        let (first, last) = text.split_once(':').unwrap_or((text, text));
        Some((first.parse::<u16>().ok()?.into(), last.parse::<u16>().ok()?.into()))
    };
    let ranges: Option<Vec<(u32, u32)>> = text.split(',').map(range).collect();
    ranges.map_or(Test::Unknown, |ranges| Test::In {
        field: Field::Port,
        mask: Field::Port.mask(),
        ranges,
        not,
    })
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use control::{
        filter::{Packet, Packets, translated as walk},
        service::Vip,
    };

    use super::*;

    const KUBE_PROXY: &str = r#"# Generated by iptables-save v1.8.9 on Sun Nov 22 00:50:43 2026
*nat
:OUTPUT ACCEPT [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-WEB - [0:0]
:KUBE-SVC-DNS - [0:0]
:KUBE-SEP-A - [0:0]
:EARLY - [0:0]
-A OUTPUT -j EARLY
-A OUTPUT -m comment --comment "kubernetes \"service\" portals" -j KUBE-SERVICES
-A OUTPUT -d 10.7.0.0/16 -p udp -m multiport --dports 50,60:70 -j REDIRECT --to-ports 7
-A OUTPUT -d 10.8.0.0/255.255.0.0 ! -p tcp -j DNAT --to-destination 10.0.0.1
-A OUTPUT -d 10.9.0.0/16 -m addrtype --dst-type LOCAL -j DNAT --to-destination 10.0.0.1
-A EARLY -d 10.96.0.12/32 -j RETURN
-A EARLY -d 10.96.0.12/31 -p tcp -m tcp --dport 443 -g KUBE-SEP-A
-A EARLY -d 10.96.0.14/32 -j ACCEPT
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-SERVICES -d 10.96.0.10/32 -p tcp -m comment --comment "a" -m tcp --dport 80 -j KUBE-SVC-WEB
-A KUBE-SERVICES -d 10.96.0.11/32 -p udp -m comment --comment "b" -m udp --dport 53 -j KUBE-SVC-DNS
-A KUBE-SERVICES -d 10.96.0.14/32 -p tcp -j KUBE-SVC-WEB
-A KUBE-SVC-WEB ! -s 10.0.0.0/8 -d 10.96.0.10/32 -p tcp -m tcp --dport 80 -j KUBE-MARK-MASQ
-A KUBE-SVC-WEB -m statistic --mode random --probability 0.5 -j KUBE-SEP-A
-A KUBE-SVC-WEB -m comment --comment "->" -j KUBE-SEP-A
-A KUBE-SVC-DNS -m statistic --mode random --probability 0.5 -j KUBE-SEP-A
-A KUBE-SEP-A -s 10.0.0.1/32 -j KUBE-MARK-MASQ
-A KUBE-SEP-A -p tcp -m tcp -j DNAT --to-destination 10.0.0.1:80
COMMIT
"#;

    fn translated(vips: &[&str]) -> Vec<(String, String)> {
        let packet = |text: &&str| {
            let Vip { address, protocol, port } = text.parse().unwrap();
            let IpAddr::V4(address) = address else { panic!("{text} is of IPv6") };
            Packet::to((address.to_bits(), address.to_bits()), protocol.number(), port)
        };
        let mut packets: Vec<Packet> = vips.iter().map(packet).collect();
        let ports: Vec<u16> = packets.iter().map(|packet| packet.port).filter(|port| *port != 0).collect();
        packets.iter_mut().for_each(|packet| packet.taken.clone_from(&ports));
        let found = walk(&Packets::new(packets), &mut Saved::read(KUBE_PROXY), "OUTPUT").unwrap();
        let mut found: Vec<_> =
            found.into_iter().map(|(number, chain)| (vips[number].to_owned(), chain.to_string())).collect();
        found.sort();
        found
    }

    fn is_translated(vip: &str) -> bool {
        !translated(&[vip]).is_empty()
    }

    #[test]
    fn a_service_is_translated_by_the_chain_that_its_address_leads_to() {
        let vips = ["10.96.0.10:80/tcp", "10.96.0.10:81/tcp", "10.96.0.10:80/udp", "10.96.0.11:53/udp"];
        let expected = ("10.96.0.10:80/tcp".to_owned(), "KUBE-SVC-WEB".to_owned());
        assert_eq!(translated(&vips), [expected], "what leads on by chance alone is not certain");
    }

    #[test]
    fn what_returns_or_is_accepted_before_is_not_translated() {
        assert!(!is_translated("10.96.0.12:443/tcp"));
        assert!(is_translated("10.96.0.13:443/tcp"));
        assert!(!is_translated("10.96.0.13:444/tcp"));
        assert!(!is_translated("10.96.0.14:80/tcp"));
    }

    #[test]
    fn networks_lists_of_ports_and_negations_are_read() {
        assert!(is_translated("10.7.1.1:50/udp") && is_translated("10.7.1.1:70/udp"));
        assert!(!is_translated("10.7.1.1:51/udp") && !is_translated("10.7.1.1:50/tcp"));
        assert!(is_translated("10.8.255.1:9/udp") && !is_translated("10.8.255.1:9/tcp"));
        assert!(!is_translated("10.9.0.1:80/tcp"));
    }

    #[test]
    fn a_service_of_all_ports_is_translated_with_any_port_that_no_other_service_has() {
        assert_eq!(translated(&["10.96.0.10:0/tcp"]).len(), 1);
        let both = translated(&["10.96.0.10:0/tcp", "10.96.0.10:80/tcp"]);
        assert_eq!(both, [("10.96.0.10:80/tcp".to_owned(), "KUBE-SVC-WEB".to_owned())]);
    }
}
