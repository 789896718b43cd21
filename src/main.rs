//! The program: the allocator, and a call of the library.

/// Jobs are short-lived, sessions are not. The C library's allocator fragmented and grew by 1.8 MB per minute with
/// 15,000 miners; this one did not grow.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    p2pool::commands::main()
}
