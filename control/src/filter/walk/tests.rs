use std::{collections::HashMap, io, rc::Rc};

use super::*;
use crate::filter::{Device, Element, Field, Packet, Side, Test, state};

/// Chains by name, without sets.
struct Chains(HashMap<&'static str, Vec<Rule>>);

impl Table for Chains {
    fn chain(&mut self, name: &str) -> io::Result<Rc<[Rule]>> {
        Ok(self.0.get(name).cloned().unwrap_or_default().into())
    }

    fn set(&mut self, _name: &str) -> io::Result<Rc<Set>> {
        Ok(Rc::default())
    }
}

const SLICE: (u32, u32) = (0xfa00_1c00, 0xfa00_1cff);

fn rule(tests: &[Test], verdict: Verdict) -> Rule {
    Rule { tests: tests.to_vec(), action: Action::Verdict(verdict) }
}

fn address(address: u32) -> Test {
    Test::range(Field::Address, (address, address), false)
}

/// Packets into a slice that nothing tracks, through chain `base` with a policy.
fn through(drops: bool, chains: &[(&'static str, &[Rule])]) -> Vec<(String, bool, Option<u32>)> {
    let packet = Packet { state: Some(state::UNTRACKED), ..Packet::to(SLICE, 0, 0) };
    let mut table = Chains(chains.iter().map(|(name, rules)| (*name, rules.to_vec())).collect());
    let base = Base { name: "base", drops };
    let found = dropped(&Packets::new(vec![packet]), &mut table, base).unwrap();
    found.into_iter().map(|found| (found.chain.to_string(), found.is_whole, found.address)).collect()
}

fn all(chain: &str) -> Vec<(String, bool, Option<u32>)> {
    vec![(chain.to_owned(), true, None)]
}

#[test]
fn what_no_rule_takes_is_for_the_policy_to_decide() {
    assert_eq!(through(true, &[]), all("base"));
    assert_eq!(through(false, &[]), []);
    assert_eq!(through(true, &[("base", &[rule(&[], Verdict::Accept)])]), []);
}

#[test]
fn a_last_rule_drops_as_a_policy_does_and_is_named_with_its_chain() {
    let base = [rule(&[], Verdict::Jump("more".into()))];
    let more = [rule(&[], Verdict::Drop)];
    assert_eq!(through(false, &[("base", &base), ("more", &more)]), all("more"));
    let more = [rule(&[], Verdict::Return), rule(&[], Verdict::Drop)];
    assert_eq!(through(false, &[("base", &base), ("more", &more)]), []);
}

#[test]
fn a_rule_for_one_destination_drops_some_and_says_which() {
    let base = [rule(&[address(0xfa00_1c05)], Verdict::Drop), rule(&[address(0xfa00_1b05)], Verdict::Drop)];
    let expected = vec![("base".to_owned(), false, Some(0xfa00_1c05))];
    assert_eq!(through(false, &[("base", &base)]), expected);
    let saved = [rule(&[address(0xfa00_1c05)], Verdict::Accept)];
    assert_eq!(through(true, &[("base", &saved)]), all("base"), "the others are dropped");
}

#[test]
fn what_a_rule_may_have_let_pass_is_not_said_to_be_dropped() {
    let established =
        Test::In { field: Field::State, mask: state::ESTABLISHED, ranges: vec![(0, 0)], not: true };
    assert_eq!(through(true, &[("base", &[rule(&[established], Verdict::Accept)])]), all("base"));
    let doubt = [rule(&[Test::Unknown], Verdict::Accept)];
    assert_eq!(through(true, &[("base", &doubt)]), []);
    // One protocol of many, and then only some of it.
    let some = [rule(&[Test::range(Field::Protocol, (1, 1), false), Test::Unknown], Verdict::Accept)];
    assert_eq!(through(true, &[("base", &some)]), all("base"));
    let dropped = [rule(&[Test::Unknown], Verdict::Drop)];
    assert_eq!(through(false, &[("base", &dropped)]), []);
}

#[test]
fn chains_that_call_each_other_end() {
    let base = [rule(&[], Verdict::Jump("base".into()))];
    assert_eq!(through(true, &[("base", &base)]), all("base"));
}

/// The chains that filter packets of a slice to another host's, which come by a device.
fn filtering(drops: bool, chains: &[(&'static str, &[Rule])]) -> Vec<String> {
    let packet = Packet {
        source: Some(SLICE),
        input: Some(Device::new("fan-250-0-28", 3)),
        state: Some(state::UNTRACKED),
        ..Packet::to((0xfa00_0000, 0xfaff_ffff), 0, 0)
    };
    let mut table = Chains(chains.iter().map(|(name, rules)| (*name, rules.to_vec())).collect());
    let base = Base { name: "base", drops };
    let found = filtered(&Packets::new(vec![packet]), &mut table, base).unwrap();
    found.into_iter().map(|found| found.chain.to_string()).collect()
}

fn source(address: u32, mask: u32) -> Test {
    Test::In { field: Field::Source, mask, ranges: vec![(address, address)], not: false }
}

fn by(name: &[u8]) -> Test {
    Test::By { side: Side::In, name: name.to_vec(), not: false }
}

#[test]
fn a_rule_that_may_drop_some_filters() {
    let rules = [
        vec![source(0xfa00_1c05, u32::MAX)],
        vec![Test::range(Field::Port, (25, 25), false)],
        vec![Test::Unknown],
        vec![source(0xfa00_1c00, 0xffff_ff00), Test::Unknown],
    ];
    for tests in rules {
        assert_eq!(filtering(false, &[("base", &[rule(&tests, Verdict::Drop)])]), ["base"], "{tests:?}");
    }
    let others = [
        vec![source(0xc000_0200, 0xffff_ff00)],
        vec![by(b"eth9\0"), Test::Unknown],
        vec![Test::In { field: Field::State, mask: 1, ranges: vec![(0, 0)], not: true }],
    ];
    for tests in others {
        assert_eq!(filtering(false, &[("base", &[rule(&tests, Verdict::Drop)])]), [""; 0], "{tests:?}");
    }
}

#[test]
fn a_chain_that_drops_all_filters_where_a_rule_names_whom_and_not_by_default() {
    assert_eq!(filtering(true, &[]), [""; 0]);
    assert_eq!(filtering(false, &[("base", &[rule(&[], Verdict::Drop)])]), [""; 0]);
    let named = [source(0xfa00_0000, 0xff00_0000), by(b"fan-250-0-28\0"), by(b"fan-")];
    for test in named {
        assert_eq!(
            filtering(false, &[("base", &[rule(std::slice::from_ref(&test), Verdict::Drop)])]),
            ["base"]
        );
        let jump = [rule(&[test], Verdict::Jump("more".into()))];
        assert_eq!(filtering(false, &[("base", &jump), ("more", &[rule(&[], Verdict::Drop)])]), ["more"]);
    }
    let any = [rule(&[source(0, 0)], Verdict::Drop)];
    assert_eq!(filtering(false, &[("base", &any)]), [""; 0]);
}

#[test]
fn a_chain_that_lets_some_of_a_named_network_pass_filters_the_rest() {
    let some = rule(&[source(0xfa00_1c05, u32::MAX)], Verdict::Accept);
    assert_eq!(filtering(true, &[("base", std::slice::from_ref(&some))]), ["base"]);
    assert_eq!(filtering(false, &[("base", &[some.clone(), rule(&[], Verdict::Drop)])]), ["base"]);
    // A ping of anybody's, and Docker's own containers.
    let ping = rule(&[Test::range(Field::Protocol, (1, 1), false)], Verdict::Accept);
    assert_eq!(filtering(true, &[("base", &[ping])]), [""; 0]);
    let dockers = [rule(&[], Verdict::Jump("DOCKER".into()))];
    assert_eq!(filtering(true, &[("base", &dockers), ("DOCKER", &[some])]), [""; 0]);
}

#[test]
fn what_is_accepted_before_is_not_filtered() {
    let accepted =
        [rule(&[by(b"fan-")], Verdict::Accept), rule(&[source(0xfa00_1c05, u32::MAX)], Verdict::Drop)];
    assert_eq!(filtering(true, &[("base", &accepted)]), [""; 0]);
    let doubt =
        [rule(&[Test::Unknown], Verdict::Accept), rule(&[source(0xfa00_1c05, u32::MAX)], Verdict::Drop)];
    assert_eq!(filtering(false, &[("base", &doubt)]), ["base"]);
}

#[test]
fn a_map_filters_by_each_element_that_may_fit() {
    struct Maps;
    impl Table for Maps {
        fn chain(&mut self, _name: &str) -> io::Result<Rc<[Rule]>> {
            let action = Action::Map(vec![Some(Field::Address)], "map".into());
            Ok(vec![Rule { tests: Vec::new(), action }].into())
        }

        fn set(&mut self, _name: &str) -> io::Result<Rc<Set>> {
            let element = |address: u32, verdict| {
                let key = vec![address.to_be_bytes()];
                Element { first: key.clone(), last: key, verdict }
            };
            Ok(Rc::new(Set::new(vec![
                element(0xfa00_1b05, Verdict::Accept),
                element(0xfa00_1b06, Verdict::Drop),
            ])))
        }
    }
    let packets = || Packets::new(vec![Packet::to((0xfa00_0000, 0xfaff_ffff), 0, 0)]);
    let base = Base { name: "base", drops: false };
    assert_eq!(filtered(&packets(), &mut Maps, base).unwrap().len(), 1);
}
