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
//! | `block`, `disk`, `json_lines`, `merkle`, `metrics`, `network`, `pack`, `tasks` | nothing |
//! | `log` | `disk` |
//! | `address` | `network` |
//! | `template` | `merkle` |
//! | `share` | `merkle`, `pack` |
//! | `sharechain` | `disk`, `merkle`, `network`, `pack`, `share` |
//! | `p2p` | `data_dir`, `disk`, `merkle`, `network`, `pack`, `share`, `sharechain`, `sockets`, `template` |
//! | `stats` | nothing (and the crate `stratum`) |
//! | `data_dir` | `network` |
//! | `sockets` | `data_dir` |
//! | `journal` | `block`, `data_dir`, `disk`, `network` |
//! | `bitcoind` | `address`, `block`, `journal`, `merkle`, `network`, `tasks`, `template` |
//! | `found` | `bitcoind` (where blocks stand; submits them again), `block`, `data_dir`, `disk`, `journal`, `template` |
//! | `work` | `address`, `merkle`, `network`, `p2p` (only `Status`), `share`, `sharechain` (only `Tip`), `stats` (rates), `template` |
//! | `figures` | `bitcoind` (health), `disk`, `merkle`, `network`, `p2p` (only `Status`), `share`, `sharechain`, `stats` (rates), `template`, `work` (gate) |
//! | `solution` | `block`, `merkle`, `network`, `share`, `sharechain`, `template`, `work` |
//! | `graphs` | `data_dir`, `disk`, `figures`, `p2p` (its `Traffic`), `share`, `sharechain`, `stats` (rates) |
//! | `http` | `bitcoind` (health), `block`, `disk`, `figures`, `found` (records), `graphs`, `metrics`, `network`, `p2p` (its `Traffic`), `share`, `sharechain`, `stats` (rates), `work` (gate); and the crate `stratum` |
//! | `getwork` | `http` (who asks; and the crate `stratum`) |
//! | `announce` | `found` (events), `json_lines`, `network`, `tasks` |
//! | `miner` | `json_lines` |
//! | `control` | `bitcoind` (health; submits blocks again), `block`, `data_dir`, `figures`, `found`, `journal` (a block's bytes), `json_lines`, `log`, `p2p`, `stats` (rates), `work` (gate) |
//! | `listen` | `http`, `sockets` |
//! | `node` | everything above |
//! | `bench` | `http`, `listen`, `metrics`, `network`, `sharechain`, `simulation` (forge), `sockets`, `stats`, `tasks`, `template`, `work` |
//! | `config` | `address`, `announce` (its `Config`), `bench` (its `Config`), `bitcoind` (its `Config`), `control` (requests), `import` (its `Config`), `listen` (its `TlsFiles`), `miner` (its `Config`), `network`, `p2p` (its `Config`), `simulation` (its `Config`), `top` (its `Config`), `work` (its `Config`) |
//! | `simulation` | `merkle`, `network`, `p2p`, `pack`, `share`, `sharechain` |
//! | `import` | `data_dir`, `graphs` (its file), `network`, `p2p` (its address book), `share`, `sharechain` (its store), `work` (`Payout`) |
//! | `top` | `control` |
//! | `demo`, `doctor`, `service` | `config`, `node` and what stands above it |
//! | `main` | everything |

pub mod address;
pub mod announce;
pub mod bench;
pub mod bitcoind;
pub mod block;
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
pub mod merkle;
pub mod metrics;
pub mod miner;
pub mod network;
pub mod node;
pub mod p2p;
pub mod pack;
pub mod service;
pub mod share;
pub mod sharechain;
pub mod simulation;
pub mod sockets;
pub mod solution;
pub mod stats;
pub mod tasks;
pub mod template;
pub mod top;
pub mod work;
