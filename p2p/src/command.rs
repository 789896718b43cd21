//! The words of the protocol, and how much each message may hold.

/// Maximum size of a payload in bytes (section 3.1). What is longer cannot be sent; lists are sent in several messages.
pub const PAYLOAD_BYTES_MAX: usize = sharechain::share::SHARE_BYTES_MAX;

/// Most bytes of a message that holds a few numbers and, in `version`, a text: it takes 108 bytes and the text, of which
/// the reference keeps 512.
pub const SMALL_BYTES_MAX: usize = 1024;

/// Most records in `addrs`. The reference answers with 100 at most and passes others on one by one.
pub const ADDRESSES_MAX: usize = 1_000;

/// Most shares in a `shares` that nobody asked for. The reference sends the last five of its chain at most.
pub const SHARES_MAX: usize = 100;

/// Most hashes, and most stops, in `sharereq`: the reference answers with 1,000 shares at most, whatever it is asked.
pub const REQUEST_HASHES_MAX: usize = 1_000;

/// Most shares that a `sharereply` may have to be answered with (section 3.7).
pub const REPLY_SHARES_MAX: usize = 1_000;

/// Most hashes in a message about transactions: as many as may be remembered for a peer, each counting 100 bytes or more.
pub const TRANSACTION_HASHES_MAX: usize = REMEMBERED_BYTES_MAX / 100;

/// What a peer may have us remember, and we a peer, in bytes as
/// [`Transaction::size`](crate::transactions::Transaction::size) counts them.
pub const REMEMBERED_BYTES_MAX: usize = 25_000_000;

/// What a message may be: the words of the protocol.
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
    /// All of them.
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

    /// Its word on the wire.
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

    /// The command with this word; none for words that are not ours, whose messages are ignored.
    pub fn from_word(word: &str) -> Option<Command> {
        Command::ALL.into_iter().find(|command| command.word() == word)
    }

    /// Maximum size of its payload in bytes, known before the payload comes; a longer message is passed over. Messages with
    /// shares have the limit that all payloads have.
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
