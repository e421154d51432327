//! Keeps the addresses of the upstreams' names: resolved by the agent, kept fresh, kept a while after they vanish.
//!
//! A workload may have resolved a name a moment before its record changed, and pools hold addresses for minutes: an address
//! stays valid for [`KEPT_AFTER_LAST_SEEN`] after the resolver named it last. A destination that is not known triggers one early
//! look-up, so that a workload that sees a change before we do is not refused.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tokio::{
    net::lookup_host,
    sync::Mutex,
    task::JoinSet,
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use crate::{
    flow::canonical_ip,
    policy::{PolicySet, ResolvedHosts},
};

/// Shared by the refresh task and by sessions that miss.
#[derive(Clone)]
pub struct Resolver {
    policies: Arc<ArcSwap<PolicySet>>,
    resolved: Arc<ArcSwap<ResolvedHosts>>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    seen: HashMap<Arc<str>, HashMap<IpAddr, Instant>>,
    last: Option<Instant>,
}

impl Resolver {
    #[must_use]
    pub fn new(policies: Arc<ArcSwap<PolicySet>>, resolved: Arc<ArcSwap<ResolvedHosts>>) -> Self {
        Self { policies, resolved, state: Arc::default() }
    }

    /// Refreshes for ever; run as a task.
    pub async fn keep_fresh(self) {
        loop {
            sleep(REFRESH_INTERVAL).await;
            self.refresh().await;
        }
    }

    /// Looks every name up now. Waits for a refresh that is under way instead of starting another.
    pub async fn refresh(&self) {
        let mut state = self.state.lock().await;
        self.look_up(&mut state).await;
    }

    /// A destination was unknown: looks the names up unless that was done a moment ago. True when something was looked up.
    pub async fn refresh_on_miss(&self) -> bool {
        if self.policies.load().host_names().next().is_none() {
            return false;
        }
        let mut state = self.state.lock().await;
        if state.last.is_some_and(|last| last.elapsed() < MISS_INTERVAL) {
            // Somebody else's look-up may have ended while we waited for the lock: judging again costs nothing.
            return true;
        }
        self.look_up(&mut state).await;
        true
    }

    async fn look_up(&self, state: &mut State) {
        let names: BTreeSet<Arc<str>> = self.policies.load().host_names().cloned().collect();
        state.seen.retain(|name, _| names.contains(name));
        let mut lookups = JoinSet::new();
        for name in names {
            lookups.spawn(async move {
                let answer = timeout(LOOKUP_TIMEOUT, lookup_host((name.to_string(), 0))).await;
                let addresses = match answer {
                    Ok(Ok(addresses)) => Ok(addresses.map(|address| canonical_ip(address.ip())).collect::<Vec<_>>()),
                    Ok(Err(error)) => Err(error.to_string()),
                    Err(_) => Err(format!("no answer within {} s", LOOKUP_TIMEOUT.as_secs())),
                };
                (name, addresses)
            });
        }
        while let Some(Ok((name, answer))) = lookups.join_next().await {
            match answer {
                Ok(addresses) => state.saw(name, addresses),
                // What was seen before stays valid for its time: a resolver that is down must not cut workloads off at once.
                Err(error) => warn!(host = %name, error, "cannot resolve"),
            }
        }
        state.last = Some(Instant::now());
        let fresh = state.fresh();
        if **self.resolved.load() != fresh {
            debug!(?fresh, "host addresses changed");
            self.resolved.store(Arc::new(fresh));
        }
    }
}

impl State {
    fn saw(&mut self, name: Arc<str>, addresses: Vec<IpAddr>) {
        let now = Instant::now();
        let seen = self.seen.entry(name).or_default();
        for address in addresses.into_iter().take(ADDRESSES_MAX) {
            seen.insert(address, now);
        }
        if seen.len() > ADDRESSES_MAX {
            let mut ages: Vec<(Instant, IpAddr)> = seen.iter().map(|(address, at)| (*at, *address)).collect();
            ages.sort();
            let surplus = seen.len() - ADDRESSES_MAX;
            ages.iter().take(surplus).for_each(|(_, address)| {
                seen.remove(address);
            });
        }
    }

    /// What is valid now, in a stable order.
    fn fresh(&mut self) -> ResolvedHosts {
        let entries = self.seen.iter_mut().map(|(name, seen)| {
            seen.retain(|_, at| at.elapsed() < KEPT_AFTER_LAST_SEEN);
            let mut addresses: Vec<IpAddr> = seen.keys().copied().collect();
            addresses.sort();
            (Arc::clone(name), addresses)
        });
        entries.collect()
    }
}

const REFRESH_INTERVAL: Duration = Duration::from_secs(10);
/// Early look-ups for unknown destinations: a workload that scans addresses must not make us flood the resolver.
const MISS_INTERVAL: Duration = Duration::from_secs(1);
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
const KEPT_AFTER_LAST_SEEN: Duration = Duration::from_secs(600);
/// Addresses kept per name; the oldest go first.
const ADDRESSES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([127, 0, 0, last])
    }

    #[test]
    fn keeps_an_address_that_the_resolver_no_longer_names() {
        let mut state = State::default();
        state.saw("db".into(), vec![address(5)]);
        state.saw("db".into(), vec![address(6)]);
        assert_eq!(state.fresh().get("db").unwrap(), &[address(5), address(6)]);
    }

    #[test]
    fn forgets_the_oldest_addresses_beyond_the_limit() {
        let mut state = State::default();
        for block in 0..=2u8 {
            let many = (0..200).map(|last| IpAddr::from([10, 0, block, last])).collect();
            state.saw("db".into(), many);
        }
        let fresh = state.fresh();
        assert_eq!(fresh["db"].len(), ADDRESSES_MAX);
        assert!((0..200).all(|last| fresh["db"].contains(&IpAddr::from([10, 0, 2, last]))));
    }
}
