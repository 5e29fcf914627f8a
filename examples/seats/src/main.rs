//! Tollgate's command line over the seats of a chat product, and nothing else.

fn main() -> std::process::ExitCode {
    tollgate_cli::main(tollgate_cli::Registry::empty().with(&seats::MODULE))
}
