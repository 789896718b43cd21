//! Simulations of a hundred nodes in one process, by the public command: invariants hold, and a seed determines the
//! whole run.

use std::process::{Command, Output};

/// Subcommand with these arguments.
fn simulate(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_p2pool")).arg("simulate").args(arguments).output().expect("the program can be run")
}

/// Runs a scenario, which must succeed, and returns its report.
fn check(scenario: &str, nodes: &str, shares: &str) -> String {
    let output = simulate(&[scenario, "--nodes", nodes, "--shares", shares]);
    let told = String::from_utf8(output.stdout).expect("reports are text");
    // The report names the command that repeats the run.
    assert!(output.status.success(), "{told}");
    assert!(told.starts_with(&format!("holds: p2pool simulate {scenario} --nodes {nodes} --seed 1")), "{told}");
    told
}

#[test]
fn a_hundred_nodes_have_one_chain() {
    check("convergence", "100", "60");
}

#[test]
fn nodes_that_join_late_get_the_chain() {
    check("joining", "100", "40");
}

#[test]
fn a_torn_pool_heals_to_its_heavier_side() {
    check("partition", "100", "60");
}

#[test]
fn somebody_with_many_addresses_cannot_be_all_that_nodes_know() {
    // The cost grows with the square of the number of nodes: a hundred take minutes.
    check("eclipse", "20", "40");
}

#[test]
#[ignore = "long: tests/run.sh --full"]
fn many_addresses_are_not_all_that_a_hundred_nodes_know() {
    check("eclipse", "100", "40");
}

#[test]
#[ignore = "long: tests/run.sh --full"]
fn a_thousand_nodes_have_one_chain() {
    check("convergence", "1000", "60");
}

#[test]
#[ignore = "long: tests/run.sh --full"]
fn nodes_that_join_a_pool_of_a_thousand_get_the_chain() {
    check("joining", "1000", "40");
}

#[test]
#[ignore = "long: tests/run.sh --full"]
fn a_torn_pool_of_a_thousand_heals_to_its_heavier_side() {
    check("partition", "1000", "60");
}

#[test]
fn withholding_shares_gains_no_more_than_theory_says() {
    check("withholding", "100", "100");
}

#[test]
fn bad_shares_without_end_change_nothing_for_honest_nodes() {
    check("flood", "100", "40");
}

#[test]
fn version_36_comes_goes_and_returns_among_old_lax_and_lonely_nodes() {
    check("transition", "10", "200");
}

#[test]
#[ignore = "long: tests/run.sh --full"]
fn version_36_does_the_same_among_more_nodes_with_longer_windows() {
    check("transition", "20", "600");
}

#[test]
fn orphans_follow_the_formula_and_are_plotted() {
    let folder = tempfile::tempdir().expect("there is a temporary folder");
    let plot = folder.path().join("orphans.svg");
    let plot = plot.to_str().expect("its path is text");
    let output = simulate(&["orphans", "--nodes", "20", "--shares", "100", "--plot", plot]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let svg = std::fs::read_to_string(plot).expect("the plot is written");
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{svg}");
    assert!(svg.contains("Orphans among shares, 20 nodes, 100 shares at each latency"), "{svg}");
}

#[test]
fn the_same_seed_is_the_same_story_and_another_is_another() {
    let story = |seed: &str| {
        let output = simulate(&["convergence", "--nodes", "12", "--shares", "40", "--seed", seed]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        let text = String::from_utf8(output.stdout).expect("reports are text");
        // The duration varies.
        text.lines()
            .filter(|line| !line.starts_with("  in ") && !line.starts_with("holds"))
            .collect::<Vec<_>>()
            .join("\n")
    };
    assert_eq!(story("7"), story("7"));
    assert_ne!(story("7"), story("8"));
}

#[test]
fn what_cannot_be_simulated_is_an_error_that_names_it() {
    let output = simulate(&["sunshine"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("sunshine"));
}
