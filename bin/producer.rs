//! `aurelia-producer`.

fn main() -> std::process::ExitCode {
    std::process::ExitCode::from(1)
}
