//! Services of IPVS, as `/proc/net/ip_vs` lists them.

use std::net::Ipv4Addr;

use control::service::{Protocol, Vip};

use super::Vips;

/// The VIPs that IPVS has too, and its services' own.
pub fn find(vips: &Vips<'_>, text: &str) -> Vec<(usize, Vip)> {
    let mut found = Vec::new();
    for theirs in text.lines().filter_map(service) {
        for number in vips.packets().at(match theirs.address {
            std::net::IpAddr::V4(address) => address.to_bits(),
            std::net::IpAddr::V6(_) => continue,
        }) {
            let ours = vips.services[number].vip;
            let is_taken = vips.packets().all()[number].taken.contains(&theirs.port);
            let meets = ours.port == theirs.port || theirs.port == 0 || (ours.port == 0 && !is_taken);
            if ours.protocol == theirs.protocol && meets {
                found.push((number, theirs));
            }
        }
    }
    found
}

/// `TCP  0A60000A:0050 rr`; services by mark (`FWM`) have no address.
fn service(line: &str) -> Option<Vip> {
    let mut words = line.split_whitespace();
    let protocol = match words.next()? {
        "TCP" => Protocol::Tcp,
        "UDP" => Protocol::Udp,
        _ => return None,
    };
    let (address, port) = words.next()?.split_once(':')?;
    let address = Ipv4Addr::from_bits(u32::from_str_radix(address, 16).ok()?);
    Some(Vip { address: address.into(), port: u16::from_str_radix(port, 16).ok()?, protocol })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::shadow::Served;

    const LIST: &str = "IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  0A60000A:0050 rr
  -> 0AFA0102:1F90      Masq    1      0          0
UDP  0A60000B:0000 rr persistent 300
FWM  0A60000C rr
TCP  [2001:0db8:0000:0000:0000:0000:0000:0001]:0050 rr
";

    fn found(vip: &str) -> Vec<String> {
        let services = [Served { name: "a".to_owned(), vip: vip.parse().unwrap() }];
        find(&Vips::new(&services), LIST).into_iter().map(|(_, theirs)| theirs.to_string()).collect()
    }

    #[test]
    fn services_of_the_same_address_protocol_and_port_are_found() {
        assert_eq!(found("10.96.0.10:80/tcp"), ["10.96.0.10:80/tcp"]);
        assert_eq!(found("10.96.0.10:0/tcp"), ["10.96.0.10:80/tcp"]);
        assert_eq!(found("10.96.0.11:53/udp"), ["10.96.0.11:0/udp"]);
        for other in ["10.96.0.10:81/tcp", "10.96.0.10:80/udp", "10.96.0.12:80/tcp", "10.250.1.2:8080/tcp"] {
            assert_eq!(found(other), Vec::<String>::new(), "{other}");
        }
    }
}
