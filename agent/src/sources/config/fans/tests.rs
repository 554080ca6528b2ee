use proptest::prelude::*;

use super::*;

fn messages(text: &str) -> Vec<String> {
    parse(text).into_iter().filter_map(|line| line.fan.err()).map(|problem| problem.to_string()).collect()
}

#[test]
fn comments_and_empty_lines_are_skipped_and_numbers_count_them() {
    let lines = parse("# fans\n\n250 eth0/16 dhcp # the usual one\n  251 default off\n");
    assert_eq!(lines.iter().map(|line| line.number).collect::<Vec<_>>(), [3, 4]);
    assert!(lines[0].fan.as_ref().unwrap().spec.dhcp);
    assert!(lines[1].fan.as_ref().unwrap().off);
}

#[test]
fn every_wanted_line_belongs_to_up_all() {
    assert!(parse("250 eth0\n")[0].fan.as_ref().unwrap().auto);
}

#[test]
fn a_bad_line_leaves_the_others_as_they_are() {
    let lines = parse("250 eth0\nnonsense\n251 eth0\n");
    assert_eq!(wanted(&lines).map(|(number, _)| number).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(
        messages("250 eth0\nnonsense eth0\n"),
        ["2: 'nonsense' is no overlay; use N for N.0.0.0/8, or a network such as 250.0.0.0/8"]
    );
}

#[test]
fn a_line_that_overlaps_an_earlier_one_is_refused_unless_that_is_off() {
    assert_eq!(
        messages("250 eth0\n250.4.0.0/16 eth0\n"),
        ["2: overlay 250.4.0.0/16 overlaps 250.0.0.0/8; give each fan addresses of its own"]
    );
    assert!(messages("250 eth0 off\n250.4.0.0/16 eth0\n").is_empty());
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in any::<String>()) {
        let _lines = parse(&text);
    }
}
