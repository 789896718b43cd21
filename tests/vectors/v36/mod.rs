//! Share version 36 against the vectors of the fork that defines it.

mod auto_ratchet;
mod chains;
mod merged;
mod messages;
mod parts;
mod retarget;
mod usernames;
mod weights;
