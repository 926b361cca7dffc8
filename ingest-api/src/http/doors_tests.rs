//! The places of connections, without a socket.

use prometheus_client::registry::Registry;
use spillway_runtime::tokens::TokenLimits;

use super::*;

fn doors(change: impl FnOnce(&mut HttpSettings)) -> Arc<Doors> {
    let mut settings = HttpSettings { connections_max: 3, ..HttpSettings::default() };
    change(&mut settings);
    Doors::new(&settings, &Metrics::register(&mut Registry::default()))
}

fn peer(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

/// Each an address of its own.
fn nth_peer(nth: u16) -> IpAddr {
    let [high, low] = nth.to_be_bytes();
    IpAddr::from([10, 0, high, low])
}

fn caller(token: &str, connections: Option<u64>) -> Caller {
    let limits = Some(TokenLimits { connections, ..TokenLimits::default() });
    Caller { environment: Arc::from("demo"), token: Arc::from(token), limits }
}

#[test]
fn the_stranger_that_is_here_longest_makes_room_and_a_known_sender_stays() {
    let doors = doors(|_| {});
    let seats: Vec<Seat> = (1..=3).map(|last| doors.enter(peer(last)).unwrap()).collect();
    seats[0].prove(&caller("a", None)).unwrap();
    let newer = doors.enter(peer(4)).unwrap();
    let told: Vec<bool> = seats.iter().map(|seat| seat.leave.is_cancelled()).collect();
    assert_eq!(told, [false, true, false], "the oldest that showed no token");
    seats[2].prove(&caller("a", None)).unwrap();
    newer.prove(&caller("b", None)).unwrap();
    assert_eq!(doors.enter(peer(5)).err(), Some(Refused::Full), "no stranger is left");
    drop(seats);
    assert!(doors.enter(peer(5)).is_ok());
    assert_eq!(doors.metrics.connections_shed.get(), 1);
}

#[test]
fn those_who_were_told_to_leave_and_stay_are_few() {
    let doors = doors(|_| {});
    let many: Vec<_> = (0..LEAVING_MAX * 2).map(|_| doors.enter(peer(1))).collect();
    assert_eq!(many.iter().filter(|seat| seat.is_ok()).count(), 3 + LEAVING_MAX);
}

#[test]
fn an_address_gets_its_part_and_a_load_balancer_is_none() {
    let doors = doors(|settings| {
        settings.connections_max = 100;
        settings.connections_per_address_max = 2;
        settings.proxies = vec![peer(9)];
    });
    let both: Vec<Seat> = (0..2).map(|_| doors.enter(peer(1)).unwrap()).collect();
    assert_eq!(doors.enter(peer(1)).err(), Some(Refused::Address));
    assert!(doors.enter(peer(2)).is_ok(), "another address");
    assert!((0..5).map(|_| doors.enter(peer(9))).all(|seat| seat.is_ok()));
    drop(both);
    assert!(doors.enter(peer(1)).is_ok());
    let customer = |last: u16| IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, last]);
    let _both: Vec<Seat> = (0..2).map(|last| doors.enter(customer(last)).unwrap()).collect();
    assert_eq!(doors.enter(customer(3)).err(), Some(Refused::Address), "one /64 is one address");
}

#[test]
fn handshakes_are_bounded_over_all_and_per_address() {
    let doors = doors(|settings| {
        settings.connections_max = 10_000;
        settings.handshakes_max = 8;
    });
    let seats: Vec<Seat> = (0..1_500).map(|nth| doors.enter(nth_peer(nth)).unwrap()).collect();
    let under_way: Vec<_> = seats.iter().map(Seat::handshake).collect();
    assert_eq!(under_way.iter().filter(|one| one.is_ok()).count(), 8 + LEAVING_MAX);
    drop(under_way);
    assert!(doors.locked().shaking.is_empty());
    let own: Vec<Seat> = (0..5).map(|_| doors.enter(peer(0)).unwrap()).collect();
    let own: Vec<_> = own.iter().map(Seat::handshake).collect();
    assert_eq!(own.iter().filter(|one| one.is_ok()).count(), 2, "a quarter of them");
}

#[test]
fn handshakes_that_do_not_come_to_an_end_make_room_for_those_that_may() {
    let doors = doors(|settings| {
        settings.connections_max = 100;
        settings.handshakes_max = 8;
    });
    let half: Vec<Seat> = (0..8).map(|nth| doors.enter(peer(nth % 4)).unwrap()).collect();
    let mut under_way: Vec<_> = half.iter().map(|seat| seat.handshake().unwrap()).collect();
    drop(under_way.remove(0));
    let late = doors.enter(peer(9)).unwrap();
    let _place = late.handshake().unwrap();
    assert!(half.iter().all(|seat| !seat.leave.is_cancelled()), "there was a place");
    let later = doors.enter(peer(9)).unwrap();
    let _place = later.handshake().unwrap();
    let told: Vec<usize> = (0..8).filter(|nth| half[*nth].leave.is_cancelled()).collect();
    assert_eq!(told, [1], "the one that has lasted longest");
    assert!(!late.leave.is_cancelled());
}

#[test]
fn a_token_has_so_many_connections_and_no_more() {
    let doors = doors(|settings| settings.connections_max = 100);
    let limited = caller("a", Some(2));
    let mut seats: Vec<Seat> = (0..3).map(|_| doors.enter(peer(1)).unwrap()).collect();
    assert_eq!(seats[0].prove(&limited), Ok(()));
    assert_eq!(seats[1].prove(&limited), Ok(()));
    assert_eq!(seats[0].prove(&limited), Ok(()), "its second request");
    assert_eq!(seats[2].prove(&limited), Err(OverQuota { what: "connections", max: 2 }));
    assert_eq!(seats[2].prove(&caller("b", Some(2))), Ok(()));
    seats.remove(0);
    assert_eq!(seats[1].prove(&limited), Ok(()), "another token on the same connection");
    drop(seats);
    assert!(doors.locked().by_token.is_empty() && doors.locked().by_source.is_empty());
}
