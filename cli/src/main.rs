//! The binary `tollgate`.

fn main() -> std::process::ExitCode {
    tollgate_cli::main(tollgate_cli::Registry::built_in())
}
