//! Hash maps for keys that cost their sender work: share hashes, and payees, each of which needs a share. A fast hash
//! with a secret seed is enough for them, and each check of a share does hundreds of look-ups.

use foldhash::fast::RandomState;

/// Hash map keyed by shares or payees.
pub type Map<K, V> = std::collections::HashMap<K, V, RandomState>;

/// Hash set of shares or payees.
pub type Set<K> = std::collections::HashSet<K, RandomState>;
