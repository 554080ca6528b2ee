//! Upgrades to a binary with other kernel programs and another layout of flow records.

use std::time::Duration;

use dataplane_common::abi::{FLOW_LAYOUT, LAYOUT};
use fanlight::kernel::bpf::Datapath;
use fanlight_tests::{Host, eventually, fleet::Fleet, host};

use crate::{
    fan_restart::{agents, under_traffic, upgrade},
    vip_load::nothing_fails_while,
};

#[test]
fn no_packet_of_the_fan_is_lost_while_every_program_that_differs_is_replaced() {
    let fleet = Fleet::up(2);
    let (one, other) = (fleet.endpoint(0, 2), fleet.port(1, 2));
    let running = agents(&fleet);
    let before = programs(&fleet[0]);
    let mut upgraded = Vec::new();
    under_traffic(&fleet, (&one, &other), || upgraded = upgrade(&fleet, running, &host::later()));
    assert_eq!(upgraded.len(), 2);
    let after = programs(&fleet[0]);
    assert!(before.len() >= 3 && before.len() == after.len(), "{before:?}, {after:?}");
    // What has nothing to do with flow records is the same to the byte, and stays.
    let is_same = |row: &(String, u64)| row.0.contains("endpoint-egress");
    let is_right =
        |(old, new): (&(String, u64), &(String, u64))| old.0 == new.0 && (old.1 == new.1) == is_same(old);
    assert!(before.iter().zip(&after).all(is_right), "{before:?}, {after:?}");
}

/// Hook and device, and program, of everything that is attached.
fn programs(host: &Host) -> Vec<(String, u64)> {
    let status = host.json("status");
    let rows = status["datapath"].as_array().expect("a list").iter();
    let mut rows: Vec<_> = rows
        .map(|row| {
            (format!("{} {}", row["hook"], row["device"]), row["program"].as_u64().unwrap_or_default())
        })
        .collect();
    rows.sort();
    rows
}

#[test]
fn no_connection_through_a_vip_fails_while_a_binary_with_another_flow_layout_takes_over() {
    let table = |fleet: &Fleet, file: &str| {
        fleet[0].path(&format!("/sys/fs/bpf/fanlight/v{LAYOUT}/maps/{file}")).exists()
    };
    let (former, present) = (format!("flows-{FLOW_LAYOUT}"), format!("flows-{}", FLOW_LAYOUT + 1));
    nothing_fails_while(|fleet, agent| {
        assert!(table(fleet, &former) && !table(fleet, &present));
        fleet[0].use_binary(host::later());
        agent.stop();
        let agent = fleet[0].agent();
        eventually("all flows are in tables of the other layout", Duration::from_secs(20), || {
            let is_over = table(fleet, &present) && !table(fleet, &former);
            let listed = fleet[0].run("flow list");
            (is_over && listed.matches("established").count() >= 50).then_some(())
        });
        assert_eq!(fleet[0].json("status")["degraded"], serde_json::json!([]));
        // The earlier one would misread them.
        let refused = fleet[0].inside(|| Datapath::open_existing().map(drop)).expect_err("a later layout");
        assert!(refused.to_string().contains(&format!("has layout {}", FLOW_LAYOUT + 1)), "{refused}");
        agent
    });
}
