//! The simulation.

pub mod forge;
mod miner;
mod network;
mod node;
mod world;

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{IpAddr, Ipv4Addr, SocketAddr};
    use std::time::Duration;
    #[test]
    fn trial() {
        for ms in [100, 1000, 3000, 10000] {
            let started = std::time::Instant::now();
            let n: usize = 100;
            let mut rng = fastrand::Rng::with_seed(7);
            let net = forge::network_of_period(200, 30, 35);
            let address = |i: usize| {
                SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10 + (i / 250) as u8, (i % 250) as u8, 1, 1)), 9333)
            };
            let mut source = crate::sharechain::Sharechain::new(net);
            let hashes = forge::grow(&mut source, None, 20, &forge::Plan::default());
            let shares: Vec<_> = hashes.iter().map(|h| source.share(*h).unwrap().clone()).collect();
            let miners = miner::Miners::new(&vec![1.0; n], Duration::from_secs(30), rng.fork());
            let conditions = network::Conditions::of_latency(Duration::from_millis(ms));
            let unix = f64::from(forge::START + 1000);
            let mut world = world::World::new(unix, conditions, miners, rng.fork());
            for i in 0..n {
                let dials = (0..6).map(|_| (address(i), address(rng.usize(..n)))).collect();
                let mut node = node::Node::new(net, i as u32, dials);
                node.load(&shares, unix);
                world.add(Box::new(node), [address(i)]);
            }
            for i in 0..n {
                world.wake(i);
            }
            world.run_for(Duration::from_secs(60));
            world.run_shares(300, &mut |_| {});
            world.run_for(Duration::from_secs(600));
            world.find_now(0);
            world.run_for(Duration::from_secs(60));
            let bests: std::collections::BTreeSet<_> = (0..n).map(|i| world.node(i).chain().choice().best).collect();
            let chain = world.node(0).chain();
            let best = chain.choice().best.unwrap();
            let good: std::collections::HashSet<_> = chain.all().chain(best, u32::MAX).collect();
            let stale = world.found().iter().filter(|f| !good.contains(&f.hash)).count();
            let delays: Vec<f64> = world
                .found()
                .iter()
                .filter(|f| good.contains(&f.hash))
                .flat_map(|f| f.arrivals.iter().map(|(_, d)| d.as_secs_f64()))
                .collect();
            let mean = delays.iter().sum::<f64>() / delays.len() as f64;
            println!(
                "{ms} ms: {} bests, stale {} of {}, mean delay {mean:.2}, formula {:.3} {:.3}, {:?} {:?}",
                bests.len(),
                stale,
                world.found().len(),
                1.0 - (-mean / 30.0).exp(),
                mean / (30.0 + mean),
                world.traffic(),
                started.elapsed()
            );
        }
    }
}
