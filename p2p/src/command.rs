//! Commands of the protocol, and the size limits of their messages.

/// Maximum size of a payload in bytes (section 3.1). Longer ones cannot be sent; lists are split into several messages.
pub const PAYLOAD_BYTES_MAX: usize = sharechain::share::SHARE_BYTES_MAX;

/// Maximum size of a message that holds a few numbers and, in `version`, a text: 108 bytes and the text, of which the
/// reference keeps 512.
pub const SMALL_BYTES_MAX: usize = 1024;

/// Maximum records in `addrs`. The reference answers with at most 100 and relays others one by one.
pub const ADDRESSES_MAX: usize = 1_000;

/// Maximum shares in an unsolicited `shares`. The reference sends at most the last five of its chain.
pub const SHARES_MAX: usize = 100;

/// Maximum hashes, and maximum stops, in `sharereq`: the reference answers with at most 1,000 shares.
pub const REQUEST_HASHES_MAX: usize = 1_000;

/// Maximum shares in a `sharereply` (section 3.7).
pub const REPLY_SHARES_MAX: usize = 1_000;

/// Maximum hashes in a message about transactions: as many as may be remembered for a peer, at 100 bytes or more each.
pub const TRANSACTION_HASHES_MAX: usize = REMEMBERED_BYTES_MAX / 100;

/// Maximum size of the transactions remembered for a peer, in either direction, in bytes as
/// [`Transaction::size`](crate::transactions::Transaction::size) counts them.
pub const REMEMBERED_BYTES_MAX: usize = 25_000_000;

/// Commands of the protocol, one per kind of message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each is a variant of `Message`, documented there")]
pub enum Command {
    Version,
    Ping,
    AddrMe,
    Addrs,
    GetAddrs,
    Shares,
    ShareReq,
    ShareReply,
    BestBlock,
    HaveTx,
    LosingTx,
    RememberTx,
    ForgetTx,
}

impl Command {
    /// All commands.
    pub const ALL: [Command; 13] = [
        Command::Version,
        Command::Ping,
        Command::AddrMe,
        Command::Addrs,
        Command::GetAddrs,
        Command::Shares,
        Command::ShareReq,
        Command::ShareReply,
        Command::BestBlock,
        Command::HaveTx,
        Command::LosingTx,
        Command::RememberTx,
        Command::ForgetTx,
    ];

    /// Returns the command's name on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Command::Version => "version",
            Command::Ping => "ping",
            Command::AddrMe => "addrme",
            Command::Addrs => "addrs",
            Command::GetAddrs => "getaddrs",
            Command::Shares => "shares",
            Command::ShareReq => "sharereq",
            Command::ShareReply => "sharereply",
            Command::BestBlock => "bestblock",
            Command::HaveTx => "have_tx",
            Command::LosingTx => "losing_tx",
            Command::RememberTx => "remember_tx",
            Command::ForgetTx => "forget_tx",
        }
    }

    /// Looks up a command by its name; `None` for unknown names, whose messages are ignored.
    pub fn from_word(word: &str) -> Option<Command> {
        Command::ALL.into_iter().find(|command| command.word() == word)
    }

    /// Maximum size of the payload in bytes, known before the payload arrives; a longer message is skipped. Messages
    /// with shares have the general payload limit.
    pub fn bytes_max(self) -> usize {
        match self {
            Command::Version | Command::Ping | Command::AddrMe | Command::GetAddrs | Command::BestBlock => {
                SMALL_BYTES_MAX
            }
            Command::Addrs => 3 + 34 * ADDRESSES_MAX,
            Command::ShareReq => 32 + 9 + 2 * (3 + 32 * REQUEST_HASHES_MAX),
            Command::HaveTx | Command::LosingTx | Command::ForgetTx => 5 + 32 * TRANSACTION_HASHES_MAX,
            Command::Shares | Command::ShareReply | Command::RememberTx => PAYLOAD_BYTES_MAX,
        }
    }
}

impl std::fmt::Display for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.word())
    }
}
