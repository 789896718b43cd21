//! Plots the difficulty over time for each hardware profile: `cargo run -p stratum --example vardiff` writes
//! `stratum/tests/vardiff.svg`.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a test reads the clock and opens sockets")]

#[path = "../tests/hardware/mod.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod hardware;

use hardware::{PROFILES, Profile, Run, ideal, simulate};
use std::fmt::Write;

const SECONDS: f64 = 120.0;
const SEEDS: u64 = 12;
const COLUMNS: usize = 4;
const WIDTH: f64 = 250.0;
const HEIGHT: f64 = 150.0;
const MARGIN: f64 = 34.0;
/// Powers of two shown above and below the ideal difficulty.
const OCTAVES: f64 = 12.0;

fn main() -> std::io::Result<()> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vardiff.svg");
    std::fs::write(path, svg().map_err(std::io::Error::other)?)?;
    println!("{path}");
    Ok(())
}

fn svg() -> Result<String, std::fmt::Error> {
    let rows = PROFILES.len().div_ceil(COLUMNS);
    #[expect(clippy::cast_precision_loss, reason = "a handful")]
    let (width, height) = (COLUMNS as f64 * (WIDTH + MARGIN) + MARGIN, rows as f64 * (HEIGHT + MARGIN) + 2.0 * MARGIN);
    let mut out = String::new();
    writeln!(
        out,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="10">
<rect width="100%" height="100%" fill="#ffffff"/>
<text x="{MARGIN}" y="20" font-size="13">Difficulty over what would suit the hash rate, in the first {SECONDS} s; {SEEDS} runs each. Green: within a factor of two.</text>"##
    )?;
    for (index, profile) in PROFILES.iter().enumerate() {
        #[expect(clippy::cast_precision_loss, reason = "a handful")]
        let (column, row) = ((index % COLUMNS) as f64, (index / COLUMNS) as f64);
        let (left, top) = (MARGIN + column * (WIDTH + MARGIN), 1.5 * MARGIN + row * (HEIGHT + MARGIN));
        panel(&mut out, profile, left, top)?;
    }
    writeln!(out, "</svg>")?;
    Ok(out)
}

fn panel(out: &mut String, profile: &Profile, left: f64, top: f64) -> std::fmt::Result {
    let y = |octaves: f64| top + HEIGHT / 2.0 - octaves.clamp(-OCTAVES, OCTAVES) * HEIGHT / 2.0 / OCTAVES;
    let x = |seconds: f64| left + seconds / SECONDS * WIDTH;
    writeln!(
        out,
        r##"<rect x="{left:.1}" y="{top:.1}" width="{WIDTH}" height="{HEIGHT}" fill="#f7f7f7"/>
<rect x="{left:.1}" y="{:.1}" width="{WIDTH}" height="{:.1}" fill="#d5efd5"/>
<line x1="{:.1}" x2="{:.1}" y1="{top:.1}" y2="{:.1}" stroke="#999999" stroke-dasharray="2 2"/>
<text x="{:.1}" y="{:.1}">{}, {:.1e} H/s</text>
<text x="{:.1}" y="{:.1}" fill="#777777">60 s</text>"##,
        y(1.0),
        y(-1.0) - y(1.0),
        x(60.0),
        x(60.0),
        top + HEIGHT,
        left + 4.0,
        top - 4.0,
        profile.name,
        profile.hash_rate,
        x(60.0) + 3.0,
        top + HEIGHT - 3.0,
    )?;
    for octaves in [-8.0, -4.0, 0.0, 4.0, 8.0] {
        let label = f64::exp2(octaves);
        writeln!(
            out,
            r##"<text x="{:.1}" y="{:.1}" text-anchor="end" fill="#777777">{label}</text>"##,
            left - 3.0,
            y(octaves) + 3.0
        )?;
    }
    for seed in 0..SEEDS {
        let run = simulate(profile, SECONDS, seed, |_| 1.0);
        let path = steps(&run, profile, x, y)?;
        writeln!(out, r##"<path d="{path}" fill="none" stroke="#1f5fa8" stroke-width="1" opacity="0.5"/>"##)?;
    }
    Ok(())
}

fn steps(
    run: &Run,
    profile: &Profile,
    x: impl Fn(f64) -> f64,
    y: impl Fn(f64) -> f64,
) -> Result<String, std::fmt::Error> {
    let octaves = |difficulty: f64| (difficulty / ideal(profile.hash_rate)).log2();
    let mut path = String::new();
    for (number, (seconds, difficulty)) in run.changes.iter().enumerate() {
        let (at, level) = (x(*seconds), y(octaves(*difficulty)));
        if number == 0 { write!(path, "M{at:.1} {level:.1}")? } else { write!(path, "H{at:.1}V{level:.1}")? }
    }
    write!(path, "H{:.1}", x(SECONDS))?;
    Ok(path)
}
