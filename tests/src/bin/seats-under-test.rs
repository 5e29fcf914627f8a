//! The example's command line, built with the tests, and with the points at which it can be made to fail.

fn main() -> std::process::ExitCode {
    let tracks = tollgate_cli::Registry::empty().with(&seats::MODULE);
    tollgate_cli::main(tracks.called("seats"))
}
