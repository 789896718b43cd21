//! Share version 36 against the vectors of the fork that defines it.

mod parts;
