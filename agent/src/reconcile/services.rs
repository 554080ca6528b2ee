//! Services: what is wanted against what the kernel holds.

use std::{collections::BTreeMap, net::SocketAddr};

use crate::{
    kernel::bpf::{Held, HeldRow, HeldService, ServiceOp},
    service::{Backend, Service, Vip},
};

/// The changes that make the kernel hold exactly what is wanted. What goes makes room, so it goes first.
pub fn plan<'s>(wanted: impl IntoIterator<Item = &'s Service>, held: &Held) -> Vec<ServiceOp> {
    let wanted: BTreeMap<Vip, &Service> = wanted.into_iter().map(|service| (service.vip, service)).collect();
    let removed = held.services.keys().filter(|vip| !wanted.contains_key(vip));
    let mut ops: Vec<_> = removed.map(|&vip| ServiceOp::Remove(vip)).collect();
    ops.extend(alive(&held.orphans).map(|row| ServiceOp::Retire { vip: None, row: row.row }));
    for (vip, service) in &wanted {
        if let Some(held) = held.services.get(vip) {
            let is_as_wanted = is_as_wanted(held, service);
            if !is_as_wanted {
                ops.push(ServiceOp::Change((*service).clone()));
            }
            // Who is named in a ring that is as wanted is in the service.
            let suspects = alive(&held.rows).filter(|row| !(is_as_wanted && row.is_named));
            let gone = suspects.filter(|row| !has(service, row));
            ops.extend(gone.map(|row| ServiceOp::Retire { vip: Some(*vip), row: row.row }));
        }
    }
    let added = wanted.iter().filter(|(vip, _)| !held.services.contains_key(vip));
    ops.extend(added.map(|(_, &service)| ServiceOp::Add(service.clone())));
    ops
}

fn is_as_wanted(held: &HeldService, service: &Service) -> bool {
    held.algorithm == service.algorithm && held.usable.as_ref().is_some_and(|usable| is_same(usable, service))
}

/// Whether these, which are in order, are the backends that take new flows.
fn is_same(usable: &[Backend], service: &Service) -> bool {
    let mut wanted = service.backends.iter().filter(|backend| backend.weight > 0);
    wanted.clone().count() == usable.len() && wanted.all(|backend| usable.binary_search(backend).is_ok())
}

/// Whether a row's backend is in the service, with whatever weight: flows of one that takes no new ones go on.
fn has(service: &Service, row: &HeldRow) -> bool {
    service.backends.iter().any(|backend| backend.socket() == SocketAddr::V4(row.socket))
}

fn alive(rows: &[HeldRow]) -> impl Iterator<Item = &HeldRow> {
    rows.iter().filter(|row| !row.is_gone)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::Algorithm;

    fn backend(last: u8, weight: u32) -> Backend {
        Backend { address: [250, 0, 28, last].into(), port: 80, weight }
    }

    fn service(vip: &str, backends: &[Backend]) -> Service {
        let vip: Vip = vip.parse().unwrap();
        Service { name: vip.to_string(), vip, algorithm: Algorithm::Maglev, backends: backends.to_vec() }
    }

    fn row(row: u32, backend: &Backend, is_gone: bool) -> HeldRow {
        let SocketAddr::V4(socket) = backend.socket() else { panic!("IPv4") };
        HeldRow { row, socket, is_gone, is_named: !is_gone && backend.weight > 0 }
    }

    /// What the kernel holds after a service was added: rows from 0.
    fn held(service: &Service) -> HeldService {
        let rows = service.backends.iter().zip(0..).map(|(backend, number)| row(number, backend, false));
        HeldService {
            index: 0,
            algorithm: service.algorithm,
            usable: Some(service.usable()),
            rows: rows.collect(),
        }
    }

    fn holding(service: &Service) -> Held {
        Held { services: [(service.vip, held(service))].into(), orphans: Vec::new() }
    }

    const WEB: &str = "10.96.0.10:80/tcp";

    #[test]
    fn what_is_as_wanted_is_not_touched() {
        let web = service(WEB, &[backend(2, 1), backend(3, 2)]);
        assert_eq!(plan([&web], &holding(&web)), []);
        let reordered = service(WEB, &[backend(3, 2), backend(2, 1)]);
        assert_eq!(plan([&reordered], &holding(&web)), []);
        let renamed = Service { name: "other".to_owned(), ..web.clone() };
        assert_eq!(plan([&renamed], &holding(&web)), []);
    }

    #[test]
    fn services_go_before_others_come() {
        let (web, dns) = (service(WEB, &[backend(2, 1)]), service("10.96.0.10:53/udp", &[]));
        let expected = [ServiceOp::Remove(web.vip), ServiceOp::Add(dns.clone())];
        assert_eq!(plan([&dns], &holding(&web)), expected);
    }

    #[test]
    fn a_removed_backend_leaves_the_ring_before_its_flows_end() {
        let (before, after) = (service(WEB, &[backend(2, 1), backend(3, 1)]), service(WEB, &[backend(3, 1)]));
        let expected = [ServiceOp::Change(after.clone()), ServiceOp::Retire { vip: Some(after.vip), row: 0 }];
        assert_eq!(plan([&after], &holding(&before)), expected);
    }

    #[test]
    fn a_backend_without_weight_keeps_its_flows() {
        let before = service(WEB, &[backend(2, 1), backend(3, 1)]);
        let after = service(WEB, &[backend(2, 0), backend(3, 1)]);
        assert_eq!(plan([&after], &holding(&before)), [ServiceOp::Change(after.clone())]);
    }

    #[test]
    fn another_weight_or_algorithm_or_an_unknown_ring_is_a_change() {
        let web = service(WEB, &[backend(2, 1), backend(3, 1)]);
        let heavier = service(WEB, &[backend(2, 1), backend(3, 2)]);
        let random = Service { algorithm: Algorithm::Random, ..web.clone() };
        for changed in [heavier, random] {
            assert_eq!(plan([&changed], &holding(&web)), [ServiceOp::Change(changed.clone())]);
        }
        let mut unknown = holding(&web);
        unknown.services.values_mut().for_each(|held| held.usable = None);
        assert_eq!(plan([&web], &unknown), [ServiceOp::Change(web.clone())]);
    }

    #[test]
    fn flows_of_a_service_whose_removal_was_cut_short_are_ended() {
        let rows = [row(4, &backend(2, 1), false), row(5, &backend(3, 1), true)];
        let held = Held { orphans: rows.to_vec(), ..Held::default() };
        assert_eq!(plan([], &held), [ServiceOp::Retire { vip: None, row: 4 }]);
    }
}
