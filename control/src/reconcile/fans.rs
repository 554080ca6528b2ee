//! Which fans the agent brings up and takes down: those of its files. A fan that was brought up by hand is never
//! taken down and never changed.

use ipnet::Ipv4Net;

use crate::model::{FanSpec, Origin, difference};

/// A change of fans. Applied in order: what goes makes room for what comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FanOp {
    /// The files don't have it any more.
    Down(FanSpec),
    /// The files have it, but it isn't up, or was asked for in other words.
    Up {
        /// As the files have it.
        spec: FanSpec,
        /// Which of them.
        origin: Origin,
        /// As the files had it when it came up: if the other words mean another fan, this one goes first. A fan
        /// that was brought up by hand never goes.
        former: Option<FanSpec>,
    },
}

/// The changes that bring the standing fans to those of the files. A fan that stands as it is wanted yields none: it
/// is repaired, not brought up.
pub fn plan(wanted: &[(FanSpec, Origin)], standing: &[(FanSpec, Origin)]) -> Vec<FanOp> {
    let ours = standing.iter().filter(|(_, origin)| *origin != Origin::Manual);
    let downs = ours.filter(|(spec, _)| of(wanted, spec.overlay).is_none());
    let ups = wanted.iter().filter_map(|(spec, origin)| {
        let (spec, origin) = (spec.clone(), *origin);
        match of(standing, spec.overlay) {
            None => Some(FanOp::Up { spec, origin, former: None }),
            Some((old, _)) if difference(old, &spec).is_none() => None,
            Some((_, Origin::Manual)) => Some(FanOp::Up { spec, origin, former: None }),
            Some((old, _)) => Some(FanOp::Up { spec, origin, former: Some(old.clone()) }),
        }
    });
    downs.map(|(spec, _)| FanOp::Down(spec.clone())).chain(ups).collect()
}

fn of(fans: &[(FanSpec, Origin)], overlay: Ipv4Net) -> Option<&(FanSpec, Origin)> {
    fans.iter().find(|(spec, _)| spec.overlay == overlay)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Egress;

    fn fan(overlay: &str) -> FanSpec {
        FanSpec { overlay: overlay.parse().unwrap(), ..FanSpec::example() }
    }

    fn routed(overlay: &str) -> FanSpec {
        FanSpec { egress: Egress::Route, ..fan(overlay) }
    }

    fn up(spec: FanSpec, former: Option<FanSpec>) -> FanOp {
        FanOp::Up { spec, origin: Origin::Config, former }
    }

    #[test]
    fn fans_of_the_files_come_up_and_fans_that_left_the_files_go_down_first() {
        let wanted = [(fan("250.0.0.0/8"), Origin::Config)];
        let standing = [(fan("251.0.0.0/8"), Origin::File)];
        assert_eq!(plan(&wanted, &standing), [FanOp::Down(fan("251.0.0.0/8")), up(fan("250.0.0.0/8"), None)]);
        assert_eq!(plan(&wanted, &wanted), []);
    }

    #[test]
    fn a_fan_brought_up_by_hand_never_goes() {
        let by_hand = [(fan("250.0.0.0/8"), Origin::Manual)];
        assert_eq!(plan(&[], &by_hand), []);
        assert_eq!(plan(&[(fan("250.0.0.0/8"), Origin::Config)], &by_hand), []);
        let other = [(routed("250.0.0.0/8"), Origin::Config)];
        assert_eq!(plan(&other, &by_hand), [up(routed("250.0.0.0/8"), None)]);
    }

    #[test]
    fn a_fan_of_the_files_whose_values_changed_makes_room_for_the_new_one() {
        let wanted = [(routed("250.0.0.0/8"), Origin::Config)];
        let standing = [(fan("250.0.0.0/8"), Origin::Config)];
        assert_eq!(plan(&wanted, &standing), [up(routed("250.0.0.0/8"), Some(fan("250.0.0.0/8")))]);
    }

    #[test]
    fn a_fan_that_moved_from_one_file_to_the_other_stays() {
        let plan = plan(&[(fan("250.0.0.0/8"), Origin::Config)], &[(fan("250.0.0.0/8"), Origin::File)]);
        assert_eq!(plan, []);
    }
}
