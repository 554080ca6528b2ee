//! Failure detection and dissemination: the library foca behind the few operations that membership needs of it.
//!
//! Another implementation of SWIM would take this module's place and nothing else's: updates and messages go in; messages,
//! changes and a deadline come out.

use std::{
    num::{NonZeroU8, NonZeroUsize},
    time::Duration,
};

use foca::{
    Foca, Member, NoCustomBroadcast, Notification, PeriodicParams, Runtime, State, Timer, TimerToken,
};
use rand::{SeedableRng as _, rngs::StdRng};

use super::{
    codec::{self, SwimCodec, SwimHeader},
    health::Health,
    settings::Tuning,
    table::{Claim, Update},
};
use crate::cluster::{agenda::Agenda, identity::Identity, wire::MAX_BODY};

/// A timer that comes later than this says that the node did not run.
const LATE: Duration = Duration::from_millis(100);

/// News that wait to be gossiped on. Beyond this exchanges carry them: when thousands start at once, gossip would be busy
/// for minutes.
const MAX_BACKLOG: usize = 1_024;

/// What came of an operation, in its order.
#[derive(Debug)]
pub(super) enum Effect {
    /// A message for a member.
    Send(Identity, Vec<u8>),
    /// A probe failed: the member is suspected in this incarnation.
    Suspected(Identity, u16),
    /// A suspicion was not refuted in time, or the news of a death came.
    Down(Identity),
}

pub(super) struct Swim {
    foca: Foca<Identity, SwimCodec, StdRng, NoCustomBroadcast>,
    tuning: Tuning,
    /// Members for which the transmissions of an update are counted.
    sized_for: usize,
    timers: Timers,
    effects: Vec<Effect>,
}

#[derive(Default)]
struct Timers {
    agenda: Agenda<Due>,
    /// What foca marks the timers of this life with.
    token: TimerToken,
    health: Health,
}

struct Due {
    timer: Timer<Identity>,
    /// Whether it was put off because the node had not run.
    is_put_off: bool,
}

/// Whether a timer leads to a verdict on another member.
fn judges(timer: &Timer<Identity>) -> bool {
    matches!(
        timer,
        Timer::SendIndirectProbe { .. } | Timer::ProbeRandomMember(_) | Timer::ChangeSuspectToDown { .. }
    )
}

impl Timers {
    fn set(&mut self, at: Duration, timer: Timer<Identity>) {
        self.agenda.push(at, Due { timer, is_put_off: false });
    }

    /// Puts off the verdicts: what others answered while this node did not run is read first.
    fn put_off(&mut self, by: Duration) {
        self.agenda.put_off(|at, due| {
            if judges(&due.timer) && !due.is_put_off {
                *at += by;
                due.is_put_off = true;
            }
        });
    }
}

/// What foca calls back.
struct Shell<'a> {
    now: Duration,
    timers: &'a mut Timers,
    effects: &'a mut Vec<Effect>,
    /// Whether a member was suspected.
    suspected: bool,
}

impl Runtime<Identity> for Shell<'_> {
    fn notify(&mut self, notification: Notification<'_, Identity>) {
        if let Notification::MemberDown(identity) = notification {
            self.effects.push(Effect::Down(identity.clone()));
        }
    }

    fn send_to(&mut self, to: Identity, data: &[u8]) {
        self.effects.push(Effect::Send(to, data.to_vec()));
    }

    fn submit_after(&mut self, event: Timer<Identity>, after: Duration) {
        if let Timer::ChangeSuspectToDown { member_id, incarnation, .. } = &event {
            self.suspected = true;
            self.effects.push(Effect::Suspected(member_id.clone(), *incarnation));
        }
        if let Timer::PeriodicGossip(token) = event {
            self.timers.token = token;
        }
        let after = if judges(&event) { self.timers.health.stretched(after) } else { after };
        self.timers.set(self.now + after, event);
    }
}

/// How often each node sends an update on: a multiple of the logarithm of the number of members, as SWIM asks for. So
/// many that one update in thousands misses a node: each misses a given one with a probability of e to the minus that.
fn transmissions(members: usize) -> NonZeroU8 {
    let digits = (members.max(1) as f64 + 1.0).log10();
    NonZeroU8::new((digits * 8.0).ceil() as u8).unwrap_or(NonZeroU8::MIN)
}

fn settings(tuning: &Tuning, members: usize) -> foca::Config {
    let at_least_one = |number: usize| NonZeroUsize::new(number).unwrap_or(NonZeroUsize::MIN);
    foca::Config {
        probe_period: tuning.probe_period,
        probe_rtt: tuning.probe_rtt,
        num_indirect_probes: at_least_one(tuning.indirect_probes),
        max_transmissions: transmissions(members),
        suspect_to_down_after: tuning.suspicion,
        // Members are kept until they are forgotten.
        remove_down_after: None,
        max_packet_size: at_least_one(MAX_BODY),
        notify_down_members: true,
        periodic_announce: None,
        periodic_announce_to_down_members: None,
        periodic_gossip: Some(PeriodicParams {
            frequency: tuning.gossip_period,
            num_members: at_least_one(tuning.gossip_members),
        }),
    }
}

impl Swim {
    pub(super) fn new(identity: Identity, tuning: Tuning, seed: [u8; 32]) -> Self {
        let settings = settings(&tuning, 1);
        let foca = Foca::new(identity, settings, StdRng::from_seed(seed), SwimCodec);
        Self { foca, tuning, sized_for: 1, timers: Timers::default(), effects: Vec::new() }
    }

    pub(super) fn identity(&self) -> &Identity {
        self.foca.identity()
    }

    /// How many times its length a time-out has at present.
    pub(super) fn stretch(&self) -> u32 {
        self.timers.health.stretch()
    }

    pub(super) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        self.timers.agenda.deadline()
    }

    fn call(
        &mut self,
        now: Duration,
        operation: impl FnOnce(
            &mut Foca<Identity, SwimCodec, StdRng, NoCustomBroadcast>,
            &mut Shell<'_>,
        ) -> Result<(), foca::Error>,
    ) -> Option<bool> {
        let (timers, effects) = (&mut self.timers, &mut self.effects);
        let mut shell = Shell { now, timers, effects, suspected: false };
        // What fails changes nothing: malformed input, or a timer of an earlier life.
        operation(&mut self.foca, &mut shell).ok()?;
        Some(shell.suspected)
    }

    /// Takes what is new of others; `spread` says whether it is gossiped on.
    pub(super) fn apply(&mut self, now: Duration, updates: &[Update], spread: bool) {
        let members = updates.iter().map(member);
        let spread = spread && self.foca.updates_backlog() < MAX_BACKLOG;
        self.call(now, |foca, shell| foca.apply_many(members, spread, shell));
    }

    /// Refutes a suspicion of this node's own life.
    pub(super) fn refute(&mut self, now: Duration, incarnation: u16) {
        let own = Member::new(self.identity().clone(), incarnation, State::Suspect);
        self.call(now, |foca, shell| foca.apply_many(std::iter::once(own), true, shell));
    }

    /// Takes a member's message for this node, whose updates were applied already; false when it is malformed.
    pub(super) fn receive(&mut self, now: Duration, sender: &Identity, header: &SwimHeader) -> bool {
        let Some(data) = codec::received(sender, self.identity(), header) else { return false };
        self.call(now, |foca, shell| foca.handle_data(&data, shell)).is_some()
    }

    /// Begins another life, and tells a few members.
    pub(super) fn renew(&mut self, now: Duration, identity: Identity) {
        self.call(now, |foca, shell| {
            foca.change_identity(identity, &mut *shell)?;
            // A life begins without members to probe: this looks for them.
            foca.apply_many(std::iter::empty(), false, shell)
        });
    }

    /// Drops a member that is down.
    pub(super) fn remove_down(&mut self, now: Duration, identity: &Identity) {
        self.call(now, |foca, shell| foca.handle_timer(Timer::RemoveDown(identity.clone()), shell));
    }

    /// Suspects a member because of a probe that foca does not know of. It is down when it does not refute that in time.
    pub(super) fn suspect(&mut self, now: Duration, update: &Update) {
        let (suspect, member_id) = (member(update), update.identity.clone());
        let (incarnation, token, wait) = (update.incarnation, self.timers.token, self.tuning.suspicion);
        self.call(now, |foca, shell| {
            foca.apply_many(std::iter::once(suspect), true, &mut *shell)?;
            shell.submit_after(Timer::ChangeSuspectToDown { member_id, incarnation, token }, wait);
            Ok(())
        });
    }

    /// A suspicion of this node's was refuted: it may be this node that is slow.
    pub(super) fn was_wrong(&mut self) {
        self.timers.health.worsen();
    }

    /// A probe that foca does not know of was answered.
    pub(super) fn probe_answered(&mut self, now: Duration) {
        self.timers.health.recover(now);
    }

    /// Runs the timers that are due; gives by how much verdicts are put off, because this node did not run.
    pub(super) fn tick(&mut self, now: Duration) -> Option<Duration> {
        let late = self.deadline().map_or(Duration::ZERO, |at| now.saturating_sub(at));
        let put_off = (late > LATE).then(|| late + self.tuning.probe_rtt);
        if let Some(by) = put_off {
            self.timers.health.was_late(now);
            self.timers.put_off(by);
        }
        while let Some((_, due)) = self.timers.agenda.pop_until(now) {
            let is_probe = matches!(due.timer, Timer::ProbeRandomMember(_));
            let suspected = self.call(now, |foca, shell| foca.handle_timer(due.timer, shell));
            if is_probe && suspected == Some(false) {
                self.timers.health.recover(now);
            }
        }
        self.resize(now);
        put_off
    }

    /// Fits the transmissions of an update to the number of members.
    fn resize(&mut self, now: Duration) {
        let members = self.foca.num_members().max(1);
        if members > self.sized_for * 2 || members * 4 < self.sized_for {
            let settings = settings(&self.tuning, members);
            self.call(now, |foca, _| foca.set_config(settings));
            self.sized_for = members;
        }
    }
}

/// A left member is one that is down in the last incarnation, which no living one reaches.
pub(super) fn member(update: &Update) -> Member<Identity> {
    let (incarnation, state) = match update.claim {
        Claim::Alive => (update.incarnation, State::Alive),
        Claim::Suspect => (update.incarnation, State::Suspect),
        Claim::Dead => (update.incarnation.min(u16::MAX - 1), State::Down),
        Claim::Left => (u16::MAX, State::Down),
    };
    Member::new(update.identity.clone(), incarnation, state)
}

/// The reverse of [`member`].
pub(super) fn update(member: &Member<Identity>) -> Update {
    let claim = match member.state() {
        State::Alive => Claim::Alive,
        State::Suspect => Claim::Suspect,
        State::Down if member.incarnation() == u16::MAX => Claim::Left,
        State::Down => Claim::Dead,
    };
    Update { identity: member.id().clone(), incarnation: member.incarnation(), claim }
}
