//! `aurelia-worker`: takes jobs, publishes records.

/// A third of a call's own CPU time was the system's allocator (benches/RESULTS.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    aurelia::worker::main()
}
