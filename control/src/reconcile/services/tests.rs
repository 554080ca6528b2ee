use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::service::{Algorithm, Vip};

fn backend(last: u8, weight: u32) -> Backend {
    Backend { address: [250, 0, 28, last].into(), port: 80, weight }
}

fn service(vip: &str, backends: &[Backend]) -> Service {
    let vip: Vip = vip.parse().unwrap();
    Service {
        name: vip.to_string(),
        vip,
        algorithm: Algorithm::Maglev,
        checking: None,
        backends: backends.to_vec(),
    }
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
fn single_changes_leave_what_they_do_not_name() {
    let (web, dns) = (service(WEB, &[backend(2, 1)]), service("10.96.0.10:53/udp", &[]));
    let both = Held { services: [(web.vip, held(&web)), (dns.vip, held(&dns))].into(), orphans: Vec::new() };
    assert_eq!(plan_some(&[], [&web], &both), []);
    let (mail, empty) = (service("10.96.0.11:25/tcp", &[]), service(WEB, &[]));
    let expected = [
        ServiceOp::Remove(dns.vip),
        ServiceOp::Change(empty.clone()),
        ServiceOp::Retire { vip: Some(web.vip), row: 0 },
        ServiceOp::Add(mail.clone()),
    ];
    assert_eq!(plan_some(&[dns.vip, "10.96.0.12:1/tcp".parse().unwrap()], [&mail, &empty], &both), expected);
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

/// Makes a change as the kernel's writer does: rows are found again by their backend.
fn apply(held: &mut Held, op: &ServiceOp) {
    match op {
        ServiceOp::Remove(vip) => {
            let rows = held.services.remove(vip).unwrap().rows.into_iter();
            held.orphans.extend(rows.map(|row| HeldRow { is_gone: true, is_named: false, ..row }));
        }
        ServiceOp::Retire { vip, row } => {
            let rows = match vip {
                Some(vip) => &mut held.services.get_mut(vip).unwrap().rows,
                None => &mut held.orphans,
            };
            let found = rows.iter_mut().find(|held| held.row == *row).unwrap();
            assert!(!found.is_named, "new flows would come to it");
            found.is_gone = true;
        }
        ServiceOp::Change(service) => {
            let rows = held.services.remove(&service.vip).unwrap().rows;
            publish(held, service, rows);
        }
        ServiceOp::Add(service) => {
            assert!(!held.services.contains_key(&service.vip));
            publish(held, service, Vec::new());
        }
    }
}

fn publish(held: &mut Held, service: &Service, mut rows: Vec<HeldRow>) {
    rows.iter_mut().for_each(|row| row.is_named = false);
    for backend in service.usable() {
        let found =
            rows.iter_mut().find(|row| SocketAddr::V4(row.socket) == backend.socket() && !row.is_gone);
        match found {
            Some(row) => row.is_named = true,
            None => rows.push(row(rows.len() as u32, &backend, false)),
        }
    }
    let (index, usable) = (held.services.len() as u32, Some(service.usable()));
    held.services.insert(service.vip, HeldService { index, algorithm: service.algorithm, usable, rows });
}

/// Services on some of four VIPs with some of six backends.
fn some_services() -> impl Strategy<Value = Vec<Service>> {
    let backends = prop::collection::btree_map(2..8_u8, 0..3_u32, 0..6);
    prop::collection::btree_map(0..4_u8, backends, 0..4).prop_map(|services| {
        let of = |(vip, backends): (u8, BTreeMap<u8, u32>)| {
            let backends: Vec<_> = backends.into_iter().map(|(last, weight)| backend(last, weight)).collect();
            service(&format!("10.96.0.{vip}:80/tcp"), &backends)
        };
        services.into_iter().map(of).collect()
    })
}

proptest! {
    #[test]
    fn after_its_changes_nothing_is_left_to_do_and_only_differences_were_touched(
        sets in prop::collection::vec(some_services(), 1..5)
    ) {
        let mut held = Held::default();
        let mut before: Vec<Service> = Vec::new();
        for wanted in sets {
            let ops = plan(&wanted, &held);
            for op in &ops {
                if let ServiceOp::Change(service) | ServiceOp::Add(service) = op {
                    prop_assert!(!before.contains(service), "it was as wanted");
                }
                apply(&mut held, op);
            }
            prop_assert_eq!(plan(&wanted, &held), []);
            before = wanted;
        }
    }
}
