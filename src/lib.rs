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
//! | `block`, `json_lines`, `merkle`, `metrics`, `network`, `pack`, `sockets`, `tasks` | nothing |
//! | `address` | `network` |
//! | `template` | `merkle` |
//! | `share` | `merkle`, `pack` |
//! | `sharechain` | `merkle`, `network`, `pack`, `share` |
//! | `stats` | nothing (and the crate `stratum`) |
//! | `journal` | `block` |
//! | `bitcoind` | `address`, `block`, `journal`, `merkle`, `network`, `tasks`, `template` |
//! | `work` | `address`, `merkle`, `network`, `share`, `sharechain` (only `Tip`), `stats` (rates), `template` |
//! | `solution` | `block`, `share`, `work` |
//! | `http` | `bitcoind` (health), `metrics`, `stats` (rates) |
//! | `getwork` | `http` (who asks; and the crate `stratum`) |
//! | `listen` | `http`, `sockets` |
//! | `node` | everything above |
//! | `config` | `address`, `bitcoind` (its `Config`), `network`, `work` (its `Config`) |
//! | `demo` | `config`, `node` and what stands above it |
//! | `main` | everything |

pub mod address;
pub mod bitcoind;
pub mod block;
pub mod config;
pub mod data_dir;
pub mod demo;
pub mod getwork;
pub mod http;
pub mod journal;
pub mod json_lines;
pub mod listen;
pub mod merkle;
pub mod metrics;
pub mod network;
pub mod node;
pub mod pack;
pub mod share;
pub mod sharechain;
pub mod sockets;
pub mod solution;
pub mod stats;
pub mod tasks;
pub mod template;
pub mod work;
