//! The example's command line, built with the tests, and with the points at which it can be made to fail.

fn main() -> std::process::ExitCode {
    tollgate_cli::main(tollgate_cli::Registry::empty().with(&seats::MODULE))
}
