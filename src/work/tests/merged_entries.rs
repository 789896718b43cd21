//! Tests of shares that name their miner's script on the merged chain.

use super::*;
use sharechain::coin::LITECOIN_REGTEST;
use stratum::Offer;

/// A private chain of Litecoin with shares of version 36 from the start.
static NETWORK: Network = Network {
    newest_version: 36,
    start_version: 36,
    parent: Parent { pow: Pow::Sha256d, ..LITECOIN_REGTEST.parent },
    ..LITECOIN_REGTEST
};
const MINER: &str = "rltc1qj3nukztlgyxyjepxryae5dl8uv6l2t45dxjrts";
const P2WSH: &str = "rltc1qkf9wxj27jf6yw6wkcvuudecl09p07aavezr9s2j0k4e37rjuvncqdtwzhw";
const DOGE: &str = "nfgbpDkvZRjNPowbSZLXd1XYZh88GXgPyq";
const DOGE_P2SH: &str = "2N4jfYEVqVQC6GnWnUNyysR7qoZWRKUvWQg";

fn config_of_36(fee_percent: f64) -> Arc<Config> {
    let default_payout = Payout::to_address(NODE, &NETWORK).unwrap();
    Arc::new(Config { network: &NETWORK, default_payout, ..Config::clone(&config(fee_percent)) })
}

fn work(fee_percent: f64) -> WorkSet {
    work_on(&mut Sharechain::new(&NETWORK), &template(101), &config_of_36(fee_percent))
}

/// Payout of the user name `name`.
fn named(work: &WorkSet, name: &str) -> Payout {
    work.authorize(name, "x").unwrap().payout
}

/// Scripts that the share of a job names, as addresses of the merged chain.
fn entries(offer: &Offer<Ticket>) -> Vec<String> {
    let chain = NETWORK.paid_merged_chain().unwrap();
    let draft = offer.job.ticket().draft().unwrap();
    let additions = draft.info().additions.as_ref().unwrap();
    let address = |entry: &share::MergedAddress| {
        assert_eq!(entry.chain_id, 98);
        chain.address_of(bitcoin::Script::from_bytes(&entry.script)).unwrap()
    };
    additions.merged_addresses.iter().map(address).collect()
}

#[test]
fn every_share_names_its_miner_on_the_merged_chain() {
    let work = work(0.0);
    for (name, address) in [
        (MINER.to_owned(), named(&work, MINER).merged.unwrap().address.to_string()),
        (format!("{MINER},{DOGE}"), DOGE.to_owned()),
        (format!("{MINER}/98:{DOGE_P2SH}.rig"), DOGE_P2SH.to_owned()),
        (DOGE.to_owned(), DOGE.to_owned()),
        ("garage".to_owned(), named(&work, NODE).merged.unwrap().address.to_string()),
    ] {
        let offer = work.offer(&named(&work, &name), 0, 0).unwrap();
        assert_eq!(entries(&offer), [address], "{name}");
        let (_, _, share) = solve(&offer);
        assert_eq!(share.version().number(), 36);
        assert_eq!(share.info().additions.as_ref().unwrap().merged_addresses.len(), 1);
    }
}

#[test]
fn miners_with_one_address_and_several_on_the_merged_chain_have_their_own_jobs() {
    let work = work(0.0);
    let names = [MINER.to_owned(), format!("{MINER},{DOGE}"), format!("{MINER},{DOGE_P2SH}")];
    let offers = names.each_ref().map(|name| work.offer(&named(&work, name), 0, 0).unwrap());
    let polled = names.each_ref().map(|name| work.job(&named(&work, name), 0).unwrap().job);
    for (one, (name, offer)) in names.iter().zip(&offers).enumerate() {
        let again = work.offer(&named(&work, &format!("{name}.rig")), 0, 0).unwrap();
        assert!(Arc::ptr_eq(&again.job, &offer.job), "a second device has the same job");
        for other in one + 1..names.len() {
            assert_ne!(named(&work, name), named(&work, &names[other]), "not on one connection");
            assert!(entries(offer) != entries(&offers[other]) && !Arc::ptr_eq(&polled[one], &polled[other]));
        }
    }
    assert_eq!((work.jobs.size().0, work.polled.size().0), (3, 3));
}

#[test]
fn the_fee_pays_the_node_on_both_chains() {
    let work = work(100.0);
    let own = work.config.default_payout.clone();
    for name in [MINER.to_owned(), format!("{MINER},{DOGE}"), DOGE.to_owned()] {
        let offer = work.offer(&named(&work, &name), 0, u32::MAX).unwrap();
        assert!(offer.is_fee);
        assert_eq!(offer.job.ticket().payout(), &own);
        assert_eq!(entries(&offer), [own.merged.as_ref().unwrap().address.to_string()], "{name}");
    }
    assert_eq!(work.jobs.size().0, 1, "one job for all");
}

#[test]
fn a_payee_that_shares_cannot_hold_is_replaced_on_both_chains() {
    let work = work(0.0);
    let refusal = work.authorize(P2WSH, "x").unwrap_err().0;
    assert!(refusal.contains("P2WSH"), "{refusal}");
    // As if it had come before the chain's version changed.
    let script = sharechain::coin::address::script_of(P2WSH, &NETWORK.parent).unwrap();
    let merged = named(&work, &format!("{MINER},{DOGE}")).merged;
    let offer = work.offer(&Payout { script, address: P2WSH.into(), share_difficulty: None, merged }, 0, 0).unwrap();
    let own = &work.config.default_payout;
    assert_eq!(offer.job.ticket().draft().unwrap().payee().as_str(), &*own.address);
    assert_eq!(entries(&offer), [own.merged.as_ref().unwrap().address.to_string()]);
}

#[test]
fn a_connection_may_set_its_address_unless_its_work_pays_the_node() {
    let work = work(0.0);
    let set = |name: &str, text: &str| {
        let worker = work.authorize(name, "x").unwrap();
        work.with_merged_addresses(worker, &[(98, text.into())])
    };
    let worker = set(MINER, DOGE).unwrap();
    assert_eq!(entries(&work.offer(&worker.payout, 0, 0).unwrap()), [DOGE]);
    assert!(set("garage", DOGE).unwrap_err().0.contains("this node's own address"));
    assert!(set(MINER, MINER).unwrap_err().0.contains("tDOGE address"));
    assert!(work.check_merged_addresses(&[(98, DOGE.into())]).is_ok());
    assert!(fresh(0.0).check_merged_addresses(&[(98, DOGE.into())]).is_err(), "there is no merged chain on Bitcoin");
}

#[test]
fn the_finder_of_a_block_gets_nothing_extra() {
    let work = work(0.0);
    let finder = Payee::from_address(MINER, &share_rules(&NETWORK)).unwrap();
    let payees = work.payees(&finder);
    assert_eq!(payees.len(), 1, "only the donation on a new chain: {payees:?}");
    assert_eq!(payees[0].1, work.template().coinbase_value);
}
