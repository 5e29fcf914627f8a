//! The command line under test, built with the tests so that it is never stale.

fn main() -> std::process::ExitCode {
    tollgate_cli::main(tollgate_cli::Registry::built_in())
}
