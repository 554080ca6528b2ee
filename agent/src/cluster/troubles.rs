//! What the core reports, as reasons to be degraded: kept for a while after the last report.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use control::cluster::{
    identity::NodeName,
    log,
    membership::{Notice, Refusal},
};

/// How long a report counts: the core repeats it every ten seconds while it holds.
const KEPT: Duration = Duration::from_secs(30);
/// Reports that are kept.
const MAX: usize = 32;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Trouble {
    NameTaken(NodeName),
    Refused(Refusal),
    /// A log, by what is said of it.
    Log(String),
}

/// Reports with the time of the last.
#[derive(Debug, Default)]
pub(super) struct Troubles(BTreeMap<Trouble, (String, Duration)>);

impl Troubles {
    /// Takes a report; what is none of these goes into the log alone.
    pub(super) fn hear(&mut self, notice: &Notice, now: Duration) {
        let (trouble, text) = match notice {
            Notice::NameTaken { name, refused } => (
                Trouble::NameTaken(name.clone()),
                format!(
                    "name-taken {name}: the node at {refused} has this member's name; give it another one, or run \
                     'fanlight node forget {name}' if it takes the member's place"
                ),
            ),
            Notice::Refused { refusal, source, count } => {
                let Some(text) = refused(*refusal, *source) else {
                    return tracing::info!(
                        "cluster: {count} datagrams refused, the last from {source}: {refusal:?}"
                    );
                };
                (Trouble::Refused(*refusal), text)
            }
            _ => return,
        };
        if self.0.len() < MAX || self.0.contains_key(&trouble) {
            self.0.insert(trouble, (text, now));
        }
    }

    /// A log, or what came of one, was refused.
    pub(super) fn refused_log(&mut self, refusal: &log::Refusal, now: Duration) {
        let text = match refusal {
            log::Refusal::Skewed(skewed) => format!("skewed {}: {refusal}", skewed.node),
            // Its node begins another one by itself.
            log::Refusal::Forgotten(_) => return,
            _ => format!("log-refused: {refusal}"),
        };
        // Seconds that a clock is off would be another report each time.
        let trouble = match refusal {
            log::Refusal::Skewed(skewed) => Trouble::Log(skewed.node.clone()),
            _ => Trouble::Log(text.clone()),
        };
        if let Some((_, told)) = self.0.get_mut(&trouble) {
            *told = now;
        } else if self.0.len() < MAX {
            self.0.insert(trouble, (text, now));
        }
    }

    /// Something about this node's own log, in words that stay the same.
    pub(super) fn note(&mut self, text: String, now: Duration) {
        if self.0.len() < MAX {
            self.0.insert(Trouble::Log(text.clone()), (text, now));
        }
    }

    pub(super) fn reasons(&mut self, now: Duration) -> Vec<String> {
        self.0.retain(|_, (_, told)| now < *told + KEPT);
        self.0.values().map(|(text, _)| text.clone()).collect()
    }
}

/// What an administrator can do something about. A port says nothing: it may be another one each time.
fn refused(refusal: Refusal, source: SocketAddr) -> Option<String> {
    let why = match refusal {
        Refusal::UnknownKey => "sealed with a key that this node does not have; compare the files of keys",
        Refusal::OtherClusterOrAltered => "of a cluster of another name, or altered; compare cluster.name",
        Refusal::OtherCluster => "of a cluster of another name; compare cluster.name",
        Refusal::Unsealed => "not sealed, and this node has keys; give its sender the file of keys",
        Refusal::Sealed => "sealed, and this node has no keys; give it the file of keys",
        Refusal::Full => "of a new member, and there is no room for more; forget some that are gone",
        _ => return None,
    };
    Some(format!("refused: datagrams of {} are {why}", source.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused_from(port: u16) -> Notice {
        let source = SocketAddr::from(([10, 0, 0, 9], port));
        Notice::Refused { refusal: Refusal::UnknownKey, source, count: 3 }
    }

    #[test]
    fn a_report_counts_for_a_while_and_the_same_again_is_no_other() {
        let mut troubles = Troubles::default();
        let second = Duration::from_secs;
        troubles.hear(&refused_from(1), second(1));
        let first = troubles.reasons(second(2));
        assert!(first[0].starts_with("refused: datagrams of 10.0.0.9 are sealed with a key"), "{first:?}");
        troubles.hear(&refused_from(2), second(11));
        assert_eq!(troubles.reasons(second(40)), first);
        assert_eq!(troubles.reasons(second(41)), [""; 0]);
    }

    #[test]
    fn a_flood_of_names_takes_bounded_room() {
        let mut troubles = Troubles::default();
        for number in 0..1_000 {
            let name = NodeName::new(&format!("n{number}")).unwrap();
            troubles
                .hear(&Notice::NameTaken { name, refused: "10.0.0.9:7481".parse().unwrap() }, Duration::ZERO);
        }
        let reasons = troubles.reasons(Duration::ZERO);
        assert_eq!(reasons.len(), MAX);
        assert!(reasons[0].starts_with("name-taken n0: the node at 10.0.0.9:7481 has"), "{}", reasons[0]);
    }

    #[test]
    fn what_nobody_can_do_anything_about_is_no_reason() {
        let mut troubles = Troubles::default();
        let source = SocketAddr::from(([10, 0, 0, 9], 1));
        for refusal in [Refusal::Shape, Refusal::Replayed, Refusal::Own] {
            troubles.hear(&Notice::Refused { refusal, source, count: 1 }, Duration::ZERO);
        }
        assert_eq!(troubles.reasons(Duration::ZERO), [""; 0]);
    }
}
