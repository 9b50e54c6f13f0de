//! What goes wrong, when and for how long: drawn from a seed before anything runs.

use std::{collections::BTreeSet, fmt, time::Duration};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};

/// The way from one manager to another, by their numbers from 0.
pub type Link = (usize, usize);

/// A fault and its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Episode {
    /// When it begins, counted from the start of the load.
    pub at: Duration,
    /// When it is over; a killed manager is started again then.
    pub until: Duration,
    /// What happens.
    pub fault: Fault,
}

/// What can happen to managers and to what is between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL, all at the same moment.
    Kill(Vec<usize>),
    /// SIGSTOP, and SIGCONT at the end.
    Stop(Vec<usize>),
    /// Nothing arrives any more; what was sent arrives at the end.
    Cut(BTreeSet<Link>),
    /// Everything arrives this much later.
    Slow(BTreeSet<Link>, Duration),
    /// All connections are closed, once.
    Break(BTreeSet<Link>),
}

/// Time without a new fault: mean of the bounds.
const PAUSE: std::ops::Range<f64> = 0.4..4.0;
/// Shortest and longest time that a fault lasts. Short ones are the more likely.
const LASTS: (f64, f64) = (0.2, 7.0);

/// The faults of a run of `total` on `managers` managers. The same seed gives the same ones.
pub fn draw(seed: u64, managers: usize, total: Duration) -> Vec<Episode> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut plan = Vec::new();
    let mut at = 0.0;
    loop {
        at += rng.random_range(PAUSE);
        let lasts = LASTS.0 + (LASTS.1 - LASTS.0) * rng.random::<f64>().powi(3);
        if at + lasts > total.as_secs_f64() {
            return plan;
        }
        plan.push(Episode {
            at: Duration::from_secs_f64(at),
            until: Duration::from_secs_f64(at + lasts),
            fault: fault(&mut rng, managers),
        });
    }
}

fn fault(rng: &mut StdRng, managers: usize) -> Fault {
    let mut order: Vec<_> = (0..managers).collect();
    order.shuffle(rng);
    let several = rng.random_range(2.min(managers)..=managers.max(3) - 1);
    let some = |count: usize| {
        let mut some = order.clone();
        some.truncate(count);
        some
    };
    // Without a second manager there are no links.
    let kinds = if managers > 1 { 100 } else { 45 };
    match rng.random_range(0..kinds) {
        0..18 => Fault::Kill(some(1)),
        18..24 => Fault::Kill(some(several)),
        24..28 => Fault::Kill(some(managers)),
        28..40 => Fault::Stop(some(1)),
        40..45 => Fault::Stop(some(several)),
        45..60 => Fault::Cut(around(&order, true, true)),
        60..66 => Fault::Cut(around(&order, true, false)),
        66..72 => Fault::Cut(around(&order, false, true)),
        72..80 => Fault::Cut([(order[0], order[1]), (order[1], order[0])].into()),
        80..86 => Fault::Cut([(order[0], order[1])].into()),
        86..94 => {
            let delay = Duration::from_millis(rng.random_range(5..300));
            Fault::Slow(around(&order, true, true), delay)
        }
        _ => Fault::Break(around(&order, true, true)),
    }
}

/// The links from and to the first of `order`.
fn around(order: &[usize], from: bool, to: bool) -> BTreeSet<Link> {
    let (first, others) = (order[0], &order[1..]);
    let out = others.iter().filter(|_| from).map(|&other| (first, other));
    let back = others.iter().filter(|_| to).map(|&other| (other, first));
    out.chain(back).collect()
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(who) => write!(f, "kill {who:?}"),
            Self::Stop(who) => write!(f, "stop {who:?}"),
            Self::Cut(links) => write!(f, "cut {links:?}"),
            Self::Slow(links, delay) => write!(f, "slow by {delay:?} {links:?}"),
            Self::Break(links) => write!(f, "break {links:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_plan_that_ends_in_time_and_names_only_managers_there_are() {
        let total = Duration::from_secs(1000);
        for managers in 1..=5 {
            let plan = draw(7, managers, total);
            assert_eq!(plan, draw(7, managers, total));
            assert_ne!(plan, draw(8, managers, total));
            assert!(plan.len() > 300, "{}", plan.len());
            for episode in &plan {
                assert!(episode.at < episode.until && episode.until <= total);
                match &episode.fault {
                    Fault::Kill(who) | Fault::Stop(who) => {
                        assert!(!who.is_empty() && who.iter().all(|&one| one < managers));
                    }
                    Fault::Cut(links) | Fault::Slow(links, _) | Fault::Break(links) => {
                        let real =
                            |&(from, to): &Link| from != to && from < managers && to < managers;
                        assert!(!links.is_empty() && links.iter().all(real));
                    }
                }
            }
        }
    }

    #[test]
    fn every_kind_of_fault_is_drawn() {
        let plan = draw(1, 3, Duration::from_secs(5000));
        let has = |what: &dyn Fn(&Fault) -> bool| plan.iter().any(|episode| what(&episode.fault));
        for size in 1..=3 {
            assert!(has(
                &|fault| matches!(fault, Fault::Kill(who) if who.len() == size)
            ));
        }
        assert!(has(
            &|fault| matches!(fault, Fault::Stop(who) if who.len() == 1)
        ));
        for size in [1, 2, 4] {
            assert!(has(
                &|fault| matches!(fault, Fault::Cut(links) if links.len() == size)
            ));
        }
        assert!(has(&|fault| matches!(fault, Fault::Slow(..))));
        assert!(has(&|fault| matches!(fault, Fault::Break(_))));
    }
}
