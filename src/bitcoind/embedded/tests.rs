//! Promises of the embedded chain's tasks, kept in real time.
