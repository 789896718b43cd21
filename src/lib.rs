//! A P2Pool node.
//!
//! Work flows down as snapshots (`watch`: the latest wins), events flow up as messages (bounded queues: nothing is
//! dropped but statistics):
//!
//! ```text
//!  bitcoind ──Template──▶┐
//!  chain ─────────Tip───▶├─ work ──WorkSet──▶ stratum sessions ──notify──▶ miners
//!  rates ────────Rates──▶┘                         ▲ submit │
//!                                                  └────────┤ judged on the spot
//!                                                           ▼ Solution
//!  blocks::submit ◀──────── block (first) ─────────── solution ──share──▶ chain
//! ```
//!
//! The rooms, in the order of the flow. `tests/tidy.rs` checks the imports: a room imports only rooms in its row, and
//! of those with a note only what the note names. Any room may use the libraries `sharechain`, `p2p` and `stratum`.
//!
//! | room | duty | may import |
//! | --- | --- | --- |
//! | `runtime` | tasks, log, metrics, sockets, data directory, the disk's health | nothing |
//! | `template` | a checked block template; the recent ones, and their transactions | nothing |
//! | `blocks` | found blocks: submitted, kept, followed, announced | `runtime`, `template` |
//! | `bitcoind` | the daemon: templates out, blocks in, health | `blocks`, `runtime`, `template` |
//! | `merged` | merged-mined chains: their daemons' work in, found blocks out | `bitcoind` (only `credentials`, `responses`, `rpc`), `blocks`, `runtime` |
//! | `embedded` | the demo's private chain, in the daemon's place; daemons of merged chains | `bitcoind`, `blocks`, `runtime`, `template` |
//! | `chain` | owner task and store around `sharechain` | `runtime`, `template` |
//! | `peers` | tasks around `p2p`: links, dialling, port mapping, files | `chain`, `runtime`, `template` |
//! | `rates` | rates and totals of the miners | `runtime` (only `clock`) |
//! | `work` | template, share chain and rates become jobs; the gate; user names | `merged` (only `MergedJobs`, `MergedOffers`), `rates` (only `Rates`), `runtime` (only `clock`), `template` |
//! | `solution` | judges solutions: a block first, then merged chains' blocks, then a share | `blocks`, `chain`, `merged` (only `MergedBlocks`, `Sent`), `template`, `work` (only `Goal`, `Ticket`, `room`) |
//! | `view` | snapshot, graphs, pages and JSON, control socket | `bitcoind` (only `Health`), `blocks`, `chain`, `merged`, `peers`, `rates`, `runtime`, `template`, `work` (only `Gate`) |
//! | `front` | miners' ports: accepts connections, distinguishes protocols, getwork over HTTP | `runtime`, `view` (only `http`), `work` (only `username`) |
//! | `node` | wiring and life cycle of a node | `bitcoind`, `blocks`, `chain`, `front`, `merged`, `peers`, `rates`, `runtime`, `solution`, `view`, `work` |
//! | `tools` | subcommands beside the node | `bitcoind`, `blocks`, `chain`, `embedded`, `front`, `merged`, `node`, `rates`, `runtime`, `template`, `view`, `work` |
//! | `config` | arguments, environment and file, into the `Config` that each room owns | `bitcoind`, `blocks` (only `announce`), `front`, `merged`, `node`, `peers`, `runtime` (only `access`, `log`, `secret`, `users`), `tools`, `view` (only `control`), `work` |
//! | `commands` | each command, from its `Config` to an exit code | everything above |
//! | `main` | the program: allocator and call | `commands` |

pub mod bitcoind;
pub mod blocks;
pub mod chain;
pub mod commands;
pub mod config;
pub mod embedded;
pub mod front;
pub mod merged;
pub mod node;
pub mod peers;
pub mod rates;
pub mod runtime;
pub mod solution;
pub mod template;
pub mod tools;
pub mod view;
pub mod work;
