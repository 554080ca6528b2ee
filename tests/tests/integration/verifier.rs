//! Every program loads on this kernel, and does not cost its verifier more than the table allows.

//@ guest: 6.1, 6.12

use std::{collections::BTreeMap, env, fs};

use dataplane_common::outcome::{Hook, Stage};
use fanlight::kernel::bpf::{Datapath, GENERIC_EARLY, Private, program_name, stage_name};
use fanlight_tests::tools;

type Counts = BTreeMap<String, u32>;

/// How much more than kept a program may cost, in per cent.
const TOLERANCE: u32 = 10;

/// Where the counts go, as JSON.
const OUTPUT: &str = "FANLIGHT_VERIFIED";
/// Set while the table is written anew.
const BLESS: &str = "FANLIGHT_BLESS";

#[test]
fn every_program_loads_within_its_ceiling() {
    let hooks = Hook::ALL.iter().map(|hook| program_name(*hook));
    let names: Vec<_> = hooks.chain([GENERIC_EARLY]).collect();
    let datapath = Datapath::private(&names).expect("every program loads");
    let stages = Stage::ALL.iter().map(|stage| stage_name(*stage));
    let measured: Counts = names.iter().copied().chain(stages).map(|name| measure(&datapath, name)).collect();
    println!("verified instructions: {measured:?}");
    if let Some(path) = env::var_os(OUTPUT) {
        fs::write(path, serde_json::to_vec(&measured).unwrap()).unwrap();
    }
    let table: BTreeMap<String, Counts> =
        toml::from_str(include_str!("../../verified-instructions.toml")).unwrap();
    let series = series();
    if env::var_os(BLESS).is_some() {
        return;
    }
    let Some(kept) = table.get(&series) else {
        tools::ignore(format_args!("tests/verified-instructions.toml has no table of Linux {series}"));
        return;
    };
    for (name, count) in measured {
        let kept = kept.get(&name).unwrap_or_else(|| panic!("{name} is not in the table of Linux {series}"));
        let ceiling = kept + kept * TOLERANCE / 100;
        assert!(
            count <= ceiling,
            "{name} on Linux {series}: {count} verified instructions, {kept} in tests/verified-instructions.toml, \
             more than {TOLERANCE} % more"
        );
    }
}

fn measure(datapath: &Private, name: &str) -> (String, u32) {
    let count = datapath.verified_instructions(name).expect("the kernel describes its programs");
    (name.to_owned(), count.expect("kernels since 5.16 count them"))
}

/// `6.12` of `6.12.117+deb12-cloud-amd64`.
fn series() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("the kernel names its release");
    release.split('.').take(2).collect::<Vec<_>>().join(".")
}
