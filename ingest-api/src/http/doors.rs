//! Who may hold a connection: bounded over all, per address, per token, and while TLS is not made.
//!
//! A connection whose sender has not shown a token yet is a stranger's. When there is no place
//! left, the stranger that has been here longest makes room for whoever comes: those who hold
//! places and say nothing are many, and a sender shows its token with its first request. The same
//! holds among handshakes: a sender makes TLS in two round trips, and who does not make room. What
//! an address holds too much is closed before a byte of TLS is worked on.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::Extensions;
use tokio_util::sync::CancellationToken;

use crate::authenticate::Caller;
use crate::metrics::Metrics;
use crate::quota::OverQuota;
use crate::settings::HttpSettings;

/// What one address may hold of the places for handshakes, as a part: a quarter.
const HANDSHAKES_PART: u32 = 4;
/// Connections that were told to leave and have not left yet, beyond `connections_max`, and those
/// beyond `handshakes_max`. They leave with their next step; more of them means that nobody is
/// stepping, and then nobody comes in.
const LEAVING_MAX: usize = 256;
/// The part of an IPv6 address that one customer has: /64.
const IPV6_SOURCE: u128 = !0 << 64;

/// Why a connection is closed as it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// `connections_max`, and everybody there has shown a token.
    Full,
    /// `connections_per_address_max`.
    Address,
    /// The address' part of `handshakes_max`, or nobody left to make room among all.
    Handshakes,
}

impl Refused {
    /// The label in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Address => "address",
            Self::Handshakes => "handshakes",
        }
    }
}

/// All places.
#[derive(Debug)]
pub struct Doors {
    settings: HttpSettings,
    metrics: Metrics,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    open: usize,
    next: u64,
    handshakes: u32,
    by_source: HashMap<IpAddr, Held>,
    by_token: HashMap<Arc<str>, u32>,
    /// By the order in which they came.
    strangers: BTreeMap<u64, CancellationToken>,
    /// Those of them who make TLS, in the order in which they began, and were not told to leave.
    shaking: BTreeMap<u64, CancellationToken>,
}

/// What one address has.
#[derive(Debug, Default)]
struct Held {
    open: u32,
    handshakes: u32,
}

/// One connection's place; dropping it frees the place.
#[derive(Debug)]
pub struct Seat {
    doors: Arc<Doors>,
    number: u64,
    source: IpAddr,
    leave: CancellationToken,
    token: Mutex<Option<Arc<str>>>,
}

/// A place among the handshakes.
#[derive(Debug)]
pub struct Handshake<'a> {
    seat: &'a Seat,
    number: u64,
}

impl Doors {
    #[must_use]
    pub fn new(settings: &HttpSettings, metrics: &Metrics) -> Arc<Self> {
        let (settings, metrics) = (settings.clone(), metrics.clone());
        Arc::new(Self { settings, metrics, state: Mutex::default() })
    }

    /// A place for a connection from `peer`.
    ///
    /// # Errors
    /// [`Refused`]: the connection is to be closed, so that its sender tries another server.
    pub fn enter(self: &Arc<Self>, peer: IpAddr) -> Result<Seat, Refused> {
        let source = source(peer);
        let mut state = self.locked();
        let places = self.settings.connections_max as usize;
        let held = state.by_source.get(&source).map_or(0, |held| held.open);
        let is_proxy = self.settings.proxies.contains(&peer.to_canonical());
        if !is_proxy && held >= self.settings.connections_per_address_max {
            return Err(self.refused(Refused::Address));
        }
        if state.open >= places {
            let room = state.open < places + LEAVING_MAX;
            let longest = room.then(|| state.strangers.pop_first()).flatten();
            let Some((_, leave)) = longest else { return Err(self.refused(Refused::Full)) };
            leave.cancel();
            self.metrics.connections_shed.inc();
        }
        let number = state.next;
        state.next += 1;
        state.open += 1;
        state.by_source.entry(source).or_default().open += 1;
        let leave = CancellationToken::new();
        state.strangers.insert(number, leave.clone());
        let doors = Arc::clone(self);
        Ok(Seat { doors, number, source, leave, token: Mutex::default() })
    }

    fn refused(&self, why: Refused) -> Refused {
        self.metrics.connection_refused(why.as_str());
        why
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// The place is wanted for somebody else.
    pub async fn wanted(&self) {
        self.leave.cancelled().await;
    }

    /// Room to make TLS. A quarter of it is the most that one address gets; when others have the
    /// rest, the handshake that has lasted longest makes room.
    ///
    /// # Errors
    /// [`Refused::Handshakes`].
    pub fn handshake(&self) -> Result<Handshake<'_>, Refused> {
        let max = self.doors.settings.handshakes_max;
        let is_proxy = self.doors.settings.proxies.contains(&self.source);
        let own_max = if is_proxy { max } else { (max / HANDSHAKES_PART).max(1) };
        let mut state = self.doors.locked();
        if state.by_source.entry(self.source).or_default().handshakes >= own_max {
            return Err(self.doors.refused(Refused::Handshakes));
        }
        if state.handshakes >= max {
            let room = (state.handshakes as usize) < max as usize + LEAVING_MAX;
            let longest = room.then(|| state.shaking.pop_first()).flatten();
            let Some((_, leave)) = longest else {
                return Err(self.doors.refused(Refused::Handshakes));
            };
            leave.cancel();
            self.doors.metrics.connections_shed.inc();
        }
        let number = state.next;
        state.next += 1;
        state.handshakes += 1;
        state.shaking.insert(number, self.leave.clone());
        state.by_source.entry(self.source).or_default().handshakes += 1;
        Ok(Handshake { seat: self, number })
    }

    /// A token was shown here and is good: this is no stranger's connection any more, and counts
    /// among its token's. A proxy's connection may carry one token after the other.
    ///
    /// # Errors
    /// [`OverQuota`]: the token has its limit of connections already.
    pub fn prove(&self, caller: &Caller) -> Result<(), OverQuota> {
        let mut own = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        if own.as_ref() == Some(&caller.token) {
            return Ok(());
        }
        let mut state = self.doors.locked();
        let held = state.by_token.get(&caller.token).copied().unwrap_or(0);
        let max = caller.limits.and_then(|limits| limits.connections);
        if let Some(max) = max.filter(|max| u64::from(held) >= *max) {
            return Err(OverQuota { what: "connections", max });
        }
        state.strangers.remove(&self.number);
        *state.by_token.entry(Arc::clone(&caller.token)).or_default() += 1;
        state.forget_token(own.replace(Arc::clone(&caller.token)));
        Ok(())
    }
}

/// [`Seat::prove`], of the connection that a request came on. In a simulation there is none.
///
/// # Errors
/// [`OverQuota`].
pub fn prove(of: &Extensions, caller: &Caller) -> Result<(), OverQuota> {
    of.get::<Arc<Seat>>().map_or(Ok(()), |seat| seat.prove(caller))
}

impl State {
    fn forget_token(&mut self, token: Option<Arc<str>>) {
        let Some(token) = token else { return };
        if let Some(held) = self.by_token.get_mut(&token) {
            *held = held.saturating_sub(1);
            if *held == 0 {
                self.by_token.remove(&token);
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let token = self.token.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let mut state = self.doors.locked();
        state.open = state.open.saturating_sub(1);
        state.strangers.remove(&self.number);
        state.forget_token(token);
        if let Some(held) = state.by_source.get_mut(&self.source) {
            held.open = held.open.saturating_sub(1);
            if held.open == 0 {
                state.by_source.remove(&self.source);
            }
        }
    }
}

impl Drop for Handshake<'_> {
    fn drop(&mut self) {
        let mut state = self.seat.doors.locked();
        state.handshakes = state.handshakes.saturating_sub(1);
        state.shaking.remove(&self.number);
        if let Some(held) = state.by_source.get_mut(&self.seat.source) {
            held.handshakes = held.handshakes.saturating_sub(1);
        }
    }
}

/// What counts as one address: an IPv4 address, or a customer's part of an IPv6 one.
fn source(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & IPV6_SOURCE).into(),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
#[path = "doors_tests.rs"]
mod tests;
