//! `aurelia-collector`: gathers the records of a fleet into data sets.

/// Records are tens of thousands of small allocations a second.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    aurelia::collector::main()
}
