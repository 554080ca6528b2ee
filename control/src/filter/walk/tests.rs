use std::{collections::HashMap, io, rc::Rc};

use super::*;
use crate::filter::{Packet, Test, state};

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
