//! A P2Pool node.
//!
//! Work flows down as snapshots (`watch`: the latest wins), what happened flows up as messages (bounded queues: nothing is
//! dropped but statistics):
//!
//! ```text
//!  bitcoind ──Template──▶┐
//!  sharechain ────Tip───▶├─ work ──WorkSet──▶ stratum sessions ──notify──▶ miners
//!  stats ────────Rates──▶┘                         ▲ submit │
//!                                                  └────────┤ judged on the spot
//!                                                           ▼ Solution
//!  bitcoind::submit ◀────── block (first) ─────────── solution ──share──▶ sharechain
//! ```
//!
//! Who may import whom (checked by `tests/tidy.rs`): a module imports only what stands in its row.
//!
//! | module | may import |
//! | --- | --- |
//! | `block`, `disk`, `json_lines`, `metrics`, `simulation`, `tasks` | nothing |
//! | `log` | `disk` |
//! | `template` | nothing |
//! | `chain` | `disk` |
//! | `peers` | `chain`, `data_dir`, `disk`, `sockets`, `template` |
//! | `stats` | nothing (and the crate `stratum`) |
//! | `data_dir` | nothing |
//! | `sockets` | `data_dir` |
//! | `journal` | `block`, `data_dir`, `disk` |
//! | `bitcoind` | `block`, `journal`, `tasks`, `template` |
//! | `found` | `bitcoind` (where blocks stand, submits them again), `block`, `data_dir`, `disk`, `journal`, `template` |
//! | `work` | `stats` (rates), `template` |
//! | `figures` | `bitcoind` (health), `chain`, `disk`, `stats` (rates), `template`, `work` (gate) |
//! | `solution` | `block`, `chain`, `template`, `work` |
//! | `graphs` | `data_dir`, `disk`, `figures`, `peers` (its `Traffic`), `chain`, `stats` (rates) |
//! | `http` | `bitcoind` (health), `block`, `disk`, `figures`, `found` (records), `graphs`, `metrics`, `peers` (its `Traffic`), `chain`, `stats` (rates), `work` (gate), and the crate `stratum` |
//! | `getwork` | `http` (who asks, and the crate `stratum`) |
//! | `announce` | `found` (events), `json_lines`, `tasks` |
//! | `miner` | `json_lines` |
//! | `control` | `bitcoind` (health, submits blocks again), `block`, `data_dir`, `figures`, `found`, `journal` (a block's bytes), `json_lines`, `log`, `peers`, `stats` (rates), `work` (gate) |
//! | `listen` | `http`, `sockets` |
//! | `node` | everything above |
//! | `bench` | `http`, `listen`, `metrics`, `sockets`, `stats`, `tasks`, `template`, `work` |
//! | `config` | `announce` (its `Config`), `bench` (its `Config`), `bitcoind` (its `Config`), `control` (requests), `import` (its `Config`), `listen` (its `TlsFiles`), `miner` (its `Config`), `peers` (its `Config`), `simulation` (its `Config`), `top` (its `Config`), `work` (its `Config`) |
//! | `import` | `chain` (its store), `data_dir`, `graphs` (its file), `work` (`Payout`) |
//! | `top` | `control` |
//! | `demo`, `doctor`, `service` | `config`, `node` and what stands above it |
//! | `main` | everything |

pub mod announce;
pub mod bench;
pub mod bitcoind;
pub mod block;
pub mod chain;
pub mod config;
pub mod control;
pub mod data_dir;
pub mod demo;
pub mod disk;
pub mod doctor;
pub mod figures;
pub mod found;
pub mod getwork;
pub mod graphs;
pub mod http;
pub mod import;
pub mod journal;
pub mod json_lines;
pub mod listen;
pub mod log;
pub mod metrics;
pub mod miner;
pub mod node;
pub mod peers;
pub mod service;
pub mod simulation;
pub mod sockets;
pub mod solution;
pub mod stats;
pub mod tasks;
pub mod template;
pub mod top;
pub mod work;
