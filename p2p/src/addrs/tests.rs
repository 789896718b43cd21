//! The book under honest and hostile announcements, and its file.

use super::*;
use proptest::prelude::*;

const NOW: f64 = 1.7e9;
const NOW_WHOLE: u64 = 1_700_000_000;

fn book() -> AddressBook {
    AddressBook::new(fastrand::Rng::with_seed(7))
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn good_peers_are_ordered_by_the_formula_of_the_reference() {
    let entry = |first_seen: f64, last_seen: f64| Entry {
        services: 0,
        first_seen,
        last_seen,
        source: None,
        answered: false,
        failures: 0,
        retry_at: 0.0,
    };
    // -ln(86400) / ln(7200) x 0.5, computed by hand.
    let rank = entry(NOW - 93_600.0, NOW - 7200.0).rank(NOW, 0.5);
    assert!((rank - -0.639_88).abs() < 1e-4, "{rank}");
    // Both ages count as at least an hour.
    assert_eq!(entry(NOW, NOW).rank(NOW, 1.0), -1.0);
    // Long known and fresh comes before long known and stale.
    assert!(entry(0.0, NOW).rank(NOW, 1.0) < entry(0.0, NOW - 1e6).rank(NOW, 1.0));
}

#[test]
fn a_timestamp_in_the_future_counts_as_now_and_news_only_makes_fresher() {
    let mut book = book();
    assert!(book.learn(at("9.9.9.9:9333"), 1, u64::MAX, Some(ip("8.8.8.8")), NOW));
    assert!(book.learn(at("9.9.9.9:9333"), 5, 3, Some(ip("8.8.8.8")), NOW + 9.0));
    let known = book.good_peers(5, ip("8.8.8.8"), NOW + 9.0);
    assert_eq!(known, [KnownAddress { address: at("9.9.9.9:9333"), services: 5, last_seen: NOW_WHOLE }]);
}

#[test]
fn nobody_makes_up_an_old_address() {
    let mut book = book();
    book.learn(at("9.9.9.9:9333"), 0, 0, Some(ip("8.8.8.8")), NOW);
    book.learn(at("9.9.9.9:9333"), 0, NOW_WHOLE, Some(ip("8.8.8.8")), NOW);
    assert_eq!(book.entries[&at("9.9.9.9:9333")].rank(NOW, 1.0), -1.0);
}

#[test]
fn addresses_where_nobody_can_be_are_not_taken() {
    let mut book = book();
    let mut learn = |address: &str, source: Option<&str>| book.learn(at(address), 0, 1, source.map(ip), NOW);
    for nowhere in ["0.0.0.0:9333", "224.1.1.1:9333", "255.255.255.255:1", "9.9.9.9:0", "[::]:1", "[ff02::1]:1"] {
        assert!(!learn(nowhere, None), "{nowhere}");
    }
    // A remote peer cannot send us to our own network, nor a neighbour to our own machine.
    assert!(!learn("192.168.0.9:9333", Some("8.8.8.8")) && !learn("[fd00::1]:9333", Some("8.8.8.8")));
    assert!(!learn("127.0.0.1:9333", Some("192.168.0.9")));
    assert!(learn("192.168.0.9:9333", Some("192.168.0.8")) && learn("127.0.0.1:9333", Some("127.0.0.1")));
    assert!(learn("[2001:db8::1]:9333", Some("8.8.8.8")) && learn("[::ffff:7.7.7.7]:9333", Some("8.8.8.8")));
    assert!(book.contains(at("7.7.7.7:9333")), "IPv4 in IPv6 form is IPv4");
    assert_eq!(book.good_peers(9, ip("8.8.8.8"), NOW).len(), 2, "and our network stays private");
}

#[test]
fn one_source_fills_an_eighth_of_the_book_and_one_group_little() {
    let mut book = book();
    let numbered = |number: u32| SocketAddr::new(Ipv4Addr::from(0x0b00_0000 + number * 0x1_0003).into(), 9333);
    let told = |book: &mut AddressBook, source: &str, numbers: std::ops::Range<u32>| {
        numbers.filter(|number| book.learn(numbered(*number), 0, 1, Some(ip(source)), NOW)).count()
    };
    assert_eq!(told(&mut book, "8.8.8.8", 0..3000), ADDRESSES_PER_SOURCE_MAX);
    assert_eq!(told(&mut book, "8.8.1.1", 3000..4000), 0, "the same group");
    assert_eq!(told(&mut book, "8.9.1.1", 3000..4000), 1000);
    let of_one_group = (0..300u32).filter(|number| {
        book.learn(SocketAddr::new(Ipv4Addr::from(0x0900_0000 + number).into(), 1), 0, 1, Some(ip("8.9.1.1")), NOW)
    });
    assert_eq!(of_one_group.count(), ADDRESSES_PER_GROUP_MAX);
}

#[test]
fn a_full_book_takes_nothing_new_until_an_address_fails() {
    let mut book = book();
    let numbered = |number: u32| SocketAddr::new(Ipv4Addr::from(0x0b00_0000 + number * 0x3001).into(), 9333);
    let mut taken = 0;
    for number in 0..10_050u32 {
        let source = Ipv4Addr::from(0x0100_0000 + number % 97 * 0x1_0000);
        taken += usize::from(book.learn(numbered(number), 0, 1, Some(source.into()), NOW));
    }
    assert_eq!((taken, book.len()), (ADDRESSES_MAX, ADDRESSES_MAX));
    book.failed(numbered(5), NOW);
    assert!(book.learn(at("9.9.9.9:9333"), 0, 1, Some(ip("8.8.8.8")), NOW));
    assert!(!book.contains(numbered(5)) && book.len() == ADDRESSES_MAX);
}

#[test]
fn junk_cannot_starve_dialing() {
    let mut book = book();
    for number in 0..500u32 {
        let junk = SocketAddr::new(Ipv4Addr::from(0x0b00_0000 + number * 0x1_0003).into(), 9333);
        assert!(book.learn(junk, 0, NOW_WHOLE, Some(ip("8.8.8.8")), NOW));
    }
    let good = at("9.9.9.9:9333");
    book.answered(good, 0, NOW - 86_400.0);
    let mut tries = 0;
    while book.pick(NOW, |_| true) != Some(good) {
        tries += 1;
        assert!(tries < 20, "half of the tries go to those that answered");
    }
    // And each junk address is tried once a minute, then ever less often.
    let mut book = AddressBook::new(fastrand::Rng::with_seed(8));
    book.learn(at("11.1.1.1:1"), 0, NOW_WHOLE, None, NOW);
    for _ in 0..TRIES_MAX - 1 {
        let mut now = NOW;
        while book.pick(now, |_| true).is_none() {
            now += 60.0;
        }
        book.failed(at("11.1.1.1:1"), now);
    }
    assert!(book.pick(NOW + 7.0 * 3600.0, |_| true).is_none() && book.good_peers(9, ip("8.8.8.8"), NOW).is_empty());
    book.failed(at("11.1.1.1:1"), NOW);
    assert!(book.is_empty(), "an address that never answered is dropped");
}

#[test]
fn our_own_address_is_forgotten_and_not_taken_again() {
    let mut book = book();
    book.learn(at("9.9.9.9:9333"), 0, 1, None, NOW);
    book.note_own(at("[::ffff:9.9.9.9]:9333"));
    assert!(book.is_empty() && !book.learn(at("9.9.9.9:9333"), 0, 1, None, NOW));
    book.answered(at("9.9.9.9:9333"), 0, NOW);
    assert!(book.is_empty() && book.learn(at("9.9.9.9:9334"), 0, 1, None, NOW));
}

#[test]
fn the_file_is_the_references_and_damage_costs_single_lines() {
    // As written by the reference, after a long run on two networks.
    let json = r#"[[["1.2.3.4", 9333], [0, 1399000000.25, 1699999000]], [["5.6.7.8", 9333], [1, 1.5, 9e99]],
        [["nobody.example", 9333], [0, 1, 2]], [["1.2.3.4"], [0, 1, 2]], "x", [["0.0.0.0", 9333], [0, 1, 2]],
        [["2001:db8::7", 9338], [0, 1, 2]], [["1.2.3.5", 70000], [0, 1, 2]]]"#;
    let mut book = book();
    let problems = book.load_json(json, NOW);
    assert_eq!((book.len(), problems.len()), (3, 5), "{problems:?}");
    assert_eq!(
        book.to_json(),
        "[[[\"1.2.3.4\",9333],[0,1399000000.25,1699999000.0]],[[\"5.6.7.8\",9333],[1,1.5,1700000000.0]],\
         [[\"2001:db8::7\",9338],[0,1.0,2.0]]]"
    );
    let mut again = AddressBook::new(fastrand::Rng::with_seed(1));
    assert!(again.load_json(&book.to_json(), NOW).is_empty());
    assert_eq!(again.to_json(), book.to_json());
    assert_eq!(again.load_json("{}", NOW).len(), 1);
}

proptest! {
    #[test]
    fn nothing_in_an_address_file_panics(json in ".{0,200}", times in any::<[f64; 3]>()) {
        let mut book = book();
        book.load_json(&json, NOW);
        let [one, two, now] = times;
        book.load_json(&format!(r#"[[["1.2.3.4", 1], [0, {one:e}, {two:e}]]]"#), now);
        book.pick(now, |_| true);
        book.to_json();
    }

    #[test]
    fn counts_of_groups_and_sources_follow_the_entries(
        steps in proptest::collection::vec((0u8..4, any::<[u8; 2]>(), any::<u8>()), 0..200)
    ) {
        let mut book = book();
        for (step, [one, two], source) in steps {
            let address = SocketAddr::new(Ipv4Addr::new(11, one % 4, 0, two % 8).into(), 1);
            match step {
                0 | 1 => drop(book.learn(address, 0, 1, Some(Ipv4Addr::new(8, source % 4, 0, 1).into()), NOW)),
                2 => book.failed(address, NOW),
                _ => book.remove(address),
            }
        }
        let mut groups = HashMap::new();
        for address in book.entries.keys() {
            *groups.entry(Group::of(address.ip())).or_insert(0) += 1;
        }
        let sources: usize = book.sources.values().sum();
        prop_assert_eq!(&book.groups, &groups);
        prop_assert_eq!(sources, book.entries.len());
    }
}
