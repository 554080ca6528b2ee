//! Files of services in a cluster: they are written to it when they change, and overrule nothing by a restart.

use std::fs;

use super::{
    cluster::{JOINED, LOOK, TOLD, are_members, reasons, started},
    cluster_services::{OTHER_VIP, VIP, apply, becomes, clustered, configure, service, shown, tells},
};

#[test]
fn a_later_change_overrules_a_file_until_the_file_changes_and_a_restart_does_not() {
    let fleet = clustered(2);
    configure(&fleet[0], &[service("web", VIP, &["192.0.2.1:80"])]);
    let mut agents = started(&fleet);
    becomes(&fleet, &[0, 1], "web", &format!("{VIP} up 192.0.2.1:80=up"), TOLD);
    for words in ["service remove web", "service apply -f /run/web.toml"] {
        fleet[0].write("/run/web.toml", &service("web", OTHER_VIP, &[]));
        let refused = fleet[0].fanlight(words.split(' ')).exits(1).stderr;
        assert!(
            refused.contains("service web is of /etc/fanlight/fanlight.toml; change it there"),
            "{refused}"
        );
    }
    apply(&fleet[1], &service("web", OTHER_VIP, &["192.0.2.2:80"]));
    let both = format!("{OTHER_VIP} up 192.0.2.1:80=up 192.0.2.2:80=up");
    becomes(&fleet, &[0, 1], "web", &both, TOLD);
    tells(
        &fleet[0],
        "overruled: web: /etc/fanlight/fanlight.toml defines it, and it was changed on host-28",
        true,
    );
    assert_eq!(reasons(&fleet[1]), [""; 0]);

    agents.remove(0).kill9();
    agents.insert(0, fleet[0].agent());
    are_members(&fleet, &[0, 1], JOINED);
    becomes(&fleet, &[0, 1], "web", &both, LOOK);
    tells(&fleet[0], "overruled: web: ", true);

    configure(&fleet[0], &[service("web", VIP, &["192.0.2.3:80"])]);
    agents[0].reload();
    let again = format!("{VIP} up 192.0.2.2:80=up 192.0.2.3:80=up");
    becomes(&fleet, &[0, 1], "web", &again, TOLD);
    tells(&fleet[0], "overruled: web: ", false);

    // A removal holds, too, and when the file's node has lost its store.
    fleet[1].run("service remove web");
    becomes(&fleet, &[0, 1], "web", "", TOLD);
    tells(
        &fleet[0],
        "overruled: web: /etc/fanlight/fanlight.toml defines it, and it was removed on host-28",
        true,
    );
    agents.remove(0).kill9();
    fleet[0].sh("rm /var/lib/fanlight/cluster.redb");
    agents.insert(0, fleet[0].agent());
    are_members(&fleet, &[0, 1], JOINED);
    assert_eq!((shown(&fleet[0], "web"), shown(&fleet[1], "web")), (None, None));
    // The file says nothing of it any more: there is nothing to overrule.
    configure(&fleet[0], &[]);
    agents[0].reload();
    tells(&fleet[0], "overruled: ", false);
}

#[test]
fn files_of_two_nodes_that_disagree_are_a_conflict_on_every_node_until_they_agree() {
    let fleet = clustered(3);
    configure(&fleet[0], &[service("web", VIP, &["192.0.2.1:80"])]);
    configure(&fleet[1], &[service("web", OTHER_VIP, &["192.0.2.2:80"])]);
    let mut agents = started(&fleet);
    let both = "/etc/fanlight/fanlight.toml of host-27 and /etc/fanlight/fanlight.toml of host-28 define it";
    for host in fleet.hosts() {
        tells(host, &format!("conflict: web: {both}"), true);
        assert_eq!(shown(host, "web").expect("one is followed")["state"], "conflict");
    }
    let vips: Vec<_> =
        fleet.hosts().iter().map(|host| shown(host, "web").expect("there")["vip"].clone()).collect();
    assert!(vips.iter().all(|vip| *vip == vips[0]), "{vips:?}");
    // Backends of both take flows, and those of one stay when the other's file agrees.
    configure(&fleet[1], &[service("web", VIP, &["192.0.2.2:80"])]);
    agents[1].reload();
    becomes(&fleet, &[0, 1, 2], "web", &format!("{VIP} up 192.0.2.1:80=up 192.0.2.2:80=up"), TOLD);
    fleet.hosts().iter().for_each(|host| tells(host, "conflict: ", false));
    // The definition is there as long as one file has it.
    configure(&fleet[0], &[]);
    agents[0].reload();
    becomes(&fleet, &[0, 1, 2], "web", &format!("{VIP} up 192.0.2.2:80=up"), TOLD);
    configure(&fleet[1], &[]);
    agents[1].reload();
    becomes(&fleet, &[0, 1, 2], "web", "", TOLD);
}

#[test]
fn a_directory_s_files_are_followed_into_the_cluster() {
    let fleet = clustered(2);
    const FOLDER: &str = "/etc/fanlight/services.d";
    configure(&fleet[0], &[format!("[[source]]\nkind = \"directory\"\npath = \"{FOLDER}\"\n")]);
    fs::create_dir_all(fleet[0].path(FOLDER)).expect("a new directory");
    let _agents = started(&fleet);
    let put = |text: &str| {
        fleet[0].write(&format!("{FOLDER}/.web"), text);
        let (from, to) =
            (fleet[0].path(&format!("{FOLDER}/.web")), fleet[0].path(&format!("{FOLDER}/web.toml")));
        fs::rename(from, to).expect("a file in the place of another");
    };
    put(&service("web", VIP, &["192.0.2.1:80"]));
    becomes(&fleet, &[0, 1], "web", &format!("{VIP} up 192.0.2.1:80=up"), TOLD);
    put(&service("web", OTHER_VIP, &[]));
    becomes(&fleet, &[0, 1], "web", &format!("{OTHER_VIP} down"), TOLD);
    fs::remove_file(fleet[0].path(&format!("{FOLDER}/web.toml"))).expect("it is there");
    becomes(&fleet, &[0, 1], "web", "", TOLD);
}

#[test]
fn a_node_whose_store_does_not_open_serves_its_own_files_and_refuses_requests() {
    let fleet = clustered(1);
    configure(&fleet[0], &[service("web", VIP, &["192.0.2.1:80"])]);
    // No file can be made in a file.
    fleet[0].sh("mkdir -p /var/lib/fanlight/cluster.redb");
    let _agent = fleet[0].agent();
    becomes(&fleet, &[0], "web", &format!("{VIP} up 192.0.2.1:80=up"), TOLD);
    tells(&fleet[0], "store: ", true);
    fleet[0].write("/run/db.toml", &service("db", OTHER_VIP, &[]));
    let refused = fleet[0].fanlight(["service", "apply", "-f", "/run/db.toml"]).exits(1).stderr;
    assert!(refused.contains("the cluster's records are not open on this node"), "{refused}");
    fleet[0].sh("rmdir /var/lib/fanlight/cluster.redb");
    tells(&fleet[0], "store: ", false);
    apply(&fleet[0], &service("db", OTHER_VIP, &[]));
    becomes(&fleet, &[0], "web", &format!("{VIP} up 192.0.2.1:80=up"), TOLD);
}
