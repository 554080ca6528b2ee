//! From news to the table, and from the table to notices.

use std::net::SocketAddrV4;

use super::{
    Membership, Notice,
    clocks::SkewChange,
    codec::{self, Kind},
    notice::Trouble,
    swim::Effect,
    table::{Claim, Standing, Update},
};
use crate::cluster::{
    Moment,
    identity::Identity,
    wire::{Message, Refusal},
};

impl Membership {
    /// Does what failure detection asked for.
    pub(super) fn settle(&mut self, at: Moment) {
        for effect in self.swim.take_effects() {
            match effect {
                Effect::Send(to, data) => self.send_swim(at, &to, &data),
                Effect::Suspected(identity, incarnation) => {
                    self.watch.suspect(at.now, &identity, incarnation);
                    let update = Update { identity, incarnation, claim: Claim::Suspect };
                    if self.table.standing(&update) == Standing::Newer {
                        self.put(at, &update);
                    }
                }
                Effect::Down(identity) => {
                    let entry = self.table.get(identity.place());
                    let alive = entry.filter(|entry| entry.identity == identity && entry.claim.is_active());
                    if let Some(incarnation) = alive.map(|entry| entry.incarnation) {
                        self.put(at, &Update { identity, incarnation, claim: Claim::Dead });
                    }
                }
            }
        }
    }

    fn send_swim(&mut self, at: Moment, to: &Identity, data: &[u8]) {
        if codec::head(data).is_none_or(|head| head.kind != Kind::Down) {
            return self.send(at, to.address(), Message::Swim(data));
        }
        // foca says so also to a member that refuted the suspicion in time.
        let is_active = self.table.get(to.place()).is_some_and(|entry| entry.claim.is_active());
        if !is_active {
            let message = Message::Outdated { echo: 0, generation: to.generation(), holder: None };
            self.send(at, to.address(), message);
        }
    }

    /// Enters an update and tells what it changes.
    fn put(&mut self, at: Moment, update: &Update) {
        let before = self.table.get(update.identity.place());
        let was_active = before.is_some_and(|entry| entry.claim.is_active());
        let is_same_life = before.is_some_and(|entry| entry.identity == update.identity);
        let others = self.table.active();
        self.table.put(update, at.now);
        let identity = update.identity.clone();
        match (was_active, update.claim.is_active()) {
            (_, true) if !was_active || !is_same_life => {
                self.exchange_soon(at);
                self.tell(Notice::Up(identity));
            }
            (true, false) => {
                self.exchange_soon(at);
                self.tell(Notice::Down { identity, left: update.claim == Claim::Left });
            }
            _ => {}
        }
        match (others, self.table.active()) {
            (1, 2..) => {
                self.exchange_anew();
                self.tell(Notice::Joined);
            }
            (2.., 1) => self.tell(Notice::Alone),
            _ => {}
        }
    }

    /// Takes updates about others as far as they are news. `spread` says whether they are gossiped on.
    pub(super) fn learn(&mut self, at: Moment, updates: Vec<Update>, spread: bool) {
        let own = self.identity().place();
        let mut news = Vec::new();
        for mut update in updates {
            if update.identity.place() == own {
                self.learn_of_itself(at, &update);
                continue;
            }
            match self.table.standing(&update) {
                Standing::New if !self.make_room(at) => self.refuse_full(),
                Standing::New | Standing::Newer => {
                    update.identity = self.held(update.identity);
                    self.put(at, &update);
                    news.push(update);
                }
                Standing::OtherKey => {
                    self.name_taken(at, &update.identity);
                }
                Standing::Known | Standing::Older | Standing::Forgotten => {}
            }
        }
        if !news.is_empty() {
            self.swim.apply(at.now, &news, spread);
            self.settle(at);
        }
    }

    /// The identity that is held already, of equal ones.
    fn held(&self, identity: Identity) -> Identity {
        match (self.table.get(identity.place()), &self.pool) {
            (Some(entry), _) if entry.identity == identity => entry.identity.clone(),
            (_, Some(pool)) => pool.held(identity),
            (_, None) => identity,
        }
    }

    fn refuse_full(&mut self) {
        *self.refused.entry(Refusal::Full).or_default() += 1;
    }

    /// Whether there is room for one more name.
    pub(super) fn make_room(&mut self, at: Moment) -> bool {
        if self.table.len() < self.tuning.max_members {
            return true;
        }
        let dropped = self.table.drop_oldest_gone();
        if let Some(entry) = &dropped {
            self.drop_entry(at, entry);
        }
        dropped.is_some()
    }

    /// Reports a node that comes with a name of another.
    pub(super) fn name_taken(&mut self, at: Moment, refused: &Identity) {
        if self.troubles.may_tell(Trouble::NameTaken(refused.place()), at.now) {
            let (name, refused) = (refused.name().clone(), refused.address());
            self.tell(Notice::NameTaken { name, refused });
        }
    }

    /// Takes an update about this node itself.
    fn learn_of_itself(&mut self, at: Moment, update: &Update) {
        let own = self.identity().clone();
        if update.identity.key() != own.key() {
            self.name_taken(at, &update.identity);
        } else if update.identity == own {
            match update.claim {
                Claim::Suspect => self.refute(at, update.incarnation),
                Claim::Dead | Claim::Left => self.begin_life(at, own.generation(), own.address()),
                Claim::Alive => {}
            }
        } else if update.identity.generation() >= own.generation() {
            self.meet_namesake(at, &update.identity, update.claim.is_active());
        }
    }

    fn refute(&mut self, at: Moment, incarnation: u16) {
        let own = self.identity().clone();
        let before = self.table.get(own.place()).map_or(0, |entry| entry.incarnation);
        if incarnation < before {
            return;
        }
        let update =
            Update { identity: own, incarnation: incarnation.saturating_add(1), claim: Claim::Alive };
        self.table.put(&update, at.now);
        self.swim.refute(at.now, incarnation);
        // One life has 65,534 refutations.
        if incarnation >= u16::MAX - 2 {
            let own = self.identity().clone();
            self.begin_life(at, own.generation(), own.address());
        }
    }

    /// A later life of this node's name: of this node, before a clock went back or a store was lost, or of another one.
    pub(super) fn meet_namesake(&mut self, at: Moment, other: &Identity, is_alive: bool) {
        let own = self.identity().clone();
        if is_alive && other.address() != own.address() {
            self.own_name_taken(at, other);
        } else {
            self.begin_life(at, other.generation(), own.address());
        }
    }

    pub(super) fn own_name_taken(&mut self, at: Moment, holder: &Identity) {
        self.holder = Some(holder.clone());
        if self.troubles.may_tell(Trouble::OwnName, at.now) {
            self.tell(Notice::OwnNameTaken { holder: holder.clone() });
        }
    }

    /// Begins a life above a generation.
    pub(super) fn begin_life(&mut self, at: Moment, above: u64, address: SocketAddrV4) {
        // Above the last generation there is no other.
        let Some(generation) = above.max(self.identity().generation()).checked_add(1) else { return };
        let identity = self.identity().renewed(generation, address);
        self.holder = None;
        self.table.put(&Update { identity: identity.clone(), incarnation: 0, claim: Claim::Alive }, at.now);
        self.swim.renew(at.now, identity.clone());
        self.tell(Notice::Renewed(identity));
    }

    pub(super) fn refresh_clocks(&mut self, at: Moment) {
        for change in self.clocks.refresh(at) {
            let (SkewChange::Far(place, _) | SkewChange::Near(place)) = change;
            let Some(name) = self.table.get(place).map(|entry| entry.identity.name().clone()) else {
                continue;
            };
            self.tell(match change {
                SkewChange::Far(_, ahead) => Notice::Skewed { name, ahead },
                SkewChange::Near(_) => Notice::Unskewed { name },
            });
        }
    }
}
