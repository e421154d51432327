//! The verdict on a flow: who connects, which upstream is meant, which policies apply.

use std::{net::IpAddr, sync::Arc};

use super::{
    Denied, Permit, PolicySet, ResolvedHosts,
    decide::denied,
    object::{DownstreamTls, Host, Mode, Policy, TlsMode, Unmatched, Upstream, UpstreamSelector, UpstreamTls, WorkloadSelector},
};
use crate::flow::{Flow, OrigDst, Protocol, Workload, canonical_ip};

impl PolicySet {
    /// Judges a flow: which upstream it reaches, under which policies.
    ///
    /// Every policy whose workloads and upstreams match applies. With none, `unmatched` of the policies that match the workload
    /// decides (deny wins; deny when no policy matches the workload at all). Where several upstreams match, the most specific
    /// one says how it is reached (address, name, narrowest network; then one that names the port), and only its policies
    /// inject. Two policies that would inject different credentials deny the flow.
    ///
    /// # Errors
    /// The denial, with the rule and the sentence for the client.
    pub fn admit(&self, flow: &Flow, resolved: &ResolvedHosts) -> Result<Permit, Denied> {
        let workload = &*flow.origin.workload;
        let dst = flow.origin.orig_dst;
        let policies: Vec<&Arc<Policy>> = self.policies.iter().filter(|policy| policy.selects_workload(workload)).collect();
        if policies.is_empty() {
            return Err(denied("weir", "unmatched", "no policy names this workload".into()));
        }
        let Some(found) = self.find(&policies, dst, resolved)? else {
            return self.unmatched(&policies, flow);
        };
        let applies = |policy: &&&Arc<Policy>| found.matching.iter().any(|upstream| policy.selects_upstream(upstream));
        let applying: Arc<[Arc<Policy>]> = policies.iter().filter(applies).map(|policy| Arc::clone(policy)).collect();
        let permit = Permit::new(self.generation, Arc::clone(found.best), found.host.cloned(), applying, flow.clone());
        one_credential(&permit)?;
        Ok(permit)
    }

    /// The protocol that the upstream at this destination declares, if any: asked before the first byte is peeked, because in
    /// some protocols the server speaks first. `None`: detect, also for a destination that will be refused, so that the
    /// refusal is spoken in the client's own protocol. One that is allowed unmatched is not looked into.
    #[must_use]
    pub fn protocol_hint(&self, workload: &Workload, dst: OrigDst, resolved: &ResolvedHosts) -> Option<Protocol> {
        let policies: Vec<&Arc<Policy>> = self.policies.iter().filter(|policy| policy.selects_workload(workload)).collect();
        match self.find(&policies, dst, resolved) {
            Ok(Some(found)) => found.best.protocol,
            // Nobody's workload is refused, and a refusal is spoken in the client's protocol.
            Ok(None) if policies.is_empty() => None,
            Ok(None) if policies.iter().all(|policy| policy.spec.unmatched == Unmatched::Allow) => Some(Protocol::Tcp),
            Ok(None) | Err(_) => None,
        }
    }

    /// Every selector that designates workloads to the kernel; `exe` and `uid` alone only refine.
    pub fn selectors(&self) -> impl Iterator<Item = &WorkloadSelector> {
        self.policies.iter().flat_map(|policy| &policy.spec.workloads).filter(|selector| selector.designates())
    }

    /// The upstreams that match the destination, among those that these policies name.
    fn find<'s>(
        &'s self,
        policies: &[&Arc<Policy>],
        dst: OrigDst,
        resolved: &ResolvedHosts,
    ) -> Result<Option<Found<'s>>, Denied> {
        let mut found: Option<Found<'s>> = None;
        let mut rival: Option<&Arc<Upstream>> = None;
        for upstream in &self.upstreams {
            let Some((rank, host)) = upstream.matches(dst, resolved) else { continue };
            if !policies.iter().any(|policy| policy.selects_upstream(upstream)) {
                continue;
            }
            match &mut found {
                None => found = Some(Found { best: upstream, rank, host, matching: vec![upstream] }),
                Some(found) => {
                    found.matching.push(upstream);
                    if rank > found.rank {
                        (found.best, found.rank, found.host, rival) = (upstream, rank, host, None);
                    } else if rank == found.rank {
                        rival = Some(upstream);
                    }
                }
            }
        }
        match (&found, rival) {
            (Some(found), Some(rival)) => Err(denied(
                "weir",
                "ambiguous",
                format!(
                    "{} is both upstream {} and upstream {}, and neither is more specific",
                    dst.0, found.best.name, rival.name
                ),
            )),
            _ => Ok(found),
        }
    }

    fn unmatched(&self, policies: &[&Arc<Policy>], flow: &Flow) -> Result<Permit, Denied> {
        let dst = flow.origin.orig_dst.0;
        let refuses =
            |mode| policies.iter().find(move |policy| policy.spec.mode == mode && policy.spec.unmatched == Unmatched::Deny);
        let denial = |policy: &&Arc<Policy>| {
            denied(&policy.name, "unmatched", format!("policy {} names no upstream at {dst}", policy.name))
        };
        if let Some(policy) = refuses(Mode::Enforce) {
            return Err(denial(policy));
        }
        let upstream = Arc::new(Upstream {
            name: "unmatched".into(),
            labels: Vec::new(),
            hosts: vec![Host::Address(canonical_ip(dst.ip()))],
            ports: vec![dst.port()],
            protocol: Some(Protocol::Tcp),
            tls: UpstreamTls { mode: TlsMode::Off, ca: None, server_name: None },
            downstream_tls: DownstreamTls::Decline,
        });
        let permit = Permit::new(self.generation, upstream, None, Arc::new([]), flow.clone());
        Ok(permit.with_would_deny(refuses(Mode::Observe).map(denial)))
    }
}

struct Found<'s> {
    best: &'s Arc<Upstream>,
    rank: Rank,
    host: Option<&'s Arc<str>>,
    matching: Vec<&'s Arc<Upstream>>,
}

/// How closely an upstream describes a destination; the greatest wins.
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
struct Rank {
    host: HostRank,
    port_named: bool,
}

#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
enum HostRank {
    Cidr(u8),
    Name,
    Address,
}

fn one_credential(permit: &Permit) -> Result<(), Denied> {
    let mut injecting = permit.injecting();
    let Some((first, inject)) = injecting.next() else { return Ok(()) };
    match injecting.find(|(_, other)| *other != inject) {
        None => Ok(()),
        Some((second, _)) => Err(denied(
            "weir",
            "ambiguous",
            format!(
                "policies {} and {} would inject different credentials into {}",
                first.name,
                second.name,
                permit.upstream().name
            ),
        )),
    }
}

impl Upstream {
    /// How closely this upstream describes the destination, and the name by which it does.
    fn matches(&self, dst: OrigDst, resolved: &ResolvedHosts) -> Option<(Rank, Option<&Arc<str>>)> {
        let ip = canonical_ip(dst.0.ip());
        if !self.ports.is_empty() && !self.ports.contains(&dst.0.port()) {
            return None;
        }
        let ranked = self.hosts.iter().filter_map(|host| Some((host.rank(ip, resolved)?, host)));
        // The first of several names counts: `max_by_key` would take the last.
        let (rank, host) = ranked.reduce(|best, next| if next.0 > best.0 { next } else { best })?;
        let name = if let Host::Name(name) = host { Some(name) } else { None };
        Some((Rank { host: rank, port_named: !self.ports.is_empty() }, name))
    }
}

impl Host {
    fn rank(&self, ip: IpAddr, resolved: &ResolvedHosts) -> Option<HostRank> {
        match self {
            Self::Address(address) => (canonical_ip(*address) == ip).then_some(HostRank::Address),
            Self::Name(name) => {
                let addresses = resolved.get(name)?;
                addresses.iter().any(|address| canonical_ip(*address) == ip).then_some(HostRank::Name)
            }
            Self::Cidr(network) => network.contains(&ip).then(|| HostRank::Cidr(network.prefix_len())),
        }
    }
}

impl Policy {
    fn selects_workload(&self, workload: &Workload) -> bool {
        self.spec.workloads.iter().any(|selector| selector.matches(workload))
    }

    /// True if one of `upstreams:` names it.
    #[must_use]
    pub fn selects_upstream(&self, upstream: &Upstream) -> bool {
        self.spec.upstreams.iter().any(|selector| match selector {
            UpstreamSelector::Name(name) => *name == upstream.name,
            UpstreamSelector::Labels(labels) => labels.iter().all(|label| upstream.labels.contains(label)),
        })
    }
}

impl WorkloadSelector {
    /// Every field that is given matches. What is not known about the workload does not match. A selector without fields
    /// matches nothing.
    #[must_use]
    pub fn matches(&self, workload: &Workload) -> bool {
        let Self { name, cgroup, unit, exe, uid } = self;
        let given = name.is_some() || cgroup.is_some() || unit.is_some() || exe.is_some() || uid.is_some();
        given
            && name.as_ref().is_none_or(|name| workload.name.as_ref() == Some(name))
            && unit.as_ref().is_none_or(|unit| workload.unit.as_ref() == Some(unit))
            && exe.as_ref().is_none_or(|exe| workload.exe.as_ref() == Some(exe))
            && uid.is_none_or(|uid| workload.uid == uid)
            && cgroup.as_ref().is_none_or(|glob| ancestors(&workload.cgroup).any(|path| glob.matcher.is_match(path)))
    }

    /// True if the kernel can tell by it which workloads are meant.
    #[must_use]
    pub fn designates(&self) -> bool {
        self.name.is_some() || self.cgroup.is_some() || self.unit.is_some()
    }
}

/// A cgroup path and its ancestors, below the root, deepest first.
fn ancestors(cgroup: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(cgroup.trim_end_matches('/')), |path| path.rsplit_once('/').map(|(parent, _)| parent))
        .filter(|path| !path.is_empty())
}
