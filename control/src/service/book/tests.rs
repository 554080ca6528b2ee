use proptest::prelude::*;

use super::*;
use crate::service::{Algorithm, Backend};

const FILE: &str = "/etc/fanlight/fanlight.toml";

fn socket(last: u8) -> SocketAddr {
    ([250, 0, 28, last], 80).into()
}

fn service(name: &str, vip: u8, backends: &[u8]) -> Service {
    let backend = |&last: &u8| Backend { address: [250, 0, 28, last].into(), port: 80, weight: 1 };
    Service {
        name: name.to_owned(),
        vip: format!("10.96.0.{vip}:80/tcp").parse().unwrap(),
        algorithm: Algorithm::Maglev,
        backends: backends.iter().map(backend).collect(),
    }
}

fn set(service: &Service) -> Change {
    Change::Set(service.clone())
}

fn drain(book: &mut Book, name: &str, last: u8) {
    let change = book.drain(name, socket(last), true).unwrap().unwrap();
    book.make(&[change]);
}

fn prune(book: &mut Book) {
    let stale = book.stale_marks();
    book.make(&stale);
}

fn weights(book: &Book, name: &str) -> Vec<u32> {
    book.get(name).unwrap().wanted.backends.iter().map(|backend| backend.weight).collect()
}

fn book(file: &[Service], applied: &[Service]) -> Book {
    let mut book = Book::default();
    book.set_file(Path::new(FILE), file);
    book.make(&applied.iter().map(set).collect::<Vec<_>>());
    book
}

/// What stands in the way of applying these.
fn obstacles(book: &Book, services: &[&Service]) -> Vec<String> {
    book.check(services).unwrap_err().iter().map(|(place, error)| format!("{place}: {error}")).collect()
}

#[test]
fn the_files_services_are_changed_only_there() {
    let web = service("web", 1, &[2]);
    let book = book(std::slice::from_ref(&web), &[]);
    let why = format!("service web is of {FILE}; change it there");
    assert_eq!(obstacles(&book, &[&web]), [format!("0: {why}")]);
    assert_eq!(book.remove("web").unwrap_err().to_string(), why);
    assert_eq!(book.remove("db").unwrap_err().to_string(), "no service 'db'; see 'fanlight service list'");
}

#[test]
fn backends_that_are_absent_weigh_nothing_until_they_are_back() {
    let mut book = book(&[service("web", 1, &[2, 3]), service("db", 2, &[4])], &[]);
    let absent = [Ipv4Addr::new(250, 0, 28, 2), Ipv4Addr::new(250, 0, 28, 99)].into();
    assert_eq!(book.set_absent(&absent), ["web".to_owned()].into());
    assert_eq!((weights(&book, "web"), weights(&book, "db")), (vec![0, 1], vec![1]));
    assert_eq!(book.get("web").unwrap().absent, [socket(2)].into());
    assert_eq!(book.set_absent(&absent), BTreeSet::new());
    book.make(&[set(&service("new", 3, &[2]))]);
    assert_eq!(weights(&book, "new"), [0], "also of services that come later");
    assert_eq!(book.set_absent(&BTreeSet::new()), ["new".to_owned(), "web".to_owned()].into());
    assert_eq!((weights(&book, "web"), weights(&book, "new")), (vec![1, 1], vec![1]));
}

#[test]
fn a_vip_belongs_to_one_service() {
    let book = book(&[service("web", 1, &[])], &[service("db", 2, &[])]);
    let (first, second) = (service("a", 1, &[]), service("b", 2, &[]));
    assert_eq!(
        obstacles(&book, &[&first, &second]),
        [
            format!("0: 10.96.0.1:80/tcp is the VIP of service web of {FILE}; give each its own"),
            "1: 10.96.0.2:80/tcp is the VIP of service db; give each its own".to_owned(),
        ]
    );
}

#[test]
fn an_applied_service_that_contradicts_the_files_addresses_waits_until_one_of_them_goes() {
    let at = |vip: &str, service: Service| Service { vip: vip.parse().unwrap(), ..service };
    let web = service("web", 1, &[2]);
    let shadowing = at("250.0.28.2:53/udp", service("shadowing", 2, &[3]));
    let nested = Service {
        backends: vec![Backend { address: web.vip.address, port: 80, weight: 1 }],
        ..service("nested", 3, &[])
    };
    let mut book = book(&[], &[shadowing, nested]);
    assert_eq!(book.entries().len(), 2);
    book.set_file(Path::new(FILE), &[web]);
    let followed = format!("of service web of {FILE}, which is followed; give one of them another");
    assert_eq!(
        book.clashes(),
        [
            format!("service nested: 10.96.0.1 is the VIP's address {followed}"),
            format!("service shadowing: 250.0.28.2 is a backend's address {followed}"),
        ]
    );
    assert_eq!(book.entries().keys().collect::<Vec<_>>(), ["web"]);
    book.set_file(Path::new(FILE), &[]);
    assert_eq!((book.clashes(), book.entries().len()), (vec![], 2));
}

#[test]
fn services_may_change_their_vips_with_each_other() {
    let mut book = book(&[], &[service("a", 1, &[]), service("b", 2, &[])]);
    let (a, b) = (service("a", 2, &[]), service("b", 1, &[]));
    assert_eq!(book.check(&[&a, &b]), Ok(vec![0, 1]));
    book.make(&[set(&a), set(&b)]);
    assert_eq!(book.at(a.vip).unwrap().wanted, a);
    assert_eq!(book.at(b.vip).unwrap().wanted, b);
    assert_eq!(book.clashes(), [""; 0]);
}

#[test]
fn the_same_again_is_no_change_whatever_the_order_of_backends() {
    let book = book(&[], &[service("a", 1, &[2, 3])]);
    assert_eq!(book.check(&[&service("a", 1, &[3, 2]), &service("b", 3, &[])]), Ok(vec![1]));
}

#[test]
fn a_drained_backend_weighs_nothing_until_it_is_undrained() {
    let mut book = book(&[service("web", 1, &[2, 3])], &[]);
    drain(&mut book, "web", 3);
    assert_eq!(weights(&book, "web"), [1, 0]);
    assert_eq!(book.get("web").unwrap().defined.backends[1].weight, 1);
    assert_eq!(book.drain("web", socket(3), true), Ok(None));
    let change = book.drain("web", socket(3), false).unwrap().unwrap();
    book.make(&[change]);
    assert_eq!(weights(&book, "web"), [1, 1]);
    assert_eq!(
        book.drain("web", socket(9), true).unwrap_err().to_string(),
        "service web has no backend 250.0.28.9:80; it has 250.0.28.2:80, 250.0.28.3:80"
    );
}

#[test]
fn marks_outlive_changes_of_the_file_and_go_with_their_backend() {
    let mut book = book(&[service("web", 1, &[2, 3])], &[service("db", 2, &[4, 5])]);
    drain(&mut book, "web", 3);
    drain(&mut book, "db", 5);
    book.set_file(Path::new(FILE), &[service("web", 1, &[3, 4])]);
    prune(&mut book);
    assert_eq!(weights(&book, "web"), [0, 1]);
    book.make(&[set(&service("db", 2, &[4]))]);
    book.make(&[set(&service("db", 2, &[4, 5]))]);
    assert_eq!(weights(&book, "db"), [1, 1]);
    book.set_file(Path::new(FILE), &[]);
    prune(&mut book);
    assert_eq!(book.changes().collect::<Vec<_>>(), [set(&service("db", 2, &[4, 5]))]);
}

#[test]
fn the_file_is_followed_where_it_clashes_and_what_was_applied_comes_back_after_it() {
    let (web, db) = (service("web", 1, &[2]), service("db", 2, &[2]));
    let mut book = book(&[], &[web.clone(), db.clone()]);
    book.set_file(Path::new(FILE), &[service("web", 3, &[4]), service("other", 2, &[4])]);
    assert_eq!(book.get("web").unwrap().wanted.vip, service("", 3, &[]).vip);
    assert!(book.get("db").is_none());
    assert_eq!(
        book.clashes(),
        [
            format!(
                "service db: 10.96.0.2:80/tcp is the VIP of service other of {FILE}, which is followed; give one of \
                 them another"
            ),
            format!(
                "service web: {FILE} has it too, and is followed; remove it there, or the applied one with 'fanlight \
                 service remove web'"
            ),
        ]
    );
    let remove = book.remove("web").unwrap();
    book.make(&[remove]);
    assert_eq!(book.clashes().len(), 1);
    book.set_file(Path::new(FILE), &[]);
    assert_eq!(book.get("db").unwrap().wanted, db);
    assert!(book.get("web").is_none());
}

/// Any change among few names, VIPs and backends.
fn any_change() -> impl Strategy<Value = Change> {
    let name = || prop::sample::select(vec!["a", "b", "c"]);
    prop_oneof![
        (name(), prop::collection::btree_set(1..4_u8, 0..3)).prop_map(|(name, backends)| {
            let backends: Vec<u8> = backends.into_iter().collect();
            Change::Set(service(name, name.as_bytes()[0], &backends))
        }),
        name().prop_map(|name| Change::Remove(name.to_owned())),
        (name(), 1..4_u8).prop_map(|(name, last)| Change::Drain(name.to_owned(), socket(last))),
        (name(), 1..4_u8).prop_map(|(name, last)| Change::Undrain(name.to_owned(), socket(last))),
    ]
}

proptest! {
    #[test]
    fn a_change_taken_back_leaves_all_as_it_was(
        before in prop::collection::vec(any_change(), 0..12), change in any_change()
    ) {
        let mut book = book(&[], &[]);
        before.iter().for_each(|change| drop(book.make(std::slice::from_ref(change))));
        prune(&mut book);
        let was = (book.changes().collect::<Vec<_>>(), book.entries().clone());
        let inverse = book.make(&[change]);
        book.make(&inverse);
        prune(&mut book);
        prop_assert_eq!((book.changes().collect::<Vec<_>>(), book.entries().clone()), was);
    }

    #[test]
    fn what_is_applied_is_reached_again_from_nothing(changes in prop::collection::vec(any_change(), 0..12)) {
        let mut first = book(&[], &[]);
        changes.iter().for_each(|change| drop(first.make(std::slice::from_ref(change))));
        let mut second = book(&[], &[]);
        second.make(&first.changes().collect::<Vec<_>>());
        prop_assert_eq!(first.entries(), second.entries());
    }
}
