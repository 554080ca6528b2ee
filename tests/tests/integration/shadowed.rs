//! What others do to packets before ours see them, and that `status` says so.

use std::time::Duration;

use fanlight::kernel::bpf::{Datapath, Mechanism};
use fanlight_tests::{Host, eventually, fleet::Fleet, foreign::Foreign};

const SOON: Duration = Duration::from_secs(15);

/// The reasons that begin with `shadowed`.
fn shadowed(host: &Host) -> Vec<String> {
    let status = host.json("status");
    let reasons = status["degraded"].as_array().expect("a list").iter().filter_map(|reason| reason.as_str());
    reasons.filter(|reason| reason.starts_with("shadowed: ")).map(str::to_owned).collect()
}

/// The only reason, once there is one.
#[track_caller]
fn reason(host: &Host) -> String {
    let mut reasons = eventually("a reason", SOON, || Some(shadowed(host)).filter(|all| !all.is_empty()));
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    reasons.remove(0)
}

fn mechanism(host: &Host) -> Mechanism {
    host.inside(|| Datapath::open_existing().expect("it opens").expect("a fan is up").mechanism())
}

#[test]
fn a_program_of_another_owner_before_ours_is_reported_with_and_without_an_agent() {
    let fleet = Fleet::up(1);
    let host = &fleet[0];
    if mechanism(host) != Mechanism::Tcx {
        return;
    }
    assert_eq!(shadowed(host), Vec::<String>::new());
    let theirs = Foreign::classifier("their_cls").before_all(host, "eth0");
    let told = reason(host);
    assert!(told.starts_with("shadowed: eth0 uplink-ingress: program "), "{told}");
    assert!(told.contains(" (their_cls) of another owner runs before ours"), "{told}");
    let agent = host.agent();
    assert_eq!(reason(host), told);
    drop(theirs);
    assert_eq!(shadowed(host), Vec::<String>::new());
    drop(agent);
}

#[test]
fn a_filter_that_was_there_before_ours_is_reported_where_the_kernel_has_no_tcx() {
    let fleet = Fleet::bare(1);
    let host = &fleet[0];
    Foreign::classifier("their_cls").pin(host, "/sys/fs/bpf/theirs");
    host.sh("tc qdisc add dev eth0 clsact");
    host.sh("tc filter add dev eth0 ingress pref 1 handle 1 bpf da object-pinned /sys/fs/bpf/theirs");
    host.run("fan up 250.0.0.0/8 eth0");
    match mechanism(host) {
        // Filters come after all programs on the tcx hook.
        Mechanism::Tcx => assert_eq!(shadowed(host), Vec::<String>::new()),
        Mechanism::Clsact => {
            let told = reason(host);
            assert!(told.starts_with("shadowed: eth0 uplink-ingress: program "), "{told}");
            host.sh("tc filter del dev eth0 ingress pref 1 handle 1 bpf");
            assert_eq!(shadowed(host), Vec::<String>::new());
        }
    }
}
