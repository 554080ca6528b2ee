//! `fanlight endpoint`.

use std::time::{Duration, Instant};

use fanlight_tests::{
    Host, eventually,
    fleet::{Fleet, OVERLAY, bridge, overlay},
    load::assert_reaches,
};

/// Host-side devices of endpoints.
fn devices(host: &Host) -> Vec<String> {
    let links = host.ip("-o link show");
    let names = links.lines().filter_map(|line| line.split([':', '@']).nth(1)).map(str::trim);
    let ours = |name: &&str| name.len() == 10 && name.starts_with("fl") && !name.starts_with("fanlight");
    names.filter(ours).map(str::to_owned).collect()
}

#[test]
fn an_endpoint_gets_the_next_free_address_a_route_and_the_fans_mtu() {
    let fleet = Fleet::up(2);
    let (first, second) = (fleet[0].container("first"), fleet[0].container("second"));
    fleet[0].run("endpoint add --netns first");
    fleet[0].run("endpoint add --netns second --name two");
    let listed = fleet[0].json("endpoint list");
    let rows = listed.as_array().expect("a list");
    assert_eq!(rows.len(), 2, "{listed}");
    let devices = devices(&fleet[0]);
    for (row, (name, netns, octet)) in rows.iter().zip([("first", "first", 2), ("two", "second", 3)]) {
        assert_eq!(row["name"], name);
        assert!(row["netns"].as_str().is_some_and(|at| at.ends_with(netns)), "{row}");
        assert_eq!(row["address"], overlay(0, octet).to_string());
        assert!(devices.iter().any(|device| row["device"] == *device), "{row} has none of {devices:?}");
        assert_eq!(row["fan"], OVERLAY);
    }
    let link = first.ip("-o link show eth0");
    assert!(link.contains("mtu 1480"), "{link}");
    assert!(first.ip("route show default").contains(&overlay(0, 1).to_string()));
    let address = first.ip("-4 -o address show eth0");
    assert!(address.contains("250.0.27.2/24"), "{address}");
    assert!(second.ip("-4 -o address show eth0").contains("250.0.27.3/24"));
    assert_reaches(&first, overlay(0, 3));
    assert_reaches(&second, overlay(1, 1));
}

#[test]
fn adding_the_same_again_changes_nothing_and_something_else_is_refused() {
    let fleet = Fleet::up(1);
    let _container = fleet[0].container("c");
    let words = format!("endpoint add --netns c --address {}", overlay(0, 7));
    fleet[0].run(&words);
    let before = fleet[0].json("endpoint list");
    fleet[0].run(&words);
    assert_eq!(fleet[0].json("endpoint list"), before);
    let other = format!("endpoint add --netns c --address {}", overlay(0, 8));
    let refused = fleet[0].fanlight(other.split(' ')).exits(1);
    assert_eq!(refused.stderr.lines().count(), 1, "{refused}");
    assert_eq!(fleet[0].json("endpoint list"), before);
}

#[test]
fn an_address_that_is_taken_or_lies_elsewhere_is_refused_and_leaves_nothing() {
    let fleet = Fleet::up(1);
    let (_one, _other) = (fleet[0].container("one"), fleet[0].container("other"));
    fleet[0].run(&format!("endpoint add --netns one --address {}", overlay(0, 7)));
    let before = fleet[0].ip("-o link show");
    let bad = [
        format!("endpoint add --netns other --address {}", overlay(0, 7)),
        format!("endpoint add --netns other --address {}", overlay(0, 1)),
        format!("endpoint add --netns other --address {}", overlay(1, 7)),
        format!("endpoint add --netns other --address {}", overlay(0, 255)),
        "endpoint add --netns other --address 10.0.0.1".to_owned(),
        "endpoint add --netns other --fan 251.0.0.0/8".to_owned(),
        "endpoint add --netns nowhere".to_owned(),
        "endpoint add --netns pid:4000000000".to_owned(),
        "endpoint remove nobody".to_owned(),
    ];
    for words in bad {
        let refused = fleet[0].fanlight(words.split(' ')).exits(1);
        assert_eq!(refused.stderr.lines().count(), 1, "{words}: {refused}");
        assert!(refused.stderr.starts_with("fanlight: "), "{words}: {refused}");
        assert_eq!(fleet[0].ip("-o link show"), before, "{words}");
    }
}

#[test]
fn a_removed_endpoint_is_gone_and_its_address_free() {
    let fleet = Fleet::up(1);
    let container = fleet[0].container("c");
    fleet[0].run("endpoint add --netns c --name web");
    assert_eq!(devices(&fleet[0]).len(), 1);
    fleet[0].run("endpoint remove web");
    assert_eq!(devices(&fleet[0]).len(), 0);
    assert!(!container.has_device("eth0"));
    assert_eq!(fleet[0].json("endpoint list"), serde_json::json!([]));
    fleet[0].run("endpoint add --netns c --name web --routed");
    let address = container.ip("-4 -o address show eth0");
    assert!(address.contains("250.0.27.2/32"), "{address}");
    assert_reaches(&container, overlay(0, 1));
}

#[test]
fn a_namespace_is_named_by_path_or_process_too() {
    let fleet = Fleet::up(1);
    let (one, other) = (fleet[0].container("one"), fleet[0].container("other"));
    let process = other.command("sleep").arg("60").spawn();
    fleet[0].run("endpoint add --netns /run/netns/one");
    fleet[0].run(&format!("endpoint add --netns pid:{}", process.pid()));
    assert_reaches(&one, overlay(0, 3));
    assert_reaches(&other, overlay(0, 2));
}

#[test]
fn the_sudden_death_of_a_namespace_leaves_nothing_without_an_agent() {
    let fleet = Fleet::up(1);
    let container = fleet[0].container("c");
    fleet[0].run("endpoint add --netns c");
    container.die();
    eventually("the device is gone", Duration::from_secs(5), || devices(&fleet[0]).is_empty().then_some(()));
    assert_eq!(fleet[0].json("endpoint list"), serde_json::json!([]));
    let again = fleet[0].container("c");
    fleet[0].run("endpoint add --netns c");
    assert!(again.ip("-4 -o address show eth0").contains("250.0.27.2/24"));
    assert_reaches(&fleet[0], overlay(0, 2));
}

#[test]
fn an_address_of_the_dead_works_for_its_next_holder_once_somebody_has_looked() {
    let fleet = Fleet::up(2);
    for (look, octet) in ["endpoint list", "fan show", "status"].into_iter().zip(5..) {
        fleet.endpoint(0, octet).die();
        let device = format!("flfa001b{octet:02x}");
        eventually("its device is gone", Duration::from_secs(5), || {
            (!devices(&fleet[0]).contains(&device)).then_some(())
        });
        fleet[0].fanlight(look.split(' ')).ok();
        let next = fleet.port(0, octet);
        assert_reaches(&fleet[1], overlay(0, octet));
        next.die();
    }
}

#[test]
fn a_look_does_not_wait_for_a_lock_that_somebody_keeps() {
    let fleet = Fleet::up(1);
    fleet.endpoint(0, 5).die();
    eventually("its device is gone", Duration::from_secs(5), || devices(&fleet[0]).is_empty().then_some(()));
    let holder = fleet[0].command("flock").args(["--no-fork", "/run/fanlight/lock", "sleep", "60"]).spawn();
    eventually("the lock is held", Duration::from_secs(5), || {
        let free = fleet[0].command("flock").args(["-n", "/run/fanlight/lock", "true"]).run();
        (!free.status.success()).then_some(())
    });
    for look in ["endpoint list", "fan show", "status"] {
        let start = Instant::now();
        fleet[0].fanlight(look.split(' ')).ok();
        assert!(start.elapsed() < Duration::from_secs(10), "{look}: {:?}", start.elapsed());
    }
    drop(holder);
}

#[test]
fn what_is_behind_a_port_is_listed_too_with_an_agent_and_without() {
    let fleet = Fleet::up(1);
    let _added = fleet.endpoint(0, 5);
    let joined = fleet.port(0, 9);
    assert_reaches(&joined, overlay(0, 1));
    let ends = || {
        let listed = fleet[0].json("endpoint list");
        let [added, learnt] = listed.as_array().expect("a list").as_slice() else { return None };
        assert_eq!(added["source"], "added", "{listed}");
        Some(learnt.clone())
    };
    let without = ends().expect("two endpoints");
    let device = without["device"].as_str().expect("a name").to_owned();
    assert!(fleet[0].ip(&format!("-o link show {device}")).contains(&format!("master {}", bridge(0))));
    let want = serde_json::json!({
        "name": null, "netns": null, "address": overlay(0, 9), "device": device, "fan": OVERLAY,
        "routed": false, "source": "learnt",
    });
    assert_eq!(without, want);
    let _agent = fleet[0].agent();
    assert_reaches(&joined, overlay(0, 1));
    assert_eq!(ends(), Some(want));
    joined.die();
    eventually("it is gone from the list", Duration::from_secs(10), || ends().is_none().then_some(()));
}

#[test]
fn the_sudden_death_of_a_namespace_is_noticed_by_the_agent() {
    let fleet = Fleet::up(2);
    let _agent = fleet[0].agent();
    let remote = fleet.endpoint(1, 2);
    let (dying, _living) = (fleet.endpoint(0, 5), fleet.endpoint(0, 6));
    assert_reaches(&remote, overlay(0, 5));
    dying.die();
    eventually("the endpoint is gone from the list", Duration::from_secs(5), || {
        let listed = fleet[0].json("endpoint list");
        (listed.as_array().map(Vec::len) == Some(1)).then_some(())
    });
    assert_reaches(&remote, overlay(0, 6));
    eventually("its address is answered as nobody's", Duration::from_secs(10), || {
        let output = remote.command("ping").args(["-c", "1", "-W", "4", &overlay(0, 5).to_string()]).run();
        output.stdout.contains("Destination Host Unreachable").then_some(())
    });
}
