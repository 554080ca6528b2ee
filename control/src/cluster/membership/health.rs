//! A node's confidence in its own punctuality, as in Lifeguard (Dadgar, Phillips, Currey 2018): a node that runs late or
//! whose suspicions are refuted gives others more time.

use std::time::Duration;

/// Worst score; time-outs are then nine times as long.
const WORST: u32 = 8;

/// A node that ran late is not trusted to be punctual again before this.
const DOUBT: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct Health {
    score: u32,
    late: Option<Duration>,
}

impl Health {
    /// A suspicion of this node's was refuted.
    pub(super) fn worsen(&mut self) {
        self.score = (self.score + 1).min(WORST);
    }

    /// This node ran late.
    pub(super) fn was_late(&mut self, now: Duration) {
        self.late = Some(now);
        self.worsen();
    }

    /// A probe was answered.
    pub(super) fn recover(&mut self, now: Duration) {
        if self.late.is_none_or(|late| late + DOUBT < now) {
            self.score = self.score.saturating_sub(1);
        }
    }

    /// How many times its length a time-out has.
    pub(super) fn stretch(&self) -> u32 {
        self.score + 1
    }

    pub(super) fn stretched(&self, time: Duration) -> Duration {
        time * self.stretch()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_outs_grow_to_nine_times_their_length_and_shrink_again() {
        let mut health = Health::default();
        let second = Duration::from_secs;
        (0..20).for_each(|_| health.worsen());
        assert_eq!(health.stretched(Duration::from_millis(60)), Duration::from_millis(540));
        (0..8).for_each(|_| health.recover(second(1)));
        assert_eq!(health.stretch(), 1);
        health.was_late(second(2));
        health.recover(second(3));
        assert_eq!(health.stretch(), 2);
        health.recover(second(4));
        assert_eq!(health.stretch(), 1);
    }
}
