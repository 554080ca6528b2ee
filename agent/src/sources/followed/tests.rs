use proptest::prelude::*;

use super::*;
use crate::sources::config::{format::Format, service::parse};

const OVERLAYS: [&str; 1] = ["250.0.0.0/8"];

fn overlays() -> Vec<Ipv4Net> {
    OVERLAYS.iter().map(|overlay| overlay.parse().unwrap()).collect()
}

fn source() -> Followed {
    Followed::new(SourceSpec::Directory("/d".into()), true)
}

/// A file with these services, each with the last octet of its VIP.
fn file(services: &[(&str, u8)]) -> Part {
    let table = |(name, vip): &(&str, u8)| {
        format!("[[service]]\nname = '{name}'\nvip = '10.96.0.{vip}:80/tcp'\nbackends = []\n")
    };
    let text: String = services.iter().map(table).collect();
    parse(if text.is_empty() { "service = []" } else { &text }, Format::Toml)
}

fn bad() -> Part {
    parse("[[service]]\nname = 'web'\nvip = '10.96.0.1'\nbackends = []\n", Format::Toml)
}

fn changed(part: &str, content: Option<Part>) -> News {
    News::Changes(vec![(part.into(), content)])
}

fn snapshot(parts: &[(&str, Part)]) -> News {
    News::Snapshot(parts.iter().map(|(name, part)| (PartName::from(*name), part.clone())).collect())
}

/// The last octets of the VIPs of what is followed, by name.
fn followed(source: &Followed) -> Vec<(String, u8)> {
    let vip = |name: &Name| match source.statement(name)?.definition.as_ref()?.vip.at()?.address {
        IpAddr::V4(vip) => Some(vip.octets()[3]),
        IpAddr::V6(_) => None,
    };
    source.names().map(|name| (name.to_string(), vip(name).unwrap())).collect()
}

fn of(expected: &[(&str, u8)]) -> Vec<(String, u8)> {
    expected.iter().map(|(name, vip)| ((*name).to_owned(), *vip)).collect()
}

#[test]
fn a_file_that_is_wrong_keeps_what_it_said_and_others_are_taken() {
    let mut source = source();
    source.follow(snapshot(&[("/d/a.toml", file(&[("web", 1)])), ("/d/b.toml", file(&[("db", 2)]))]), &[]);
    assert_eq!(source.faults(), [""; 0]);
    source.follow(changed("/d/a.toml", Some(bad())), &[]);
    let names = source.follow(changed("/d/b.toml", Some(file(&[("db", 3)]))), &[]);
    assert_eq!(names, BTreeSet::from([Name::from("db")]));
    assert_eq!(followed(&source), of(&[("db", 3), ("web", 1)]));
    let why = "'10.96.0.1' is no VIP; write ADDRESS:PORT/tcp or ADDRESS:PORT/udp, such as 10.96.0.10:80/tcp";
    assert_eq!(
        source.faults(),
        [format!("source-file /d/a.toml:3: service.vip: {why}; the file's last content is followed")]
    );
    source.follow(changed("/d/a.toml", None), &[]);
    assert_eq!((followed(&source), source.faults()), (of(&[("db", 3)]), vec![]));
    source.follow(changed("/d/a.toml", Some(bad())), &[]);
    assert!(source.faults()[0].ends_with("; nothing of the file is followed"), "{:?}", source.faults());
}

#[test]
fn what_is_lost_holds_and_an_empty_source_empties() {
    let mut source = source();
    source.follow(snapshot(&[("/d/a.toml", file(&[("web", 1)]))]), &[]);
    assert!(source.follow(News::Lost("gone".to_owned()), &[]).is_empty());
    assert_eq!(followed(&source), of(&[("web", 1)]));
    let lost = "source-lost /d: gone; what it said last holds: put it right, or remove the source";
    assert_eq!(source.faults(), [lost]);
    source.follow(snapshot(&[]), &[]);
    assert_eq!((followed(&source), source.faults()), (vec![], vec![]));
}

#[test]
fn a_name_in_two_files_is_the_first_files_and_told() {
    let mut source = source();
    let both = [("/d/b.toml", file(&[("web", 2)])), ("/d/a.toml", file(&[("web", 1), ("db", 3)]))];
    source.follow(snapshot(&both), &[]);
    assert_eq!(followed(&source), of(&[("db", 3), ("web", 1)]));
    let told = "source-file /d/b.toml: service web: /d/a.toml has it too, and is followed; remove it from one of them";
    assert_eq!(source.faults(), [told]);
    source.follow(changed("/d/a.toml", Some(file(&[("db", 3)]))), &[]);
    assert_eq!((followed(&source), source.faults()), (of(&[("db", 3), ("web", 2)]), vec![]));
    assert_eq!(source.statement(&"web".into()).unwrap().place.as_deref(), Some("/d/b.toml"));
}

#[test]
fn a_vip_inside_an_overlay_is_wrong_and_what_was_right_before_is_when_an_overlay_comes() {
    let mut source = source();
    let inside = parse("[[service]]\nname = 'a'\nvip = '250.0.0.9:80/tcp'\nbackends = []\n", Format::Toml);
    source.follow(snapshot(&[("/d/a.toml", inside.clone())]), &[]);
    assert_eq!(source.names().count(), 1);
    source.follow(snapshot(&[("/d/a.toml", inside)]), &overlays());
    assert_eq!(source.names().count(), 0);
    assert!(source.faults()[0].contains("/d/a.toml:3: service.vip: 250.0.0.9 lies in overlay"));
}

#[test]
fn what_the_kernel_holds_of_it_is_known_once_all_of_it_was_read() {
    let mut source = source();
    assert!(source.is_unsure());
    source.follow(News::Lost("gone".to_owned()), &[]);
    assert!(source.is_unsure(), "nothing was read");
    source.follow(snapshot(&[("/d/a.toml", bad()), ("/d/b.toml", file(&[]))]), &[]);
    assert!(source.is_unsure(), "one file was not");
    source.follow(changed("/d/a.toml", Some(file(&[("web", 1)]))), &[]);
    source.follow(changed("/d/c.toml", Some(bad())), &[]);
    source.follow(News::Lost("gone".to_owned()), &[]);
    assert!(!source.is_unsure(), "what came later was never followed");
    assert!(!Followed::new(SourceSpec::Directory("/d".into()), false).is_unsure());
}

#[test]
fn many_faults_are_counted() {
    let mut source = source();
    let parts: Vec<(PartName, Part)> = (10..25).map(|n| (format!("/d/{n}.toml").into(), bad())).collect();
    source.follow(News::Snapshot(parts), &[]);
    let faults = source.faults();
    assert_eq!(faults.len(), NAMED + 1);
    assert_eq!(faults[NAMED], "source-file /d: and 5 more of the kind");
}

#[derive(Clone, Debug)]
enum Told {
    Snapshot(Vec<(&'static str, Option<u8>)>),
    File(&'static str, Option<u8>),
    Gone(&'static str),
    Lost,
}

fn any_told() -> impl Strategy<Value = Told> {
    let part = || prop::sample::select(vec!["/d/a.toml", "/d/b.toml", "/d/c.toml"]);
    let content = || prop::option::weighted(0.7, 1..6_u8);
    prop_oneof![
        1 => prop::collection::btree_map(part(), content(), 0..3).prop_map(|parts| Told::Snapshot(parts.into_iter().collect())),
        4 => (part(), content()).prop_map(|(part, content)| Told::File(part, content)),
        2 => part().prop_map(Told::Gone),
        1 => Just(Told::Lost),
    ]
}

/// A file's content by a number: its services, of which others may have the same names.
fn numbered(content: Option<u8>) -> Part {
    content.map_or_else(bad, |n| {
        file(&[(["x", "y", "z"][usize::from(n % 3)], n), ("w", 10 + n)][..usize::from(1 + n % 2)])
    })
}

proptest! {
    #[test]
    fn whatever_it_tells_the_last_right_content_of_what_is_there_is_followed(
        told in prop::collection::vec(any_told(), 0..20),
    ) {
        let mut source = source();
        let mut model: BTreeMap<&str, Option<u8>> = BTreeMap::new();
        for told in told {
            let news = match &told {
                Told::Snapshot(parts) => {
                    model.retain(|name, _| parts.iter().any(|(part, _)| part == name));
                    for (part, content) in parts {
                        let kept = model.entry(part).or_default();
                        *kept = content.or(*kept);
                    }
                    snapshot(&parts.iter().map(|(part, content)| (*part, numbered(*content))).collect::<Vec<_>>())
                }
                Told::File(part, content) => {
                    let kept = model.entry(part).or_default();
                    *kept = content.or(*kept);
                    changed(part, Some(numbered(*content)))
                }
                Told::Gone(part) => {
                    model.remove(part);
                    changed(part, None)
                }
                Told::Lost => News::Lost("gone".to_owned()),
            };
            let before: BTreeMap<Name, _> = source.names().map(|name| (name.clone(), source.statement(name))).collect();
            let names = source.follow(news, &[]);
            let mut expected: BTreeMap<String, u8> = BTreeMap::new();
            for content in model.values().flatten() {
                for placed in numbered(Some(*content)).unwrap() {
                    let IpAddr::V4(vip) = placed.service.vip.at().unwrap().address else { unreachable!("an IPv4 VIP") };
                    expected.entry(placed.service.name).or_insert(vip.octets()[3]);
                }
            }
            prop_assert_eq!(followed(&source), expected.into_iter().collect::<Vec<_>>());
            let now: BTreeMap<Name, _> = source.names().map(|name| (name.clone(), source.statement(name))).collect();
            for name in before.keys().chain(now.keys()) {
                prop_assert!(before.get(name) == now.get(name) || names.contains(name), "{} is not told", name);
            }
        }
    }
}
