//! What `status` says of VIPs that other software translates.

use std::collections::BTreeMap;

use control::{
    filter::ENOUGH,
    service::{Protocol, Vip},
};

use super::Served;

/// Services that are named; the rest are counted.
const NAMED: usize = 10;

/// What translates a service's packets, and the remedy; the first that is found of each service.
#[derive(Debug, Default)]
pub struct Reasons {
    found: BTreeMap<usize, (String, String)>,
}

impl Reasons {
    /// A chain of nf_tables, with its family and table.
    pub fn chain(&mut self, service: usize, chain: &str) {
        self.add(service, || (format!("`{chain}`"), "remove that rule".to_owned()));
    }

    /// A chain of iptables beside nf_tables.
    pub fn legacy(&mut self, service: usize, chain: &str) {
        self.add(service, || {
            (format!("chain {chain} of `iptables-legacy -t nat`"), "remove that rule".to_owned())
        });
    }

    /// IPVS with a service of its own.
    pub fn ip_vs(&mut self, service: usize, theirs: Vip) {
        let option = match theirs.protocol {
            Protocol::Tcp => "-t",
            Protocol::Udp => "-u",
        };
        let remedy = format!("remove it there with `ipvsadm -D {option} {}:{}`", theirs.address, theirs.port);
        self.add(service, || ("ip_vs".to_owned(), remedy));
    }

    /// Programs on connect().
    pub fn programs(&mut self, service: usize, programs: &str) {
        let remedy = || "detach it (`bpftool cgroup tree` shows where it is)".to_owned();
        self.add(service, || (format!("program {programs} on connect()"), remedy()));
    }

    fn add(&mut self, service: usize, who: impl FnOnce() -> (String, String)) {
        self.found.entry(service).or_insert_with(who);
    }

    /// One line a service, and one for those that are too many.
    pub fn lines(&self, services: &[Served]) -> Vec<String> {
        let line = |(number, (who, remedy)): (&usize, &(String, String))| {
            let Served { name, vip } = services.get(*number)?;
            Some(format!(
                "shadowed: service {name}: {who} translates {vip}, too, so that processes of this host do not reach \
                 Fanlight's backends; {remedy}"
            ))
        };
        let mut lines: Vec<String> = self.found.iter().take(NAMED).filter_map(line).collect();
        if self.found.len() > NAMED {
            let least = if self.found.len() < ENOUGH { "" } else { "at least " };
            lines.push(format!("shadowed: and {least}{} more services", self.found.len() - NAMED));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_who_is_found_is_named_and_services_beyond_ten_are_counted() {
        let vip: Vip = "10.96.0.10:80/udp".parse().unwrap();
        let services: Vec<_> = (0..400).map(|number| Served { name: format!("s{number}"), vip }).collect();
        let mut reasons = Reasons::default();
        reasons.ip_vs(1, vip);
        reasons.chain(1, "ip nat OUTPUT");
        reasons.programs(0, "7 (theirs)");
        let lines = reasons.lines(&services);
        assert!(lines[0].starts_with("shadowed: service s0: program 7 (theirs) on connect() translates "));
        assert!(lines[1].ends_with("`ipvsadm -D -u 10.96.0.10:80`"), "{lines:?}");
        (2..12).for_each(|number| reasons.legacy(number, "OUTPUT"));
        let lines = reasons.lines(&services);
        assert_eq!((lines.len(), lines[10].as_str()), (11, "shadowed: and 2 more services"));
        (12..400).for_each(|number| reasons.legacy(number, "OUTPUT"));
        assert_eq!(reasons.lines(&services)[10], "shadowed: and at least 390 more services");
    }
}
