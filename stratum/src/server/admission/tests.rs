//! Who is admitted, who goes for others, and what is left of those that went.

use super::*;
use std::net::Ipv4Addr;

/// Limits of a small server, whose networks may come as fast as they like.
fn limits(connections_max: usize) -> Limits {
    Limits { connections_max, connections_per_second_max: 1e6, ..Limits::default() }
}

fn admission(limits: Limits) -> Arc<Admission> {
    Admission::new(limits, Vec::new(), CancellationToken::new())
}

fn address(network: u8, host: u8) -> IpAddr {
    [10, 0, network, host].into()
}

/// Connects a miner.
fn miner(admission: &Arc<Admission>, address: IpAddr) -> Place {
    let place = admission.enter(address).unwrap();
    place.becomes(Kind::Stratum);
    place
}

fn evicted<'a>(places: impl IntoIterator<Item = &'a Place>) -> Vec<bool> {
    places.into_iter().map(Place::is_evicted).collect()
}

#[test]
fn on_a_full_server_the_newcomer_takes_the_place_of_the_largest_holders_oldest() {
    let admission = admission(limits(4));
    let honest = miner(&admission, address(1, 1));
    let held: Vec<Place> = (1..=3).map(|host| admission.enter(address(2, host)).unwrap()).collect();
    let newcomer = admission.enter(address(3, 1)).unwrap();
    assert_eq!(evicted(&held), [true, false, false]);
    assert_eq!(evicted([&honest, &newcomer]), [false, false]);
}

#[test]
fn who_has_earned_nothing_for_long_goes_before_a_larger_network() {
    let admission = admission(Limits { grace: Duration::ZERO, ..limits(3) });
    let idle = miner(&admission, address(1, 1));
    std::thread::sleep(Duration::from_millis(2));
    let held: Vec<Place> = (1..=2).map(|host| admission.enter(address(2, host)).unwrap()).collect();
    let _newcomer = admission.enter(address(3, 1)).unwrap();
    assert!(idle.is_evicted());
    assert_eq!(evicted(&held), [false, false]);
}

#[test]
fn a_credited_miner_is_closed_for_no_one() {
    let admission = admission(limits(2));
    let miners: Vec<Place> = (1..=2).map(|host| miner(&admission, address(1, host))).collect();
    miners.iter().for_each(Place::credit);
    assert_eq!(admission.enter(address(2, 1)).unwrap_err(), Full::Server(2));
    assert_eq!(evicted(&miners), [false, false]);
    drop(miners);
    assert!(admission.enter(address(2, 1)).is_ok());
}

#[test]
fn only_so_many_are_being_closed_at_a_time() {
    let admission = admission(limits(100));
    let mut held: Vec<Place> = (0..100).map(|_| admission.enter(address(1, 1)).unwrap()).collect();
    // None of those evicted ends.
    held.extend((0..CLOSING_MAX).map(|_| admission.enter(address(2, 1)).unwrap()));
    assert_eq!(held.iter().filter(|place| place.is_evicted()).count(), CLOSING_MAX);
    assert_eq!(admission.enter(address(3, 1)).unwrap_err(), Full::Server(100 + CLOSING_MAX));
    let gone = held.iter().position(Place::is_evicted).unwrap();
    drop(held.swap_remove(gone));
    assert!(admission.enter(address(3, 1)).is_ok());
}

#[test]
fn silent_connections_of_one_network_lock_no_one_out() {
    let admission = admission(limits(50_000));
    let flood: Vec<Place> = (0..SILENT_MAX).map(|_| admission.enter(address(1, 1)).unwrap()).collect();
    let honest = admission.enter(address(2, 1)).unwrap();
    assert!(flood[0].is_evicted() && !honest.is_evicted());
    honest.becomes(Kind::Stratum);
    let next = admission.enter(address(1, 2)).unwrap();
    assert_eq!(flood.iter().filter(|place| place.is_evicted()).count(), 1, "there is a place free");
    drop(next);
}

#[test]
fn a_network_may_hold_few_http_connections_and_all_together_not_many() {
    let admission = admission(Limits { http_max: 8, ..limits(100) });
    let read = |network, host| {
        let place = admission.enter(address(network, host)).unwrap();
        place.becomes(Kind::Http);
        place
    };
    let greedy: Vec<Place> = (0..4).map(|host| read(1, host)).collect();
    let held: Vec<Place> = (2..6).map(|network| read(network, 1)).collect();
    assert_eq!(evicted(&greedy), [true, true, false, false], "a quarter of the places, then the largest");
    assert_eq!(evicted(&held), [false; 4]);
}

#[test]
fn a_farm_behind_one_address_may_reconnect_at_once_but_not_idle_for_long() {
    // Long enough for this machine to connect them all.
    let grace = Duration::from_secs(1);
    let admission = admission(Limits { uncredited_per_network_max: 10, grace, ..limits(50_000) });
    let farm: Vec<Place> = (0..500).map(|_| miner(&admission, address(1, 1))).collect();
    assert!(farm.iter().all(|place| !place.is_evicted()), "within the time of grace");
    farm[..400].iter().for_each(Place::credit);
    std::thread::sleep(grace + grace / 10);
    let elsewhere = miner(&admission, address(2, 1));
    assert!(farm.iter().all(|place| !place.is_evicted()), "nothing of this network has changed");
    let next = miner(&admission, address(1, 2));
    assert_eq!(farm.iter().filter(|place| place.is_evicted()).count(), 1);
    assert!(farm[400].is_evicted(), "the oldest that has earned nothing");
    assert_eq!(evicted([&elsewhere, &next]), [false, false]);
}

#[test]
fn this_machine_and_trusted_networks_are_limited_in_total_alone() {
    let trusted = vec!["192.0.2.0/24".parse().unwrap()];
    let limits = Limits { connections_per_second_max: 1.0, connections_per_address_max: 1, ..limits(6) };
    let admission = Admission::new(limits, trusted, CancellationToken::new());
    let exempt = [IpAddr::from(Ipv4Addr::LOCALHOST), [192, 0, 2, 7].into()];
    let places: Vec<Place> =
        exempt.into_iter().cycle().take(6).map(|address| admission.enter(address).unwrap()).collect();
    assert_eq!(admission.enter(address(1, 1)).unwrap_err(), Full::Server(6));
    assert_eq!(evicted(&places), [false; 6]);
}

#[test]
fn this_machine_counts_too_when_the_operator_says_so() {
    let limits = Limits { connections_per_second_max: 1.0, exempts_loopback: false, ..limits(6) };
    let admission = admission(limits);
    let enter = || admission.enter(Ipv4Addr::LOCALHOST.into());
    let _first = enter().unwrap();
    assert_eq!(enter().unwrap_err(), Full::Network);
}

#[test]
fn one_address_may_be_limited_and_a_64_is_one_address() {
    let admission = admission(Limits { connections_per_address_max: 1, ..limits(10) });
    let first = admission.enter("2001:db8::1".parse().unwrap()).unwrap();
    assert_eq!(admission.enter("2001:db8::2".parse().unwrap()).unwrap_err(), Full::Address(1));
    assert!(admission.enter("2001:db8:0:1::1".parse().unwrap()).is_ok());
    drop(first);
    assert!(admission.enter("2001:db8::2".parse().unwrap()).is_ok());
}

#[test]
fn behind_a_proxy_the_client_counts_and_not_the_proxy() {
    let admission = admission(Limits { connections_per_second_max: 1.0, ..limits(10) });
    let proxy = address(9, 9);
    let of = |client| admission.enter_proxy(proxy).unwrap().is_of(client);
    let first = of(address(1, 1)).unwrap();
    assert_eq!(of(address(1, 2)).unwrap_err(), Full::Network);
    assert!(of(address(2, 1)).is_ok());
    assert_eq!(first.address(), address(1, 1));
}

#[test]
fn what_ended_leaves_nothing_behind() {
    let admission = admission(limits(2));
    let places: Vec<Place> = (0..20).filter_map(|host| admission.enter(address(host, 1)).ok()).collect();
    places[0].becomes(Kind::Http);
    places[1].credit();
    drop(places);
    let state = admission.state.lock();
    assert_eq!((state.open, state.closing, state.by_host.len()), (0, 0, 0));
    assert!(state.crowds.iter().all(|crowd| crowd.len() == 0));
}

#[test]
fn a_stop_ends_all_and_evicts_none() {
    let stop = CancellationToken::new();
    let admission = Admission::new(limits(2), Vec::new(), stop.clone());
    let place = admission.enter(address(1, 1)).unwrap();
    stop.cancel();
    assert!(place.ended().is_cancelled() && !place.is_evicted());
}
