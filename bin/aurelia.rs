//! One machine: `run`, `demo`, `show`, `explain-miss`, `config`.

/// A third of a call's own CPU time was the system's allocator (benches/RESULTS.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    aurelia::cli::main()
}
