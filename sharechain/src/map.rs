//! Hash maps whose keys cost their senders work: shares' hashes, and payees, who need a share each. A fast hash with a
//! secret seed is enough for them, and each check of a share does hundreds of look-ups.

use foldhash::fast::RandomState;

/// A hash map by shares or payees.
pub type Map<K, V> = std::collections::HashMap<K, V, RandomState>;

/// A hash set of shares or payees.
pub type Set<K> = std::collections::HashSet<K, RandomState>;
